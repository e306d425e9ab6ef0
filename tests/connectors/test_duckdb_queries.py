"""Queries that read more than they say, and queries that never give the same rows twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.duckdb import DUCKDB
from ecmbatch.engine.partition_planning import quantile_bounds
from ecmbatch.errors import SourceError
from ecmbatch.protocol.partitioning.partitions import HashPartitions, RangePartitions


@pytest.fixture
def connector(tmp_path: Path) -> Iterator[Connector]:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE base AS SELECT i AS id, i % 7 AS k, 'UTC' AS tz FROM range(500) AS t(i)"
        )
        connection.execute("CREATE VIEW v AS SELECT * FROM base")
        connection.execute("CREATE MACRO dice() AS (random() * 10)::INTEGER")
    made = DUCKDB.build(DUCKDB.parse_config({"path": "s.duckdb", "scans": 4}), tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    "query",
    [
        "WITH v AS (SELECT * FROM v) SELECT * FROM v",
        "SELECT * FROM v, (WITH v AS (SELECT 1 AS one) SELECT one FROM v) AS w",
        "WITH V AS (SELECT * FROM base) SELECT * FROM v",
        "SELECT * FROM v",
    ],
)
def test_a_view_may_hide_tables_also_behind_a_name_of_the_querys_own(
    connector: Connector, query: str
) -> None:
    assert connector.plan(ReadRequest(query=query)).tables is None


def test_a_query_of_its_own_name_hides_nothing(connector: Connector) -> None:
    plan = connector.plan(ReadRequest(query="WITH w AS (SELECT * FROM base) SELECT * FROM w"))
    assert plan.tables == ("main.base",)


@pytest.mark.parametrize("key", ["(random() * 10)::INTEGER", "uuid()", "dice()"])
def test_what_differs_each_time_is_read_by_one_scan_and_not_resumed_in_the_middle(
    connector: Connector, key: str
) -> None:
    query = f"SELECT id, {key} AS k FROM base"
    for partitioning in (
        HashPartitions(key="k", count=4),
        HashPartitions(key="id", count=4),
    ):
        (scan,) = connector.plan(ReadRequest(query=query, partitioning=partitioning)).scans
        assert scan.resume == "none" and "other values each time" in scan.reason


def test_ranges_in_order_of_what_differs_each_time_are_refused(connector: Connector) -> None:
    ranges = RangePartitions(key="k", bounds=(3, 6), shown=("3", "6"), ordered=True)
    with pytest.raises(SourceError, match="other values each time"):
        connector.plan(ReadRequest(query="SELECT id, dice() AS k FROM base", partitioning=ranges))


def test_a_time_zone_that_is_none_is_not_shown(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT now()::TIMESTAMP AS ts, 'PIN-4711' AS tz")
    made = DUCKDB.build(DUCKDB.parse_config({"path": "s.duckdb"}), tmp_path)
    request = ReadRequest(query="SELECT ts AT TIME ZONE tz AS x FROM t")
    (scan,) = made.plan(request).scans
    with pytest.raises(SourceError) as raised, made.read(request, scan, None) as batches:
        list(batches)
    assert "4711" not in str(raised.value)
    made.close()


def test_zero_of_either_sign_is_one_bound() -> None:
    keys = pa.array([-1.0, -0.0, 0.0, -0.0, 0.0, 1.0, 2.0])
    assert [str(bound) for bound in quantile_bounds(keys, 6)] == ["0.0", "1.0", "2.0"]
