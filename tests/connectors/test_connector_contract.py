"""The contract suite over the connectors that ship with the package."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ecmbatch.connectors.connector import Connector, ReadRequest, ResumeKind
from ecmbatch.connectors.duckdb import DuckDBConnector, DuckDBSource
from ecmbatch.connectors.files import FilesConnector, FilesSource
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.testing.connector_contract import ConnectorContract


class TestMemoryByCursor(ConnectorContract):
    resume: ResumeKind = "cursor"

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        return MemoryConnector(table, resume=self.resume, scans=3), ReadRequest(table="t")


class TestMemoryByPosition(TestMemoryByCursor):
    resume = "position"


class TestMemoryWithoutResuming(TestMemoryByCursor):
    resume = "none"


class TestDuckDB(ConnectorContract):
    scans = 1
    examples = 6

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        with duckdb.connect(str(folder / "source.duckdb")) as database:
            database.register("given", table)
            database.execute("CREATE TABLE t AS SELECT * FROM given")
        return DuckDBConnector(DuckDBSource(path="source.duckdb", scans=self.scans), folder), self.request()

    def request(self) -> ReadRequest:
        return ReadRequest(table="t")


class TestDuckDBInSeveralScans(TestDuckDB):
    scans = 3

    def request(self) -> ReadRequest:
        return ReadRequest(query="SELECT * FROM t WHERE row_number >= :least -- all", parameters={"least": 0})


class TestFiles(ConnectorContract):
    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        middle = table.num_rows // 2
        for name, part in (
            ("a", table.slice(0, middle)),
            ("b", table.slice(middle)),
            ("c", table.slice(0, 0)),
        ):
            pq.write_table(part, folder / f"{name}.parquet", row_group_size=7)
        return FilesConnector(FilesSource(root="."), folder), ReadRequest(path="*.parquet")
