"""What is particular to PostgreSQL: its tables, types, locks and sessions, and who else is in the database."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.errors import InvalidDocument, PluginError, StoreBusy, StoreError, Superseded, Unreachable
from ecmbatch.stores import postgres_statements as sql
from ecmbatch.stores.postgres import POSTGRES
from ecmbatch.stores.postgres_session import Database
from ecmbatch.stores.store import PublishedRows, Store, TableChange
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from ecmbatch.testing.store_contract import AT, CUSTOMERS, customer, publication
from postgres_server import PostgresServer


def open_store(url: str, *, tell: Callable[[str], None] = print, **settings: Any) -> Store:
    return POSTGRES.build(POSTGRES.parse_config({"url": url, **settings}), Path(), tell)


@pytest.fixture
def store(postgres_url: str) -> Store:
    return open_store(postgres_url)


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


def types_of(url: str, table: str = "customers") -> Mapping[str, str]:
    query = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
    return dict(execute(url, f"{query}'{table}'::regclass AND attnum > 0 AND NOT attisdropped"))


def names_in(url: str) -> list[tuple[Any, ...]]:
    return execute(url, "SELECT id, name FROM customers ORDER BY 1, 2")


@contextmanager
def at_point(point: CrashPoint, act: Callable[[], Any]) -> Iterator[None]:
    """Do something once, when *point* is first passed."""
    todo = [act]
    set_hook(lambda passed: todo.pop()() if passed == point and todo else None)
    try:
        yield
    finally:
        set_hook(None)


# Settings.


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({}, "/url"),
        ({"url": "mysql://root:hunter2@host/db"}, "/url"),
        ({"url": "postgres://u:hunter2@x@host/db"}, "/url"),
        ({"url": "postgres://u:hunter2@h/d?no_such_thing=1"}, "/url"),
        ({"url": "postgres://h/d", "schema": ""}, "/schema"),
        ({"url": "postgres://h/d", "schema": "a.b"}, "/schema"),
        ({"url": "postgres://h/d", "busy_timeout": 60}, "/busy_timeout"),
        ({"url": "postgres://h/d", "path": "x"}, "/path"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings, pointer):
    with pytest.raises(InvalidDocument) as raised:
        POSTGRES.parse_config(settings)
    assert [problem.path for problem in raised.value.problems] == [pointer]
    assert "hunter2" not in str(raised.value) + repr(raised.value.problems)


def test_jobs_read_the_store_through_the_connector_of_the_same_database(postgres_url, tmp_path):
    assert POSTGRES.source is not None
    assert POSTGRES.source(POSTGRES.parse_config({"url": "postgres://h/d", "busy_timeout": "5 s"})) == (
        "postgres",
        {"url": "postgresql://h/d"},
    )
    schema = 'of "its" \\own, +'
    url = f"{postgres_url}&options=-csearch_path%3Dnowhere%20-cwork_mem%3D3MB"
    open_store(url, schema=schema).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    _, source = POSTGRES.source(POSTGRES.parse_config({"url": url, "schema": schema}))
    assert execute(source["url"], "SELECT name, current_setting('work_mem') FROM customers") == [
        ("Ada", "3MB")
    ]


def test_the_url_is_in_no_representation():
    settings = POSTGRES.parse_config({"url": "postgres://u:hunter2@h/d"})
    database = Database(url=settings.url, busy_timeout=settings.busy_timeout, tell=print)
    assert "hunter2" not in f"{settings!r} {settings} {database!r}"


@pytest.mark.parametrize("missing", ["psycopg", "adbc_driver_postgresql.dbapi"])
def test_without_its_packages_it_says_what_to_install(monkeypatch, missing):
    for name in ("postgres_store", "postgres_staging", "postgres_session"):
        monkeypatch.delitem(sys.modules, f"ecmbatch.stores.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PluginError) as raised:
        open_store("postgres://h/d")
    assert raised.value.hint == "pip install 'ecmbatch[postgres]'"


# Reaching it.


def test_a_server_that_is_not_there_may_be_there_later():
    store = open_store("postgres://u:hunter2@127.0.0.1:1/d")
    with pytest.raises(Unreachable) as raised:
        store.table("customers")
    assert raised.value.error_class == "transient"
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("user", "database", "words"),
    [
        ("with_password:hunter2", "postgres", "password authentication failed"),
        ("nobody", "postgres", 'role "nobody" does not exist'),
        ("postgres", "nowhere", 'database "nowhere" does not exist'),
    ],
)
def test_who_is_refused_is_told_why_and_not_tried_again(postgres, user, database, words):
    execute(
        postgres.url(),
        "DO $$ BEGIN CREATE ROLE with_password LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$",
    )
    url = f"postgresql://{user}@127.0.0.1:{postgres.port}/{database}"
    with pytest.raises(StoreError, match=words) as raised:
        open_store(url).marker("run-1")
    assert raised.value.error_class == "permanent"
    assert "hunter2" not in str(raised.value)


def test_sessions_have_a_name_and_limits(postgres_url):
    database = Database(url=postgres_url, busy_timeout=timedelta(seconds=7), tell=print)
    with database.session("run-1") as session:
        limits = [
            session.execute(f"SHOW {name}".encode()).fetchone()
            for name in (
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "application_name",
                "TimeZone",
            )
        ]
    assert limits == [("7s",), ("1min",), ("ecmbatch run-1",), ("UTC",)]


def test_looking_makes_nothing(store, postgres_url, tmp_path):
    store.check(publication(tmp_path, "run-1"))
    assert store.head("a", "b", "c") is store.marker("run-1") is store.table("customers") is None
    assert (store.versions(), store.leftovers()) == ({}, [])
    assert execute(postgres_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_many_that_start_at_once_make_the_stores_own_tables_once(postgres_url):
    start = threading.Barrier(6)

    def abandon(number: int) -> str:
        start.wait()
        return open_store(postgres_url, schema="of its own").abandon(f"run-{number}", AT).outcome

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(abandon, range(6))) == ["abandoned"] * 6


# Names.


def test_tables_may_be_in_other_schemas_and_have_one_name_each(store, postgres_url, tmp_path):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], table="public.customers"), AT)
    store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
    store.publish(publication(tmp_path, "run-3", [customer(1, "Cy")], table="Other Place.Customers"), AT)
    assert store.versions() == {"customers": 2, "Other Place.Customers": 1}
    assert names_in(postgres_url) == [(1, "Bo")]
    assert execute(postgres_url, 'SELECT name FROM "Other Place"."Customers"') == [("Cy",)]


@pytest.mark.parametrize("table", ["a.b.c", ".x", "x.", "_ecmbatch_heads", "x" * 64, f"{'é' * 32}.x"])
def test_names_that_cannot_be_a_tables_are_refused(store, tmp_path, table):
    with pytest.raises(StoreError):
        store.check(publication(tmp_path, "run-1", table=table))


def test_names_of_columns_that_postgresql_would_cut_or_uses_itself_are_refused(store, tmp_path):
    schema = pa.schema([("id", pa.int64()), ("é" * 32, pa.string()), ("ctid", pa.string())])
    with pytest.raises(StoreError, match=r"longer than 63 bytes.*'ctid' must have another name"):
        store.check(publication(tmp_path, "run-1", schema=schema))
    schema = pa.schema([("id", pa.int64()), ("é" * 31, pa.string())])
    store.publish(publication(tmp_path, "run-1", [{"id": 1, "é" * 31: "x"}], schema=schema), AT)


def test_percent_signs_in_names_are_no_placeholders(store, postgres_url, tmp_path):
    schema = pa.schema([("%s", pa.int64()), ("%(x)s %", pa.string())])
    for run, value in (("run-1", "a"), ("run-2", "b")):
        rows = [{"%s": 1, "%(x)s %": value}]
        store.publish(publication(tmp_path, run, rows, schema=schema, key=("%s",), table="50%"), AT)
    assert execute(postgres_url, 'SELECT "%s", "%(x)s %" FROM "50%"') == [(1, "b")]


def test_columns_are_told_apart_by_case(store, postgres_url, tmp_path):
    schema = pa.schema([("id", pa.int64()), ("ID", pa.int64())])
    store.publish(publication(tmp_path, "run-1", [{"id": 1, "ID": 2}], schema=schema), AT)
    assert execute(postgres_url, 'SELECT id, "ID" FROM customers') == [(1, 2)]


# Types.


def test_types_of_new_columns(store, postgres_url, tmp_path):
    types: Mapping[str, tuple[pa.DataType, str]] = {
        "a": (pa.int8(), "smallint"),
        "b": (pa.uint8(), "smallint"),
        "c": (pa.uint16(), "integer"),
        "d": (pa.uint32(), "bigint"),
        "e": (pa.uint64(), "numeric(20,0)"),
        "f": (pa.float16(), "real"),
        "g": (pa.decimal128(12, 2), "numeric(12,2)"),
        "h": (pa.decimal256(60, 10), "numeric(60,10)"),
        "i": (pa.large_string(), "text"),
        "j": (pa.binary(4), "bytea"),
        "k": (pa.date64(), "date"),
        "l": (pa.time32("s"), "time without time zone"),
        "m": (pa.timestamp("ns"), "timestamp without time zone"),
        "n": (pa.timestamp("s", "Asia/Tokyo"), "timestamp with time zone"),
        "o": (pa.duration("ms"), "interval"),
        "q": (pa.uuid(), "uuid"),
        "r": (pa.json_(), "jsonb"),
        "s": (pa.struct([("x", pa.int8())]), "jsonb"),
        "t": (pa.map_(pa.string(), pa.int8()), "jsonb"),
        "u": (pa.list_(pa.struct([("x", pa.int8())])), "jsonb"),
        "v": (pa.list_(pa.list_(pa.int8())), "jsonb"),
        "w": (pa.list_(pa.uint16()), "integer[]"),
        "x": (pa.large_list(pa.timestamp("ms", "UTC")), "timestamp with time zone[]"),
        "y": (pa.list_(pa.string(), 2), "text[]"),
        "z": (pa.dictionary(pa.int8(), pa.string()), "text"),
        "bool": (pa.bool_(), "boolean"),
        "dates": (pa.list_(pa.date32()), "date[]"),
        "decimals": (pa.list_(pa.decimal128(5, 2)), "numeric(5,2)[]"),
        "bytes": (pa.list_(pa.binary()), "bytea[]"),
        "doubles": (pa.list_(pa.float64()), "double precision[]"),
    }
    schema = pa.schema([("id", pa.int64()), *((name, type_) for name, (type_, _) in types.items())])
    run = publication(tmp_path, "run-1", [{"id": 1}], schema=schema)
    store.publish(run, AT)
    found = types_of(postgres_url)
    assert {name: found[name] for name in types} == {name: sql for name, (_, sql) in types.items()}
    assert store.check(run) == TableChange()
    assert store.publish(replace(run, run_id="run-2"), AT).rows == PublishedRows(unchanged=1)
    table = store.table("customers")
    assert table is not None
    assert table.schema.field("e").type == pa.decimal128(20, 0)
    assert table.schema.field("w").type == pa.list_(pa.int32())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (pa.duration("s"), timedelta(days=-3, seconds=5), timedelta(days=-3, seconds=5)),
        (pa.json_(), '{"b": 1.50, "a": [null]}', {"a": [None], "b": 1.5}),
        (pa.struct([("a", pa.decimal128(38, 2))]), {"a": Decimal("1.50")}, {"a": 1.5}),
        (pa.struct([("a", pa.timestamp("us", "UTC"))]), {"a": AT}, {"a": "2026-03-01 02:30:00+00"}),
        (pa.map_(pa.int32(), pa.string()), [(7, "x")], {"7": "x"}),
        (pa.list_(pa.list_(pa.int8())), [[1], [], None], [[1], [], None]),
        (pa.list_(pa.uint8()), [255, None], [255, None]),
        (pa.list_(pa.string()), ["a,b", '"', "NULL", "", None], ["a,b", '"', "NULL", "", None]),
        (pa.list_(pa.timestamp("ms")), [datetime(2026, 1, 1)], [datetime(2026, 1, 1)]),
        (pa.list_(pa.decimal128(5, 2)), [Decimal("1.50"), None], [Decimal("1.50"), None]),
    ],
    ids=str,
)
def test_values_as_postgresql_has_them(store, postgres_url, tmp_path, type_, value, expected):
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    run = publication(tmp_path, "run-1", [{"id": 1, "value": value}, {"id": 2, "value": None}], schema=schema)
    store.publish(run, AT)
    assert execute(postgres_url, "SELECT value FROM customers ORDER BY id") == [(expected,), (None,)]
    assert store.publish(replace(run, run_id="run-2"), AT).rows == PublishedRows(unchanged=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (pa.string(), "se\x00cret", "'value' has a text with a NUL character"),
        (pa.list_(pa.string()), ["se\x00cret"], "'value' has a text with a NUL character"),
        (pa.struct([("a", pa.string())]), {"a": "se\x00cret"}, "a value of column 'value' is not possible"),
        (pa.struct([("a", pa.float64())]), {"a": float("nan")}, "a value of column 'value' is not possible"),
        (pa.json_(), "{secret", "a value of column 'value' is not possible"),
        (pa.timestamp("ns"), 1, "'value' has a value that PostgreSQL cannot keep"),
        (pa.time64("ns"), 1, "'value' has a value that PostgreSQL cannot keep"),
        (pa.list_(pa.timestamp("ns")), [1], "'value' has a value that PostgreSQL cannot keep"),
        (pa.duration("ns"), 1, "'value' has a value that PostgreSQL cannot keep"),
        (pa.date32(), 2**31 - 1, "a value"),
        (pa.timestamp("ms"), 2**62, "'value' has a value that PostgreSQL cannot keep"),
    ],
    ids=str,
)
def test_values_that_it_cannot_keep_name_the_column_and_not_the_value(store, tmp_path, type_, value, words):
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    run = publication(tmp_path, "run-1", [{"id": 1, "value": value}], schema=schema)
    with pytest.raises(StoreError, match=words) as raised:
        store.publish(run, AT)
    assert raised.value.error_class == "data"
    assert "cret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert store.table("customers") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "type_",
    [
        pa.null(),
        pa.month_day_nano_interval(),
        pa.decimal128(5, -2),
        pa.struct([]),
        pa.struct([("a", pa.binary())]),
        pa.map_(pa.list_(pa.int8()), pa.int8()),
        pa.opaque(pa.int8(), "x", "y"),
    ],
    ids=str,
)
def test_types_that_it_cannot_keep_are_refused_by_name(store, tmp_path, type_):
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    with pytest.raises(StoreError, match=r"'value' is .*, which PostgreSQL cannot keep"):
        store.check(replace(publication(tmp_path, "run-1"), schema=schema))


COLUMNS_OF_OTHERS: Sequence[tuple[str, pa.DataType, Any, Any]] = [
    ("numeric", pa.decimal128(38, 5), Decimal("1.5"), Decimal("1.50000")),
    ("numeric", pa.int64(), 7, Decimal(7)),
    ("varchar(3)", pa.string(), "abc", "abc"),
    ("char(5)", pa.string(), "ab", "ab   "),
    ("mood", pa.string(), "fine", "fine"),
    ("mood", pa.dictionary(pa.int8(), pa.string()), "fine", "fine"),
    ("positive", pa.int16(), 3, 3),
    ("json", pa.struct([("a", pa.int8())]), {"a": 1}, {"a": 1}),
    ("json", pa.string(), "[1, 2]", [1, 2]),
    ("uuid", pa.string(), "00000000-0000-0000-0000-000000000001", None),
    (
        "timestamp(3)",
        pa.timestamp("ms"),
        datetime(2026, 1, 1, 0, 0, 0, 1000),
        datetime(2026, 1, 1, 0, 0, 0, 1000),
    ),
    ("bigint[]", pa.list_(pa.int8()), [1], [1]),
    ("varchar(2)[]", pa.list_(pa.string()), ["ab", "", None], ["ab", "", None]),
    ("varchar(2)[]", pa.null(), None, None),
    ('text COLLATE "C"', pa.string(), "x", "x"),
    ("double precision", pa.int32(), 3, 3.0),
    ("integer", pa.null(), None, None),
    ("inet", pa.null(), None, None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sql", "type_", "value", "stored"), COLUMNS_OF_OTHERS, ids=str)
def test_columns_that_others_made_take_what_fits(store, postgres_url, tmp_path, sql, type_, value, stored):
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('fine', 'sad')",
        "CREATE DOMAIN positive AS integer CHECK (value > 0)",
        f"CREATE TABLE customers (id bigint PRIMARY KEY, value {sql}, note text DEFAULT 'new')",
    )
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    run = publication(tmp_path, "run-1", [{"id": 1, "value": value}, {"id": 2, "value": None}], schema=schema)
    assert store.check(run) == TableChange(undelivered=("note",))
    assert store.publish(run, AT).rows == PublishedRows(inserted=2)
    assert store.publish(replace(run, run_id="run-2"), AT).rows == PublishedRows(unchanged=2)
    ((found, note),) = execute(postgres_url, "SELECT value, note FROM customers WHERE id = 1")
    assert (stored is None or found == stored, note) == (True, "new")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "type_", "value", "words"),
    [
        ("uuid", pa.string(), "secret", "a value of column 'value' is not possible"),
        ("mood", pa.string(), "secret", "a value of column 'value' is not possible"),
        ("varchar(3)", pa.string(), "secret", "'value' of the table takes texts of up to 3 characters"),
        ("text CHECK (value <> 'secret')", pa.string(), "secret", "violates check constraint"),
        ("text NOT NULL", pa.string(), None, 'null value in column "value"'),
        ("text UNIQUE DEFAULT 'x'", pa.string(), "taken", "violates unique constraint"),
    ],
)
def test_what_the_table_refuses_is_told_without_the_value(
    store, postgres_url, tmp_path, sql, type_, value, words
):
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('fine', 'sad')",
        f"CREATE TABLE customers (id bigint, value {sql})",
        "INSERT INTO customers VALUES (9, 'taken')" if "UNIQUE" in sql else "SELECT 1",
    )
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    with pytest.raises(StoreError, match=words) as raised:
        store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": value}], schema=schema), AT)
    assert raised.value.error_class == "data"
    assert raised.value.__cause__ is None
    assert "secret" not in str(raised.value).replace("value <> 'secret'", "")
    assert store.marker("run-1") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "type_"),
    [
        ("inet", pa.string()),
        ("interval month", pa.duration("s")),
        ("interval day to second(0)", pa.duration("us")),
        ("text", pa.struct([("a", pa.int8())])),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("integer GENERATED ALWAYS AS (7) STORED", pa.int32()),
        ("integer GENERATED ALWAYS AS IDENTITY", pa.int32()),
    ],
)
def test_columns_that_others_made_refuse_what_does_not_fit(store, postgres_url, tmp_path, sql, type_):
    execute(postgres_url, f"CREATE TABLE customers (id bigint PRIMARY KEY, value {sql})")
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    with pytest.raises(StoreError, match="column 'value'"):
        store.check(publication(tmp_path, "run-1", schema=schema))


@pytest.mark.parametrize(
    ("sql", "value", "mode"),
    [
        ("varchar(3)", "abc  ", "upsert"),
        ("varchar(3)", "abc  ", "append"),
        ("varchar(2)[]", ["ab", "a  "], "replace"),
        ("char(3)", "abc ", "append"),
        ("short", "abc  ", "replace"),
        ("short", "abcd", "upsert"),
        ("padded", "abcd", "append"),
    ],
)
def test_texts_that_postgresql_would_cut_are_refused(store, postgres_url, tmp_path, sql, value, mode):
    """As part of a key, too, where rows would not be found again."""
    execute(
        postgres_url,
        "CREATE DOMAIN short AS varchar(3)",
        "CREATE DOMAIN padded AS char(3)",
        f"CREATE TABLE customers (id bigint, value {sql})",
        "INSERT INTO customers VALUES (1, NULL)",
    )
    type_ = pa.list_(pa.string()) if "[" in sql else pa.string()
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    rows = [{"id": 1, "value": value}, {"id": 2, "value": value[:1]}]
    key = ("value",) if mode == "upsert" else ("id",)
    with pytest.raises(
        StoreError, match=r"'value' .* up to \d characters.* 1 row has a longer one"
    ) as raised:
        store.publish(publication(tmp_path, "run-1", rows, schema=schema, mode=mode, key=key), AT)
    assert raised.value.error_class == "data"
    assert "abc" not in str(raised.value)
    assert execute(postgres_url, "SELECT * FROM customers") == [(1, None)]


@pytest.mark.parametrize(
    ("sql", "type_", "value"),
    [
        ("numeric(5, 2)", pa.decimal128(6, 3), Decimal("1.005")),
        ("numeric(4, 1)[]", pa.list_(pa.decimal128(5, 2)), [Decimal("1.25")]),
        ("timestamp(0)", pa.timestamp("ms"), datetime(2026, 1, 1, 0, 0, 0, 1000)),
        ("time(4)", pa.time64("us"), time(1, 2, 3, 123456)),
        ("cents", pa.decimal128(6, 3), Decimal("1.005")),
    ],
)
def test_what_postgresql_would_round_is_kept_in_a_wider_column(
    store, postgres_url, tmp_path, sql, type_, value
):
    execute(
        postgres_url,
        "CREATE DOMAIN cents AS numeric(5, 2)",
        f"CREATE TABLE customers (id bigint PRIMARY KEY, value {sql})",
    )
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": value}], schema=schema), AT)
    assert execute(postgres_url, "SELECT value FROM customers") == [(value,)]


def test_a_trigger_that_refuses_is_not_quoted(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint, name text, amount numeric)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not %', NEW.name; END $$",
        "CREATE TRIGGER no BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION no()",
    )
    with pytest.raises(StoreError, match="trigger of the database refused it") as raised:
        store.publish(publication(tmp_path, "run-1", [customer(1, "secret")]), AT)
    assert "secret" not in str(raised.value)


FILTER = "CREATE FUNCTION filter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"


@pytest.mark.parametrize(
    ("event", "mode", "key", "words"),
    [
        ("INSERT", "append", 2, "1 row has not been inserted"),
        ("INSERT", "upsert", 2, "1 row has not been inserted"),
        ("INSERT", "replace", 2, "1 row has not been inserted"),
        ("UPDATE", "upsert", 1, "1 row has not been updated"),
        ("DELETE", "replace", 2, "2 rows have not been deleted"),
    ],
)
def test_a_trigger_that_leaves_rows_out_refuses_the_run(
    store, postgres_url, tmp_path, event, mode, key, words
):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint, name text, amount numeric) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF customers FOR VALUES FROM (0) TO (10)",
        # A key that is stored twice must not stand in for the row that is left out.
        "INSERT INTO customers VALUES (9, 'twice'), (9, 'twice')",
        f"INSERT INTO customers VALUES ({key}, 'old')" if event == "UPDATE" else "SELECT 1",
        FILTER,
        f"CREATE TRIGGER filter BEFORE {event} ON low FOR EACH ROW EXECUTE FUNCTION filter()",
    )
    before = names_in(postgres_url)
    run = publication(tmp_path, "run-1", [customer(key, "new")], mode=mode)
    with pytest.raises(StoreError, match=f"{words}: a trigger or rule of the table") as raised:
        store.publish(run, AT)
    assert raised.value.error_class == "data"
    assert names_in(postgres_url) == before
    execute(postgres_url, "DROP TRIGGER filter ON low")
    store.publish(run, AT)
    assert (key, "new") in names_in(postgres_url)


def test_a_row_left_out_is_not_made_up_for_by_a_stored_row_that_repeats_a_key(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint, name text, amount numeric)",
        "INSERT INTO customers VALUES (9, 'twice'), (9, 'twice')",
        FILTER,
        "CREATE TRIGGER filter BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION filter()",
    )
    with pytest.raises(StoreError, match="1 row has not been inserted"):
        store.publish(publication(tmp_path, "run-1", [customer(2, "new"), customer(9, "twice")]), AT)


def test_a_rule_that_leaves_rows_out_refuses_the_run(store, postgres_url, tmp_path):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    execute(postgres_url, "CREATE RULE keep AS ON DELETE TO customers DO INSTEAD NOTHING")
    with pytest.raises(StoreError, match="1 row has not been deleted"):
        store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")], mode="replace"), AT)


# What a table keeps.


def test_replace_keeps_grants_indexes_views_comments_and_references(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "DO $$ BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN END $$",
        "CREATE TABLE customers (id bigint PRIMARY KEY, name text DEFAULT 'x', amount numeric(12, 2))",
        "CREATE TABLE orders (customer bigint REFERENCES customers DEFERRABLE INITIALLY DEFERRED)",
        "CREATE INDEX by_name ON customers (name)",
        "CREATE VIEW names AS SELECT name FROM customers",
        "GRANT SELECT ON customers TO reader",
        "COMMENT ON TABLE customers IS 'ours'",
        "INSERT INTO customers VALUES (1, 'old', 1)",
        "INSERT INTO orders VALUES (1)",
    )
    rows = [customer(1, "new"), customer(2, "new")]
    run = publication(tmp_path, "run-1", rows, mode="replace", provenance=False)
    assert store.publish(run, AT).rows == PublishedRows(inserted=2, deleted=1)
    assert execute(postgres_url, "SELECT name FROM names") == [("new",), ("new",)]
    kept = (
        "SELECT has_table_privilege('reader', 'customers', 'SELECT'), obj_description('customers'::regclass)"
    )
    assert execute(postgres_url, kept) == [(True, "ours")]
    assert execute(postgres_url, "SELECT count(*) FROM pg_indexes WHERE tablename = 'customers'") == [(2,)]
    with pytest.raises(StoreError, match="foreign key"):
        store.publish(
            publication(tmp_path, "run-2", [customer(7, "x")], mode="replace", provenance=False), AT
        )


def test_replace_does_not_change_the_tables_that_refer_to_it(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint PRIMARY KEY, name text, amount numeric(12, 2), "
        "parent bigint REFERENCES customers ON DELETE CASCADE) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF customers FOR VALUES FROM (0) TO (10)",
        "INSERT INTO customers VALUES (1, 'old', 1)",
    )
    run = publication(tmp_path, "run-1", [customer(1, "new")], mode="replace")
    assert store.publish(run, AT).rows == PublishedRows(inserted=1, deleted=1)
    references = [
        ("CASCADE", "customers"),
        ("SET NULL", "customers"),
        ("SET DEFAULT", "customers DEFERRABLE INITIALLY DEFERRED"),
        ("CASCADE", "low"),
    ]
    for action, referred in references:
        target, _, deferred = referred.partition(" ")
        execute(
            postgres_url,
            f"CREATE TABLE orders (customer bigint CONSTRAINT fk REFERENCES {target} "
            f"ON DELETE {action} {deferred})",
            "INSERT INTO orders VALUES (1)",
        )
        again = publication(tmp_path, "run-2", [customer(1, "newer")], mode="replace")
        for act in (store.check, lambda run: store.publish(run, AT)):
            with pytest.raises(StoreError, match=f"'fk' of table orders is ON DELETE {action}") as raised:
                act(again)
            assert len(raised.value.problems) == 1
        assert execute(postgres_url, "SELECT customer FROM orders") == [(1,)]
        store.publish(publication(tmp_path, f"{action} {referred}", [customer(1, action)]), AT)
        assert names_in(postgres_url) == [(1, action)]
        execute(postgres_url, "DROP TABLE orders")


def test_a_table_made_for_upserts_has_an_index_on_the_key_and_still_takes_duplicates(
    store, postgres_url, tmp_path
):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], key=("id", "name")), AT)
    (index,) = execute(postgres_url, "SELECT indexdef FROM pg_indexes WHERE tablename = 'customers'")
    assert index[0].endswith("USING btree (id, name)")
    store.publish(publication(tmp_path, "run-2", [customer(1, "Ada")], mode="append"), AT)
    assert names_in(postgres_url) == [(1, "Ada"), (1, "Ada")]


def test_unchanged_rows_are_not_written(store, postgres_url, tmp_path):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada"), customer(2, "Bo")]), AT)
    before = execute(postgres_url, "SELECT id, xmin::text FROM customers ORDER BY id")
    store.publish(publication(tmp_path, "run-2", [customer(1, "Ada"), customer(2, "Cy")]), AT)
    after = execute(postgres_url, "SELECT id, xmin::text FROM customers ORDER BY id")
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_new_rows_that_cannot_be_filled_are_refused_and_changes_are_not(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint PRIMARY KEY, name text, amount numeric(12, 2), tier text NOT NULL)",
        "INSERT INTO customers VALUES (1, 'Ada', 1, 'gold')",
    )
    assert store.publish(publication(tmp_path, "run-1", [customer(1, "Bo")]), AT).rows.updated == 1
    with pytest.raises(StoreError, match="'tier' of the table is NOT NULL without a default"):
        store.publish(publication(tmp_path, "run-2", [customer(2, "Cy")]), AT)


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_view_that_keeps_a_column_from_being_widened_is_named(store, postgres_url, tmp_path, kind):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    execute(postgres_url, f"CREATE {kind} totals AS SELECT sum(amount) FROM customers")
    wide = CUSTOMERS.set(2, pa.field("amount", pa.decimal128(14, 2)))
    run = publication(tmp_path, "run-2", [customer(1, "Bo")], schema=wide)
    for act in (store.check, lambda run: store.publish(run, AT)):
        with pytest.raises(StoreError, match="view totals reads it"):
            act(run)
    execute(postgres_url, f"DROP {kind} totals")
    store.publish(run, AT)
    assert types_of(postgres_url)["amount"] == "numeric(14,2)"


def test_what_only_shows_when_a_column_is_widened_is_told_then(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint, name text, amount numeric(12, 2), "
        "twice numeric GENERATED ALWAYS AS (amount * 2) STORED)",
    )
    wide = CUSTOMERS.set(2, pa.field("amount", pa.decimal128(14, 2)))
    with pytest.raises(StoreError, match=r'column "twice"'):
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], schema=wide), AT)
    assert "_ecm_run_id" not in types_of(postgres_url)


def test_views_are_refused(store, postgres_url, tmp_path):
    execute(postgres_url, "CREATE VIEW customers AS SELECT 1 AS id")
    with pytest.raises(StoreError, match="it is a view"):
        store.check(publication(tmp_path, "run-1"))


def test_partitioned_tables_are_published_to(store, postgres_url, tmp_path):
    execute(
        postgres_url,
        "CREATE TABLE customers (id bigint, name text, amount numeric(12, 2)) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF customers FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF customers FOR VALUES FROM (10) TO (99)",
    )
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada"), customer(11, "Bo")]), AT)
    marker = store.publish(publication(tmp_path, "run-2", [customer(11, "Cy"), customer(12, "Di")]), AT)
    assert marker.rows == PublishedRows(inserted=1, updated=1)
    assert names_in(postgres_url) == [(1, "Ada"), (11, "Cy"), (12, "Di")]


# Rights.


@pytest.fixture
def guest(postgres: PostgresServer, postgres_url: str) -> str:
    """The URL for a role that owns nothing."""
    execute(
        postgres.url(),
        "DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
    )
    return postgres_url.replace("postgres@", "guest@")


def test_a_role_with_rights_and_nothing_of_its_own_publishes(postgres_url, guest, tmp_path):
    open_store(postgres_url).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    execute(
        postgres_url,
        "GRANT USAGE, CREATE ON SCHEMA public TO guest",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest",
    )
    store = open_store(guest)
    store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
    store.publish(publication(tmp_path, "run-3", [customer(1, "Cy")], mode="replace"), AT)
    assert names_in(postgres_url) == [(1, "Cy")]
    wide = CUSTOMERS.append(pa.field("tier", pa.string()))
    with pytest.raises(StoreError, match="does not own the table, so it cannot add or change 'tier'"):
        store.check(publication(tmp_path, "run-4", schema=wide))


def test_missing_rights_are_named(postgres_url, guest, tmp_path):
    with pytest.raises(StoreError, match="permission denied for schema public") as raised:
        open_store(guest).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    assert raised.value.error_class == "permanent"
    open_store(postgres_url).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    execute(postgres_url, "GRANT USAGE, CREATE ON SCHEMA public TO guest")
    with pytest.raises(StoreError, match="permission denied for table _ecmbatch_publications"):
        open_store(guest).publish(publication(tmp_path, "run-2", [customer(1, "Ada")]), AT)


def test_rows_that_a_policy_hides_are_not_published_over(postgres_url, guest, tmp_path):
    execute(postgres_url, "GRANT USAGE, CREATE ON SCHEMA public TO guest")
    store = open_store(guest)
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada"), customer(2, "Bo")]), AT)
    execute(
        postgres_url,
        "ALTER TABLE customers ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY hiding ON customers USING (id <> 1) WITH CHECK (true)",
    )
    # The owner is exempt.
    store.publish(publication(tmp_path, "run-2", [customer(1, "Cy")]), AT)
    execute(
        postgres_url,
        "ALTER TABLE customers FORCE ROW LEVEL SECURITY",
        "ALTER TABLE _ecmbatch_heads ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE _ecmbatch_heads FORCE ROW LEVEL SECURITY",
    )
    refused: list[Callable[[], Any]] = [
        lambda: store.publish(publication(tmp_path, "run-3", [customer(1, "Di")]), AT),
        lambda: store.publish(publication(tmp_path, "run-4", [customer(1, "Di")], mode="replace"), AT),
        lambda: store.table("customers"),
        lambda: store.head("customers-sync", "customers", "live"),
    ]
    for act in refused:
        with pytest.raises(StoreError, match="row-level security policy for table") as raised:
            act()
        assert raised.value.error_class == "permanent"
        assert "BYPASSRLS" in (raised.value.hint or "")
    assert names_in(postgres_url) == [(1, "Cy"), (2, "Bo")]


# Others in the database at the same time.


def test_readers_see_the_old_rows_until_the_commit(store, postgres_url, tmp_path):
    store.publish(publication(tmp_path, "run-1", [customer(number, "old") for number in range(3)]), AT)
    counts: list[tuple[Any, ...]] = []

    def look() -> None:
        with psycopg.connect(postgres_url, autocommit=True, options="-c lock_timeout=2s") as reader:
            counts.extend(reader.execute("SELECT count(*), min(name) FROM customers").fetchall())

    rows = [customer(number, "new") for number in range(5)]
    with at_point("publish.before_commit", look):
        store.publish(publication(tmp_path, "run-2", rows, mode="replace"), AT)
    look()
    assert counts == [(3, "old"), (5, "new")]


@pytest.mark.slow
def test_a_reader_that_polls_sees_only_the_old_or_the_new_count(store, postgres_url, tmp_path):
    counts: list[int] = []
    over = threading.Event()

    def poll() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as reader:
            while not over.wait(0.005):
                counts.extend(row[0] for row in reader.execute("SELECT count(*) FROM customers").fetchall())

    def run(number: int, rows: int) -> None:
        staged = [customer(place, f"run {number}") for place in range(rows)]
        store.publish(publication(tmp_path, f"run-{number}", staged, mode="replace"), AT)

    run(0, 4000)
    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for number in range(1, 7):
            run(number, 9000 if number % 2 else 4000)
    finally:
        over.set()
        reader.join()
    assert set(counts) == {4000, 9000}


@pytest.mark.slow
@pytest.mark.parametrize("constraint", ["", ", PRIMARY KEY (id)"])
def test_two_runs_that_upsert_one_table_at_once_both_succeed(postgres_url, tmp_path, constraint):
    execute(postgres_url, f"CREATE TABLE customers (id bigint, name text, amount numeric(12, 2){constraint})")
    start = threading.Barrier(2)

    def upsert(job: int) -> None:
        store = open_store(postgres_url)
        for number in range(4):
            # Every other key is the other's too, in the opposite order.
            rows = [customer(key * (job + 1), f"job {job}") for key in range(300)][:: 1 - 2 * job]
            run = publication(tmp_path / str(job), f"run-{job}-{number}", rows, job_id=f"job-{job}")
            start.wait()
            store.publish(run, AT)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(upsert, range(2)))
    ids = [row[0] for row in execute(postgres_url, "SELECT id FROM customers")]
    assert sorted(ids) == sorted({*range(300), *range(0, 600, 2)})


def test_the_version_is_compared_after_those_before_have_committed(postgres_url, tmp_path):
    open_store(postgres_url).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    stale = publication(tmp_path, "run-3", [customer(1, "stale")], mode="replace", expected_version=1)
    with ThreadPoolExecutor(1) as pool:
        late: list[Any] = []

        def start_the_other() -> None:
            late.append(pool.submit(open_store(postgres_url).publish, stale, AT))
            wait_until_somebody_waits(postgres_url)

        with at_point("publish.before_commit", start_the_other):
            open_store(postgres_url).publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
        with pytest.raises(Superseded):
            late[0].result()
    assert names_in(postgres_url) == [(1, "Bo")]


def wait_until_somebody_waits(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            pass


def test_a_commit_of_a_dead_predecessor_that_lands_late_is_waited_for(postgres_url, tmp_path):
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append", live=True)
    with ThreadPoolExecutor(1) as pool:
        late: list[Any] = []

        def start_the_successor() -> None:
            late.append(pool.submit(open_store(postgres_url).publish, run, AT))
            wait_until_somebody_waits(postgres_url)

        with at_point("publish.before_commit", start_the_successor):
            first = open_store(postgres_url).publish(run, AT)
        assert late[0].result() == first
    assert names_in(postgres_url) == [(1, "Ada")]


def test_a_marker_that_another_transaction_inserts_first_is_waited_for(store, postgres_url, tmp_path):
    """Without the lock that runs of this version take: the primary key alone is enough."""
    store.abandon("run-0", AT)
    run = publication(tmp_path, "run-1", [customer(1, "Ada")])
    with psycopg.connect(postgres_url) as predecessor, ThreadPoolExecutor(1) as pool:
        predecessor.execute(
            "INSERT INTO _ecmbatch_publications (run_id, outcome, manifest, inserted, published_at) "
            "VALUES ('run-1', 'published', 'm', 7, now())"
        )
        late = pool.submit(store.publish, run, AT)
        wait_until_somebody_waits(postgres_url)
        predecessor.commit()
        assert late.result().rows == PublishedRows(inserted=7)
    assert store.table("customers") is None


def test_waiting_in_vain_names_who_is_waited_for(postgres_url, tmp_path):
    told: list[str] = []
    open_store(postgres_url).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    store = open_store(postgres_url, busy_timeout="1 second", tell=told.append)
    run = publication(tmp_path, "run-2", [customer(1, "Bo")])
    with psycopg.connect(postgres_url, application_name="a notebook") as holder:
        holder.execute("INSERT INTO customers (id) VALUES (9)")
        name = f"session {holder.info.backend_pid} \\(a notebook, user postgres\\)"
        with pytest.raises(StoreBusy, match=f"{name} holds a lock"):
            store.publish(run, AT)
        holder.rollback()
    (sentence,) = told
    assert "a notebook" in sentence
    assert "waiting up to 1 s" in sentence
    assert store.publish(run, AT).rows == PublishedRows(updated=1)


# Sessions that are lost.


def pids(url: str, run_id: str) -> list[int]:
    return [
        row[0]
        for row in execute(
            url, f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ecmbatch {run_id}%'"
        )
    ]


def end_sessions(url: str, run_id: str) -> None:
    for pid in pids(url, run_id):
        execute(url, f"SELECT pg_terminate_backend({pid}, 5000)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["publish.marker", "publish.head", "publish.fold", "publish.apply", "publish.before_commit"]
)
def test_a_session_that_is_ended_may_be_tried_again(store, postgres_url, tmp_path, point):
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append", live=True)
    with (
        at_point(point, lambda: end_sessions(postgres_url, "run-1")),
        pytest.raises(Unreachable, match="nothing was published"),
    ):
        store.publish(run, AT)
    assert store.marker("run-1") is None
    assert execute(postgres_url, "SELECT count(*) FROM pg_tables WHERE tablename ~ '^_ecmbatch_stage'") == [
        (0,)
    ]
    assert store.publish(run, AT).rows == PublishedRows(inserted=1)


def test_a_worker_that_stands_still_does_not_block_its_successor_for_ever(
    store, postgres_url, tmp_path, monkeypatch
):
    limit = sql.SET_UP_SESSION.replace("'60s'", "'50ms'")
    assert limit != sql.SET_UP_SESSION
    monkeypatch.setattr(sql, "SET_UP_SESSION", limit)
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append", live=True)
    markers: list[Any] = []

    def stand_still() -> None:
        monkeypatch.undo()
        while pids(postgres_url, "run-1"):
            pass
        markers.append(open_store(postgres_url).publish(run, AT))

    with at_point("publish.before_commit", stand_still), pytest.raises(Unreachable):
        store.publish(run, AT)
    assert store.publish(run, AT) == markers[0]
    assert names_in(postgres_url) == [(1, "Ada")]


def test_a_session_that_is_ended_while_rows_are_loaded_may_be_tried_again(
    store, postgres_url, tmp_path, monkeypatch
):
    from ecmbatch.stores import postgres_staging

    run = publication(tmp_path, "run-1", [customer(1, "Ada")], [customer(2, "Bo")], mode="append")
    read = postgres_staging._read

    def ended_at_the_second_file(file):
        if file == run.files[1]:
            end_sessions(postgres_url, "run-1 load")
        return read(file)

    monkeypatch.setattr(postgres_staging, "_read", ended_at_the_second_file)
    with pytest.raises(Unreachable):
        store.publish(run, AT)
    monkeypatch.undo()
    assert store.publish(run, AT).rows == PublishedRows(inserted=2)


# What is left behind.


def staging_tables(url: str) -> list[str]:
    return [
        row[0] for row in execute(url, "SELECT tablename FROM pg_tables WHERE tablename ~ '^_ecmbatch_stage'")
    ]


def test_nothing_is_left_behind_whatever_happens(store, postgres_url, tmp_path):
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    with pytest.raises(StoreError):
        store.publish(publication(tmp_path, "run-2", [customer(None, "Ada")]), AT)
    with crash_at("publish.apply"), pytest.raises(SimulatedCrash):
        store.publish(publication(tmp_path, "run-3", [customer(1, "Bo")]), AT)
    assert staging_tables(postgres_url) == []


def test_only_what_nobody_uses_is_left_over(store, postgres_url, tmp_path):
    seen: list[Any] = []

    def look() -> None:
        seen.append((staging_tables(postgres_url), list(store.leftovers())))
        seen.append(store.remove_leftover(staging_tables(postgres_url)[0]))

    with at_point("publish.before_commit", look):
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    ((tables, leftovers), removed) = seen
    assert (len(tables), leftovers, removed) == (1, [], False)
    assert names_in(postgres_url) == [(1, "Ada")]
    execute(
        postgres_url,
        "CREATE UNLOGGED TABLE _ecmbatch_stage_x (id int)",
        "COMMENT ON TABLE _ecmbatch_stage_x IS 'run-7'",
        "CREATE TABLE _ecmbatch_stage_mine (id int)",
    )
    (leftover,) = store.leftovers()
    assert (leftover.name, leftover.run_id) == ("_ecmbatch_stage_x", "run-7")
    assert store.remove_leftover(leftover.name)
    assert not store.remove_leftover("customers")
    assert staging_tables(postgres_url) == ["_ecmbatch_stage_mine"]
    assert names_in(postgres_url) == [(1, "Ada")]


def test_a_type_with_a_percent_sign_in_its_name_is_taken(postgres_url, tmp_path):
    execute(postgres_url, "CREATE TYPE \"en%um\" AS ENUM ('Ada', 'Bob')")
    execute(postgres_url, 'CREATE TABLE customers (id bigint, name "en%um", amount numeric(12, 2))')
    store = open_store(postgres_url)
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    store.publish(publication(tmp_path, "run-2", [customer(1, "Bob")]), AT)
    assert execute(postgres_url, "SELECT id, name::text FROM customers") == [(1, "Bob")]


def test_a_role_whose_statements_may_not_take_long_is_told(postgres_url, tmp_path):
    rows = [customer(number, "Ada" * 100) for number in range(20_000)]
    short = f"{postgres_url}&options=-cstatement_timeout%3D1ms"
    with pytest.raises(StoreError) as raised:
        open_store(short).publish(publication(tmp_path, "run-1", rows), AT)
    assert (raised.value.error_class, "statement_timeout" in str(raised.value.hint)) == ("permanent", True)
