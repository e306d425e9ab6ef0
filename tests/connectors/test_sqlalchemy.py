"""What the SQLAlchemy connector promises beyond the contract suite."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.query_words import may_change
from ecmbatch.connectors.sqlalchemy_connector import SQLALCHEMY, SQLAlchemyConnector
from ecmbatch.connectors.sqlalchemy_database import Database, read_url
from ecmbatch.connectors.sqlalchemy_order import order_of
from ecmbatch.errors import (
    EcmbatchError,
    InvalidDocument,
    PluginError,
    SourceChanged,
    SourceError,
    Unreachable,
)
from ecmbatch.protocol.partitioning.partitions import HashPartitions, RangePartitions
from ecmbatch.protocol.scalars import Scalar
from ecmbatch.testing.connector_contract import read_all
from postgres_server import PostgresServer

TABLE = ReadRequest(table="t")
SECRET = "a value that no message repeats"


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@contextmanager
def connected(folder: Path, url: str = "sqlite:///s.db", **settings: object) -> Iterator[SQLAlchemyConnector]:
    connector = SQLALCHEMY.build(SQLALCHEMY.parse_config({"url": url, **settings}), folder)
    assert isinstance(connector, SQLAlchemyConnector)
    try:
        yield connector
    finally:
        connector.close()


def read_rows(connector: SQLAlchemyConnector, request: ReadRequest) -> list[dict[str, Any]]:
    return [
        row
        for scan in connector.plan(request).scans
        for scanned in read_all(connector, request, scan)
        for row in scanned.batch.to_pylist()
    ]


def refusal(connector: SQLAlchemyConnector, request: ReadRequest) -> str:
    with pytest.raises(EcmbatchError) as raised:
        read_rows(connector, request)
    return f"{raised.value} | {raised.value.hint}"


def with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def postgres_source(postgres_url: str, tmp_path: Path) -> Iterator[SQLAlchemyConnector]:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA crm")
        connection.execute('CREATE TABLE crm."Odd ""name" (id int PRIMARY KEY, "Name" text)')
        connection.execute(
            """INSERT INTO crm."Odd ""name" SELECT n, 'user' || n FROM generate_series(0, 99) AS n"""
        )
    with connected(tmp_path, with_driver(postgres_url)) as connector:
        yield connector


# --- settings and opening --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": "no url at all " + SECRET},
        {"url": f"nosuchdialect://user:{SECRET}@host/db"},
        {"url": f"postgresql+asyncpg://user:{SECRET}@host/db"},
        {"url": f"postgresql+psycopg://user:first@{SECRET}@host/db"},
        {"url": f"postgresql+psycopg://user:first@x/{SECRET}@host/db"},
        {"url": f"postgresql+psycopg://user:first@x?{SECRET}@host/db"},
        {"url": f"postgresql+psycopg://us/er:{SECRET}@host/db"},
        {"url": "sqlite:///s.db", "columns": {"a": "number"}},
        {"url": "sqlite:///s.db", "max_connections": 0},
        {"url": "sqlite:///s.db", "echo": True},
    ],
)
def test_wrong_settings_are_refused_without_repeating_them(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        SQLALCHEMY.parse_config(settings)
    assert raised.value.problems
    assert SECRET not in f"{raised.value} {raised.value.problems}"


def test_settings_do_not_show_the_url() -> None:
    assert SECRET not in repr(SQLALCHEMY.parse_config({"url": f"sqlite://user:{SECRET}@/s.db"}))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user@127.0.0.1:1/db?password={}&connect_timeout=3",
        "postgresql+psycopg://user:12/{}@127.0.0.1:1/db",
        "postgresql+psycopg://user:a%40{}@127.0.0.1:1/db",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Dsa%3BPWD%3D{}",
    ],
)
def test_a_database_is_shown_without_what_is_secret_in_its_url(tmp_path: Path, url: str) -> None:
    shown = Database(read_url(url.format("canary")), tmp_path).shown
    assert "canary" not in shown
    assert shown.startswith(url.partition(":")[0])


@pytest.mark.parametrize("url", ["sqlite:///me@home/s@x.db", "postgresql+psycopg://a%40b:c%2Fd@host/db"])
def test_at_signs_that_cannot_be_misread_are_allowed(url: str) -> None:
    assert read_url(url).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql+psycopg://user:p%40ss%20word@host/db", "p@ss word"),
        ("postgresql+psycopg://user@host/db?password=p%40ss%20word", "p@ss word"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Dp%40ss%20word", "p@ss word"),
    ],
)
def test_what_a_driver_says_is_shown_without_secrets_however_they_are_encoded(
    tmp_path: Path, url: str, secret: str
) -> None:
    database = Database(read_url(url), tmp_path)
    words = f"no login with {secret}, {quote(secret)}, {quote_plus(secret).lower()}"
    with pytest.raises(SourceError) as raised, database.preparing():
        raise sa.exc.OperationalError(None, None, Exception(words))
    assert "no login with ***, ***, ***" in str(raised.value)


def test_the_clock_is_that_of_the_database_and_a_window_ends_minutes_before_it(
    postgres_source: SQLAlchemyConnector, postgres_url: str, tmp_path: Path
) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER)")
    in_another_zone = with_driver(postgres_url) + "&options=-c%20timezone%3DAsia/Tokyo"
    with connected(tmp_path) as sqlite, connected(tmp_path, in_another_zone) as far:
        for connector in (sqlite, postgres_source, far):
            before = datetime.now(UTC)
            bound = connector.window_bound()
            # Server and client are on one machine.
            assert before <= bound.at <= datetime.now(UTC)
            assert bound.at.utcoffset() == timedelta(0)
            assert bound.lag == timedelta(minutes=5)


def test_a_driver_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    with (
        connected(tmp_path, "mysql+mysqldb://user@localhost/db") as connector,
        pytest.raises(PluginError, match="no module MySQLdb") as raised,
    ):
        connector.plan(TABLE)
    assert raised.value.hint == "pip install 'mysqlclient'"


def test_a_missing_sqlite_file_is_named_and_not_made(tmp_path: Path) -> None:
    with connected(tmp_path) as connector, pytest.raises(SourceError, match=r"no SQLite file .*s\.db"):
        connector.ping()
    assert not (tmp_path / "s.db").exists()


def test_nobody_at_the_port_is_unreachable_for_now(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://user:{SECRET.replace(' ', '_')}@127.0.0.1:1/db"
    with connected(tmp_path, url) as connector, pytest.raises(Unreachable) as raised:
        connector.ping()
    assert raised.value.error_class == "transient"
    assert "127.0.0.1:1" in str(raised.value)
    assert SECRET.replace(" ", "_") not in f"{raised.value} {raised.value.hint}"


def test_a_wrong_password_is_refused_for_good_and_not_shown(postgres: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS with_password")
        connection.execute("CREATE ROLE with_password LOGIN PASSWORD 'right'")
    url = with_driver(postgres.url(user="with_password:wrong_one", tcp=True))
    with connected(tmp_path, url) as connector, pytest.raises(Unreachable, match="password") as raised:
        connector.ping()
    assert raised.value.error_class == "permanent"
    assert "wrong_one" not in str(raised.value)


# --- queries ---------------------------------------------------------------------------------------------


def test_tables_and_columns_are_quoted(postgres_source: SQLAlchemyConnector) -> None:
    request = ReadRequest(table='crm.Odd "name', order_by="Name", batch_rows=10)
    assert len(read_rows(postgres_source, request)) == 100
    assert "crm.missing" in refusal(postgres_source, ReadRequest(table="crm.missing"))


@pytest.mark.parametrize(
    "query",
    [
        'DELETE FROM crm."Odd ""name"',
        'WITH gone AS (DELETE FROM crm."Odd ""name" RETURNING *) SELECT * FROM gone',
        "SELECT set_config('transaction_read_only', 'off', false), nextval('s')",
        "CREATE TABLE x (id int)",
        "SELECT missing FROM crm.nothing",
    ],
)
def test_a_query_only_reads(postgres_source: SQLAlchemyConnector, query: str) -> None:
    with pytest.raises(SourceError):
        read_rows(postgres_source, ReadRequest(query=query))
    assert len(read_rows(postgres_source, ReadRequest(table='crm.Odd "name'))) == 100


def test_a_transaction_cannot_be_made_writable(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (id int)")
        connection.execute(
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM set_config('transaction_read_only', 'off', false); "
            "INSERT INTO t VALUES (1); RETURN 1; END $$"
        )
    with connected(tmp_path, with_driver(postgres_url)) as connector:
        refusal(connector, ReadRequest(query="SELECT f() AS f"))
        assert read_rows(connector, TABLE) == []


def test_parameters_are_bound_where_our_lexer_sees_them(postgres_source: SQLAlchemyConnector) -> None:
    query = (
        r"SELECT ':no' AS a, '100% \:no %s' AS b, :n::int AS n, :n || '%' AS c, :d AS d, :at AS at, "
        "'1'::int AS one, CAST(:u AS uuid) AS u -- :no"
    )
    parameters: dict[str, Scalar] = {
        "n": "5",
        "d": date(2024, 1, 2),
        "at": datetime(2024, 1, 2, tzinfo=UTC),
        "u": UUID(int=7),
    }
    assert read_rows(postgres_source, ReadRequest(query=query, parameters=parameters)) == [
        {
            "a": ":no",
            "b": r"100% \:no %s",
            "n": 5,
            "c": "5%",
            "d": date(2024, 1, 2),
            "at": datetime(2024, 1, 2, tzinfo=UTC),
            "one": 1,
            "u": UUID(int=7),
        }
    ]
    assert read_rows(postgres_source, ReadRequest(query="SELECT '100% %s' AS a")) == [{"a": "100% %s"}]


def test_bad_sql_is_shown_as_the_database_says_it(postgres_source: SQLAlchemyConnector) -> None:
    message = refusal(postgres_source, ReadRequest(query='SELECT nam FROM crm."Odd ""name"'))
    assert 'column "nam" does not exist' in message


@pytest.mark.parametrize("query", ["SELECT 1 AS a, 2 AS a", 'SELECT 1 AS a, 2 AS "A"', "SELECT 1 AS _ecm_x"])
def test_duplicate_and_reserved_names_are_refused(postgres_source: SQLAlchemyConnector, query: str) -> None:
    assert "source has" in refusal(postgres_source, ReadRequest(query=query))


@pytest.mark.parametrize("end", ["LIMIT 5", "OFFSET 5", "FETCH FIRST 5 ROWS ONLY"])
def test_limit_is_refused_with_several_partitions(postgres_source: SQLAlchemyConnector, end: str) -> None:
    request = ReadRequest(query=f'SELECT id FROM crm."Odd ""name" {end}', order_by="id")
    (scan,) = postgres_source.plan(request).scans
    assert scan.resume == "none"
    request = replace(request, partitioning=HashPartitions(key="id", count=2))
    assert "LIMIT" in refusal(postgres_source, request)


def test_a_query_that_differs_each_time_is_read_from_its_start(postgres_source: SQLAlchemyConnector) -> None:
    request = ReadRequest(query='SELECT id, random() AS r FROM crm."Odd ""name"', order_by="id")
    (scan,) = postgres_source.plan(request).scans
    assert scan.resume == "none"
    ranges = RangePartitions(key="id", bounds=(5,), shown=("5",), ordered=True)
    assert "other values each time" in refusal(postgres_source, replace(request, partitioning=ranges))


@pytest.mark.parametrize(
    ("query", "changes"),
    [
        ("SELECT now()", True),
        ("SELECT UTC_DATE", True),
        ("SELECT utc_time()", True),
        ("SELECT unix_timestamp()", True),
        ("SELECT unix_timestamp(at) FROM t", False),
        ("SELECT UUID_SHORT()", True),
        ("SELECT today()", True),
        ("SELECT today FROM t", False),
        ("SELECT datetime('now')", True),
        ("SELECT date( 'NOW', '-1 day')", True),
        ("SELECT strftime('%s', 'now')", True),
        ("SELECT strftime('%s')", True),
        ("SELECT date(at) FROM t WHERE note = 'right now'", False),
        ("SELECT 'now' AS word FROM t", False),
    ],
)
def test_functions_of_the_present_are_known_by_their_names(query: str, changes: bool) -> None:
    assert may_change(query) == changes


def test_an_error_while_rows_are_read_does_not_show_values(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (s text)")
        connection.execute("INSERT INTO t VALUES (%s)", [SECRET])
    with connected(tmp_path, with_driver(postgres_url)) as connector:
        message = refusal(connector, ReadRequest(query="SELECT s::int AS i FROM t"))
    assert "may hold values" in message
    assert SECRET not in message


# --- types -----------------------------------------------------------------------------------------------


def test_a_tables_types_are_those_it_declares(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "CREATE TABLE t (i int, n numeric(30, 10), f real, at timestamptz, u uuid, x bytea, c char(5), "
            "v varchar(9), b boolean)"
        )
        connection.execute(
            "INSERT INTO t VALUES (1, 12345678901234567890.0123456789, 0.1, '2024-01-01 00:00+02', "
            "'00000000-0000-0000-0000-000000000007', '\\x00ff', 'a', 'b', true)"
        )
    with connected(tmp_path, with_driver(postgres_url)) as connector:
        (row,) = read_rows(connector, TABLE)
    assert row == {
        "i": 1,
        "n": Decimal("12345678901234567890.0123456789"),
        "f": pa.scalar(0.1, pa.float32()).as_py(),
        "at": datetime(2023, 12, 31, 22, tzinfo=UTC),
        "u": UUID(int=7),
        "x": b"\0\xff",
        "c": "a    ",
        "v": "b",
        "b": True,
    }


def test_decimals_of_a_query_have_to_be_declared(
    postgres_source: SQLAlchemyConnector, tmp_path: Path
) -> None:
    request = ReadRequest(query="SELECT 1.50 AS amount")
    assert "column 'amount' holds decimals" in refusal(postgres_source, request)


def test_declared_types_are_checked_with_every_row(postgres_url: str, tmp_path: Path) -> None:
    query = ReadRequest(query="SELECT n / 4.0 AS q, n AS i FROM generate_series(1, 3) AS n")
    with connected(tmp_path, with_driver(postgres_url), columns={"q": "decimal(18, 2)"}) as connector:
        assert [row["q"] for row in read_rows(connector, query)] == [
            Decimal("0.25"),
            Decimal("0.5"),
            Decimal("0.75"),
        ]
    with connected(tmp_path, with_driver(postgres_url), columns={"q": "decimal(18, 1)"}) as connector:
        assert "column 'q' is read as decimal(18, 1), and a row has a decimal that does not fit" in refusal(
            connector, query
        )


@pytest.mark.parametrize("value", ["'{}'::jsonb", "ARRAY[1]", "interval '1 day'"])
def test_what_has_no_type_here_is_refused_with_a_cast(
    postgres_source: SQLAlchemyConnector, value: str
) -> None:
    assert "cast it in the query: CAST(odd AS" in refusal(
        postgres_source, ReadRequest(query=f"SELECT {value} AS odd")
    )


def test_a_later_value_of_another_kind_is_an_error_with_its_column(tmp_path: Path) -> None:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER, odd)",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
        f"INSERT INTO t SELECT i, CASE WHEN i < 1500 THEN i ELSE '{SECRET}' END FROM n",
    )
    with connected(tmp_path) as connector:
        message = refusal(connector, TABLE)
    assert "column 'odd' is read as int64, and a row has a text there | declare 'odd'" in message
    assert SECRET not in message


def test_a_column_without_values_fits_any_column_of_a_store(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER, name TEXT)")
    with connected(tmp_path) as connector:
        schema = connector.plan(ReadRequest(query="SELECT id, upper(name) AS name FROM t")).schema
        assert schema == pa.schema([("id", pa.null()), ("name", pa.null())])
        assert connector.plan(TABLE).schema == pa.schema([("id", pa.int64()), ("name", pa.string())])


# --- order -----------------------------------------------------------------------------------------------


def test_keys_that_a_collation_calls_equal_are_all_read_after_a_cursor(tmp_path: Path) -> None:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (k TEXT COLLATE NOCASE, n INTEGER)",
        "INSERT INTO t VALUES ('a', 0), ('A', 1), ('b', 2), ('a', 3), ('B', 4), (NULL, 5), ('', 6), ('a ', 7)",
    )
    request = replace(TABLE, order_by="k", batch_rows=1)
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        cursors = [scanned.cursor for scanned in whole]
        assert sum(cursor is not None for cursor in cursors) >= 6
        for stop, cursor in enumerate(cursors):
            if cursor is not None:
                rest = read_all(connector, request, scan, cursor)
                numbers = [each.batch["n"][0].as_py() for each in whole[: stop + 1] + rest]
                assert sorted(numbers) == list(range(8))


def test_padded_texts_are_all_read_after_a_cursor(postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (k char(3), n int)")
        connection.execute(
            r"INSERT INTO t VALUES ('a', 0), (E'a\t', 1), ('', 2), (E'\t', 3), (NULL, 4), ('aa', 5)"
        )
    request = replace(TABLE, order_by="k", batch_rows=1)
    with connected(tmp_path, with_driver(postgres_url)) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        for stop, scanned in enumerate(whole):
            assert scanned.cursor is not None
            rest = read_all(connector, request, scan, scanned.cursor)
            numbers = [each.batch["n"][0].as_py() for each in whole[: stop + 1] + rest]
            assert sorted(numbers) == list(range(6))


@pytest.mark.parametrize(
    ("dialect", "kind", "expression"),
    [
        ("mssql", pa.int64(), "k"),
        ("mssql", pa.string(), None),
        ("oracle", pa.timestamp("us"), None),
        ("mysql", pa.string(), "HEX(CAST(k AS CHAR))"),
        ("mariadb", pa.binary(), "HEX(k)"),
        ("mysql", pa.timestamp("us"), "HEX(CAST(k AS CHAR))"),
        ("postgresql", pa.string(), 'CAST(k AS text) COLLATE "C"'),
        ("postgresql", pa.float64(), 'CAST(k AS text) COLLATE "C"'),
        ("postgresql", pa.timestamp("us"), "k"),
        ("sqlite", pa.null(), None),
    ],
)
def test_only_what_is_sound_orders_rows(dialect: str, kind: pa.DataType, expression: str | None) -> None:
    order = order_of(dialect, "k", "k", kind, declared=False)
    assert (order and order.expression) == expression


def test_a_statement_shows_its_parameters(postgres_source: SQLAlchemyConnector) -> None:
    query = 'SELECT id, "Name" FROM crm."Odd ""name" WHERE id > :a OR id < :a'
    request = ReadRequest(query=query, parameters={"a": 1}, order_by="id")
    (scan,) = postgres_source.plan(request).scans
    statement = postgres_source.statement(request, scan)
    assert statement is not None
    assert 'SELECT id, "Name" FROM (' in statement
    assert "WHERE id > $1 OR id < $2" in statement


def test_keys_are_sampled(postgres_source: SQLAlchemyConnector) -> None:
    sample = postgres_source.sample_keys(ReadRequest(table='crm.Odd "name'), "id", 10)
    assert (sample.rows, 10 <= len(sample.keys) < 100) == (100, True)


def test_other_columns_than_planned_are_a_changed_source(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER)")
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(TABLE).scans
        write(tmp_path / "s.db", "ALTER TABLE t ADD COLUMN name TEXT")
        with pytest.raises(SourceChanged, match="changed: name"):
            read_all(connector, TABLE, scan)


@pytest.mark.slow
def test_a_server_that_stops_in_the_middle_is_unreachable(tmp_path: Path) -> None:
    with PostgresServer() as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute(
                "CREATE TABLE t AS SELECT n, repeat('x', 500) AS pad FROM generate_series(1, 200000) AS n"
            )
        request = replace(TABLE, batch_rows=1000)
        with connected(tmp_path, with_driver(server.url())) as connector:
            (scan,) = connector.plan(request).scans
            with connector.read(request, scan, None) as batches, pytest.raises(Unreachable) as raised:
                next(batches)
                server.stop("immediate")
                list(batches)
            assert raised.value.error_class == "transient"
            server.start()
            assert sum(each.batch.num_rows for each in read_all(connector, request, scan)) == 200_000
