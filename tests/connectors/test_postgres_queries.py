"""What is known of a query before it is run: what it reads, and whether it gives the same rows again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.errors import SourceError
from ecmbatch.protocol.partitioning.partitions import HashPartitions, RangePartitions
from postgres_server import PostgresServer
from postgres_source import connected, execute, read_rows


@pytest.fixture(scope="module")
def connector(postgres: PostgresServer) -> Iterator[Connector]:
    url = postgres.new_database()
    execute(
        url,
        "CREATE TABLE base AS SELECT g AS id, g % 7 AS k, now() AS at, 'x' AS name "
        "FROM generate_series(0, 499) AS g",
        "CREATE TABLE other AS SELECT 1 AS id",
        'CREATE TABLE "odd.name" AS SELECT 1 AS id',
        "CREATE VIEW v AS SELECT * FROM base",
        "CREATE VIEW dicing AS SELECT id, random() AS k FROM base",
        "CREATE VIEW recent AS SELECT * FROM base WHERE at < now()",
        "CREATE FUNCTION dice() RETURNS int LANGUAGE sql AS 'SELECT (random() * 10)::int'",
        "CREATE FUNCTION fixed(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n % 3'",
        "CREATE FUNCTION behind() RETURNS SETOF int STABLE LANGUAGE plpgsql "
        "AS 'BEGIN RETURN QUERY SELECT id FROM other; END'",
        "CREATE FUNCTION noisy(int, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN random() < 0.5; END'",
        "CREATE OPERATOR <~~> (LEFTARG = int, RIGHTARG = int, FUNCTION = noisy)",
        "CREATE TABLE parts (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)",
    )
    with connected(url, scans=4) as made:
        yield made


@pytest.mark.parametrize(
    ("query", "tables"),
    [
        ("SELECT * FROM base", ("public.base",)),
        ("SELECT * FROM v", ("public.base",)),
        ("SELECT v.* FROM v JOIN other USING (id)", ("public.base", "public.other")),
        ("WITH other AS (SELECT * FROM base) SELECT * FROM other", ("public.base",)),
        ("SELECT * FROM base WHERE id IN (SELECT id FROM other)", ("public.base", "public.other")),
        ("SELECT id, (SELECT max(id) FROM other) AS most FROM base", ("public.base", "public.other")),
        ("SELECT * FROM parts WHERE id = 5", ("public.parts",)),
        ("SELECT 1 AS one", ()),
        ("SELECT count(*) AS n, max(upper(name)) AS most FROM base", ("public.base",)),
        ('SELECT * FROM "odd.name"', None),
        ("SELECT * FROM behind() AS id", None),
        ("SELECT * FROM base WHERE id IN (SELECT behind())", None),
        ("SELECT fixed(id) AS f FROM base", None),
        ("SELECT table_to_xml('other', true, true, '')::text AS x", None),
    ],
)
def test_the_tables_behind_a_query_are_known_or_said_to_be_unknown(
    connector: Connector, query: str, tables: tuple[str, ...] | None
) -> None:
    assert connector.plan(ReadRequest(query=query)).tables == tables


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, (random() * 10)::int AS k FROM base",
        "SELECT id, gen_random_uuid() AS k FROM base",
        "SELECT id, dice() AS k FROM base",
        "SELECT id, 1 AS k FROM base WHERE random() < 2",
        "SELECT id, k::text AS k FROM dicing",
        "SELECT id, 1 AS k FROM (VALUES (random()), (random())) AS v(id)",
        "SELECT id, 1 AS k FROM base ORDER BY RANDOM ()",
        "SELECT id, clock_timestamp() AS k FROM base",
        "SELECT id, k FROM base WHERE id <~~> k",
        "SELECT id, now() AS k FROM base",
        "SELECT id, k FROM base WHERE at <= Current_Timestamp",
        "SELECT id, k FROM base WHERE at::date <= CURRENT_DATE",
        "SELECT id, k FROM recent",
        "SELECT id, k FROM base WHERE at <= 'now'::timestamptz",
        "SELECT id, age(at)::text AS k FROM base",
    ],
)
def test_what_differs_each_time_is_read_by_one_scan_and_not_resumed_in_the_middle(
    connector: Connector, query: str
) -> None:
    for key in ("k", "id"):
        request = ReadRequest(query=query, partitioning=HashPartitions(key=key, count=4))
        (scan,) = connector.plan(request).scans
        assert scan.resume == "none" and "other values each time" in scan.reason


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, k FROM base WHERE name <> 'random'",
        "SELECT id, fixed(id) AS k FROM base",
        "SELECT id, k FROM base WHERE at < '2100-01-01'::timestamptz AND at AT TIME ZONE 'UTC' > :since",
        "SELECT id, k, row_number() OVER (ORDER BY id) AS n FROM base",
    ],
)
def test_what_is_the_same_each_time_is_resumed(connector: Connector, query: str) -> None:
    request = ReadRequest(
        query=query, partitioning=HashPartitions(key="k", count=4), parameters={"since": "2020-01-01"}
    )
    assert [scan.resume for scan in connector.plan(request).scans] == ["cursor"] * 4


def test_ranges_in_order_of_what_differs_each_time_are_refused(connector: Connector) -> None:
    ranges = RangePartitions(key="k", bounds=(3, 6), shown=("3", "6"), ordered=True)
    with pytest.raises(SourceError, match="other values each time"):
        connector.plan(ReadRequest(query="SELECT id, dice() AS k FROM base", partitioning=ranges))


def test_a_limit_within_a_query_is_its_own_matter(connector: Connector) -> None:
    query = "SELECT * FROM (SELECT * FROM base ORDER BY id LIMIT 10) AS x"
    request = ReadRequest(query=query, partitioning=HashPartitions(key="id", count=2))
    assert len(read_rows(connector, request)) == 10
