"""How the partitions of a job are dealt out to scans."""

from __future__ import annotations

from collections.abc import Sequence

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.protocol.partitioning.partitions import RangePartitions


def shares(request: ReadRequest, scans: int) -> Sequence[tuple[int, ...]]:
    """Return the partitions of each of at most *scans* scans: neighbours together, as even as can be.

    Ranges that are to be read one at a time have a scan each, however many there are.
    """
    partitions = request.partitions
    count = partitions if is_ordered(request) else min(partitions, scans)
    edges = [number * partitions // count for number in range(count + 1)]
    return [tuple(range(edges[number], edges[number + 1])) for number in range(count)]


def is_ordered(request: ReadRequest) -> bool:
    """Tell whether the job wants its partitions one at a time, ascending."""
    return isinstance(request.partitioning, RangePartitions) and request.partitioning.ordered
