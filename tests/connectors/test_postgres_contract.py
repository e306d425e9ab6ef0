"""The contract suite over the PostgreSQL connector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from hypothesis import reject

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.postgres import POSTGRES
from ecmbatch.testing.connector_contract import ConnectorContract

KEY_TYPES = (
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
SQL_TYPES = {
    pa.int8(): "smallint",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.decimal128(18, 4): "numeric(18,4)",
    pa.date32(): "date",
    pa.time64("us"): "time",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", "UTC"): "timestamptz",
}


class TestPostgres(ConnectorContract):
    key_types: Sequence[str] | None = ("int", "text")
    examples = 2
    scans: int | None = None

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        write(self.url, table)
        settings = {"url": self.url, "scans": self.scans} if self.scans else {"url": self.url}
        return POSTGRES.build(POSTGRES.parse_config(settings), folder), self.request()

    def request(self) -> ReadRequest:
        return ReadRequest(table="t")


@pytest.mark.slow
class TestPostgresWithKeysOfEveryType(TestPostgres):
    key_types = KEY_TYPES
    examples = 8


@pytest.mark.slow
class TestPostgresInSeveralScans(TestPostgresWithKeysOfEveryType):
    scans = 3

    def request(self) -> ReadRequest:
        return ReadRequest(query="SELECT * FROM t WHERE row_number >= :least -- all", parameters={"least": 0})


def write(url: str, table: pa.Table) -> None:
    """Make *table* the table ``t``."""
    key = table.schema.field("key").type
    if pa.types.is_string(key) and any("\0" in (text or "") for text in table.column("key").to_pylist()):
        # PostgreSQL has no such text.
        reject()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute(f"CREATE TABLE t (key {SQL_TYPES[key]}, row_number bigint)".encode())
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            for row in table.to_pylist():
                copy.write_row((row["key"], row["row_number"]))
