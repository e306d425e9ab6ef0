"""The contract suite over databases that SQLAlchemy reaches: SQLite and a real PostgreSQL."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from hypothesis import assume

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.sqlalchemy_connector import SQLAlchemyConnector, SQLAlchemySettings
from ecmbatch.testing.connector_contract import ConnectorContract
from sqlite_tables import write_table

_POSTGRES: Mapping[pa.DataType, str] = {
    pa.int64(): "bigint",
    pa.int8(): "smallint",
    pa.uint64(): "numeric(20, 0)",
    pa.bool_(): "boolean",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.float64(): "double precision",
    pa.float32(): "real",
    pa.decimal128(18, 4): "numeric(18, 4)",
    pa.date32(): "date",
    pa.time64("us"): "time",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", "UTC"): "timestamptz",
}


def _texts(table: pa.Table) -> list[str]:
    return [key for key in table.column("key").to_pylist() if key is not None]


class TestSQLite(ConnectorContract):
    key_types: Sequence[str] = ("int", "text")
    examples = 3
    collation = ""

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        write_table(folder / "s.db", table, collation=self.collation)
        return SQLAlchemyConnector(SQLAlchemySettings(url="sqlite:///s.db"), folder), self.request()

    def request(self) -> ReadRequest:
        return ReadRequest(table="t")


@pytest.mark.slow
class TestSQLiteWithKeysOfEveryType(TestSQLite):
    key_types = (
        "int",
        "small int",
        "bool",
        "text",
        "binary",
        "decimal",
        "date",
        "time",
        "timestamp",
    )
    examples = 15


@pytest.mark.slow
class TestSQLiteWithACollation(TestSQLite):
    key_types = ("text",)
    examples = 15
    collation = "COLLATE NOCASE"


@pytest.mark.slow
class TestPostgreSQL(ConnectorContract):
    key_types: Sequence[str] = (
        "int",
        "small int",
        "bool",
        "text",
        "binary",
        "float",
        "single",
        "decimal",
        "date",
        "time",
        "timestamp",
        "zoned",
    )
    examples = 8
    tables = itertools.count()

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        name = f"t{next(self.tables)}"
        columns = ", ".join(f"{field.name} {_POSTGRES[field.type]}" for field in table.schema)
        # PostgreSQL has no texts with a NUL character.
        assume(table.schema.field("key").type != pa.string() or "\0" not in "".join(_texts(table)))
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} ({columns})")
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, %s)", list(rows))
        url = self.url.replace("postgresql://", "postgresql+psycopg://")
        connector = SQLAlchemyConnector(SQLAlchemySettings(url=url), folder)
        return connector, self.request(name)

    def request(self, table: str) -> ReadRequest:
        return ReadRequest(table=table)


@pytest.mark.slow
class TestPostgreSQLQuery(TestPostgreSQL):
    # Nothing says of a query how many digits its decimals have, nor that a number is a short one.
    key_types = ("int", "small int", "bool", "text", "binary", "float", "date", "time", "timestamp", "zoned")

    def request(self, table: str) -> ReadRequest:
        query = f"SELECT * FROM {table} WHERE row_number >= :least -- 100% of them"
        return ReadRequest(query=query, parameters={"least": 0})
