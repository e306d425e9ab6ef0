"""What the DuckDB connector promises beyond the contract suite."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from ecmbatch.connectors.connector import ReadRequest, ScannedBatch
from ecmbatch.connectors.duckdb import DUCKDB, DuckDBConnector
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError, Unreachable
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


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[DuckDBConnector]:
    write(
        tmp_path / "s.duckdb",
        "CREATE TABLE t AS SELECT range AS id, 'user' || range AS name FROM range(100)",
        "CREATE SCHEMA crm",
        'CREATE TABLE crm."odd ""name" AS SELECT 1 AS one',
    )
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
    request = replace(TABLE, key="id", partitions=4)
    with connected(tmp_path, scans=2) as one, connected(tmp_path, scans=2) as other:
        assert len(read_rows(one, request)) == len(read_rows(other, request)) == 10
        assert other.plan(request).scans
        one.close()
        assert len(read_rows(other, request)) == 10
        assert len(read_rows(one, request)) == 10


def test_closing_a_connector_does_not_disturb_a_scan_that_is_open(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT range AS id FROM range(100000)")
    request = replace(TABLE, key="id", partitions=4, batch_rows=1000)
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
connector = DUCKDB.build(DUCKDB.parse_config({"path": "s.duckdb", "scans": 2}), Path(sys.argv[1]))
request = ReadRequest(table="t", key="id", partitions=4)
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
    request = replace(TABLE, key="id")
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
    request = ReadRequest(query=query, key="id", partitions=3, parameters={"least": 0})
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
    message = refusal(numbers, replace(TABLE, key="nam", partitions=2))
    assert message == (
        "partitioning.key is 'nam', but the source has no such column; it has id, name | did you mean 'name'?"
    )
    assert "source.order_by is 'x'" in refusal(numbers, replace(TABLE, order_by="x"))


def test_nested_keys_are_refused(numbers: DuckDBConnector) -> None:
    request = ReadRequest(query="SELECT [1] AS many", key="many", partitions=2)
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
        "WITH x AS (SELECT * FROM t) SELECT * FROM x ORDER BY id LIMIT :many",
    ],
)
def test_a_limit_is_refused_with_several_partitions_and_replayed_with_one(
    numbers: DuckDBConnector, query: str
) -> None:
    request = ReadRequest(query=query, key="id", partitions=2, parameters={"many": 5})
    assert "LIMIT" in refusal(numbers, request)
    (scan,) = numbers.plan(replace(request, partitions=1)).scans
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

    assert planned(replace(TABLE, key="id"))[0] == "cursor"
    assert "'name', source.order_by" in planned(replace(TABLE, key="id", order_by="name"))[1]
    assert planned(TABLE) == (
        "none",
        "there is neither source.order_by nor a partitioning key to order by",
    )
    assert planned(replace(TABLE, key="id", resumable=False))[0] == "none"


def test_one_scan_serves_all_partitions_unless_more_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "s.duckdb", "CREATE TABLE t AS SELECT 1 AS id")
    request = replace(TABLE, key="id", partitions=5)
    for scans, partitions in (
        (1, [(0, 1, 2, 3, 4)]),
        (2, [(0, 2, 4), (1, 3)]),
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


def places_of(scanned: list[ScannedBatch]) -> list[int]:
    return [place for each in scanned for place in each.batch.column("place").to_pylist()]


@pytest.mark.parametrize("kind", KEYS)
def test_a_scan_goes_on_exactly_behind_keys_of_any_type(tmp_path: Path, kind: str) -> None:
    values = ", ".join(f"({value})" for value in KEYS[kind])
    write(
        tmp_path / "s.duckdb",
        f"CREATE TABLE t AS SELECT CAST(v AS {kind}) AS key, place FROM "
        f"(SELECT v, row_number() OVER () AS place FROM (VALUES {values}) AS given(v)), range(3)",
    )
    request = replace(TABLE, key="key", partitions=3, batch_rows=2)
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
    request = replace(TABLE, key="key", batch_rows=1)
    with connected(tmp_path) as connector:
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        keys = [scanned.batch.column("key")[0].as_py() for scanned in whole]
        assert keys == [None, "A", "B", "a", "a", "b"]
        for stop, scanned in enumerate(whole):
            if scanned.cursor is not None:
                rest = read_all(connector, request, scan, scanned.cursor)
                assert [each.batch.column("key")[0].as_py() for each in rest] == keys[stop + 1 :]


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
