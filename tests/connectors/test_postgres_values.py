"""Every type of PostgreSQL, as Arrow: nothing is lost without a word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.errors import SourceError
from ecmbatch.testing.connector_contract import read_all
from postgres_server import PostgresServer
from postgres_source import connected, execute, read_rows

LIST = pa.list_


@pytest.fixture(scope="module")
def connector(postgres: PostgresServer) -> Iterator[Connector]:
    with connected(postgres.new_database()) as made:
        yield made


VALUES = [
    ("1::smallint", pa.int16(), 1),
    ("1::integer", pa.int32(), 1),
    ("1::bigint", pa.int64(), 1),
    ("1.5::real", pa.float32(), 1.5),
    ("'Infinity'::double precision", pa.float64(), math.inf),
    ("true", pa.bool_(), True),
    ("1.5::numeric(12,2)", pa.decimal128(12, 2), Decimal("1.50")),
    ("(-0.00001)::numeric(38,5)", pa.decimal128(38, 5), Decimal("-0.00001")),
    ("1234567::numeric(5,-2)", pa.decimal128(7, 0), Decimal(1234600)),
    ("0.00012::numeric(2,5)", pa.decimal128(5, 5), Decimal("0.00012")),
    ("1.500::numeric", pa.string(), "1.500"),
    ("'NaN'::numeric", pa.string(), "NaN"),
    ("'-Infinity'::numeric", pa.string(), "-Infinity"),
    ("1e45::numeric(50,2)", pa.string(), "1" + "0" * 45 + ".00"),
    ("'a'::text", pa.string(), "a"),
    ("'a'::varchar(5)", pa.string(), "a"),
    ("'a'::char(3)", pa.string(), "a  "),
    ("'a'::name", pa.string(), "a"),
    ("'a'::\"char\"", pa.string(), "a"),
    ("'\\x00ff'::bytea", pa.binary(), b"\0\xff"),
    ('\'{"b": 1,  "a": 2}\'::json', pa.string(), '{"b": 1,  "a": 2}'),
    ('\'{"b": 1,  "a": 2}\'::jsonb', pa.string(), '{"a": 2, "b": 1}'),
    ("'2024-02-29'::date", pa.date32(), date(2024, 2, 29)),
    ("'12:34:56.789012'::time", pa.time64("us"), time(12, 34, 56, 789012)),
    ("'12:00+02'::timetz", pa.string(), "12:00:00+02"),
    ("'2024-01-01 12:00'::timestamp", pa.timestamp("us"), datetime(2024, 1, 1, 12)),
    (
        "'2024-01-01 12:00+02'::timestamptz(3)",
        pa.timestamp("us", "UTC"),
        datetime(2024, 1, 1, 10, tzinfo=UTC),
    ),
    ("interval '1 mon 2 days 3.5 sec'", pa.string(), "P1M2DT3.5S"),
    ("'00000000-0000-0000-0000-000000000007'::uuid", pa.uuid(), UUID(int=7)),
    ("'calm'::mood", pa.string(), "calm"),
    ("5::positive", pa.int32(), 5),
    ("ROW(1, 'a b')::pair", pa.string(), '(1,"a b")'),
    ("ROW(1, 'x')", pa.string(), "(1,x)"),
    ("'10.0.0.1/8'::inet", pa.string(), "10.0.0.1/8"),
    ("'08:00:2b:01:02:03'::macaddr", pa.string(), "08:00:2b:01:02:03"),
    ("int4range(1, 5)", pa.string(), "[1,5)"),
    ("point(1.1, 2)", pa.string(), "(1.1,2)"),
    ("B'101'", pa.string(), "101"),
    ("to_tsvector('simple', 'b a')", pa.string(), "'a':2 'b':1"),
    ("'$.a'::jsonpath", pa.string(), '$."a"'),
    ("4294967295::oid", pa.int64(), 4294967295),
    ("'t'::regclass", pa.string(), "t"),
    ("'0/16B3748'::pg_lsn", pa.string(), "0/16B3748"),
    ("NULL", pa.string(), None),
    ("ARRAY[1, NULL]", LIST(pa.int32()), [1, None]),
    ("ARRAY['a', NULL]::varchar(3)[]", LIST(pa.string()), ["a", None]),
    ("'{}'::bigint[]", LIST(pa.int64()), []),
    ("ARRAY[1.50]::numeric(5,2)[]", LIST(pa.string()), ["1.50"]),
    ("ARRAY['calm']::mood[]", LIST(pa.string()), ["calm"]),
    ("ARRAY[5]::positive[]", LIST(pa.string()), ["5"]),
    ("ARRAY['2024-01-01']::date[]", LIST(pa.date32()), [date(2024, 1, 1)]),
    (
        "ARRAY['2024-01-01']::timestamptz[]",
        LIST(pa.timestamp("us", "UTC")),
        [datetime(2024, 1, 1, tzinfo=UTC)],
    ),
    ("ARRAY['12:00']::time[]", LIST(pa.string()), ["12:00:00"]),
    (
        "ARRAY['00000000-0000-0000-0000-000000000007']::uuid[]",
        LIST(pa.string()),
        ["00000000-0000-0000-0000-000000000007"],
    ),
    ("ARRAY['{}']::jsonb[]", LIST(pa.string()), ["{}"]),
]


def test_every_type_arrives_without_loss(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('calm')",
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        "CREATE TYPE pair AS (a integer, b text)",
        "CREATE TABLE t AS SELECT 1 AS one",
    )
    selected = ", ".join(f"{expression} AS x{place}" for place, (expression, _, _) in enumerate(VALUES))
    request = ReadRequest(query=f"SELECT {selected}")
    with connected(postgres_url) as connector:
        plan = connector.plan(request)
        (scan,) = plan.scans
        (scanned,) = read_all(connector, request, scan)
    assert scanned.batch.schema.equals(plan.schema, check_metadata=True)
    found = [
        (field.type, column[0].as_py()) for field, column in zip(plan.schema, scanned.batch, strict=True)
    ]
    for (expression, kind, value), each in zip(VALUES, found, strict=True):
        assert each == (kind, value), expression


@pytest.mark.parametrize("kind", ["double precision", "real"])
def test_not_a_number_is_a_number(postgres_url: str, kind: str) -> None:
    with connected(postgres_url) as connector:
        (row,) = read_rows(connector, ReadRequest(query=f"SELECT 'NaN'::{kind} AS x"))
    assert math.isnan(row["x"])


@pytest.mark.parametrize(
    ("expression", "cast"),
    [
        ("1::money", '"odd"::numeric(19,2) AS "odd"'),
        ("'NaN'::numeric(12,2)", '"odd"::text AS "odd"'),
        ("'infinity'::date", '"odd"::text AS "odd"'),
        ("'-infinity'::date", '"odd"::text AS "odd"'),
        ("'infinity'::timestamp", '"odd"::text AS "odd"'),
        ("'-infinity'::timestamptz", '"odd"::text AS "odd"'),
        ("'294276-12-31'::timestamp", '"odd"::text AS "odd"'),
        ("ARRAY['infinity']::date[]", '"odd"::text AS "odd"'),
        ("ARRAY[[1, 2], [3, 4]]", '"odd"::text AS "odd"'),
        ("'[2:3]={1,2}'::int[]", '"odd"::text AS "odd"'),
        ("ARRAY[['a'], ['b']]::name[]", '"odd"::text AS "odd"'),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_a_cast_that_works(
    connector: Connector, expression: str, cast: str
) -> None:
    with pytest.raises(SourceError) as raised:
        read_rows(connector, ReadRequest(query=f"SELECT 1 AS one, {expression} AS odd"))
    assert "'odd'" in str(raised.value) and cast in str(raised.value.hint)
    assert (
        len(read_rows(connector, ReadRequest(query=f"SELECT {cast} FROM (SELECT {expression} AS odd)"))) == 1
    )


def test_odd_names_of_columns_are_quoted(postgres_url: str) -> None:
    query = 'SELECT 1 AS "a ""b""", ARRAY[1] AS "é FROM x", 2 AS "select", 3 AS "A"'
    with connected(postgres_url) as connector:
        (row,) = read_rows(connector, ReadRequest(query=query, order_by="select"))
    assert row == {'a "b"': 1, "é FROM x": [1], "select": 2, "A": 3}


def test_times_at_the_edges_are_exact(postgres_url: str) -> None:
    query = (
        "SELECT '4713-01-01 BC'::timestamp AS first, '294246-12-31 23:59:59.999999'::timestamp AS last, "
        "'4713-01-01 BC'::date AS day, '24:00'::time AS midnight"
    )
    with connected(postgres_url) as connector:
        request = ReadRequest(query=query)
        (scan,) = connector.plan(request).scans
        (scanned,) = read_all(connector, request, scan)
    numbers = [
        column.cast(pa.int32() if pa.types.is_date(column.type) else pa.int64())[0].as_py()
        for column in scanned.batch.columns
    ]
    assert numbers == [-210_863_520_000_000_000, 9_223_371_244_799_999_999, -2_440_550, 86_400_000_000]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(values=st.lists(st.decimals(-(10**20), 10**20, places=10), min_size=1, max_size=50))
def test_decimals_arrive_digit_by_digit(connector: Connector, values: list[Decimal]) -> None:
    listed = ", ".join(f"({place}, '{value:f}'::numeric(38,10))" for place, value in enumerate(values))
    query = f"SELECT * FROM (VALUES {listed}) AS v(place, value)"
    rows = read_rows(connector, ReadRequest(query=query))
    assert [row["value"] for row in rows] == values
