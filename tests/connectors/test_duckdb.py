"""What the DuckDB connector promises beyond the contract suite."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ecmbatch.connectors import duckdb as duckdb_connector
from ecmbatch.connectors import duckdb_partitions
from ecmbatch.connectors.connector import ReadRequest, ScannedBatch
from ecmbatch.connectors.duckdb import DUCKDB, DuckDBConnector
from ecmbatch.connectors.duckdb_columns import quoted
from ecmbatch.connectors.duckdb_partitions import Key
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError, Unreachable
from ecmbatch.protocol.key_values import encode_key, plain_keys, shown_key
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
)
from ecmbatch.protocol.query import placeholders
from ecmbatch.testing.connector_contract import read_all

TABLE = ReadRequest(table="t")


def write(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as database:
        for statement in statements:
            database.execute(statement)


@contextmanager
def connected(folder: Path, **settings: object) -> Iterator[DuckDBConnector]:
    connector = DUCKDB.build(DUCKDB.parse_config({"path": "s.duckdb", **settings}), folder)
    assert isinstance(connector, DuckDBConnector)
    try:
        yield connector
    finally:
        connector.close()


@pytest.fixture(scope="module")
def file_of_numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "s.duckdb"
    write(
        path,
        "CREATE TABLE t AS SELECT range AS id, 'user' || range AS name FROM range(100)",
        "CREATE SCHEMA crm",
        'CREATE TABLE crm."odd ""name" AS SELECT 1 AS one',
    )
    return path


@pytest.fixture
def numbers(file_of_numbers: Path, tmp_path: Path) -> Iterator[DuckDBConnector]:
    shutil.copy(file_of_numbers, tmp_path)
    with connected(tmp_path) as connector:
        yield connector


def read_rows(connector: DuckDBConnector, request: ReadRequest) -> list[dict[str, object]]:
    return [
        row
        for scan in connector.plan(request).scans
        for scanned in read_all(connector, request, scan)
        for row in scanned.batch.to_pylist()
    ]


def refusal(connector: DuckDBConnector, request: ReadRequest) -> str:
    with pytest.raises(SourceError) as raised:
        connector.plan(request)
    return f"{raised.value} | {raised.value.hint}"


# --- opening ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with connected(tmp_path) as connector, pytest.raises(SourceError, match=r"no DuckDB file .*s\.duckdb"):
        connector.plan(TABLE)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.duckdb").write_bytes(b"something else, and long enough to be looked at" * 400)
    with connected(tmp_path) as connector, pytest.raises(SourceError, match=r"s\.duckdb cannot be opened"):
        connector.plan(TABLE)


def test_a_file_that_another_process_writes_to_is_unreachable_by_file_and_process(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id")
    hold = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read(); c.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "s.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with (
            connected(tmp_path) as connector,
            pytest.raises(Unreachable, match=rf"process {writer.pid} has .*s\.duckdb open") as raised,
        ):
            connector.plan(TABLE)
        assert raised.value.exit_code == 7
        writer.communicate()


def test_a_file_that_this_process_writes_to_is_unreachable(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
        database.execute("CREATE TABLE t AS SELECT 1 AS id")
        with connected(tmp_path) as connector, pytest.raises(Unreachable, match="this process already has"):
            connector.plan(TABLE)


def test_two_connectors_of_one_process_read_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(10)")
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=4))
    with connected(tmp_path, scans=2) as one, connected(tmp_path, scans=2) as other:
        assert len(read_rows(one, request)) == len(read_rows(other, request)) == 10
        assert other.plan(request).scans
        one.close()
        assert len(read_rows(other, request)) == 10
        assert len(read_rows(one, request)) == 10


def test_closing_a_connector_does_not_disturb_a_scan_that_is_open(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(100000)")
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=4), batch_rows=1000)
    with connected(tmp_path, scans=2) as connector:
        scan = connector.plan(request).scans[0]
        with connector.read(request, scan, None) as batches:
            rows = next(batches).batch.num_rows
            connector.close()
            rows += sum(scanned.batch.num_rows for scanned in batches)
        assert rows == sum(scanned.batch.num_rows for scanned in read_all(connector, request, scan))


def test_a_closed_file_can_be_written_to(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id")
    with connected(tmp_path) as connector:
        read_rows(connector, TABLE)
        connector.close()
        write(tmp_path / "s.duckdb", "INSERT INTO t VALUES (2)")
        assert len(read_rows(connector, TABLE)) == 2


def test_reading_leaves_nothing_on_the_error_stream(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(10)")
    program = """
import sys
from pathlib import Path
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.duckdb import DUCKDB
from ecmbatch.protocol.key_values import encode_key, plain_keys, shown_key
from ecmbatch.protocol.partitioning.partitions import HashPartitions, ListPartitions, Partitions, RangePartitions
connector = DUCKDB.build(DUCKDB.parse_config({"path": "s.duckdb", "scans": 2}), Path(sys.argv[1]))
request = ReadRequest(table="t", partitioning=HashPartitions(key="id", count=4))
for scan in connector.plan(request).scans:
    with connector.read(request, scan, None) as batches:
        list(batches)
connector.close()
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.slow
def test_sorts_larger_than_the_memory_limit_spill_and_are_tidied_up(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb",
        "CREATE TABLE t AS SELECT hash(range)::VARCHAR AS id, repeat('x', 200) || range AS pad FROM range(600000)",
    )
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=1))
    spill = tmp_path / ".ecmbatch" / "tmp" / "duckdb"
    with connected(tmp_path, memory_limit="100MB", threads=1) as connector:
        (scan,) = connector.plan(request).scans
        with connector.read(request, scan, None) as batches:
            rows = next(batches).batch.num_rows
            assert any(spill.iterdir())
            rows += sum(scanned.batch.num_rows for scanned in batches)
        assert rows == 600_000
    assert not any(spill.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": ""},
        {"path": "a", "scans": 0},
        {"path": "a", "memory_limit": "plenty"},
        {"path": "a", "memory_limit": "1GB'; --"},
        {"path": "a", "threads": 0},
        {"path": "a", "read_only": False},
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        DUCKDB.parse_config(settings)
    assert raised.value.problems


# --- what a query may do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "DELETE FROM t RETURNING *",
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
        "INSERT INTO t VALUES (1, 'x')",
        "UPDATE t SET id = 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        "DROP TABLE t",
        "ATTACH 'other.duckdb'",
        "COPY t TO 'out.csv'",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "SET threads = 1",
        "SET VARIABLE x = 1",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPLAIN SELECT 1",
        "BEGIN TRANSACTION",
        "CHECKPOINT",
        "SELECT * FROM 'data.csv'",
        "SELECT * FROM read_csv('data.csv')",
        "SELECT * FROM read_text('data.csv')",
        "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM glob('*')",
        "SELECT * FROM sniff_csv('data.csv')",
        "SELECT * FROM query('DELETE FROM t')",
        "SELECT * FROM table_of_this_process",
    ],
)
def test_a_query_can_only_read_the_file(numbers: DuckDBConnector, tmp_path: Path, query: str) -> None:
    (tmp_path / "data.csv").write_text("a\n1\n")
    table_of_this_process = pa.table({"a": [1]})
    assert table_of_this_process.num_rows == 1
    before = (tmp_path / "s.duckdb").read_bytes()
    with pytest.raises(SourceError):
        read_rows(numbers, ReadRequest(query=query))
    numbers.close()
    assert (tmp_path / "s.duckdb").read_bytes() == before
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "query",
    ["SELECT 1; DELETE FROM t", "SELECT 1;", "SELECT 1) AS s, (SELECT 2", "SELECT 1) --", "", "-- nothing"],
)
def test_a_query_that_is_not_one_statement_is_refused(numbers: DuckDBConnector, query: str) -> None:
    with pytest.raises(InvalidDocument):
        numbers.plan(ReadRequest(query=query))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t -- a comment",
        "/* first */ SELECT * FROM t",
        "WITH x AS (SELECT * FROM t LIMIT 1000) SELECT * FROM x",
        "(SELECT * FROM t)",
        "FROM t",
        "SELECT * FROM t ORDER BY name",
        "SELECT * FROM t WHERE name <> ':not ''a parameter' AND id::BIGINT >= :least",
    ],
)
def test_plain_queries_are_read(numbers: DuckDBConnector, query: str) -> None:
    request = ReadRequest(
        query=query, partitioning=HashPartitions(key="id", count=3), parameters={"least": 0}
    )
    assert sorted(row["id"] for row in read_rows(numbers, request)) == list(range(100))  # type: ignore[type-var]


def test_parameters_are_values_of_their_own_types(numbers: DuckDBConnector) -> None:
    query = (
        "SELECT :a AS a, :b AS b, :c AS c, :d AS d, :e AS e, :f AS f, :g AS g, :h AS h, "
        ":b || :b AS twice, typeof(:i) AS i, typeof(:c) AS zoned"
    )
    parameters = {
        "a": 5,
        "b": "'; DROP TABLE t; --",
        "c": datetime(2024, 1, 2, 3, tzinfo=UTC),
        "d": Decimal("1.50"),
        "e": date(2024, 1, 2),
        "f": b"\0\xff",
        "g": True,
        "h": UUID(int=7),
        "i": datetime(2024, 1, 2),
    }
    (row,) = read_rows(numbers, ReadRequest(query=query, parameters=parameters))
    assert row == {
        **{name: value for name, value in parameters.items() if name != "i"},
        "twice": "'; DROP TABLE t; --" * 2,
        "i": "TIMESTAMP",
        "zoned": "TIMESTAMP WITH TIME ZONE",
    }


def test_unzoned_times_are_compared_as_utc(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT TIMESTAMP '2024-01-01 12:00' AS moment")
    query = "SELECT * FROM t WHERE moment >= :since"
    with connected(tmp_path) as connector:
        for hour, rows in ((12, 1), (13, 0)):
            since = datetime(2024, 1, 1, hour, tzinfo=UTC)
            assert len(read_rows(connector, ReadRequest(query=query, parameters={"since": since}))) == rows


def test_tables_are_quoted_and_may_name_a_schema(numbers: DuckDBConnector) -> None:
    assert read_rows(numbers, ReadRequest(table='crm.odd "name')) == [{"one": 1}]
    assert "does not exist" in refusal(numbers, ReadRequest(table="t; DROP TABLE t"))


# --- what is refused when it is planned ------------------------------------------------------------------


def test_duplicate_columns_are_refused(numbers: DuckDBConnector) -> None:
    message = refusal(numbers, ReadRequest(query="SELECT 1 AS a, 2 AS A"))
    assert "2 columns named 'a'" in message and "AS" in message
    joined = "SELECT * FROM t JOIN t AS u USING (name)"
    assert "2 columns named 'id'" in refusal(numbers, ReadRequest(query=joined))


def test_reserved_columns_are_refused(numbers: DuckDBConnector) -> None:
    assert "'_ECM_row'" in refusal(numbers, ReadRequest(query='SELECT 1 AS "_ECM_row"'))


def test_an_unknown_column_is_answered_with_those_there_are(numbers: DuckDBConnector) -> None:
    message = refusal(numbers, replace(TABLE, partitioning=HashPartitions(key="nam", count=2)))
    assert message == (
        "partitioning.key is 'nam', but the source has no such column; it has id, name | did you mean 'name'?"
    )
    assert "source.order_by is 'x'" in refusal(numbers, replace(TABLE, order_by="x"))


def test_nested_keys_are_refused(numbers: DuckDBConnector) -> None:
    request = ReadRequest(query="SELECT [1] AS many", partitioning=HashPartitions(key="many", count=2))
    assert "nested values" in refusal(numbers, request)


def test_names_that_do_not_exist_are_refused_in_the_databases_words(numbers: DuckDBConnector) -> None:
    assert "nope" in refusal(numbers, ReadRequest(query="SELECT nope FROM t"))
    assert "nowhere" in refusal(numbers, ReadRequest(table="nowhere"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t LIMIT 5",
        "SELECT * FROM t OFFSET 5",
        "SELECT * FROM t LIMIT 10%",
        "(SELECT * FROM t LIMIT 5)",
        "SELECT * FROM t UNION ALL SELECT * FROM t LIMIT 5",
        "SELECT * FROM t USING SAMPLE 3",
        "SELECT * FROM t TABLESAMPLE 10%",
        "SELECT * FROM (SELECT * FROM t USING SAMPLE 3)",
        "WITH x AS (SELECT * FROM t) SELECT * FROM x ORDER BY id LIMIT :many",
    ],
)
def test_a_limit_is_refused_with_several_partitions_and_replayed_with_one(
    numbers: DuckDBConnector, query: str
) -> None:
    request = ReadRequest(query=query, partitioning=HashPartitions(key="id", count=2), parameters={"many": 5})
    assert "LIMIT" in refusal(numbers, request)
    (scan,) = numbers.plan(replace(request, partitioning=None, order_by="id")).scans
    assert scan.resume == "none" and "LIMIT" in scan.reason


def test_columns_that_changed_since_the_plan_are_named(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id, 'x' AS name")
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(TABLE).scans
        connector.close()
        write(tmp_path / "s.duckdb", "ALTER TABLE t ALTER id TYPE BIGINT")
        with pytest.raises(SourceChanged, match="changed: id"):
            read_all(connector, TABLE, scan)


def test_values_that_break_the_query_are_not_repeated(numbers: DuckDBConnector) -> None:
    late = "SELECT CASE WHEN id > 50 THEN (name || '-secret')::INTEGER END AS number FROM t"
    bound = "SELECT :given::INTEGER AS number"
    for query in (late, bound):
        with pytest.raises(SourceError, match="Conversion") as raised:
            read_rows(numbers, ReadRequest(query=query, parameters={"given": "my-secret"}))
        assert "secret" not in f"{raised.value}{raised.value.hint}"


# --- resuming ------------------------------------------------------------------------------------------


def test_the_kind_of_resume_and_its_reason(numbers: DuckDBConnector) -> None:
    def planned(request: ReadRequest) -> tuple[str, str]:
        (scan,) = numbers.plan(request).scans
        return scan.resume, scan.reason

    assert planned(replace(TABLE, partitioning=HashPartitions(key="id", count=1)))[0] == "cursor"
    assert (
        "'name', source.order_by"
        in planned(replace(TABLE, partitioning=HashPartitions(key="id", count=1), order_by="name"))[1]
    )
    assert planned(TABLE) == (
        "none",
        "there is neither source.order_by nor a partitioning key to order by",
    )
    assert (
        planned(replace(TABLE, partitioning=HashPartitions(key="id", count=1), resumable=False))[0] == "none"
    )


def test_one_scan_serves_all_partitions_unless_more_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id")
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=5))
    for scans, partitions in (
        (1, [(0, 1, 2, 3, 4)]),
        (2, [(0, 1), (2, 3, 4)]),
        (9, [(0,), (1,), (2,), (3,), (4,)]),
    ):
        with connected(tmp_path, scans=scans) as connector:
            assert [scan.partitions for scan in connector.plan(request).scans] == partitions


KEYS = {
    "BIGINT": ["NULL", "-9223372036854775808", "-1", "0", "9223372036854775807"],
    "UBIGINT": ["NULL", "0", "18446744073709551615"],
    "HUGEINT": [
        "NULL",
        "-12345678901234567890123456789012345678",
        "5",
        "12345678901234567890123456789012345678",
    ],
    "DOUBLE": ["NULL", "'-inf'", "'-1.5'", "'0.1'", "'inf'", "'nan'"],
    "FLOAT": ["'-inf'", "'0.1'", "'16777217'", "'nan'"],
    "DECIMAL(38,10)": ["NULL", "-1.5", "0.0000000001", "9999999999999999999999999999.9999999999"],
    "VARCHAR": ["NULL", "''", "'A'", "'a'", "'ä'", "'€'", "'🎈'"],
    "BLOB": ["NULL", "''", "'\\x00'", "'\\x00\\x01'", "'\\xFF'"],
    "UUID": ["NULL", "'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "BOOLEAN": ["NULL", "false", "true"],
    "DATE": ["NULL", "'-infinity'", "'4000-01-01 (BC)'", "'2024-02-29'", "'infinity'"],
    "TIME": ["'00:00:00'", "'12:34:56.789012'", "'23:59:59.999999'"],
    "TIMESTAMP": ["NULL", "'-infinity'", "'1500-01-01'", "'2024-01-01 00:00:00.000001'", "'infinity'"],
    "TIMESTAMP_S": ["'1500-01-01'", "'2024-01-01 00:00:01'"],
    "TIMESTAMP_MS": ["'1500-01-01'", "'2024-01-01 00:00:00.001'"],
    "TIMESTAMP_NS": ["'1900-01-01'", "'2024-01-01 00:00:00.000000001'", "'2024-01-01 00:00:00.000000002'"],
    "TIMESTAMPTZ": ["NULL", "'-infinity'", "'2024-01-01 00:00:00.000001+02'", "'infinity'"],
    "ENUM('late', 'early')": ["NULL", "'early'", "'late'"],
    "JSON": ["NULL", "'[1]'", "'{\"a\":1}'"],
}


COMMON = (
    "BIGINT",
    "DOUBLE",
    "VARCHAR",
    "VARCHAR COLLATE NOCASE",
    "DATE",
    "TIMESTAMPTZ",
    "DECIMAL(38,10)",
    "UUID",
    "ENUM('late', 'early')",
)


def quick_if_common(kind: str, *more: Any) -> Any:
    return pytest.param(kind, *more, id=kind, marks=[] if kind in COMMON else [pytest.mark.slow])


def places_of(scanned: list[ScannedBatch]) -> list[int]:
    return [place for each in scanned for place in each.batch.column("place").to_pylist()]


@pytest.mark.parametrize("kind", [quick_if_common(kind) for kind in KEYS])
def test_a_scan_goes_on_exactly_behind_keys_of_any_type(tmp_path: Path, kind: str) -> None:
    values = ", ".join(f"({value})" for value in KEYS[kind])
    write(
        tmp_path / "s.duckdb",
        f"CREATE TABLE t AS SELECT CAST(v AS {kind}) AS key, place FROM "
        f"(SELECT v, row_number() OVER () AS place FROM (VALUES {values}) AS given(v)), range(3)",
    )
    request = replace(TABLE, partitioning=HashPartitions(key="key", count=3), batch_rows=2)
    with connected(tmp_path, scans=2) as connector:
        seen = 0
        for scan in connector.plan(request).scans:
            whole = read_all(connector, request, scan)
            assert places_of(whole) == sorted(places_of(whole))
            seen += len(places_of(whole))
            for stop, scanned in enumerate(whole):
                if scanned.cursor is not None:
                    rest = read_all(connector, request, scan, scanned.cursor)
                    assert places_of(rest) == places_of(whole[stop + 1 :])
        assert seen == 3 * len(KEYS[kind])


def test_text_is_ordered_by_its_bytes_whatever_its_collation(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb",
        "CREATE TABLE t (key VARCHAR COLLATE NOCASE)",
        "INSERT INTO t VALUES ('b'), ('A'), ('a'), ('B'), ('a'), (NULL)",
    )
    request = replace(TABLE, order_by="key", batch_rows=1)
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        keys = [scanned.batch.column("key")[0].as_py() for scanned in whole]
        assert keys == [None, "A", "B", "a", "a", "b"]
        for stop, scanned in enumerate(whole):
            if scanned.cursor is not None:
                rest = read_all(connector, request, scan, scanned.cursor)
                assert [each.batch.column("key")[0].as_py() for each in rest] == keys[stop + 1 :]


# --- ranges and lists ------------------------------------------------------------------------------------

HARD = {
    "VARCHAR COLLATE NOCASE": ["NULL", "'A'", "'a'", "'B'", "'ä'", "'Ä'", "''"],
    "VARCHAR COLLATE NOACCENT": ["'a'", "'ä'", "'A'", "'b'"],
    "VARCHAR COLLATE de": ["'a'", "'ä'", "'A'", "'z'"],
    "VARCHAR": [
        *("NULL", "'it''s'", "'a\"b'", "'%_\\'", "chr(0)", "'a' || chr(0) || 'b'", "'🎈'", "''"),
        *("chr(10)", "'x; DROP TABLE t; --'", "'$1'"),
    ],
    "DOUBLE": ["NULL", "'-0.0'", "'0.0'", "'nan'", "'-inf'", "'inf'", "'5e-324'", "'1e300'", "'0.1'"],
    "FLOAT": ["'-0.0'", "'0.0'", "'nan'", "'0.1'", "'1e-45'", "'16777217'"],
    "DATE": [
        *("NULL", "'-infinity'", "'infinity'", "'5877642-06-25 (BC)'", "'0044-03-15 (BC)'", "'9999-12-31'"),
        *("'10000-01-01'", "'5000000-01-01'"),
    ],
    "TIMESTAMP": [
        "'-infinity'",
        "'infinity'",
        "'0044-03-15 (BC) 10:00'",
        "'50000-01-01 00:00:00.000001'",
        "NULL",
    ],
    "TIMESTAMPTZ": [
        "'-infinity'",
        "'infinity'",
        "'0044-03-15 (BC) 10:00+00'",
        "'50000-01-01 00:00+00'",
        "NULL",
    ],
    "TIMESTAMP_S": ["'50000-01-01'", "'0044-03-15 (BC)'", "NULL"],
    "TIMESTAMP_MS": ["'50000-01-01'", "'2024-01-01 00:00:00.001'", "NULL"],
    "TIME": ["'00:00:00'", "'24:00:00'", "'23:59:59.999999'", "NULL"],
    "DECIMAL(38,10)": ["0", "0.0000000001", "-0.0000001", "NULL"],
    "DECIMAL(4,1)": ["-999.9", "0", "999.9", "NULL"],
    "SMALLINT": ["-32768", "32767", "0", "NULL"],
    "UTINYINT": ["0", "255"],
}
EVERY_KEY = [
    *((kind, list(dict.fromkeys([*values, *HARD.get(kind, ())]))) for kind, values in KEYS.items()),
    *((kind, values) for kind, values in HARD.items() if kind not in KEYS),
]


def write_keys(folder: Path, kind: str, values: list[str]) -> None:
    rows = ", ".join(f"({value})" for value in values)
    write(
        folder / "s.duckdb",
        f"CREATE TABLE t (key {kind}, place BIGINT)",
        f"INSERT INTO t SELECT v, row_number() OVER () FROM (VALUES {rows}) AS given(v), range(3)",
    )


def partitionings(keys: pa.Array) -> list[Partitions]:
    """Ranges that begin with each of the *keys*, and two groups of them with any rest."""
    known = plain_keys(keys).drop_null()
    if pa.types.is_floating(known.type):
        known = pc.add(known.filter(pc.is_finite(known)), pa.scalar(0, known.type))
    known = known.unique().sort()
    stored, shown = tuple(map(encode_key, known)), tuple(map(shown_key, known))
    groups = (stored[:1], stored[1:3])
    return [
        RangePartitions(key="key", bounds=stored, shown=shown),
        *(ListPartitions(key="key", names=("a", "b"), groups=groups, default=rest) for rest in ("a", "c")),
    ]


@pytest.mark.parametrize(("kind", "values"), [quick_if_common(*each) for each in EVERY_KEY])
def test_scans_of_ranges_and_lists_read_exactly_their_rows_and_show_how(
    tmp_path: Path, kind: str, values: list[str]
) -> None:
    write_keys(tmp_path, kind, values)
    query = "SELECT * FROM t WHERE place >= :least AND place < :most + 100"
    request = ReadRequest(query=query, parameters={"most": 1000, "least": 2}, batch_rows=4)
    shown: list[tuple[str, list[int]]] = []
    with connected(tmp_path) as connector:
        for partitioning in partitionings(connector.sample_keys(request, "key", 1000).keys):
            request = replace(request, partitioning=partitioning)
            scans = connector.plan(request).scans
            assert [scan.partitions for scan in scans] == [(number,) for number in range(partitioning.count)]
            seen: list[int] = []
            for scan in scans:
                read = read_all(connector, request, scan)
                assigned = [
                    n for each in read for n in partitioning.assign(each.batch.column("key")).tolist()
                ]
                assert set(assigned) <= set(scan.partitions), partitioning
                shown.append((connector.statement(request, scan) or "", places_of(read)))
                seen += places_of(read)
            assert sorted(seen) == list(range(2, 3 * len(values) + 1)), partitioning
    with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
        database.execute("SET TimeZone = 'UTC'")
        for statement, places in shown:
            rows = database.sql(statement, params=[2, 1000]).to_arrow_table()
            assert rows.column("place").to_pylist() == places


def without_null_in_the_first_range(patch: pytest.MonkeyPatch) -> None:
    def of_ranges(key: Key, ranges: RangePartitions, first: int, last: int) -> list[str]:
        return [
            each.replace(f" OR {quoted(key.name)} IS NULL", "") for each in right(key, ranges, first, last)
        ]

    right = duckdb_partitions._of_ranges
    patch.setattr(duckdb_partitions, "_of_ranges", of_ranges)


def without_the_rest_of_a_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ListPartitions, "rest", property(lambda lists: -1))


def with_a_bound_in_both_ranges(patch: pytest.MonkeyPatch) -> None:
    def of_ranges(*arguments: Any) -> list[str]:
        return [each.replace(" < ", " <= ") for each in right(*arguments)]

    right = duckdb_partitions._of_ranges
    patch.setattr(duckdb_partitions, "_of_ranges", of_ranges)


def by_collation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(duckdb_connector, "_by_bytes", lambda source, order: quoted(order))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (without_null_in_the_first_range, "BIGINT"),
        (without_the_rest_of_a_list, "BIGINT"),
        (with_a_bound_in_both_ranges, "BIGINT"),
        (by_collation, "VARCHAR COLLATE NOCASE"),
    ],
)
def test_a_wrong_predicate_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], kind: str
) -> None:
    broken(monkeypatch)
    with pytest.raises((AssertionError, IndexError)):
        test_scans_of_ranges_and_lists_read_exactly_their_rows_and_show_how(
            tmp_path, kind, dict(EVERY_KEY)[kind]
        )


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t",
        "FROM t WHERE id > 3",
        "SELECT id + 1 AS id, lower(name) AS name FROM t",
        "SELECT id, list_sum([id, 1]) AS total FROM main.T AS u WHERE id < :most",
    ],
)
def test_ranges_of_a_tables_rows_have_sixteen_scans_at_most(numbers: DuckDBConnector, query: str) -> None:
    request = ReadRequest(query=query, parameters=dict.fromkeys(placeholders(query), 50))
    for count, scans in ((4, 4), (16, 16), (40, 16)):
        bounds = tuple(range(1, count))
        ranges = RangePartitions(key="id", bounds=bounds, shown=tuple(map(str, bounds)))
        assert len(numbers.plan(replace(request, partitioning=ranges)).scans) == scans


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, count(*) AS n FROM t GROUP BY id",
        "SELECT count(*) AS id FROM t",
        "SELECT DISTINCT id FROM t",
        "SELECT id, row_number() OVER () AS n FROM t",
        "SELECT id FROM t QUALIFY row_number() OVER () > 3",
        "SELECT id FROM t WHERE id IN (SELECT max(id) FROM t)",
        "SELECT t.id FROM t JOIN t AS u USING (id)",
        "SELECT id FROM t ORDER BY name",
        "SELECT id FROM t UNION ALL SELECT id FROM t",
        "WITH x AS (SELECT * FROM t) SELECT id FROM x",
        "SELECT id FROM (SELECT * FROM t LIMIT 5)",
        "SELECT range AS id FROM range(5)",
        "SELECT 1 AS id",
    ],
)
def test_what_would_be_computed_for_every_scan_has_one(numbers: DuckDBConnector, query: str) -> None:
    ranges = RangePartitions(key="id", bounds=(1, 2), shown=("1", "2"))
    lists = ListPartitions(key="id", names=("a",), groups=((1,),))
    for partitioning in (ranges, lists):
        (scan,) = numbers.plan(ReadRequest(query=query, partitioning=partitioning)).scans
        assert scan.partitions == tuple(range(partitioning.count))


def test_the_statement_of_hash_partitions_names_the_hash(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id")
    request = replace(TABLE, partitioning=HashPartitions(key="id", count=4))
    with connected(tmp_path, scans=2) as connector:
        statements = [connector.statement(request, scan) or "" for scan in connector.plan(request).scans]
    assert [
        statement.count(f'ecm_hash_1("id") IN ({numbers})')
        for statement, numbers in zip(statements, ("0, 1", "2, 3"), strict=True)
    ] == [1, 1]


def test_several_ranges_and_lists_may_share_a_scan(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb",
        "CREATE TABLE t AS SELECT CASE WHEN range % 10 = 0 THEN NULL ELSE range END AS id FROM range(100)",
    )
    for partitioning in (
        RangePartitions(key="id", bounds=(20, 40, 60, 80), shown=("20", "40", "60", "80")),
        ListPartitions(key="id", names=("a", "b"), groups=((1, 2), (3,)), default="c"),
        ListPartitions(key="id", names=("a", "b", "c"), groups=((1, 2), (3,), (4,)), default="b"),
    ):
        request = replace(TABLE, partitioning=partitioning)
        for scans in (1, 2, 3):
            with connected(tmp_path, scans=scans) as connector:
                rows = 0
                for scan in connector.plan(request).scans:
                    for scanned in read_all(connector, request, scan):
                        assigned = partitioning.assign(scanned.batch.column("id")).tolist()
                        assert set(assigned) <= set(scan.partitions)
                        rows += scanned.batch.num_rows
                assert rows == 100


def test_ranges_in_order_have_a_scan_each_whatever_the_connector_says(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(10)")
    ranges = RangePartitions(key="id", bounds=(3, 6), shown=("3", "6"), ordered=True)
    request = replace(TABLE, partitioning=ranges)
    with connected(tmp_path, scans=1) as connector:
        assert [scan.partitions for scan in connector.plan(request).scans] == [(0,), (1,), (2,)]
        assert [row["id"] for row in read_rows(connector, request)] == list(range(10))


def test_values_that_no_list_names_stop_the_scan_of_the_rest(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT * FROM (VALUES ('EU'), (NULL), ('SECRET')) AS v(key)"
    )
    lists = ListPartitions(key="key", names=("eu",), groups=(("EU",),))
    request = replace(TABLE, partitioning=lists)
    with connected(tmp_path) as connector:
        scans = connector.plan(request).scans
        read = [read_all(connector, request, scan) for scan in scans]
        # The connector gives the row to whoever has the rest; splitting it by the list refuses it.
        with pytest.raises(SourceError, match="no list partition names"):
            for scanned in read[1]:
                lists.assign(scanned.batch.column("key"))


def test_a_list_partition_of_one_value_is_not_ordered_by_it(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 'a' AS key, 1 AS id")
    lists = ListPartitions(key="key", names=("one", "two"), groups=(("a",), ("b", "c")))
    request = replace(TABLE, partitioning=lists)
    with connected(tmp_path) as connector:
        one, two, null = connector.plan(request).scans
        assert (one.resume, two.resume, null.resume) == ("none", "cursor", "none")
        assert one.reason == "all rows have one value of 'key': set source.order_by to resume in the middle"
        assert "ORDER BY" not in (connector.statement(request, one) or "")
        by_id = connector.plan(replace(request, order_by="id")).scans
        assert [scan.resume for scan in by_id] == ["cursor"] * 3
        for default in ("rest", "one"):
            others = replace(lists, default=default)
            resumed = [scan.resume for scan in connector.plan(replace(request, partitioning=others)).scans]
            assert resumed == (["none", "cursor", "cursor"] if default == "rest" else ["cursor", "cursor"])


def test_a_limit_is_refused_with_several_ranges_or_groups(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(10)")
    request = ReadRequest(query="SELECT * FROM t LIMIT 5")
    with connected(tmp_path) as connector:
        for partitioning in (
            RangePartitions(key="id", bounds=(3,), shown=("3",)),
            ListPartitions(key="id", names=("a",), groups=((1,),)),
        ):
            assert "LIMIT" in refusal(connector, replace(request, partitioning=partitioning))
        single = replace(request, partitioning=RangePartitions(key="id", bounds=(), shown=()))
        assert [scan.resume for scan in connector.plan(single).scans] == ["none"]


def test_keys_are_sampled_evenly_and_the_same_every_time(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb",
        "CREATE TABLE t AS SELECT CASE WHEN range % 4 = 0 THEN NULL ELSE range END AS key FROM range(200000)",
    )
    query = replace(
        TABLE,
        table=None,
        query="SELECT key FROM t WHERE key >= :least OR key IS NULL",
        parameters={"least": 0},
    )
    with connected(tmp_path) as connector:
        for request in (TABLE, query):
            sample = connector.sample_keys(request, "key", 10_000)
            assert (sample.rows, len(sample.keys)) == (200_000, 10_000)
            assert sample.keys.null_count == pytest.approx(2_500, rel=0.1)
            assert pc.mean(sample.keys).as_py() == pytest.approx(100_000, rel=0.05)
            assert connector.sample_keys(request, "key", 10_000).keys.equals(sample.keys)
        few = connector.sample_keys(replace(TABLE, query="SELECT 1 AS key", table=None), "key", 10)
        assert (few.keys.to_pylist(), few.rows) == ([1], 1)
        with pytest.raises(SourceError, match=r"partitioning\.key is 'kee'"):
            connector.sample_keys(TABLE, "kee", 10)


# --- which tables a query reads --------------------------------------------------------------------------

TABLES_READ: list[tuple[str, tuple[str, ...] | None]] = [
    ("SELECT * FROM t", ("main.t",)),
    ("SELECT * FROM T", ("main.t",)),
    ("SELECT * FROM main.t AS x JOIN t AS y USING (id)", ("main.t",)),
    ("SELECT * FROM t WHERE id = :id", ("main.t",)),
    ('SELECT * FROM crm."Odd ""name"', ('crm.Odd "name',)),
    ('SELECT * FROM CRM."odd ""NAME"', ('crm.Odd "name',)),
    ("SELECT * FROM t WHERE id IN (SELECT id FROM crm.u)", ("crm.u", "main.t")),
    ("SELECT (SELECT max(id) FROM crm.u) AS m FROM t", ("crm.u", "main.t")),
    ("SELECT id FROM t UNION ALL SELECT id FROM crm.u", ("crm.u", "main.t")),
    ("WITH x AS (SELECT * FROM t) SELECT * FROM X", ("main.t",)),
    ("WITH t AS (SELECT * FROM crm.u) SELECT * FROM t", ("crm.u", "main.t")),
    ("WITH x AS (WITH y AS (FROM crm.u) FROM y) SELECT * FROM x", ("crm.u",)),
    ("SELECT 1 AS id", ()),
    ("SELECT * FROM (VALUES (1)) AS v(id)", ()),
    ("SELECT * FROM v", None),
    ("SELECT * FROM V", None),
    ("SELECT * FROM crm.v", None),
    ("SELECT * FROM s.main.t", None),
    ("SELECT * FROM s.t", None),
    ('SELECT * FROM "a.b"', None),
    ("SELECT * FROM range(3)", None),
    ("SELECT macro_that_reads() AS m", None),
    ("SELECT Macro_That_Reads() AS m FROM t", None),
    ("SELECT * FROM table_macro()", None),
    ("SELECT * FROM duckdb_tables()", None),
    ("SELECT * FROM information_schema.tables", None),
]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBConnector]:
    folder = tmp_path_factory.mktemp("schemas")
    write(
        folder / "s.duckdb",
        "CREATE TABLE t AS SELECT 1 AS id",
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.u AS SELECT 1 AS id",
        'CREATE TABLE crm."Odd ""name" AS SELECT 1 AS id',
        'CREATE TABLE "a.b" AS SELECT 1 AS id',
        "CREATE VIEW v AS SELECT * FROM crm.u",
        "CREATE VIEW crm.v AS SELECT * FROM t",
        "CREATE MACRO macro_that_reads() AS (SELECT max(id) FROM crm.u)",
        "CREATE MACRO table_macro() AS TABLE SELECT * FROM crm.u",
    )
    with connected(folder) as connector:
        yield connector


@pytest.mark.parametrize(("query", "tables"), TABLES_READ, ids=[query for query, _ in TABLES_READ])
def test_a_plan_names_the_tables_that_are_read(
    schemas: DuckDBConnector, query: str, tables: tuple[str, ...] | None
) -> None:
    assert (
        schemas.plan(ReadRequest(query=query, parameters=dict.fromkeys(placeholders(query), 1))).tables
        == tables
    )


def test_a_plan_of_a_table_names_it(schemas: DuckDBConnector) -> None:
    assert schemas.plan(TABLE).tables == ("main.t",)
    assert schemas.plan(ReadRequest(table="crm.u")).tables == ("crm.u",)
    assert schemas.plan(ReadRequest(table="v")).tables is None


# --- types ---------------------------------------------------------------------------------------------


def test_every_readable_type_arrives_as_plain_arrow(tmp_path: Path) -> None:
    write(
        tmp_path / "s.duckdb",
        """CREATE TABLE t AS SELECT 1::HUGEINT AS huge, 2::UHUGEINT AS unsigned,
        '00112233-4455-6677-8899-aabbccddeeff'::UUID AS id, 'a'::ENUM('a', 'b') AS grade, '{"a":1}'::JSON AS doc,
        TIMESTAMPTZ '2020-01-01 12:00+02' AS zoned, TIMESTAMP_NS '2020-01-01 00:00:00.000000001' AS precise,
        TIME '12:00' AS clock, [1, NULL] AS many, [1, 2]::INT[2] AS pair, {'a': 1, 'b c': 'x'} AS part,
        MAP {'k': 1} AS map, 'x'::BLOB AS raw, 1.50::DECIMAL(9,2) AS money, true AS yes,
        [{'id': '00112233-4455-6677-8899-aabbccddeeff'::UUID, 'g': 'b'::ENUM('a', 'b')}] AS deep,
        sum(1) AS total""",
    )
    identifier = UUID("00112233-4455-6677-8899-aabbccddeeff")
    with connected(tmp_path) as connector:
        schema = connector.plan(TABLE).schema
        (row,) = read_rows(connector, ReadRequest(query="SELECT * EXCLUDE (precise) FROM t"))
    assert {
        name: str(schema.field(name).type) for name in ("huge", "id", "grade", "doc", "zoned", "precise")
    } == {
        "huge": "decimal128(38, 0)",
        "id": "extension<arrow.uuid>",
        "grade": "string",
        "doc": "string",
        "zoned": "timestamp[us, tz=UTC]",
        "precise": "timestamp[ns]",
    }
    assert row == {
        "huge": Decimal(1),
        "unsigned": Decimal(2),
        "id": identifier,
        "grade": "a",
        "doc": '{"a":1}',
        "zoned": datetime(2020, 1, 1, 10, tzinfo=UTC),
        "clock": time(12),
        "many": [1, None],
        "pair": [1, 2],
        "part": {"a": 1, "b c": "x"},
        "map": [("k", 1)],
        "raw": b"x",
        "money": Decimal("1.50"),
        "yes": True,
        "deep": [{"id": str(identifier), "g": "b"}],
        "total": Decimal(1),
    }


@pytest.mark.parametrize(
    ("expression", "cast"),
    [
        ("INTERVAL 1 MONTH", "VARCHAR"),
        ("'12:00:00+02'::TIMETZ", "VARCHAR"),
        ("'101'::BIT", "VARCHAR"),
        ("1::BIGNUM", "VARCHAR"),
        ("union_value(k := 1)", "VARCHAR"),
        ("[INTERVAL 1 DAY]", "JSON"),
        ("{'a': '101'::BIT}", "JSON"),
        ("MAP {'a': INTERVAL 1 DAY}", "JSON"),
    ],
)
def test_an_unreadable_column_is_named_with_a_cast_that_works(
    numbers: DuckDBConnector, expression: str, cast: str
) -> None:
    message = refusal(numbers, ReadRequest(query=f"SELECT {expression} AS odd"))
    assert "'odd'" in message and f'"odd"::{cast} AS "odd"' in message
    query = f'SELECT "odd"::{cast} AS "odd" FROM (SELECT {expression} AS odd)'
    assert len(read_rows(numbers, ReadRequest(query=query))) == 1


def test_an_integer_that_no_decimal_holds_is_an_error(numbers: DuckDBConnector) -> None:
    query = "SELECT 170141183460469231731687303715884105727::HUGEINT - id AS huge FROM t"
    with pytest.raises(SourceError, match="Conversion"):
        read_rows(numbers, ReadRequest(query=query))
