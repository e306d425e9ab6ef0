"""The contract suite over SQLite files."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.connectors.sqlite import SQLiteConnector, SQLiteSettings
from ecmbatch.testing.connector_contract import ConnectorContract
from sqlite_tables import write_table


class TestTable(ConnectorContract):
    key_types: Sequence[str] = ("int", "text")
    examples = 3
    collation = ""

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        write_table(folder / "s.db", table, index=bool(self.collation), collation=self.collation)
        return SQLiteConnector(SQLiteSettings(path="s.db"), folder), self.request()

    def request(self) -> ReadRequest:
        return ReadRequest(table="t")


@pytest.mark.slow
class TestTableWithKeysOfEveryType(TestTable):
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
        "zoned",
    )
    examples = 15


@pytest.mark.slow
class TestTableWithACollation(TestTable):
    key_types = ("text",)
    examples = 15
    collation = "COLLATE NOCASE"


@pytest.mark.slow
class TestQuery(TestTableWithKeysOfEveryType):
    def request(self) -> ReadRequest:
        return ReadRequest(query="SELECT * FROM t WHERE row_number >= :least -- all", parameters={"least": 0})
