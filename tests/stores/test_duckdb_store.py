"""What is particular to DuckDB: its file, its tables, its types, and whoever else has the file open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from duckdb_tables import read_table
from ecmbatch.errors import InvalidDocument, StoreBusy, StoreError
from ecmbatch.stores.duckdb import DUCKDB, DuckDBStore
from ecmbatch.stores.duckdb_file import READING
from ecmbatch.stores.store import PublishedRows, TableChange
from ecmbatch.testing.store_contract import AT, CUSTOMERS, customer, publication


class Told(list[str]):
    """A listener that remembers, and may act on, what it is told."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)


def open_store(folder: Path, *, tell: Any = print, **settings: Any) -> DuckDBStore:
    parsed = DUCKDB.parse_config({"path": "context.duckdb", "threads": 1, **settings})
    store = DUCKDB.build(parsed, folder, tell)
    assert isinstance(store, DuckDBStore)
    return store


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    return open_store(tmp_path)


def execute(folder: Path, *statements: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "context.duckdb")) as connection:
        for statement in statements:
            found = connection.execute(statement)
        return found.fetchall()


def types_of(folder: Path, table: str = "customers") -> Mapping[str, str]:
    return {row[0]: row[1] for row in execute(folder, f"DESCRIBE {table}")}


# Settings.


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({}, "/path"),
        ({"path": ""}, "/path"),
        ({"path": "x", "memory_limit": "much"}, "/memory_limit"),
        ({"path": "x", "memory_limit": "80%"}, "/memory_limit"),
        ({"path": "x", "memory_limit": "10000000KB"}, "/memory_limit"),
        ({"path": "x", "threads": 0}, "/threads"),
        ({"path": "x", "busy_timeout": 60}, "/busy_timeout"),
        ({"path": "x", "pth": "y"}, "/pth"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings, pointer):
    with pytest.raises(InvalidDocument) as raised:
        DUCKDB.parse_config(settings)
    assert [problem.path for problem in raised.value.problems] == [pointer]


def test_nothing_creates_the_file_before_something_is_published(store, tmp_path):
    store.check(publication(tmp_path, "run-1"))
    assert store.table("customers") is None
    assert not (tmp_path / "context.duckdb").exists()


def test_folders_on_the_way_to_the_file_are_created(tmp_path):
    store = open_store(tmp_path, path="data/stores/context.duckdb")
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    assert (tmp_path / "data/stores/context.duckdb").exists()


# The file, and whoever else has it open.


def test_a_file_that_is_no_database_is_named(store, tmp_path):
    path = tmp_path / "context.duckdb"
    path.write_bytes(b"PAR1" * 5000)
    run = publication(tmp_path, "run-1", [customer(1, "Ada")])
    for act in (
        lambda: store.publish(run, AT),
        lambda: store.marker("run-1"),
        lambda: store.abandon("run-1", AT),
    ):
        with pytest.raises(StoreError, match=r"context\.duckdb cannot be opened as a DuckDB database"):
            act()
    assert path.read_bytes() == b"PAR1" * 5000


HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("open", flush=True)
sys.stdin.readline()
"""


def held(path: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_file_held_by_another_process_is_waited_for_and_the_wait_is_told(tmp_path, how):
    open_store(tmp_path).publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    with held(tmp_path / "context.duckdb", how) as process:
        told = Told()

        def tell(sentence: str) -> None:
            told(sentence)
            process.communicate("\n")

        store = open_store(tmp_path, tell=tell)
        marker = store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
    assert marker.rows == PublishedRows(updated=1)
    (sentence,) = told
    assert "context.duckdb" in sentence
    assert f"process {process.pid}" in sentence
    assert "1 min" in sentence


def test_waiting_in_vain_is_store_busy_and_leaves_everything_as_it_was(tmp_path):
    store = open_store(tmp_path, busy_timeout="0 seconds")
    run = publication(tmp_path, "run-2", [customer(1, "Bo")])
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    with held(tmp_path / "context.duckdb", "write") as process:
        for act in (
            lambda: store.publish(run, AT),
            lambda: store.head("a", "b", "c"),
            lambda: store.check(run),
        ):
            with pytest.raises(StoreBusy, match=f"process {process.pid}"):
                act()
        process.communicate("\n")
    assert store.publish(run, AT).rows == PublishedRows(updated=1)


def test_a_connection_of_this_very_process_is_named_as_such(tmp_path):
    store = open_store(tmp_path, busy_timeout="0 seconds")
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    run = publication(tmp_path, "run-2", [customer(1, "Bo")])
    path = str(tmp_path / "context.duckdb")
    with duckdb.connect(path, read_only=True), pytest.raises(StoreBusy, match="this process itself"):
        store.publish(run, AT)
    assert store.publish(run, AT).rows == PublishedRows(updated=1)


def test_readers_do_not_wait_for_each_other(tmp_path):
    store = open_store(tmp_path, busy_timeout="0 seconds")
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    with held(tmp_path / "context.duckdb", "read") as process:
        assert store.table("customers") is not None
        process.communicate("\n")


def test_the_store_is_read_while_a_job_of_this_process_reads_the_same_file(tmp_path):
    store = open_store(tmp_path, busy_timeout="0 seconds")
    schema = CUSTOMERS.append(pa.field("at", pa.timestamp("us", "UTC"))).append(pa.field("uid", pa.uuid()))
    run = publication(tmp_path, "run-1", [], schema=schema)
    store.publish(run, AT)
    alone = store.table("customers")
    path = str(tmp_path / "context.duckdb")
    with duckdb.connect(path, read_only=True, config=dict(READING)) as reader:
        reader.execute("SET GLOBAL memory_limit = '64MB'")
        reader.execute("SET GLOBAL TimeZone = 'Asia/Tokyo'")
        reader.execute("SET GLOBAL lock_configuration = true")
        assert store.table("customers") == alone
        assert store.check(run) == TableChange()
        assert store.versions() == {"customers": 1}
        assert store.marker("run-1") is not None
        assert store.head("customers-sync", "customers", "live") is None
    assert store.publish(replace(run, run_id="run-2"), AT).outcome == "published"


def test_jobs_read_the_store_through_a_connector_with_its_settings():
    assert DUCKDB.source is not None
    for settings in ({}, {"memory_limit": "1.5 GiB", "threads": 2, "busy_timeout": "5 seconds"}):
        name, source = DUCKDB.source(DUCKDB.parse_config({"path": "~/context.duckdb", **settings}))
        assert name == "duckdb"
        settings.pop("busy_timeout", None)
        assert source == {"path": "~/context.duckdb", "memory_limit": "1GB"} | settings


def test_a_path_may_start_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store(tmp_path / "project", path="~/context.duckdb")
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    assert execute(tmp_path, "SELECT id FROM customers") == [(1,)]


def test_a_full_disk_publishes_nothing(tmp_path):
    store = open_store(tmp_path)
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
    # A limit on the size of files is the nearest thing to a full disk that a test may have.
    script = f"""
import resource, signal
from pathlib import Path
from ecmbatch.errors import StoreError
from ecmbatch.stores.duckdb import DUCKDB
from ecmbatch.testing.store_contract import AT, customer, publication
folder = Path({str(tmp_path)!r})
rows = [customer(number, str(number) * 200) for number in range(20_000)]
run = publication(folder, "run-2", rows)
store = DUCKDB.build(DUCKDB.parse_config({{"path": "context.duckdb", "threads": 1}}), folder, print)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = (folder / "context.duckdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, size + 100_000))
try:
    store.publish(run, AT)
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "nothing was published to table 'customers'" in done.stdout, done.stderr
    again = open_store(tmp_path)
    assert again.marker("run-2") is None
    assert read_table(tmp_path / "context.duckdb", "customers")["id"].to_pylist() == [1]
    rows = [customer(number, "x") for number in range(2)]
    assert again.publish(publication(tmp_path, "run-2", rows), AT).rows == PublishedRows(
        inserted=1, updated=1
    )


def test_files_outside_the_stage_cannot_be_reached_while_publishing(store, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with store._file.writing([tmp_path / "stage"]) as connection, pytest.raises(duckdb.PermissionException):
        connection.execute(f"SELECT * FROM '{secret}'")


# Tables.

CONSTRAINTS = """
SELECT constraint_type, constraint_column_names FROM duckdb_constraints()
WHERE table_name = 'customers' ORDER BY ALL
"""


def test_a_table_is_described_with_its_primary_key_and_without_provenance(store, tmp_path):
    execute(tmp_path, "CREATE TABLE customers (name VARCHAR, id BIGINT, PRIMARY KEY (id, name))")
    store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], key=("id", "name")), AT)
    table = store.table("CUSTOMERS")
    assert table is not None
    assert table.primary_key == ("id", "name")
    assert table.schema.names == ["name", "id", "amount"]
    assert [field.nullable for field in table.schema] == [False, False, True]
    assert table.schema.field("amount").type == pa.decimal128(12, 2)


def test_a_table_may_be_in_a_schema_which_is_created(store, tmp_path):
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], table="crm data.customers")
    store.publish(run, AT)
    assert execute(tmp_path, 'SELECT id FROM "crm data".customers') == [(1,)]
    assert store.table("crm data.customers") is not None
    assert store.table("customers") is None


@pytest.mark.parametrize("name", ["temp.customers", "system.customers", "main.customers"])
def test_names_of_catalogs_mean_schemas(store, tmp_path, name):
    try:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], table=name), AT)
    except StoreError:
        assert name != "main.customers"
    else:
        assert execute(tmp_path, f"SELECT count(*) FROM context.{name}") == [(1,)]


@pytest.mark.parametrize("name", ["a.b.c", ".customers", "customers.", "_ecmbatch_heads", "_ECMBATCH_x"])
def test_tables_that_cannot_be_published_to_are_refused(store, tmp_path, name):
    with pytest.raises(StoreError, match="nothing was published to table"):
        store.check(publication(tmp_path, "run-1", table=name))


def test_a_view_is_refused(store, tmp_path):
    execute(tmp_path, "CREATE VIEW customers AS SELECT 1 AS id")
    with pytest.raises(StoreError, match="it is a view"):
        store.check(publication(tmp_path, "run-1"))


def test_a_view_of_a_table_that_is_no_more_is_refused_too(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE people (id BIGINT)",
        "CREATE VIEW customers AS FROM people",
        "DROP TABLE people",
    )
    with pytest.raises(StoreError, match="it is a view"):
        store.check(publication(tmp_path, "run-1"))
    with pytest.raises(StoreError, match="it is a view"):
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)


@pytest.mark.parametrize("name", ["connection", "publication", "pa"])
def test_a_variable_of_the_tables_name_is_never_read(store, tmp_path, name):
    assert store.table(name) is None
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], table=name)
    store.publish(run, AT)
    assert store.table(name).rows == 1
    assert store.check(run) == TableChange()


def test_a_file_of_the_tables_name_is_never_read(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("id\n1\n")
    assert store.table("x.csv") is None


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_constraints_indexes_defaults_comments_and_views_survive(store, tmp_path, mode):
    execute(
        tmp_path,
        "CREATE TABLE customers"
        " (id BIGINT PRIMARY KEY, name VARCHAR UNIQUE, amount DECIMAL(12, 2) CHECK (amount < 10),"
        " tier VARCHAR NOT NULL DEFAULT 'basic', upper_name VARCHAR GENERATED ALWAYS AS (upper(name)))",
        "CREATE INDEX by_amount ON customers (amount)",
        "COMMENT ON TABLE customers IS 'kept'",
        "CREATE VIEW names AS SELECT name FROM customers",
        "INSERT INTO customers (id, name, amount, tier) VALUES (1, 'Ada', 1, 'gold'), (2, 'Bo', 2, 'gold')",
    )
    before = execute(tmp_path, CONSTRAINTS)
    rows = {"append": [3, 4], "upsert": [1, 2, 3], "replace": [1, 2, 3]}[mode]
    names = {1: "Bo", 2: "Ada", 3: "Cy", 4: "Di"}
    staged = [customer(number, names[number], "3") for number in rows]
    store.publish(publication(tmp_path, "run-1", staged, mode=mode), AT)
    found = execute(tmp_path, "SELECT id, name, tier, upper_name FROM customers ORDER BY id")
    assert (
        found
        == {
            "append": [
                (1, "Ada", "gold", "ADA"),
                (2, "Bo", "gold", "BO"),
                (3, "Cy", "basic", "CY"),
                (4, "Di", "basic", "DI"),
            ],
            "upsert": [(1, "Bo", "gold", "BO"), (2, "Ada", "gold", "ADA"), (3, "Cy", "basic", "CY")],
            "replace": [(1, "Bo", "basic", "BO"), (2, "Ada", "basic", "ADA"), (3, "Cy", "basic", "CY")],
        }[mode]
    )
    assert execute(tmp_path, CONSTRAINTS) == before
    assert execute(tmp_path, "SELECT index_name FROM duckdb_indexes()") == [("by_amount",)]
    assert execute(tmp_path, "SELECT comment FROM duckdb_tables() WHERE table_name = 'customers'") == [
        ("kept",)
    ]
    assert len(execute(tmp_path, "FROM names")) == len(found)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("id BIGINT, name VARCHAR NOT NULL", [customer(5, "secret"), customer(6, None)], "NOT NULL .*name"),
        ("id BIGINT, name VARCHAR CHECK (length(name) < 5)", [customer(5, "secret")], "CHECK"),
        (
            "id BIGINT, name VARCHAR UNIQUE",
            [customer(5, "secret"), customer(6, "secret")],
            "unique constraint",
        ),
        ("id BIGINT PRIMARY KEY, name VARCHAR", [customer(5, "secret"), customer(5, "x")], "primary key"),
        ("id BIGINT, name ENUM('a')", [customer(5, "secret")], "not possible in the type"),
        ("id BIGINT, name UUID", [customer(5, "secret")], "not possible in the type"),
        ("id BIGINT, name JSON", [customer(5, "{secret")], "not possible in the type|JSON"),
    ],
)
def test_rows_that_break_the_tables_own_rules_change_nothing_and_are_not_quoted(
    store, tmp_path, columns, rows, message
):
    execute(tmp_path, f"CREATE TABLE customers ({columns})")
    with pytest.raises(StoreError, match=message) as raised:
        store.publish(publication(tmp_path, "run-1", rows, mode="append"), AT)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert execute(tmp_path, "SELECT count(*) FROM customers") == [(0,)]
    assert store.marker("run-1") is None
    assert store.table("customers").schema.names == ["id", "name"]


def test_rows_that_another_table_refers_to_are_refused_clearly(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers (id BIGINT PRIMARY KEY, name VARCHAR, amount DECIMAL(12, 2), _ecm_run_id VARCHAR)",
        "CREATE TABLE orders (customer BIGINT REFERENCES customers (id))",
        "INSERT INTO customers VALUES (1, 'Ada', 1, NULL)",
        "INSERT INTO orders VALUES (1)",
    )
    with pytest.raises(StoreError, match="foreign key"):
        store.publish(publication(tmp_path, "run-1", [customer(1, "Bo")]), AT)
    assert execute(tmp_path, "SELECT name FROM customers") == [("Ada",)]


def test_a_column_that_new_rows_cannot_fill_is_refused_unless_there_are_none(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers (id BIGINT, name VARCHAR, amount DECIMAL(12, 2), tier VARCHAR NOT NULL)",
        "INSERT INTO customers VALUES (1, 'Ada', 1, 'gold')",
    )
    message = "'tier' of the table is NOT NULL without a default"
    with pytest.raises(StoreError, match=message):
        store.check(publication(tmp_path, "run-1", mode="append"))
    with pytest.raises(StoreError, match=message):
        store.publish(publication(tmp_path, "run-1", [customer(1, "Bo"), customer(2, "Cy")]), AT)
    store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
    assert execute(tmp_path, "SELECT name, tier FROM customers") == [("Bo", "gold")]


def test_a_generated_column_cannot_be_delivered(store, tmp_path):
    execute(tmp_path, "CREATE TABLE customers (id BIGINT, name VARCHAR GENERATED ALWAYS AS (id::VARCHAR))")
    with pytest.raises(StoreError, match="'name' of the table is generated"):
        store.check(publication(tmp_path, "run-1"))


def test_names_that_differ_only_in_case_are_one_column(store, tmp_path):
    both = pa.schema([("id", pa.int64()), ("Id", pa.int64())])
    with pytest.raises(StoreError, match="'id', 'Id' have the same name"):
        store.check(publication(tmp_path, "run-1", schema=both))
    execute(
        tmp_path,
        "CREATE TABLE customers (ID BIGINT, NAME VARCHAR, extra INTEGER)",
        "INSERT INTO customers VALUES (1, 'Ada', 7)",
    )
    marker = store.publish(publication(tmp_path, "run-1", [customer(1, "Bo")]), AT)
    assert marker.rows == PublishedRows(updated=1)
    assert execute(tmp_path, "SELECT ID, NAME, extra, amount FROM customers") == [
        (1, "Bo", 7, Decimal("1.00"))
    ]


def test_a_key_column_that_the_table_lacks_is_refused(store, tmp_path):
    execute(tmp_path, "CREATE TABLE customers (name VARCHAR)")
    with pytest.raises(StoreError, match="key column 'id' is not in the table"):
        store.check(publication(tmp_path, "run-1"))


def test_duckdbs_own_names_for_places_are_refused_only_where_rows_are_folded(store, tmp_path):
    schema = pa.schema([("id", pa.int64()), ("file_row_number", pa.int64())])
    with pytest.raises(StoreError, match="'file_row_number' must have another name"):
        store.check(publication(tmp_path, "run-1", schema=schema))
    rows = [{"id": 1, "file_row_number": 9}]
    store.publish(publication(tmp_path, "run-1", rows, schema=schema, mode="append"), AT)
    assert execute(tmp_path, "SELECT file_row_number FROM customers") == [(9,)]


# Versions.


@pytest.mark.parametrize("name", ["customers", "main.customers", "Main.CUSTOMERS"])
def test_all_ways_to_name_a_table_are_one(store, tmp_path, name):
    for number, table in enumerate(["customers", "main.customers", "CUSTOMERS", "crm.customers"]):
        run = publication(tmp_path, f"run-{number}", [customer(1, "Ada")], table=table)
        store.publish(run, AT)
    assert store.versions() == {"customers": 3, "crm.customers": 1}
    assert store.versions()[store.table_name(name)] == 3
    run = publication(tmp_path, "run-9", [customer(1, "Bo")], table=name, expected_version=3)
    assert store.publish(run, AT).rows == PublishedRows(updated=1)


# Widening.

WIDER = pa.schema([("id", pa.int64()), ("value", pa.int64())])


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE customers (id BIGINT, value INTEGER PRIMARY KEY)"], "PRIMARY KEY constraint"),
        (["CREATE TABLE customers (id BIGINT, value INTEGER UNIQUE)"], "UNIQUE constraint"),
        (["CREATE TABLE customers (id BIGINT, value INTEGER CHECK (value > 0))"], "CHECK constraint"),
        (
            [
                "CREATE TABLE k (x INTEGER PRIMARY KEY)",
                "CREATE TABLE customers (id BIGINT, value INTEGER REFERENCES k (x))",
            ],
            "FOREIGN KEY constraint",
        ),
        (
            ["CREATE TABLE customers (id BIGINT, value INTEGER)", "CREATE INDEX by_id ON customers (id)"],
            "an index, by_id",
        ),
        (
            [
                "CREATE TABLE customers (id BIGINT PRIMARY KEY, value INTEGER)",
                "CREATE TABLE orders (customer BIGINT REFERENCES customers (id))",
            ],
            "FOREIGN KEY of table orders",
        ),
    ],
)
def test_a_column_that_duckdb_cannot_widen_is_refused_before_a_row_is_read(
    store, tmp_path, statements, message
):
    execute(tmp_path, *statements)
    run = publication(tmp_path, "run-1", [{"id": 1, "value": 2**40}], schema=WIDER)
    for act in (store.check, lambda run: store.publish(run, AT)):
        with pytest.raises(StoreError, match=rf"'value' would have to become int64 .* {message}.* cast it"):
            act(run)
    assert types_of(tmp_path)["value"] == "INTEGER"
    assert store.marker("run-1") is None


def test_a_column_that_another_is_computed_from_is_refused_and_nothing_changes(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers (id BIGINT, value INTEGER, twice INTEGER GENERATED ALWAYS AS (2 * value))",
        "INSERT INTO customers VALUES (1, 1)",
    )
    run = publication(tmp_path, "run-1", [{"id": 1, "value": 2**40}], schema=WIDER)
    with pytest.raises(StoreError, match=r"'value' would have to become int64 .* generated column"):
        store.publish(run, AT)
    assert execute(tmp_path, "FROM customers") == [(1, 1, 2)]
    assert store.marker("run-1") is None


def test_a_stored_value_out_of_the_wider_types_range_is_refused_and_not_quoted(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers (id BIGINT, value TIMESTAMP)",
        "INSERT INTO customers VALUES (1, TIMESTAMP '3020-01-01')",
    )
    schema = WIDER.set(1, pa.field("value", pa.timestamp("ns")))
    run = publication(tmp_path, "run-1", [{"id": 2, "value": None}], schema=schema)
    with pytest.raises(StoreError, match=r"'value' .* out of its range") as raised:
        store.publish(run, AT)
    assert "3020" not in str(raised.value)
    assert types_of(tmp_path)["value"] == "TIMESTAMP"


def test_what_is_not_widened_survives(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers"
        " (id BIGINT PRIMARY KEY, value INTEGER NOT NULL DEFAULT 7, name VARCHAR UNIQUE CHECK (name < 'm'))",
        "COMMENT ON COLUMN customers.value IS 'kept'",
        "CREATE VIEW big AS SELECT value FROM customers WHERE value > 5",
        "INSERT INTO customers VALUES (1, 1, 'a'), (2, 2, 'b')",
    )
    before = execute(tmp_path, CONSTRAINTS)
    rows = [{"id": 2, "value": 2**40}, {"id": 3, "value": 2**41}]
    marker = store.publish(publication(tmp_path, "run-1", rows, schema=WIDER), AT)
    assert marker.rows == PublishedRows(inserted=1, updated=1)
    assert execute(tmp_path, CONSTRAINTS) == before
    assert execute(tmp_path, "SELECT value, name FROM customers ORDER BY id") == [
        (1, "a"),
        (2**40, "b"),
        (2**41, None),
    ]
    assert execute(tmp_path, "SELECT value FROM big ORDER BY 1") == [(2**40,), (2**41,)]
    assert execute(
        tmp_path,
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'customers' AND column_name = 'value'",
    ) == [("kept",)]
    with pytest.raises(duckdb.ConstraintException):
        execute(tmp_path, "INSERT INTO customers (id, value, name) VALUES (2, 1, 'c')")
    execute(tmp_path, "INSERT INTO customers (id) VALUES (4)")
    assert execute(tmp_path, "SELECT value FROM customers WHERE id = 4") == [(7,)]


# Parts.


def test_an_upsert_in_many_parts_equals_one_in_a_single_part(tmp_path):
    before = [customer(number, "old", "5") for number in range(60)]
    files = [
        [
            customer((7 * number) % 80, f"{part}-{number}", str(number % 9))
            for number in range(part * 15, part * 15 + 20)
        ]
        for part in range(6)
    ]
    found = []
    for name, memory_limit in (("one", "1GB"), ("many", "64 MB")):
        folder = tmp_path / name
        folder.mkdir()
        store = open_store(folder, memory_limit=memory_limit)
        if name == "many":
            store._part_bytes = 1
        store.publish(publication(folder, "run-1", before), AT)
        marker = store.publish(publication(folder, "run-2", *files, order_by="amount"), AT)
        rows = sorted(
            read_table(folder / "context.duckdb", "customers").to_pylist(), key=lambda row: row["id"]
        )
        found.append((marker.rows, rows))
    assert found[0] == found[1]
    counts = found[0][0]
    assert counts.folded > 0
    assert counts.outdated > 0
    assert counts.inserted + counts.updated + counts.unchanged + counts.outdated + counts.folded == 120


# Types.


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        pytest.param(pa.timestamp("s"), "TIMESTAMP_S", marks=pytest.mark.slow),
        pytest.param(pa.timestamp("ms"), "TIMESTAMP_MS", marks=pytest.mark.slow),
        (pa.timestamp("us"), "TIMESTAMP"),
        (pa.timestamp("ns"), "TIMESTAMP_NS"),
        (pa.timestamp("us", "Europe/Prague"), "TIMESTAMP WITH TIME ZONE"),
        pytest.param(pa.time32("s"), "TIME", marks=pytest.mark.slow),
        pytest.param(pa.date64(), "DATE", marks=pytest.mark.slow),
        pytest.param(pa.uint64(), "UBIGINT", marks=pytest.mark.slow),
        pytest.param(pa.float16(), "FLOAT", marks=pytest.mark.slow),
        (pa.decimal128(38, 10), "DECIMAL(38,10)"),
        pytest.param(pa.binary(16), "BLOB", marks=pytest.mark.slow),
        (pa.uuid(), "UUID"),
        (pa.dictionary(pa.int8(), pa.large_string()), "VARCHAR"),
        pytest.param(pa.list_(pa.int16(), 2), "SMALLINT[2]", marks=pytest.mark.slow),
        (pa.list_(pa.timestamp("us", "UTC")), "TIMESTAMP WITH TIME ZONE[]"),
        pytest.param(pa.map_(pa.string(), pa.bool_()), "MAP(VARCHAR, BOOLEAN)", marks=pytest.mark.slow),
        (pa.struct([('say "hi"', pa.date32()), ("b", pa.bool_())]), 'STRUCT("say ""hi""" DATE, b BOOLEAN)'),
    ],
    ids=str,
)
def test_a_new_column_has_the_type_of_the_schema_and_is_recognised_again(store, tmp_path, type_, expected):
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": None}], schema=schema), AT)
    assert types_of(tmp_path)["value"] == expected
    store.check(publication(tmp_path, "run-2", schema=schema))
    wider = pa.schema([("id", pa.int64()), ("value", type_), ("value_2", type_)])
    rows = [{"id": 1, "value": None, "value_2": None}]
    store.publish(publication(tmp_path, "run-2", rows, schema=wider), AT)
    assert types_of(tmp_path)["value_2"] == expected


@pytest.mark.parametrize(
    "type_",
    [
        pa.null(),
        pa.duration("us"),
        pa.month_day_nano_interval(),
        pa.decimal256(50, 2),
        pa.struct([]),
        pa.list_(pa.null()),
    ],
    ids=str,
)
def test_types_that_duckdb_cannot_keep_are_refused_by_name(store, tmp_path, type_):
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    bad = replace(publication(tmp_path, "run-1", mode="append"), schema=schema)
    with pytest.raises(StoreError, match=r"'value' is .* which DuckDB cannot keep"):
        store.check(bad)


@pytest.mark.parametrize(
    ("column", "type_", "value", "stored"),
    [
        ("HUGEINT", pa.decimal128(38, 0), Decimal(10**37), 10**37),
        ("HUGEINT", pa.uint64(), 2**64 - 1, 2**64 - 1),
        ("UUID", pa.string(), "6f0f1f9e-0000-4000-8000-00000000000a", "6f0f1f9e-0000-4000-8000-00000000000a"),
        ("JSON", pa.string(), '{"a": 1}', '{"a": 1}'),
        ("ENUM('a', 'b')", pa.string(), "b", "b"),
        ("BOOLEAN", pa.bool_(), True, True),
        (
            "STRUCT(a INTEGER, b BOOLEAN)",
            pa.struct([("b", pa.bool_()), ("a", pa.int8())]),
            {"a": 1, "b": True},
            {"a": 1, "b": True},
        ),
        ("SMALLINT[2]", pa.list_(pa.int16(), 2), [1, 2], (1, 2)),
        ("TIMESTAMP", pa.null(), None, None),
    ],
)
def test_columns_that_are_there_take_what_fits(store, tmp_path, column, type_, value, stored):
    execute(tmp_path, f"CREATE TABLE customers (id BIGINT, value {column})")
    schema = pa.schema([("id", pa.int64()), ("value", type_)])
    rows = [{"id": 1, "value": value}]
    store.publish(publication(tmp_path, "run-1", rows, schema=schema), AT)
    (found,) = execute(tmp_path, "SELECT value FROM customers")[0]
    assert (str(found) if column == "UUID" else found) == stored
    assert store.publish(publication(tmp_path, "run-2", rows, schema=schema), AT).rows == PublishedRows(
        unchanged=1
    )


def test_undelivered_columns_of_types_of_its_own_survive_an_upsert(store, tmp_path):
    execute(
        tmp_path,
        "CREATE TABLE customers"
        " (id BIGINT, name VARCHAR, i INTERVAL, b BIT, u UNION(n INTEGER, s VARCHAR), t TIMETZ)",
        "INSERT INTO customers VALUES (1, 'Ada', INTERVAL 3 DAY, '101', 's', '01:00:00+02')",
    )
    query = "SELECT i::VARCHAR, b::VARCHAR, u::VARCHAR, t::VARCHAR FROM customers"
    before = execute(tmp_path, query)
    narrow = pa.schema([CUSTOMERS.field("id"), CUSTOMERS.field("name")])
    marker = store.publish(publication(tmp_path, "run-1", [{"id": 1, "name": "Bo"}], schema=narrow), AT)
    assert marker.rows == PublishedRows(updated=1)
    assert execute(tmp_path, query) == before
