"""What the PostgreSQL connector promises beyond the contract suite."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.postgres import POSTGRES
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError, Unreachable
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    RangePartitions,
)
from ecmbatch.testing.connector_contract import read_all
from postgres_server import PostgresServer
from postgres_source import connected, execute, ids, read_rows, refusal

TABLE = ReadRequest(table="t")


_NUMBERS = (
    "CREATE TABLE t AS SELECT g AS id, 'user' || g AS name FROM generate_series(0, 99) AS g",
    "CREATE SCHEMA crm",
    'CREATE TABLE crm."odd ""name" AS SELECT 1 AS one',
    "CREATE SEQUENCE s",
)


@pytest.fixture
def numbers(postgres_url: str) -> Iterator[Connector]:
    execute(postgres_url, *_NUMBERS)
    with connected(postgres_url) as connector:
        yield connector


@pytest.fixture(scope="module")
def lasting_url(postgres: PostgresServer) -> str:
    """The URL of a database with the same, for tests after which it is as it was before."""
    url = postgres.new_database()
    execute(url, *_NUMBERS)
    return url


@pytest.fixture(scope="module")
def lasting(lasting_url: str) -> Iterator[Connector]:
    with connected(lasting_url) as connector:
        yield connector


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": ""},
        {"url": "mysql://host/database"},
        {"url": "postgresql://h/d", "max_connections": 0},
        {"url": "postgresql://h/d", "scans": 0},
        {"url": "postgresql://h/d", "read_only": False},
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        POSTGRES.parse_config(settings)
    assert raised.value.problems


def test_a_url_is_never_shown() -> None:
    url = "postgresql://user:hunter2@host/database?nonsense=hunter2"
    with pytest.raises(InvalidDocument) as raised:
        POSTGRES.parse_config({"url": url})
    assert "hunter2" not in f"{raised.value} {raised.value.problems}"
    assert "hunter2" not in repr(POSTGRES.parse_config({"url": "postgresql://user:hunter2@host/database"}))


# --- connecting ------------------------------------------------------------------------------------------


def unreachable(url: str) -> Unreachable:
    with connected(url) as connector, pytest.raises(Unreachable) as raised:
        connector.ping()
    assert raised.value.exit_code == 7
    return raised.value


def test_a_refused_connection_names_host_port_and_database_and_may_pass(postgres: PostgresServer) -> None:
    error = unreachable("postgresql://someone@127.0.0.1:1/shop")
    assert "'shop' at 127.0.0.1:1, user 'someone'" in str(error) and "refused" in str(error)
    assert error.error_class == "transient"


def test_a_bad_password_is_not_shown_and_does_not_pass(postgres: PostgresServer) -> None:
    execute(
        postgres.url(),
        "DROP ROLE IF EXISTS with_password",
        "CREATE ROLE with_password LOGIN PASSWORD 'right'",
    )
    url = postgres.url(user="with_password", tcp=True)
    with connected(url.replace("with_password@", "with_password:right@")) as connector:
        connector.ping()
    error = unreachable(url.replace("with_password@", "with_password:hunter2@"))
    assert 'password authentication failed for user "with_password"' in str(error)
    assert "hunter2" not in f"{error} {error.hint}"
    assert error.error_class == "permanent"
    assert unreachable(url).error_class == "permanent"


def test_an_unknown_database_and_user_are_named(postgres: PostgresServer) -> None:
    assert 'database "nowhere" does not exist' in str(unreachable(postgres.url("nowhere")))
    assert 'role "nobody" does not exist' in str(unreachable(postgres.url(user="nobody")))
    assert unreachable(postgres.url("nowhere")).error_class == "permanent"


def test_a_server_that_says_nothing_is_given_up(postgres: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = unreachable(f"postgresql://someone@127.0.0.1:{port}/shop?connect_timeout=2")
    assert "timeout" in str(error) and error.error_class == "transient"


def test_a_full_server_may_have_room_later(postgres: PostgresServer, postgres_url: str) -> None:
    name = execute(postgres_url, "SELECT current_database()")[0][0]
    execute(
        postgres_url,
        "DROP ROLE IF EXISTS crowd",
        "CREATE ROLE crowd LOGIN CONNECTION LIMIT 0",
    )
    error = unreachable(postgres.url(name, user="crowd"))
    assert "too many connections" in str(error) and error.error_class == "transient"


# --- what a query may do -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "DELETE FROM t RETURNING *",
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
        "INSERT INTO t VALUES (1, 'x')",
        "UPDATE t SET id = 1",
        "MERGE INTO t USING t AS u ON t.id = u.id WHEN MATCHED THEN DELETE",
        "CREATE TEMP TABLE x AS SELECT 1",
        "SELECT * INTO x FROM t",
        "DROP TABLE t",
        "COPY t TO STDOUT",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SET threads = 1",
        "SHOW server_version",
        "EXPLAIN ANALYZE SELECT 1",
        "BEGIN",
        "COMMIT",
        "VACUUM",
        "LISTEN x",
        "CALL p()",
        "DO 'BEGIN END'",
        "SELECT nextval('s') AS n",
        "SELECT setval('s', 5) AS n",
        "SELECT lo_create(0) AS n",
        "SELECT * FROM t FOR UPDATE",
        "SELECT set_config('transaction_read_only', 'off', true) AS n",
        "SELECT query_to_xml('DELETE FROM t', true, true, '')::text AS n",
    ],
)
def test_a_query_can_only_read(lasting: Connector, lasting_url: str, query: str) -> None:
    with pytest.raises(SourceError):
        read_rows(lasting, ReadRequest(query=query))
    assert execute(lasting_url, "SELECT count(*), min(id) FROM t") == [(100, 0)]
    assert execute(lasting_url, "SELECT is_called FROM s") == [(False,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS a; DELETE FROM t",
        "SELECT 1 AS a;",
        "SELECT 1 AS a) AS s, (SELECT 2 AS b",
        "SELECT 1 AS a) TO STDOUT; DROP TABLE t; --",
        "SELECT 1) --",
        "",
        "-- nothing",
    ],
)
def test_a_query_that_is_not_one_statement_is_refused(lasting: Connector, query: str) -> None:
    with pytest.raises(InvalidDocument):
        lasting.plan(ReadRequest(query=query))


@pytest.mark.parametrize(
    "query",
    [
        # PostgreSQL takes more characters for the tag of a dollar quote than our lexer does.
        "SELECT $€$ ' $€$ AS a) AS x; DROP TABLE t; --'",
        "SELECT $€$ ' $€$ AS a) TO STDOUT; DROP TABLE t; --'",
        "SELECT $€$ ' $€$ AS a; DROP TABLE t; --'",
    ],
)
def test_what_two_lexers_read_differently_is_still_one_statement_for_the_server(
    lasting: Connector, lasting_url: str, query: str
) -> None:
    with pytest.raises(SourceError):
        lasting.plan(ReadRequest(query=query))
    assert execute(lasting_url, "SELECT count(*) FROM t") == [(100,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t -- a comment",
        "/* first */ SELECT * FROM t",
        "WITH x AS (SELECT * FROM t LIMIT 1000) SELECT * FROM x",
        "(SELECT * FROM t)",
        "TABLE t",
        "SELECT * FROM t ORDER BY name",
        "SELECT * FROM t WHERE name <> ':not ''a parameter' AND id::bigint >= :least",
        "SELECT * FROM t WHERE name ~ E'^user\\\\d+$' AND '$1' <> $$:least$$",
    ],
)
def test_plain_queries_are_read(lasting: Connector, query: str) -> None:
    request = ReadRequest(
        query=query, partitioning=HashPartitions(key="id", count=3), parameters={"least": 0}
    )
    assert sorted(row["id"] for row in read_rows(lasting, request)) == list(range(100))


def test_tables_are_quoted_and_may_name_a_schema(lasting: Connector) -> None:
    assert read_rows(lasting, ReadRequest(table='crm.odd "name')) == [{"one": 1}]
    assert "does not exist" in refusal(lasting, ReadRequest(table="t; DROP TABLE t"))


def test_columns_that_a_store_of_ours_added_are_left_out(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE t AS SELECT 1 AS id, 'r1' AS _ecm_run_id")
    with connected(postgres_url) as connector:
        assert read_rows(connector, TABLE) == [{"id": 1}]
        assert "_ecm_run_id" in refusal(connector, ReadRequest(query="SELECT * FROM t"))


# --- parameters --------------------------------------------------------------------------------------------


def test_parameters_are_values_of_their_own_types(lasting: Connector) -> None:
    query = (
        "SELECT :a AS a, :b AS b, :c AS c, :d AS d, :e AS e, :f AS f, :g AS g, :h AS h, :i AS i, :j AS j, "
        ":k AS k, :l AS l, :b || :b AS twice, pg_typeof(:m)::text AS m, pg_typeof(:c)::text AS zoned"
    )
    parameters: dict[str, Any] = {
        "a": 5,
        "b": "'; DROP TABLE t; --\\ \" é",
        "c": datetime(2024, 1, 2, 3, tzinfo=UTC),
        "d": Decimal("1.50"),
        "e": date(2024, 1, 2),
        "f": b"\0\xff",
        "g": True,
        "h": UUID(int=7),
        "i": "",
        "j": None,
        "k": 0.1,
        "l": 2**40,
        "m": datetime(2024, 1, 2),
    }
    (row,) = read_rows(lasting, ReadRequest(query=query, parameters=parameters))
    assert row == {
        **{name: value for name, value in parameters.items() if name != "m"},
        "twice": parameters["b"] * 2,
        "m": "timestamp without time zone",
        "zoned": "timestamp with time zone",
    }


@pytest.fixture(scope="module")
def typed(postgres: PostgresServer) -> Iterator[Connector]:
    url = postgres.new_database()
    execute(
        url,
        "CREATE TYPE mood AS ENUM ('calm', 'cross')",
        "CREATE TABLE t (small smallint, big bigint, amount numeric(12,2), ratio double precision, name text, "
        "short varchar(10), fixed char(8), mood mood, id uuid, at timestamptz, local timestamp, day date, "
        "tags text[], raw bytea)",
        "INSERT INTO t VALUES (1, 1, 1.5, 0.1, 'one', 'one', 'one', 'calm', "
        "'00000000-0000-0000-0000-000000000001', '2024-01-01', '2024-01-01', '2024-01-01', '{x}', '\\x00')",
    )
    with connected(url) as connector:
        yield connector


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("small = :p", 1),
        ("big = :p", 1),
        ("big < :p", 2**70),
        ("amount = :p", 1.5),
        ("amount = :p", Decimal("1.5")),
        ("ratio = :p", 0.1),
        ("name = :p", "one"),
        ("short = :p", "one"),
        ("fixed = :p", "one"),
        ("mood = :p", "calm"),
        ("id = :p", "00000000-0000-0000-0000-000000000001"),
        ("id = :p", UUID(int=1)),
        ("at >= :p", "2024-01-01"),
        ("at >= :p", datetime(2024, 1, 1, tzinfo=UTC)),
        ("local >= :p", datetime(2024, 1, 1, tzinfo=UTC)),
        ("day >= :p", datetime(2024, 1, 1, tzinfo=UTC)),
        ("day = :p", "2024-01-01"),
        ("day = date '2023-12-31' + :p", 1),
        ("left(name, :p) = 'on'", 2),
        ("name LIKE :p", "o%"),
        ("small = ANY(:p)", "{1,2}"),
        ("name IN (:p, :p)", "one"),
        ("date_trunc(:p, at) = '2024-01-01'", "month"),
        (":p IS NULL", None),
        ("(:p::int IS NULL OR small = :p)", None),
        ("tags[:p] = 'x'", 1),
        ("coalesce(:p, name) = 'one'", None),
        ("name <> :p", ""),
        ("raw = :p", b"\0"),
    ],
)
def test_a_parameter_fits_the_column_that_it_is_compared_with(
    typed: Connector, condition: str, value: Any
) -> None:
    query = f"SELECT small FROM t WHERE {condition}"
    assert read_rows(typed, ReadRequest(query=query, parameters={"p": value})) == [{"small": 1}]


def test_a_parameter_that_does_not_fit_is_refused_by_type_and_not_shown(lasting: Connector) -> None:
    query = "SELECT * FROM t WHERE name = :p"
    assert "text = integer" in refusal(lasting, ReadRequest(query=query, parameters={"p": 4711}))
    request = ReadRequest(query="SELECT * FROM t WHERE id = :p", parameters={"p": "PIN-4711"})
    with pytest.raises(SourceError) as raised:
        read_rows(lasting, request)
    assert "4711" not in str(raised.value) and "invalid text representation" in str(raised.value)


@pytest.fixture(scope="module")
def indexed_url(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    execute(
        url,
        "CREATE TABLE t AS SELECT g::int AS id, ('user' || g) COLLATE \"C\" AS name, "
        "(g / 10.0)::numeric(12,2) AS amount, '2020-01-01'::timestamptz + g * interval '1 min' AS at, "
        "'2020-01-01'::timestamp + g * interval '1 min' AS local FROM generate_series(1, 20000) AS g",
        *(f"CREATE INDEX ON t ({name})" for name in ("id", "name", "amount", "at", "local")),
        "ANALYZE t",
    )
    return url


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("id = :p", 77),
        ("id = :p", "77"),
        ("name = :p", "user77"),
        ("name >= :p AND name < 'user770'", "user77"),
        ("amount = :p", 7.5),
        ("amount = :p", Decimal("7.5")),
        ("at >= :p", datetime(2100, 1, 1, tzinfo=UTC)),
        ("local >= :p", datetime(2100, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_index_serves_a_comparison_with_a_parameter(indexed_url: str, condition: str, value: Any) -> None:
    with connected(indexed_url) as connector:
        request = ReadRequest(query=f"SELECT * FROM t WHERE {condition}", parameters={"p": value})
        plan = explained(indexed_url, connector, request)
    assert "Index Cond" in plan and "Seq Scan" not in plan


def explained(
    url: str, connector: Connector, request: ReadRequest, after: Mapping[str, Any] | None = None
) -> str:
    """Return how PostgreSQL reads the only scan of *request*, by the very statement that is streamed."""
    statements: list[str] = []
    database = connector._database  # type: ignore[attr-defined]
    original = database.rows

    @contextmanager
    def noted(sql: str, values: Mapping[str, str], snapshot: str | None) -> Iterator[Any]:
        with psycopg.connect(url) as connection:
            for name, value in values.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
            statements.extend(
                str(line) for (line,) in connection.execute(f"EXPLAIN {sql}".encode()).fetchall()
            )
        with original(sql, values, snapshot) as rows:
            yield rows

    database.rows = noted
    try:
        (scan,) = connector.plan(request).scans
        read_all(connector, request, scan, after)
    finally:
        database.rows = original
    return "\n".join(statements)


# --- what is refused when it is planned --------------------------------------------------------------------


def test_duplicate_columns_are_refused(lasting: Connector) -> None:
    message = refusal(lasting, ReadRequest(query="SELECT 1 AS a, 2 AS a"))
    assert "2 columns named 'a'" in message and "AS" in message
    joined = "SELECT * FROM t JOIN t AS u USING (name)"
    assert "2 columns named 'id'" in refusal(lasting, ReadRequest(query=joined))


def test_an_unknown_column_is_answered_with_those_there_are(lasting: Connector) -> None:
    message = refusal(lasting, replace(TABLE, partitioning=HashPartitions(key="nam", count=2)))
    assert message == (
        "partitioning.key is 'nam', but the source has no such column; it has id, name | did you mean 'name'?"
    )
    assert "source.order_by is 'x'" in refusal(lasting, replace(TABLE, order_by="x"))


def test_a_missing_table_is_answered_with_one_there_is(numbers: Connector, postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE customers (id int)")
    for request in (ReadRequest(table="custmers"), ReadRequest(query="SELECT * FROM custmers")):
        message = refusal(numbers, request)
        assert 'relation "custmers" does not exist' in message and "did you mean 'customers'?" in message


def test_bad_sql_is_refused_in_the_servers_words(lasting: Connector) -> None:
    assert 'column "nope" does not exist' in refusal(lasting, ReadRequest(query="SELECT nope FROM t"))
    assert "syntax error" in refusal(lasting, ReadRequest(query="SELECT FROM WHERE"))


def test_a_table_that_may_not_be_read_is_named(postgres: PostgresServer, postgres_url: str) -> None:
    name = execute(postgres_url, "SELECT current_database()")[0][0]
    execute(
        postgres_url,
        "CREATE TABLE t AS SELECT 1 AS id",
        "DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    with connected(postgres.url(name, user="stranger")) as connector:
        message = refusal(connector, TABLE)
    assert "permission denied for table t" in message and "SELECT" in message


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t LIMIT 5",
        "SELECT * FROM t OFFSET 5",
        "SELECT * FROM t FETCH FIRST 5 ROWS ONLY",
        "(SELECT * FROM t LIMIT 5)",
        "SELECT * FROM t UNION ALL SELECT * FROM t LIMIT 5",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10)",
        "SELECT * FROM (SELECT * FROM t TABLESAMPLE BERNOULLI (10)) AS x",
        "WITH x AS (SELECT * FROM t) SELECT * FROM x ORDER BY id LIMIT :many",
    ],
)
def test_a_limit_is_refused_with_several_partitions_and_replayed_with_one(
    lasting: Connector, query: str
) -> None:
    request = ReadRequest(query=query, partitioning=HashPartitions(key="id", count=2), parameters={"many": 5})
    assert "LIMIT" in refusal(lasting, request)
    (scan,) = lasting.plan(replace(request, partitioning=None, order_by="id")).scans
    assert scan.resume == "none" and "LIMIT" in scan.reason


def test_a_changed_column_is_found_before_anything_is_read(numbers: Connector, postgres_url: str) -> None:
    (scan,) = numbers.plan(TABLE).scans
    execute(postgres_url, "ALTER TABLE t ALTER id TYPE bigint, ADD extra text")
    with pytest.raises(SourceChanged, match="changed: id, extra"), numbers.read(TABLE, scan, None):
        pass


def test_a_key_that_became_null_is_a_changed_source(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 9) AS g")
    execute(postgres_url, "ALTER TABLE t ALTER id SET NOT NULL")
    request = replace(TABLE, order_by="id")
    with connected(postgres_url) as connector:
        (scan,) = connector.plan(request).scans
        execute(postgres_url, "ALTER TABLE t ALTER id DROP NOT NULL", "INSERT INTO t VALUES (NULL)")
        with pytest.raises(SourceChanged, match="'id' has NULLs"):
            read_all(connector, request, scan)


# --- the order and the shares ------------------------------------------------------------------------------


def test_the_statement_shows_numbers_for_parameters_and_the_bounds_of_a_scan(lasting: Connector) -> None:
    request = ReadRequest(
        query="SELECT * FROM t WHERE id >= :least",
        parameters={"least": 4711},
        partitioning=RangePartitions(key="id", bounds=(50,), shown=("50",)),
    )
    first, second = lasting.plan(request).scans
    assert lasting.statement(request, first) == (
        'SELECT "id", "name" FROM (SELECT "id", "name" FROM (\nSELECT * FROM t WHERE id >= ($1::integer)\n) AS '
        'source) AS source WHERE (source."id" < \'50\'::int4 OR source."id" IS NULL) '
        'ORDER BY source."id" NULLS FIRST, source."name" COLLATE "C"'
    )
    assert "source.\"id\" >= '50'::int4 ORDER BY" in (lasting.statement(request, second) or "")


def test_ranges_and_lists_of_a_tables_rows_have_scans_of_their_own_and_others_share_one(
    numbers: Connector, postgres_url: str
) -> None:
    execute(postgres_url, "CREATE VIEW v AS SELECT * FROM t WHERE id > 5")
    ranges = RangePartitions(key="id", bounds=tuple(range(1, 90)), shown=tuple(map(str, range(1, 90))))
    lists = ListPartitions(key="id", names=("a", "b"), groups=((1,), (2,)), default="rest")
    for query, by_range, by_list in (
        ("SELECT * FROM t", 16, 3),
        ("SELECT id + 0 AS id FROM t WHERE name > 'a' ORDER BY id", 16, 3),
        ("SELECT * FROM v", 16, 3),
        ("SELECT t.id FROM t JOIN t AS u ON t.id = u.id", 1, 1),
        ("SELECT id, count(*) FROM t GROUP BY id", 1, 1),
        ("SELECT * FROM t UNION ALL SELECT * FROM t", 1, 1),
        ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM t", 1, 1),
        ("SELECT id, (SELECT max(name) FROM t) AS most FROM t", 1, 1),
        ("SELECT generate_series(1, 100) AS id", 1, 1),
    ):
        request = ReadRequest(query=query)
        assert len(numbers.plan(replace(request, partitioning=ranges)).scans) == by_range, query
        assert len(numbers.plan(replace(request, partitioning=lists)).scans) == by_list, query
        assert len(numbers.plan(replace(request, partitioning=HashPartitions(key="id", count=8))).scans) == 1


@pytest.mark.slow
@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("collation", ["default", "C", "en_US%"])
def test_texts_that_a_collation_orders_otherwise_are_all_read_once(
    postgres_url: str, collation: str, bytewise: bool
) -> None:
    found = execute(
        postgres_url,
        f"SELECT collname FROM pg_collation WHERE collname LIKE '{collation}' AND collencoding IN (-1, 6)",
    )
    if not found:
        pytest.skip("this server has no such collation")
    execute(
        postgres_url,
        f'CREATE TABLE t (key text COLLATE "{found[0][0]}", id int)',
        "INSERT INTO t SELECT (ARRAY['a', 'A', 'ä', 'Ä', 'B', 'b', 'z', '_', NULL, ' a', 'a '])[1 + g % 11], g "
        "FROM generate_series(1, 110) AS g",
        "CREATE INDEX ON t (key)",
    )
    ranges = RangePartitions(key="key", bounds=("B", "a", "z"), shown=("B", "a", "z"))
    lists = ListPartitions(key="key", names=("x", "y"), groups=(("a", "ä"), ("B",)), default="rest")
    with connected(postgres_url) as connector:
        for partitioning in (ranges, lists, HashPartitions(key="key", count=1)):
            request = replace(TABLE, partitioning=partitioning, batch_rows=7)
            seen = []
            for planned in connector.plan(request).scans:
                # So they are read where the server has collations that call different texts equal.
                scan = replace(planned, detail={**planned.detail, "bytewise": bytewise})
                whole = read_all(connector, request, scan)
                for stop, scanned in enumerate(whole):
                    assigned = partitioning.assign(scanned.batch.column("key")).tolist()
                    assert set(assigned) <= set(scan.partitions)
                    if scanned.cursor is not None:
                        rest = read_all(connector, request, scan, scanned.cursor)
                        assert ids(rest) == ids(whole[stop + 1 :])
                seen += ids(whole)
            assert sorted(seen) == list(range(1, 111))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["char(4)", "numeric", "mood", "interval", "inet", "uuid", "name", "timetz", "varchar(3)"]
)
def test_keys_of_odd_types_are_partitioned_and_resumed(postgres_url: str, kind: str) -> None:
    values = {
        "char(4)": ["a", "b", "a\t", "abc "],
        "numeric": ["1.0", "1.00", "-2", "NaN", "1e50"],
        "mood": ["calm", "cross"],
        "interval": ["1 day", "24 hours", "1 month"],
        "inet": ["10.0.0.1", "9.0.0.1", "::1"],
        "uuid": [str(UUID(int=number)) for number in (1, 2**127, 77)],
        "name": ["a", "b", "B"],
        "timetz": ["12:00+02", "10:00+00"],
        "varchar(3)": ["a", "b", "abc"],
    }[kind]
    quoted = ", ".join("'" + value + "'" for value in values)
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('cross', 'calm')",
        f"CREATE TABLE t (key {kind}, id int)",
        f"INSERT INTO t SELECT ((ARRAY[{quoted}])[1 + g % {len(values) + 1}])::{kind}, g "
        "FROM generate_series(1, 40) AS g",
    )
    with connected(postgres_url) as connector:
        keys = sorted({str(row["key"]) for row in read_rows(connector, TABLE) if row["key"] is not None})
        bounds: tuple[Any, ...] = (
            tuple(keys[1:]) if kind != "uuid" else tuple({"bytes": UUID(key).hex} for key in keys[1:])
        )
        ranges = RangePartitions(key="key", bounds=bounds, shown=tuple(keys[1:]))
        lists = ListPartitions(key="key", names=("x",), groups=(bounds[:1],), default="rest")
        for partitioning in (ranges, lists):
            request = replace(TABLE, partitioning=partitioning, batch_rows=3)
            plan = connector.plan(request)
            assert len(plan.scans) == partitioning.count
            seen = []
            for scan in plan.scans:
                whole = read_all(connector, request, scan)
                for stop, scanned in enumerate(whole):
                    assert scanned.batch.schema == plan.schema
                    assert set(partitioning.assign(scanned.batch.column("key")).tolist()) <= set(
                        scan.partitions
                    )
                    if scanned.cursor is not None:
                        assert ids(read_all(connector, request, scan, scanned.cursor)) == ids(
                            whole[stop + 1 :]
                        )
                seen += ids(whole)
            assert sorted(seen) == list(range(1, 41))


def test_an_index_serves_order_cursor_and_ranges(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL, maybe int, pad text)",
        "INSERT INTO t SELECT g, '2020-01-01'::timestamptz + g * interval '1 min', g, repeat('x', 100) "
        "FROM generate_series(1, 50000) AS g",
        "CREATE INDEX ON t (at)",
        "CREATE INDEX ON t (maybe)",
        "VACUUM ANALYZE t",
    )
    with connected(postgres_url) as connector:
        by_id = replace(TABLE, order_by="id")
        plan = explained(postgres_url, connector, by_id)
        assert "Index Scan using t_pkey" in plan and "Sort" not in plan
        plan = explained(postgres_url, connector, by_id, {"key": 49_000})
        assert "Index Cond" in plan and "Sort" not in plan
        query = ReadRequest(
            query="SELECT id, pad FROM t WHERE pad <> :p", parameters={"p": "x"}, order_by="id"
        )
        assert "Sort" not in explained(postgres_url, connector, query)
        by_time = replace(TABLE, order_by="at")
        plan = explained(
            postgres_url, connector, by_time, {"key": 1_577_840_000_000_000 + 49_000 * 60_000_000}
        )
        assert "Index Cond" in plan
        plan = explained(postgres_url, connector, replace(TABLE, order_by="maybe"), {"key": 49_900})
        assert "Index Cond" in plan and "Seq Scan" not in plan
        ranges = RangePartitions(key="id", bounds=(100, 200), shown=("100", "200"))
        middle = connector.plan(replace(TABLE, partitioning=ranges)).scans[1]
        statement = connector.statement(replace(TABLE, partitioning=ranges), middle)
        lines = execute(postgres_url, f"EXPLAIN {statement}")
        assert any("Index Cond" in line for (line,) in lines)


def test_nulls_that_were_there_before_the_column_was_not_null_are_read_once(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int)",
        "INSERT INTO t SELECT g FROM generate_series(1, 9) AS g",
        "INSERT INTO t VALUES (NULL), (NULL)",
        "ALTER TABLE t ADD CONSTRAINT filled NOT NULL id NOT VALID",
    )
    request = replace(TABLE, order_by="id", batch_rows=2)
    with connected(postgres_url) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        assert ids(whole) == [None, None, *range(1, 10)]
        for stop, scanned in enumerate(whole, 1):
            if scanned.cursor is not None:
                rest = read_all(connector, request, scan, scanned.cursor)
                assert ids(whole[:stop]) + ids(rest) == ids(whole)
        execute(postgres_url, "DELETE FROM t WHERE id IS NULL", "ALTER TABLE t VALIDATE CONSTRAINT filled")
        (scan,) = connector.plan(request).scans
        assert scan.detail["not_null"]


def test_rows_of_a_partitioned_table_are_read_in_one_order(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int, key int) PARTITION BY HASH (id)",
        *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER {n})" for n in range(3)),
        "INSERT INTO t SELECT g, g % 5 FROM generate_series(1, 3000) AS g",
    )
    ranges = RangePartitions(key="key", bounds=(2, 4), shown=("2", "4"))
    with connected(postgres_url) as connector:
        plan = connector.plan(replace(TABLE, partitioning=ranges))
        assert (len(plan.scans), plan.tables) == (3, ("public.t",))
        request = replace(TABLE, partitioning=HashPartitions(key="key", count=2), batch_rows=100)
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        assert ids(whole) == ids(read_all(connector, replace(request, batch_rows=77), scan))
        assert sorted(ids(whole)) == list(range(1, 3001))


def test_partitions_by_hash_can_be_read_by_several_scans(numbers: Connector, postgres_url: str) -> None:
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=4), batch_rows=9)
    with connected(postgres_url, scans=3) as connector:
        assert len(connector.plan(request).scans) == 3
        assert sorted(row["id"] for row in read_rows(connector, request)) == list(range(100))


def test_a_sample_of_a_large_table_is_small_and_knows_about_how_many_rows_there_are(
    postgres_url: str,
) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t AS SELECT g AS id, repeat('x', 50) AS pad FROM generate_series(1, 60000) AS g",
        "ANALYZE t",
    )
    with connected(postgres_url) as connector:
        sample = connector.sample_keys(TABLE, "id", 1000)
        assert sample.rows is not None and 50_000 < sample.rows < 70_000
        assert 500 <= len(sample.keys) <= 3000
        assert max(sample.keys.to_pylist()) > 50_000 and min(sample.keys.to_pylist()) < 10_000
        of_query = connector.sample_keys(ReadRequest(query="SELECT * FROM t WHERE id <= 30"), "id", 1000)
        assert (of_query.rows, len(of_query.keys)) == (30, 30)
        execute(postgres_url, "TRUNCATE t", "INSERT INTO t VALUES (1, '')")
        assert connector.sample_keys(TABLE, "id", 1000).rows == 1


# --- threads, connections, breaking off --------------------------------------------------------------------


def test_no_more_connections_are_open_than_allowed(numbers: Connector, postgres_url: str) -> None:
    most = 0
    with connected(postgres_url, max_connections=2) as connector:
        assert connector.max_scans == 2
        (scan,) = connector.plan(TABLE).scans

        def reading() -> None:
            read_all(connector, TABLE, scan)

        threads = [threading.Thread(target=reading) for _ in range(6)]
        with connector.snapshot():
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                ((open_now,),) = execute(
                    postgres_url,
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ecmbatch' "
                    "AND datname = current_database()",
                )
                most = max(most, open_now)
    # The one that holds the snapshot, and for a moment those that are about to end.
    assert most <= 1 + 2 * 2


def test_sessions_are_named_and_read_only(numbers: Connector) -> None:
    query = (
        "SELECT current_setting('application_name') AS name, "
        "current_setting('transaction_read_only') AS read_only, "
        "current_setting('transaction_isolation') AS level, current_setting('TimeZone') AS zone"
    )
    assert read_rows(numbers, ReadRequest(query=query)) == [
        {"name": "ecmbatch", "read_only": "on", "level": "repeatable read", "zone": "UTC"}
    ]


def test_leaving_early_ends_the_query_on_the_server(numbers: Connector, postgres_url: str) -> None:
    request = ReadRequest(
        query="SELECT id FROM generate_series(1, 10000) AS a(id), generate_series(1, 10000) AS b",
        batch_rows=10,
    )
    (scan,) = numbers.plan(request).scans
    with numbers.read(request, scan, None) as batches:
        next(batches)
    ended = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ecmbatch' "
        "AND datname = current_database() AND state = 'active'"
    )
    # It would take the server minutes to come to the end.
    while execute(postgres_url, ended) != [(0,)]:
        pass


def test_a_backend_that_is_killed_while_rows_come_is_unreachable_and_never_the_end(
    numbers: Connector, postgres_url: str
) -> None:
    request = ReadRequest(
        query="SELECT a AS id, repeat('x', 99) AS pad FROM generate_series(1, 1000) AS a, generate_series(1, 10000)"
    )
    (scan,) = numbers.plan(request).scans
    for function in ("pg_terminate_backend", "pg_cancel_backend"):
        with pytest.raises(Unreachable) as raised, numbers.read(request, scan, None) as batches:
            next(batches)
            execute(
                postgres_url,
                f"SELECT {function}(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'",
            )
            for _ in batches:
                pass
        assert raised.value.error_class == "transient"


@pytest.mark.slow
def test_a_server_that_stops_while_rows_come_is_unreachable() -> None:
    with PostgresServer() as server:
        query = "SELECT repeat('x', 100) AS pad FROM generate_series(1, 1000) AS a, generate_series(1, 10000) AS b"
        request = ReadRequest(query=query)
        with connected(server.url()) as connector:
            (scan,) = connector.plan(request).scans
            with pytest.raises(Unreachable) as raised, connector.read(request, scan, None) as batches:
                next(batches)
                server.stop("immediate")
                for _ in batches:
                    pass
            assert raised.value.error_class == "transient"
            with pytest.raises(Unreachable):
                connector.plan(request)
            server.start()
            assert len(read_rows(connector, ReadRequest(query="SELECT 1 AS one"))) == 1


def test_values_of_rows_are_not_in_errors(numbers: Connector, postgres_url: str) -> None:
    execute(postgres_url, "INSERT INTO t VALUES (100, 'userPIN-4711')")
    request = ReadRequest(query="SELECT substr(name, 5)::int AS n FROM t")
    with pytest.raises(SourceError) as raised:
        read_rows(numbers, request)
    assert "4711" not in f"{raised.value} {raised.value.hint}"
    assert "invalid text representation" in str(raised.value)


def test_a_time_limit_of_the_server_is_named(numbers: Connector, postgres_url: str) -> None:
    url = postgres_url + "&options=-c%20statement_timeout%3D100"
    with connected(url) as connector, pytest.raises(SourceError, match="statement timeout"):
        read_rows(
            connector,
            ReadRequest(
                query="SELECT count(*) AS n FROM generate_series(1, 100000) AS a, generate_series(1, 100000) AS b"
            ),
        )


@pytest.mark.slow
def test_reading_leaves_nothing_on_the_error_stream(numbers: Connector, postgres_url: str) -> None:
    program = """
import sys
from pathlib import Path
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.postgres import POSTGRES
connector = POSTGRES.build(POSTGRES.parse_config({"url": sys.argv[1]}), Path())
request = ReadRequest(table="t", batch_rows=10)
(scan,) = connector.plan(request).scans
with connector.read(request, scan, None) as batches:
    next(batches)
    connector.close()
connector.close()
"""
    command = [sys.executable, "-W", "always", "-c", program, postgres_url]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.slow
def test_memory_stays_flat_however_many_rows_come(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t AS SELECT g::bigint AS id, md5(g::text) AS name, (g / 7.0)::numeric(12,2) AS amount, "
        "now() AS at, repeat('x', 150) AS pad FROM generate_series(1, 1500000) AS g",
    )
    program = """
import resource, sys
from pathlib import Path
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.postgres import POSTGRES
connector = POSTGRES.build(POSTGRES.parse_config({"url": sys.argv[1]}), Path())
def read(most):
    request = ReadRequest(query="SELECT * FROM t WHERE id <= :most", parameters={"most": most}, order_by="id")
    (scan,) = connector.plan(request).scans
    with connector.read(request, scan, None) as batches:
        return sum(scanned.batch.num_rows for scanned in batches)
assert read(150_000) == 150_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read(1_500_000) == 1_500_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, postgres_url], capture_output=True, check=True)
    assert int(done.stdout) < 100
