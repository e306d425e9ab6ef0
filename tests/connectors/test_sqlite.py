"""What the SQLite connector promises beyond the contract suite."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from ecmbatch.connectors import sqlite_database
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.sqlite import SQLITE, SQLiteConnector
from ecmbatch.connectors.sqlite_columns import affinity_of, declared_kind
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError, Unreachable
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
)
from ecmbatch.protocol.scalars import Scalar
from ecmbatch.testing.connector_contract import read_all

TABLE = ReadRequest(table="t")
SECRET = "a value that no message repeats"


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@contextmanager
def connected(folder: Path, **settings: object) -> Iterator[SQLiteConnector]:
    connector = SQLITE.build(SQLITE.parse_config({"path": "s.db", **settings}), folder)
    assert isinstance(connector, SQLiteConnector)
    try:
        yield connector
    finally:
        connector.close()


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[SQLiteConnector]:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, at DATETIME)",
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) "
        "INSERT INTO t SELECT i, 'user' || i, datetime(i, 'unixepoch') FROM n",
        "CREATE VIEW v AS SELECT id, name FROM t",
        "CREATE VIEW today AS SELECT id, datetime('now') AS at FROM t",
    )
    with connected(tmp_path) as connector:
        yield connector


def read_rows(connector: SQLiteConnector, request: ReadRequest) -> list[dict[str, Any]]:
    return [
        row
        for scan in connector.plan(request).scans
        for scanned in read_all(connector, request, scan)
        for row in scanned.batch.to_pylist()
    ]


def refusal(connector: SQLiteConnector, request: ReadRequest) -> str:
    with pytest.raises(SourceError) as raised:
        read_rows(connector, request)
    return f"{raised.value} | {raised.value.hint}"


# --- opening ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    with connected(tmp_path) as connector, pytest.raises(SourceError, match=r"no SQLite file .*s\.db"):
        connector.plan(TABLE)
    assert not (tmp_path / "s.db").exists()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"something else, and long enough to be looked at" * 400)
    with connected(tmp_path) as connector, pytest.raises(SourceError, match=r"s\.db cannot be opened"):
        connector.ping()


def test_paths_may_have_any_characters(tmp_path: Path) -> None:
    write(tmp_path / "a b?c#d%20.db", "CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")
    with connected(tmp_path, path="a b?c#d%20.db") as connector:
        assert read_rows(connector, TABLE) == [{"id": 1}]


def test_a_file_that_is_being_changed_is_unreachable_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "BUSY_SECONDS", 0.0)
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER)")
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with connected(tmp_path) as connector, pytest.raises(Unreachable) as raised:
            connector.plan(TABLE)
    assert raised.value.error_class == "transient"


def test_a_scan_of_a_database_in_wal_mode_reads_one_state_while_others_write(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "PRAGMA journal_mode = WAL")
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1), (2), (3)")
    with connected(tmp_path) as connector:
        request = replace(TABLE, batch_rows=1)
        (scan,) = connector.plan(request).scans
        with connector.read(request, scan, None) as batches:
            first = next(batches)
            write(tmp_path / "s.db", "INSERT INTO t VALUES (4)")
            assert first.batch.num_rows + sum(each.batch.num_rows for each in batches) == 3
        assert len(read_rows(connector, TABLE)) == 4


def test_rows_that_move_between_ranges_while_they_are_read_are_read_once(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "PRAGMA journal_mode = WAL")
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2), (3), (4)",
    )
    ranges = RangePartitions(key="id", bounds=(3,), shown=("3",))
    request = replace(TABLE, partitioning=ranges, batch_rows=1)
    with connected(tmp_path) as connector:
        found = []
        for scan in connector.plan(request).scans:
            with connector.read(request, scan, None) as batches:
                found += next(batches).batch.column(0).to_pylist()
                write(tmp_path / "s.db", "UPDATE t SET id = 5 - id + 10", "UPDATE t SET id = id - 10")
                found += [row["id"] for each in batches for row in each.batch.to_pylist()]
    assert found == [1, 2, 3, 4]


def test_a_window_leaves_out_what_writers_may_still_commit(numbers: SQLiteConnector) -> None:
    before = datetime.now(UTC)
    bound = numbers.window_bound()
    assert before <= bound.at <= datetime.now(UTC)
    assert bound.lag == timedelta(minutes=5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": ""},
        {"path": "a", "max_connections": 0},
        {"path": "a", "columns": {"id": "integer"}},
        {"path": "a", "mode": "rw"},
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        SQLITE.parse_config(settings)
    assert raised.value.problems


# --- what a query may do ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "DELETE FROM t RETURNING *",
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "INSERT INTO t VALUES (1000, 'x', NULL)",
        "CREATE TEMP TABLE x AS SELECT 1",
        "DROP TABLE t",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "PRAGMA user_version = 7",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT writefile('other.db', 'x')",
        "SELECT readfile('s.db')",
        "SELECT fts3_tokenizer('simple')",
        "EXPLAIN SELECT 1",
        "BEGIN",
    ],
)
def test_a_query_can_only_read_the_file(numbers: SQLiteConnector, tmp_path: Path, query: str) -> None:
    before = (tmp_path / "s.db").read_bytes()
    with pytest.raises(SourceError):
        read_rows(numbers, ReadRequest(query=query))
    assert (tmp_path / "s.db").read_bytes() == before
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    "query",
    ["SELECT 1; DELETE FROM t", "SELECT 1;", "SELECT 1) AS s, (SELECT 2", "SELECT 1) --", "", "SELECT ?"],
)
def test_a_query_that_is_not_one_statement_is_refused(numbers: SQLiteConnector, query: str) -> None:
    with pytest.raises(InvalidDocument):
        numbers.plan(ReadRequest(query=query))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t -- a comment",
        "/* first */ SELECT id FROM v",
        "WITH x AS (SELECT * FROM t LIMIT 1000) SELECT id FROM x",
        "(SELECT id FROM t)",
        "SELECT id FROM t ORDER BY name",
        "SELECT id FROM t WHERE name <> ':not ''a parameter' AND id >= :least",
        "SELECT CAST(value AS INTEGER) AS id FROM json_each((SELECT json_group_array(id) FROM t))",
        "WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 99) SELECT id FROM n",
    ],
)
def test_plain_queries_are_read(numbers: SQLiteConnector, query: str) -> None:
    request = ReadRequest(
        query=query, partitioning=HashPartitions(key="id", count=3), parameters={"least": 0}
    )
    assert sorted(row["id"] for row in read_rows(numbers, request)) == list(range(100))


def test_parameters_are_bound_and_times_are_texts_in_utc(numbers: SQLiteConnector) -> None:
    parameters: dict[str, Scalar] = {
        "a": 5,
        "b": "'; DROP TABLE t; --",
        "c": datetime(2024, 1, 2, 3, tzinfo=UTC),
        "d": Decimal("1.5"),
        "e": date(2024, 1, 2),
        "f": b"\0\xff",
        "g": True,
        "h": UUID(int=7),
        "i": time(1, 2),
        "j": None,
    }
    query = f"SELECT {', '.join(f':{name} AS {name}' for name in parameters)}, :b || :b AS twice"
    (row,) = read_rows(numbers, ReadRequest(query=query, parameters=parameters))
    assert row == {
        **parameters,
        "c": "2024-01-02 03:00:00",
        "d": 1.5,
        "e": "2024-01-02",
        "g": 1,
        "h": str(UUID(int=7)),
        "i": "01:02:00",
        "twice": "'; DROP TABLE t; --" * 2,
    }


def test_a_parameter_that_sqlite_would_round_is_refused(numbers: SQLiteConnector) -> None:
    request = ReadRequest(query="SELECT :d AS d", parameters={"d": Decimal("1.00000000000000000001")})
    assert "more digits" in refusal(numbers, request)
    assert "cannot hold" in refusal(numbers, replace(request, parameters={"d": 2**70}))


# --- what is refused when it is planned ------------------------------------------------------------------


def test_an_unknown_table_is_named_with_a_near_one(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE customers (id INTEGER)")
    with connected(tmp_path) as connector:
        assert "no table or view 'custmers' | did you mean 'customers'" in refusal(
            connector, ReadRequest(table="custmers")
        )
        assert read_rows(connector, ReadRequest(table="main.Customers")) == []


def test_bad_sql_is_shown_as_sqlite_says_it(numbers: SQLiteConnector) -> None:
    assert "no such column: nam" in refusal(numbers, ReadRequest(query="SELECT nam FROM t"))
    assert "syntax error" in refusal(numbers, ReadRequest(query="SELECT FROM t"))


@pytest.mark.parametrize(
    "query", ["SELECT id, id FROM t", "SELECT id, name AS ID FROM t", "SELECT 1 AS _ecm_x"]
)
def test_duplicate_and_reserved_names_are_refused(numbers: SQLiteConnector, query: str) -> None:
    assert "source has" in refusal(numbers, ReadRequest(query=query))


def test_limit_is_refused_with_several_partitions_and_not_resumed_with_one(numbers: SQLiteConnector) -> None:
    request = ReadRequest(query="SELECT id FROM t LIMIT 5", order_by="id")
    (scan,) = numbers.plan(request).scans
    assert (scan.resume, "LIMIT" in scan.reason) == ("none", True)
    request = replace(request, partitioning=HashPartitions(key="id", count=2))
    assert "LIMIT" in refusal(numbers, request)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, random() AS r FROM t",
        "SELECT id FROM t WHERE at < CURRENT_TIMESTAMP",
        "SELECT id FROM t WHERE at < datetime('now', '-1 day')",
        "SELECT id FROM t WHERE at < datetime()",
        "SELECT id, strftime('%s') AS now FROM t",
        "SELECT id FROM t WHERE at < datetime(:when)",
        "SELECT * FROM today",
    ],
)
def test_a_query_that_differs_each_time_is_read_from_its_start(numbers: SQLiteConnector, query: str) -> None:
    request = ReadRequest(query=query, order_by="id", parameters={"when": "NOW"})
    (scan,) = numbers.plan(request).scans
    assert (scan.resume, "other values each time" in scan.reason) == ("none", True)


def test_time_functions_of_columns_do_not_differ_each_time(numbers: SQLiteConnector) -> None:
    query = "SELECT id, date(at) AS day, strftime('%Y', at) AS year FROM t WHERE name <> 'now and then'"
    (scan,) = numbers.plan(ReadRequest(query=query, order_by="id")).scans
    assert scan.resume == "cursor"


def test_the_tables_behind_a_view_are_known(numbers: SQLiteConnector) -> None:
    plan = numbers.plan(ReadRequest(query="SELECT count(*) AS n FROM v"))
    assert plan.tables == ("main.t",)


# --- types -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", pa.int64()),
        ("unsigned big int", pa.int64()),
        ("VARCHAR(20)", pa.string()),
        ("clob", pa.string()),
        ("UUID", pa.string()),
        ("json", pa.string()),
        ("BLOB", pa.binary()),
        ("double precision", pa.float64()),
        ("FLOAT", pa.float64()),
        ("Boolean", pa.bool_()),
        ("date", pa.date32()),
        ("TIME", pa.time64("us")),
        ("datetime", pa.timestamp("us")),
        ("TIMESTAMP(6)", pa.timestamp("us")),
        ("timestamp  with time zone", pa.timestamp("us", "UTC")),
        ("TIMESTAMP(6) WITH TIME ZONE", pa.timestamp("us", "UTC")),
        ("DECIMAL(10, 2)", pa.decimal128(10, 2)),
        ("numeric(5)", pa.decimal128(5, 0)),
        ("NUMERIC", None),
        ("DECIMAL(99, 2)", None),
        ("STRING", None),
        ("", None),
    ],
)
def test_declared_types_mean_what_they_say(declared: str, kind: pa.DataType | None) -> None:
    assert declared_kind(declared) == kind


def test_affinities_are_those_of_sqlite() -> None:
    for declared in (
        "INT",
        "CHARINT",
        "TEXT",
        "BLOB",
        "",
        "REAL",
        "FLOATING",
        "DOUBLE",
        "DECIMAL(10,5)",
        "X",
    ):
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute(f"CREATE TABLE t (a {declared})")
            database.execute("INSERT INTO t VALUES ('500.5')")
            database.execute("INSERT INTO t VALUES ('500')")
            found = tuple(row[0] for row in database.execute("SELECT typeof(a) FROM t"))
        assert (
            found
            == {
                "INTEGER": ("real", "integer"),
                "NUMERIC": ("real", "integer"),
                "REAL": ("real", "real"),
                "TEXT": ("text", "text"),
                "BLOB": ("text", "text"),
            }[affinity_of(declared)]
        )


def test_values_come_as_their_columns_declare_them(tmp_path: Path) -> None:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (i INT, d DECIMAL(12, 2), b BOOLEAN, day DATE, at TIMESTAMP, zoned TIMESTAMPTZ, t TIME, "
        "x BLOB, f REAL, u UUID)",
        "INSERT INTO t VALUES (9223372036854775807, '1234567890.10', 1, '2024-01-31', '2024-01-31T10:00:00.25', "
        "'2024-01-31 10:00:00+02:00', '23:59:59', x'00ff', 7, '00000000-0000-0000-0000-000000000007')",
        "INSERT INTO t VALUES (NULL, 5, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    query = ReadRequest(query="SELECT *, i AS again FROM t WHERE :n = 1", parameters={"n": 1})
    with connected(tmp_path) as connector:
        first, second = read_rows(connector, TABLE)
        assert first == {
            "i": 2**63 - 1,
            "d": Decimal("1234567890.10"),
            "b": True,
            "day": date(2024, 1, 31),
            "at": datetime(2024, 1, 31, 10, 0, 0, 250_000),
            "zoned": datetime(2024, 1, 31, 8, tzinfo=UTC),
            "t": time(23, 59, 59),
            "x": b"\0\xff",
            "f": 7.0,
            "u": str(UUID(int=7)),
        }
        assert (second["d"], second["b"], second["day"]) == (Decimal("5.00"), False, None)
        assert read_rows(connector, query)[0] == {**first, "again": first["i"]}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("INTEGER", "'hello'"),
        ("INTEGER", "1.5"),
        ("INTEGER", "x'01'"),
        ("TEXT", "x'6162'"),
        ("BLOB", "'hello'"),
        ("REAL", "'hello'"),
        ("BOOLEAN", "2"),
        ("BOOLEAN", "'true'"),
        ("DATE", "1706659200"),
        ("DATE", "2460340.5"),
        ("DATE", "'2024-01-31 00:00:00'"),
        ("DATE", "'31.01.2024'"),
        ("DATETIME", "1706659200"),
        ("DATETIME", "'2024-02-07'"),
        ("DATETIME", "'2024-01-31 10:00'"),
        ("DATETIME", "'2024-01-31T10:00:00Z'"),
        ("TIMESTAMPTZ", "'2024-01-31T10:00:00'"),
        ("TIME", "'24:00:00'"),
        ("DECIMAL(5, 2)", "0.1 + 0.2"),
        ("DECIMAL(5, 2)", "12345"),
        ("DECIMAL(5, 2)", "9e999"),
        ("UUID", "7"),
        ("JSON", "7"),
    ],
)
def test_a_value_that_does_not_fit_names_its_column_and_a_cast(
    tmp_path: Path, declared: str, value: str
) -> None:
    write(tmp_path / "s.db", f"CREATE TABLE t (odd {declared})", f"INSERT INTO t VALUES (NULL), ({value})")
    with connected(tmp_path) as connector:
        message = refusal(connector, TABLE)
    assert "column 'odd' is read as" in message
    assert "cast" in message
    assert value.strip("'") not in message.partition("|")[0]


def test_whole_numbers_that_a_float_cannot_hold_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (n)", "INSERT INTO t VALUES (9007199254740993), (0.5)")
    with connected(tmp_path) as connector:
        assert "read as float64, and a row has" in refusal(connector, TABLE)


def test_computed_columns_have_the_type_of_their_cast_or_of_their_values(numbers: SQLiteConnector) -> None:
    query = (
        "SELECT CAST(name AS INTEGER) AS i, CAST(id AS REAL) AS f, CAST(id AS TEXT) AS s, id + 1 AS i2, "
        "id / 2.0 AS f2, CASE WHEN id < 50 THEN id ELSE id + 0.5 END AS f3, upper(name) AS s2, "
        "CAST(name AS BLOB) AS x, NULL AS no "
        "FROM t WHERE id >= :least"
    )
    request = ReadRequest(query=query, parameters={"least": 10})
    assert numbers.plan(request).schema == pa.schema(
        [
            ("i", pa.int64()),
            ("f", pa.float64()),
            ("s", pa.string()),
            ("i2", pa.int64()),
            ("f2", pa.float64()),
            ("f3", pa.float64()),
            ("s2", pa.string()),
            ("x", pa.binary()),
            ("no", pa.null()),
        ]
    )
    assert len(read_rows(numbers, request)) == 90
    # Without rows nothing is known of what is computed: it fits any column of a store.
    empty = numbers.plan(replace(request, parameters={"least": 1000})).schema
    assert (empty.field("i").type, empty.field("i2").type) == (pa.int64(), pa.null())


def test_types_that_values_told_hold_for_the_whole_run(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER, n)", "INSERT INTO t VALUES (1, 1)")
    request = replace(TABLE, order_by="id")
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(request).scans
        write(tmp_path / "s.db", "INSERT INTO t VALUES (2, 'two')")
        with pytest.raises(SourceError, match="column 'n' is read as int64, and a row has a text"):
            read_all(connector, request, scan)


def test_values_of_several_kinds_need_a_cast_or_a_declared_type(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (n)", "INSERT INTO t VALUES (1), ('two')")
    with connected(tmp_path) as connector:
        assert "integer and text | cast it" in refusal(connector, TABLE)
        cast = ReadRequest(query="SELECT CAST(n AS TEXT) AS n FROM t")
        assert read_rows(connector, cast) == [{"n": "1"}, {"n": "two"}]


def test_declared_columns_win(tmp_path: Path) -> None:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (id, amount TEXT, at)",
        "INSERT INTO t VALUES (1, '1.10', 1706659200)",
    )
    columns = {"id": "int32", "amount": "decimal(38, 2)", "at": "timestamp", "other": "date"}
    query = "SELECT id, amount, datetime(at, 'unixepoch') AS at FROM t"
    with connected(tmp_path, columns=columns) as connector:
        assert read_rows(connector, ReadRequest(query=query)) == [
            {"id": 1, "amount": Decimal("1.10"), "at": datetime(2024, 1, 31)}
        ]


def test_a_text_that_is_not_utf8_is_not_shown(tmp_path: Path) -> None:
    write(
        tmp_path / "s.db",
        "CREATE TABLE t (s TEXT)",
        f"INSERT INTO t VALUES ('{SECRET}' || CAST(x'ff' AS TEXT))",
    )
    with connected(tmp_path) as connector:
        message = refusal(connector, TABLE)
    assert "not UTF-8" in message
    assert SECRET not in message


def test_an_error_in_the_middle_does_not_show_values(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (s TEXT)", f"INSERT INTO t VALUES ('{SECRET}')")
    with connected(tmp_path) as connector:
        message = refusal(connector, ReadRequest(query="SELECT json_extract('{}', s) AS x FROM t"))
    assert "may hold values" in message
    assert SECRET not in message


# --- order, ranges and lists -----------------------------------------------------------------------------


def test_times_of_several_spellings_are_in_the_order_of_time(tmp_path: Path) -> None:
    spelled = [
        "2024-01-01T09:00:00",
        "2024-01-01 10:00:00",
        "2024-01-01T10:00:00.000",
        "2024-01-01 10:00:00.5",
        "2024-01-01T10:00:00.500001",
        "2024-01-01 11:00:00",
    ]
    rows = ", ".join(f"('{text}', {number})" for number, text in enumerate(spelled))
    write(tmp_path / "s.db", "CREATE TABLE t (at DATETIME, n INTEGER)", f"INSERT INTO t VALUES {rows}")
    request = replace(TABLE, order_by="at", batch_rows=1)
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        assert [each.batch["n"][0].as_py() for each in whole] == list(range(6))
        for stop, scanned in enumerate(whole):
            if scanned.cursor is not None:
                assert len(read_all(connector, request, scan, scanned.cursor)) == 5 - stop


def test_texts_in_another_encoding_are_read_once_too(tmp_path: Path) -> None:
    keys = ["a", "ä", "Ā", "z", "\U00010000", "\uff00", ""]
    with closing(sqlite3.connect(tmp_path / "s.db")) as database, database:
        database.execute("PRAGMA encoding = 'UTF-16le'")
        database.execute("CREATE TABLE t (k TEXT PRIMARY KEY)")
        database.executemany("INSERT INTO t VALUES (?)", [(key,) for key in keys])
    ranges = RangePartitions(key="k", bounds=("a", "ä", "\uff00"), shown=("", "", ""), ordered=True)
    request = replace(TABLE, partitioning=ranges)
    with connected(tmp_path) as connector:
        plan = connector.plan(request)
        found = [
            [row["k"] for each in read_all(connector, request, scan) for row in each.batch.to_pylist()]
            for scan in plan.scans
        ]
    assert [set(each) for each in found] == [{""}, {"a", "z"}, {"ä", "Ā"}, {"\uff00", "\U00010000"}]


@pytest.mark.parametrize(
    ("partitioning", "scans"),
    [
        (HashPartitions(key="id", count=40), 1),
        (RangePartitions(key="id", bounds=tuple(range(1, 20)), shown=tuple("x" * 19)), 1),
        (ListPartitions(key="id", names=("a", "b"), groups=((1,), (2,)), default="c"), 1),
        (RangePartitions(key="name", bounds=("m",), shown=("m",)), 1),
        (RangePartitions(key="name", bounds=("m",), shown=("m",), ordered=True), 2),
    ],
)
def test_one_scan_reads_all_unless_ranges_are_ordered(
    numbers: SQLiteConnector, partitioning: Partitions, scans: int
) -> None:
    assert len(numbers.plan(replace(TABLE, partitioning=partitioning)).scans) == scans


def test_a_statement_shows_parameters_and_bounds(numbers: SQLiteConnector) -> None:
    ranges = RangePartitions(key="name", bounds=("it's",), shown=("it's",), ordered=True)
    query = "SELECT id, name FROM t WHERE id > :a OR id = :a"
    request = ReadRequest(query=query, parameters={"a": 1}, partitioning=ranges)
    first, second = (numbers.statement(request, scan) for scan in numbers.plan(request).scans)
    assert "WHERE id > $1 OR id = $1" in first
    assert """WHERE ("name" COLLATE BINARY < 'it''s' OR "name" IS NULL) ORDER BY""" in first
    assert """WHERE "name" COLLATE BINARY >= 'it''s' ORDER BY""" in second


def test_keys_are_sampled_evenly(numbers: SQLiteConnector) -> None:
    sample = numbers.sample_keys(TABLE, "id", 10)
    assert (sample.rows, sample.keys.to_pylist()) == (100, list(range(9, 100, 10)))
    assert numbers.sample_keys(TABLE, "id", 1000).keys.to_pylist() == list(range(100))
    nothing = ReadRequest(query="SELECT * FROM t WHERE id < 0")
    assert (
        numbers.sample_keys(nothing, "id", 10).rows,
        len(numbers.sample_keys(nothing, "id", 10).keys),
    ) == (0, 0)


def test_other_columns_than_planned_are_a_changed_source(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER)")
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(TABLE).scans
        write(tmp_path / "s.db", "ALTER TABLE t ADD COLUMN name TEXT")
        with pytest.raises(SourceChanged, match="changed: name"):
            read_all(connector, TABLE, scan)


def test_columns_that_a_store_added_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "s.db", "CREATE TABLE t (id INTEGER, _ecm_run_id TEXT)", "INSERT INTO t VALUES (1, 'r')")
    with connected(tmp_path) as connector:
        assert read_rows(connector, TABLE) == [{"id": 1}]
