"""How the scans of a query are planned, whatever the database: what may be cut up, and what may be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.connector import ReadRequest, ResumeKind, Scan
from ecmbatch.connectors.scan_shares import shares
from ecmbatch.errors import SourceChanged, SourceError
from ecmbatch.protocol.partitioning.partitions import ListPartitions, keep

VOLATILE = "the query calls a function that gives other values each time"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryNature:
    """What a query does that bears on its scans.

    ``limited``: it takes some of its rows only. ``changing`` says why it may give other rows when it is asked
    again, ``None`` where it does not. ``unordered`` says why its rows cannot be read on after a value of the
    order column, ``None`` where they can.
    """

    limited: bool = False
    changing: str | None = None
    unordered: str | None = None


def order_column(request: ReadRequest) -> str | None:
    """Return the column that rows are read in the order of, if they can be resumed."""
    return request.order_by or request.key


def order_of(request: ReadRequest, scan: Scan) -> str | None:
    """Return the column that the rows of *scan* are in the order of, if in any."""
    return None if scan.resume == "none" else order_column(request)


def of_scan(batch: pa.RecordBatch, request: ReadRequest, scan: Scan) -> pa.RecordBatch:
    """Return the rows of *batch* that are in the partitions of *scan*; others are for other scans."""
    if request.partitioning is None or len(scan.partitions) == request.partitions:
        return batch
    return keep(batch, request.partitioning, scan.partitions)


def plan_scans(
    request: ReadRequest, nature: QueryNature, most_scans: int, detail: Mapping[str, Any]
) -> tuple[Scan, ...]:
    """Return the scans of *request*, at most *most_scans* unless ranges are to be read in order.

    Raises :class:`~ecmbatch.errors.SourceError` where several scans would see other rows than one.
    """
    if nature.limited and request.partitions > 1:
        raise SourceError(
            "the query has a sample or ends in LIMIT or OFFSET, and the job has "
            f"{request.partitions} partitions: each would take other rows",
            hint="leave it out, or leave partitioning out",
        )
    dealt = shares(request, 1 if nature.changing else most_scans)
    if nature.changing and len(dealt) > 1:
        raise SourceError(
            f"{nature.changing}, and a range that is read after another would see other rows",
            hint='leave the function out, or leave "ordered" out of partitioning',
        )
    scans = []
    for number, partitions in enumerate(dealt):
        resume, reason = _resume_kind(request, partitions, nature)
        scans.append(Scan(number=number, partitions=partitions, resume=resume, reason=reason, detail=detail))
    return tuple(scans)


def check_unchanged(scan: Scan, types: Mapping[str, str]) -> None:
    """Raise :class:`~ecmbatch.errors.SourceChanged` unless the columns' *types* are those in ``scan.detail``."""
    planned = scan.detail["columns"]
    if planned != types:
        changed = [name for name in {**planned, **types} if planned.get(name) != types.get(name)]
        raise SourceChanged(
            f"the source's columns are not those the run was planned with; changed: {', '.join(changed)}",
            hint="start a new run with --fresh",
        )


def _resume_kind(
    request: ReadRequest, partitions: Sequence[int], nature: QueryNature
) -> tuple[ResumeKind, str]:
    order = order_column(request)
    if not request.resumable:
        return "none", "the job asks to replay partial partitions from their start"
    if order is None:
        return "none", "there is neither source.order_by nor a partitioning key to order by"
    if nature.limited:
        return "none", "the query has a sample or ends in LIMIT or OFFSET: which rows that takes may differ"
    if nature.changing:
        return "none", f"{nature.changing}, so other rows may come"
    if nature.unordered:
        return "none", nature.unordered
    if request.order_by is None and _has_one_value(request, partitions):
        return "none", f"all rows have one value of '{order}': set source.order_by to resume in the middle"
    named = "source.order_by" if request.order_by else "the partitioning key"
    return "cursor", f"rows are read in the order of '{order}', {named}"


def _has_one_value(request: ReadRequest, partitions: Sequence[int]) -> bool:
    """Tell whether a scan reads a single value of a list: to order by that would be to no purpose."""
    lists = request.partitioning
    if not isinstance(lists, ListPartitions):
        return False
    values = sum(len(lists.groups[number]) for number in partitions if number < len(lists.groups))
    if lists.rest in partitions:
        # NULL is there too; and with a default what no group lists.
        return values == 0 and lists.default is None
    return values == 1
