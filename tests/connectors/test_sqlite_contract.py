"""The contract suite over SQLite files."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.sqlite import SQLiteConnector, SQLiteSettings
from ecmbatch.testing.connector_contract import ConnectorContract
from sqlite_tables import write_table


class TestTable(ConnectorContract):
    key_types: Sequence[str] = (
        "int",
        "small int",
        "bool",
        "text",
        "binary",
        "decimal",
        "date",
        "time",
        "timestamp",
        "zoned",
    )
    index = False
    collation = ""

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        write_table(folder / "s.db", table, index=self.index, collation=self.collation)
        return SQLiteConnector(SQLiteSettings(path="s.db"), folder), self.request()

    def request(self) -> ReadRequest:
        return ReadRequest(table="t")


class TestTableWithAnIndexAndAScanForEachRange(TestTable):
    index = True


class TestTableWithACollation(TestTable):
    key_types = ("text",)
    index = True
    collation = "COLLATE NOCASE"


class TestQuery(TestTable):
    def request(self) -> ReadRequest:
        return ReadRequest(query="SELECT * FROM t WHERE row_number >= :least -- all", parameters={"least": 0})
