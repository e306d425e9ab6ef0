"""The contract suite over the connectors that ship with the package."""

import gzip
import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest, ResumeKind
from ecmbatch.connectors.duckdb import DuckDBConnector, DuckDBSource
from ecmbatch.connectors.files import FilesConnector, FilesSource
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.protocol.type_names import type_name
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


@pytest.mark.slow
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


PLAIN = ("int", "small int", "unsigned", "bool", "decimal", "date", "timestamp", "zoned")


class TestCsvFiles(ConnectorContract):
    key_types: Sequence[str] | None = (*PLAIN, "float", "single")
    examples = 6
    suffix = "csv"

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        middle = table.num_rows // 2
        for name, part in (
            ("a", table.slice(0, middle)),
            ("b", table.slice(middle)),
            ("c", table.slice(0, 0)),
        ):
            (folder / f"{name}.{self.suffix}").write_bytes(self.compressed(self.text(part).encode()))
        columns = {field.name: type_name(field.type) for field in table.schema}
        source = FilesSource.model_validate(
            {"root": ".", self.suffix.partition(".")[0]: {"columns": columns}}
        )
        return FilesConnector(source, folder), ReadRequest(path=f"*.{self.suffix}")

    def text(self, table: pa.Table) -> str:
        rows = [",".join(written(value) for value in row.values()) for row in table.to_pylist()]
        return "\n".join([",".join(table.schema.names), *rows]) + "\n"

    def compressed(self, content: bytes) -> bytes:
        return content


@pytest.mark.slow
class TestCompressedCsvFiles(TestCsvFiles):
    suffix = "csv.gz"

    def compressed(self, content: bytes) -> bytes:
        return gzip.compress(content)


class TestJsonFiles(TestCsvFiles):
    key_types: Sequence[str] | None = (*PLAIN, "text")
    suffix = "json"

    def text(self, table: pa.Table) -> str:
        return "".join(json.dumps(row, default=written) + "\n" for row in table.to_pylist())


@pytest.mark.slow
class TestCompressedJsonFiles(TestJsonFiles):
    suffix = "json.zst"

    def compressed(self, content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return bytes(sink.getvalue())


def written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | datetime):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
