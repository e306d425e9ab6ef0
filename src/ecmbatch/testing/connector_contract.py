"""The contract suite of connectors: subclass it to show that a connector keeps its promises.

::

    class TestMyConnector(ConnectorContract):
        def source(self, table, folder):
            connector = write_somewhere(table, folder)
            return connector, ReadRequest(table="t")

pytest collects the inherited tests. ``pytest`` and ``hypothesis`` must be installed.
"""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecmbatch.connectors.connector import Connector, Cursor, ReadRequest, Scan, ScannedBatch
from ecmbatch.errors import SourceError
from ecmbatch.protocol.key_values import encode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
)

ROW = "row_number"
"""The column of the test tables that tells rows apart; the key is ``key``."""


def _every_type() -> dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]]:
    instants = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
    return {
        "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)),
        "small int": (pa.int8(), st.integers(-128, 127)),
        "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
        "bool": (pa.bool_(), st.booleans()),
        "text": (pa.string(), st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from("aAäb")),
        "binary": (pa.binary(), st.binary(max_size=12)),
        "float": (pa.float64(), st.floats() | st.sampled_from([0.0, -0.0, float("nan"), float("inf")])),
        "single": (pa.float32(), st.floats(width=32)),
        "decimal": (pa.decimal128(18, 4), st.decimals(-(10**9), 10**9, places=4)),
        "date": (pa.date32(), st.dates(date(1900, 1, 1), date(2200, 1, 1))),
        "time": (pa.time64("us"), st.times()),
        "timestamp": (pa.timestamp("us"), instants),
        "zoned": (pa.timestamp("us", "UTC"), instants.map(lambda instant: instant.replace(tzinfo=UTC))),
    }


@st.composite
def tables(draw: st.DrawFn, kinds: Sequence[str] | None = None) -> pa.Table:
    """Tables with a ``key`` of any type, NULLs and skew included, and the number of each row."""
    every = _every_type()
    kind, values = every[draw(st.sampled_from(sorted(kinds or every)))]
    few = draw(st.lists(st.none() | values, min_size=1, max_size=4))
    keys = draw(st.lists(st.sampled_from(few) | st.none() | values, max_size=60))
    return pa.table({"key": pa.array(keys, kind), ROW: pa.array(range(len(keys)), pa.int64())})


class ConnectorContract(ABC):
    """Promises of :class:`~ecmbatch.connectors.connector.Connector`, as tests.

    ``key_types`` may name the types of :func:`tables` that the source can hold.
    """

    key_types: Sequence[str] | None = None
    examples: int = 15

    @abstractmethod
    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        """Put *table* into a new source, in *folder* if it is files; return how to read all of it.

        The suite sets the request's key, partitions, order, ``resumable`` and batch size.
        """

    @contextmanager
    def _opened(self, table: pa.Table) -> Iterator[tuple[Connector, ReadRequest]]:
        with tempfile.TemporaryDirectory() as folder:
            connector, request = self.source(table, Path(folder))
            try:
                yield connector, request
            finally:
                connector.close()

    def _given(self, test: Any) -> None:
        """Run *test* on examples; not a decorator, for which types the source holds is known late."""
        checked = settings(
            max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        checked(given(tables(self.key_types), st.data())(test))()

    def test_every_partition_is_in_exactly_one_scan(self) -> None:
        with self._opened(sample_table()) as (connector, request):
            for partitions in (1, 2, 7, 16):
                scans = connector.plan(_by_hash(request, partitions)).scans
                fed = [partition for scan in scans for partition in scan.partitions]
                assert sorted(fed) == list(range(partitions))
                assert [scan.number for scan in scans] == list(range(len(scans)))
                assert all(scan.reason for scan in scans)

    def test_plans_are_plain_json_values(self) -> None:
        with self._opened(sample_table()) as (connector, request):
            for scan in connector.plan(_by_hash(request, 4)).scans:
                assert json.loads(json.dumps(dict(scan.detail), allow_nan=False)) == scan.detail

    def test_every_row_is_read_once_by_the_scan_of_its_partition(self) -> None:
        def check(table: pa.Table, data: st.DataObject) -> None:
            request_of = _drawn_request(table, data)
            with self._opened(table) as (connector, request):
                request = replace(request, **request_of)
                plan = connector.plan(request)
                seen: list[int] = []
                for scan in plan.scans:
                    for scanned in read_all(connector, request, scan):
                        assert scanned.batch.schema.equals(plan.schema)
                        assert 0 < scanned.batch.num_rows <= request.batch_rows
                        assigned = request_of["partitioning"].assign(scanned.batch.column("key"))
                        assert set(assigned.tolist()) <= set(scan.partitions)
                        seen += scanned.batch.column(ROW).to_pylist()
                assert sorted(seen) == list(range(table.num_rows))

        self._given(check)

    def test_keys_arrive_unchanged(self) -> None:
        def check(table: pa.Table, data: st.DataObject) -> None:
            with self._opened(table) as (connector, request):
                request = _by_hash(request, 1)
                (scan,) = connector.plan(request).scans
                read = {
                    row[ROW]: row["key"]
                    for scanned in read_all(connector, request, scan)
                    for row in scanned.batch.to_pylist()
                }
                assert [_comparable(read[row[ROW]]) for row in table.to_pylist()] == [
                    _comparable(row["key"]) for row in table.to_pylist()
                ]

        self._given(check)

    def test_a_scan_goes_on_after_any_cursor_with_exactly_the_rest(self) -> None:
        def check(table: pa.Table, data: st.DataObject) -> None:
            request_of = _drawn_request(table, data)
            other_batch_rows = data.draw(st.integers(1, 40), label="batch_rows after")
            with self._opened(table) as (connector, request):
                request = replace(request, **request_of)
                for scan in connector.plan(request).scans:
                    if scan.resume == "none":
                        continue
                    whole = read_all(connector, request, scan)
                    assert not whole or whole[-1].cursor is not None
                    later = replace(request, batch_rows=other_batch_rows)
                    for stop, scanned in enumerate(whole):
                        if scanned.cursor is not None:
                            rest = read_all(connector, later, scan, _stored(scanned.cursor))
                            assert _rows(rest) == _rows(whole[stop + 1 :])

        self._given(check)

    def test_the_order_is_the_same_every_time(self) -> None:
        table = skewed_table(20_000)
        with self._opened(table) as (connector, request):
            request = _by_hash(request, 8, batch_rows=1000)
            for scan in connector.plan(request).scans:
                first = _rows(read_all(connector, request, scan))
                assert _rows(read_all(connector, replace(request, batch_rows=777), scan)) == first

    def test_a_scan_that_is_not_resumable_gives_no_cursors(self) -> None:
        with self._opened(sample_table()) as (connector, request):
            request = _by_hash(request, 4, resumable=False, batch_rows=2)
            for scan in connector.plan(request).scans:
                assert scan.resume == "none"
                assert all(scanned.cursor is None for scanned in read_all(connector, request, scan))

    def test_a_group_of_equal_keys_is_read_in_batches(self) -> None:
        table = pa.table({"key": pa.array([7] * 5000), ROW: pa.array(range(5000), pa.int64())})
        with self._opened(table) as (connector, request):
            request = _by_hash(request, 1, batch_rows=100)
            (scan,) = connector.plan(request).scans
            rows = [scanned.batch.num_rows for scanned in read_all(connector, request, scan)]
            assert (sum(rows), max(rows) <= 100) == (5000, True)

    def test_an_empty_source_has_a_schema_and_no_batches(self) -> None:
        with self._opened(sample_table().slice(0, 0)) as (connector, request):
            request = _by_hash(request, 4)
            plan = connector.plan(request)
            assert plan.schema.names == ["key", ROW]
            assert [read_all(connector, request, scan) for scan in plan.scans] == [[] for _ in plan.scans]

    @pytest.mark.parametrize("field", ["key", "order_by"])
    def test_an_unknown_column_is_refused_by_name(self, field: str) -> None:
        with self._opened(sample_table()) as (connector, request):
            request = _by_hash(request, 2)
            if field == "key":
                request = replace(request, partitioning=HashPartitions(key="kee", count=2))
            else:
                request = replace(request, order_by="kee")
            with pytest.raises(SourceError):
                connector.plan(request)

    def test_a_scan_may_be_left_early_and_read_again(self) -> None:
        with self._opened(skewed_table(5000)) as (connector, request):
            request = _by_hash(request, 1, batch_rows=100)
            (scan,) = connector.plan(request).scans
            for _ in range(3):
                with connector.read(request, scan, None) as batches:
                    next(batches)
            assert len(_rows(read_all(connector, request, scan))) == 5000

    def test_an_error_of_the_reader_passes_through_unchanged(self) -> None:
        with self._opened(sample_table()) as (connector, request):
            (scan,) = connector.plan(request).scans
            with pytest.raises(OSError, match="stage is full"), connector.read(request, scan, None):
                raise OSError("stage is full")

    def test_threads_read_at_once(self) -> None:
        with self._opened(skewed_table(5000)) as (connector, request):
            request = _by_hash(request, 4, batch_rows=500)
            scans = connector.plan(request).scans * 4
            with ThreadPoolExecutor(4) as threads:
                counts = list(threads.map(lambda scan: len(_rows(read_all(connector, request, scan))), scans))
            assert sum(counts) == 4 * 5000

    def test_a_closed_connector_opens_again(self) -> None:
        with self._opened(sample_table()) as (connector, request):
            (scan,) = connector.plan(request).scans
            connector.close()
            assert len(_rows(read_all(connector, request, scan))) == sample_table().num_rows


def read_all(
    connector: Connector, request: ReadRequest, scan: Scan, after: Cursor | None = None
) -> list[ScannedBatch]:
    """Return everything that *scan* yields behind *after*."""
    with connector.read(request, scan, after) as batches:
        return list(batches)


def sample_table() -> pa.Table:
    """A handful of rows with NULL and repeated keys."""
    keys = [3, None, 1, 3, 2, None, 3, 9, 1]
    return pa.table({"key": pa.array(keys, pa.int64()), ROW: pa.array(range(len(keys)), pa.int64())})


def skewed_table(rows: int) -> pa.Table:
    """Rows of which half have one key, some have none, and the others few each."""
    keys = [None if row % 50 == 0 else f"k{row * 7919 % 97}" if row % 2 else "most" for row in range(rows)]
    return pa.table({"key": pa.array(keys, pa.string()), ROW: pa.array(range(rows), pa.int64())})


def _by_hash(request: ReadRequest, partitions: int, **changes: Any) -> ReadRequest:
    return replace(request, partitioning=HashPartitions(key="key", count=partitions), **changes)


def _drawn_request(table: pa.Table, data: st.DataObject) -> dict[str, Any]:
    return {
        "partitioning": data.draw(partitionings(table.column("key")), label="partitioning"),
        "batch_rows": data.draw(st.integers(1, 40), label="batch_rows"),
    }


@st.composite
def partitionings(draw: st.DrawFn, keys: pa.ChunkedArray) -> Partitions:
    """Partitionings of every kind by the column ``key``; bounds and values are among its *keys*."""
    strategy = draw(st.sampled_from(["hash", "range", "list"]))
    known = _distinct(keys)
    some = draw(st.lists(st.integers(0, len(known) - 1), unique=True, max_size=5)) if len(known) else []
    if strategy == "hash" or not some:
        return HashPartitions(key="key", count=draw(st.sampled_from([1, 2, 5])))
    chosen = [encode_key(known[place]) for place in sorted(some)]
    if strategy == "range":
        return RangePartitions(
            key="key", bounds=tuple(chosen), shown=tuple(map(str, chosen)), ordered=draw(st.booleans())
        )
    names = tuple(str(number) for number in range(len(chosen)))
    default = draw(st.sampled_from(["rest", names[0]]))
    return ListPartitions(key="key", names=names, groups=tuple((value,) for value in chosen), default=default)


def _distinct(keys: pa.ChunkedArray) -> pa.Array:
    """Return the different keys, ascending, without those that only a float can be."""
    plain = plain_keys(keys.combine_chunks()).drop_null()
    if pa.types.is_floating(plain.type):
        # -0.0 and 0.0 are one key; a job writes neither NaN nor infinity.
        plain = pc.add(plain.filter(pc.is_finite(plain)), pa.scalar(0, plain.type))
    distinct = plain.unique()
    return distinct.take(pc.array_sort_indices(distinct))


def _stored(cursor: Cursor) -> Cursor:
    """Return the cursor as the ledger gives it back."""
    stored: Cursor = json.loads(json.dumps(dict(cursor), allow_nan=False))
    return stored


def _rows(scanned: Sequence[ScannedBatch]) -> list[int]:
    return [row for each in scanned for row in each.batch.column(ROW).to_pylist()]


def _comparable(value: Any) -> Any:
    """Return a value that equals itself, NaN included."""
    return repr(value + 0.0) if isinstance(value, float) else value
