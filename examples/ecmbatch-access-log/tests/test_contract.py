"""The connector keeps the contract.

The suite brings tables of its own, which no web server would write. Their values are written into the parts of
lines in the Combined Log Format, and a layout of the same pattern makes their columns of these parts.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.testing.connector_contract import ConnectorContract

from ecmbatch_access_log.connector import AccessLogConnector, AccessLogSettings
from ecmbatch_access_log.layout import COMBINED, Column, Layout, Parts, number

LINE = '192.0.2.1 - {} [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 {} "-" "test"\n'


def written(key: object) -> str:
    if key is None:
        return "-"
    data = key if isinstance(key, bytes) else str(key).encode()
    return f"x{data.hex()}"


def decoded(parts: Parts, kind: pa.DataType) -> pa.Array:
    keys = [None if user == "-" else bytes.fromhex(user[1:]) for user in parts["user"].to_pylist()]
    return (
        pa.array(keys, pa.binary()).cast(pa.binary() if pa.types.is_binary(kind) else pa.string()).cast(kind)
    )


def layout(table: pa.Table) -> Layout:
    kind = table.schema.field("key").type
    key = Column(type=kind, decode=lambda parts: decoded(parts, kind))
    return replace(COMBINED, columns={"key": key, "row_number": number("bytes", pa.int64())})


def lines(table: pa.Table) -> list[bytes]:
    return [LINE.format(written(row["key"]), row["row_number"]).encode() for row in table.to_pylist()]


class TestOneBlock(ConnectorContract):
    key_types = ("int", "small int", "unsigned", "text", "binary", "date")
    examples = 5
    block = 1 << 20

    def source(self, table: pa.Table, folder: Path) -> tuple[Connector, ReadRequest]:
        self.write(lines(table), folder)
        connector = AccessLogConnector(
            AccessLogSettings(root="."), folder, layout=layout(table), block=self.block
        )
        return connector, ReadRequest(path="access*")

    def write(self, lines: list[bytes], folder: Path) -> None:
        (folder / "access.log").write_bytes(b"".join(lines))


class TestSmallBlocks(TestOneBlock):
    block = 4096


class TestSomeFiles(TestSmallBlocks):
    """One of them compressed, and one empty."""

    def write(self, lines: list[bytes], folder: Path) -> None:
        third = len(lines) // 3
        (folder / "access-1.log").write_bytes(b"".join(lines[:third]))
        (folder / "access-2.log").write_bytes(b"")
        with gzip.open(folder / "access-3.log.gz", "wb") as file:
            file.write(b"".join(lines[third : 2 * third]))
        (folder / "access-4.log").write_bytes(b"".join(lines[2 * third :]))
