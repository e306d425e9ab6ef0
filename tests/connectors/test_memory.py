"""The memory connector's own promises, and a check that the contract suite notices broken connectors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, settings

from ecmbatch.connectors.connector import Connector, Cursor, ReadPlan, ReadRequest, Scan, ScannedBatch
from ecmbatch.connectors.memory import MemoryConnector, MemoryRead, memory_type
from ecmbatch.errors import InvalidDocument, SourceChanged
from ecmbatch.plugins import Plugins
from ecmbatch.protocol.key_values import encode_key
from ecmbatch.protocol.partitioning.partitions import HashPartitions
from ecmbatch.testing.connector_contract import ConnectorContract, read_all, sample_table

REQUEST = ReadRequest(table="t", partitioning=HashPartitions(key="key", count=4), batch_rows=2)


def test_it_tells_what_was_read() -> None:
    connector = MemoryConnector(sample_table(), scans=2)
    first, second = connector.plan(REQUEST).scans
    assert (connector.reads, connector.rows_read) == ([], 0)
    rows = sum(scanned.batch.num_rows for scanned in read_all(connector, REQUEST, second))
    assert connector.reads == [MemoryRead(1, (2, 3), None)]
    assert connector.rows_read == rows < 9
    with connector.read(REQUEST, first, None) as batches:
        next(batches)
    assert connector.rows_read <= rows + 2


def test_a_row_that_is_not_fetched_is_not_counted() -> None:
    connector = MemoryConnector(sample_table(), resume="position")
    (scan,) = connector.plan(REQUEST).scans
    read_all(connector, REQUEST, scan, {"row": 7})
    assert connector.rows_read == 2


def test_a_cursor_whose_key_is_gone_is_a_changed_source() -> None:
    connector = MemoryConnector(sample_table())
    (scan,) = connector.plan(REQUEST).scans
    with pytest.raises(SourceChanged):
        read_all(connector, REQUEST, scan, {"key": 77})


def test_it_can_be_registered_for_a_project() -> None:
    connector = MemoryConnector(sample_table())
    plugins = Plugins()
    plugins.connectors.add(memory_type(connector))
    kind = plugins.connectors.get("memory")
    assert kind.build(kind.parse_config({}), Path()) is connector
    with pytest.raises(InvalidDocument):
        kind.parse_config({"rows": 5})


class ForgetsNulls(MemoryConnector):
    def plan(self, request: ReadRequest) -> ReadPlan:
        self.table = self.table.filter(self.table.column("key").is_valid())
        return super().plan(request)


def _cursor_of(batch: pa.RecordBatch) -> Cursor:
    return {"key": encode_key(batch.column("key")[batch.num_rows - 1])}


class CursorInsideAGroup(MemoryConnector):
    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with super().read(request, scan, after) as batches:
            yield (ScannedBatch(each.batch, each.cursor or _cursor_of(each.batch)) for each in batches)


class BeginsAgain(MemoryConnector):
    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with super().read(request, scan, None) as batches:
            yield batches


class IgnoresPartitions(MemoryConnector):
    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        everything = replace(scan, partitions=tuple(range(request.partitions)))
        with super().read(request, everything, after) as batches:
            yield batches


class LargeBatches(MemoryConnector):
    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with super().read(replace(request, batch_rows=1000), scan, after) as batches:
            yield batches


@contextmanager
def without_shrinking() -> Iterator[None]:
    """Any failure will do here; the smallest one takes seconds to find."""
    before = settings.get_current_profile_name()
    settings.register_profile("any failure", phases=[Phase.generate])
    settings.load_profile("any failure")
    try:
        yield
    finally:
        settings.load_profile(before)


def suite_for(connector_type: Callable[..., Connector], **options: Any) -> ConnectorContract:
    class Suite(ConnectorContract):
        examples = 60

        def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
            return connector_type(table, **options), ReadRequest(table="t")

    return Suite()


ROWS_ONCE = ConnectorContract.test_every_row_is_read_once_by_the_scan_of_its_partition
GOES_ON = ConnectorContract.test_a_scan_goes_on_after_any_cursor_with_exactly_the_rest


@pytest.mark.parametrize(
    ("connector_type", "options", "test"),
    [
        (ForgetsNulls, {}, ROWS_ONCE),
        (CursorInsideAGroup, {}, GOES_ON),
        (BeginsAgain, {}, GOES_ON),
        (IgnoresPartitions, {"scans": 2}, ROWS_ONCE),
        (LargeBatches, {}, ROWS_ONCE),
    ],
)
def test_the_contract_suite_notices_a_broken_connector(
    connector_type: Callable[..., Connector], options: dict[str, Any], test: Callable[[Any], None]
) -> None:
    # Hypothesis reports several distinct failures of one test as a group.
    with without_shrinking(), pytest.raises((AssertionError, SourceChanged, ExceptionGroup)):
        test(suite_for(connector_type, **options))
