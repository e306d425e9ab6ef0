"""Short words for tests that read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest, ScannedBatch
from ecmbatch.connectors.postgres import POSTGRES
from ecmbatch.errors import SourceError
from ecmbatch.testing.connector_contract import read_all


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Execute *statements* and return the rows of the last."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@contextmanager
def connected(url: str, **settings: object) -> Iterator[Connector]:
    connector = POSTGRES.build(POSTGRES.parse_config({"url": url, **settings}), Path())
    try:
        yield connector
    finally:
        connector.close()


def read_rows(connector: Connector, request: ReadRequest) -> list[dict[str, Any]]:
    return [
        row
        for scan in connector.plan(request).scans
        for scanned in read_all(connector, request, scan)
        for row in scanned.batch.to_pylist()
    ]


def refusal(connector: Connector, request: ReadRequest) -> str:
    with pytest.raises(SourceError) as raised:
        connector.plan(request)
    return f"{raised.value} | {raised.value.hint}"


def ids(scanned: Sequence[ScannedBatch]) -> list[int]:
    return [row for each in scanned for row in each.batch.column("id").to_pylist()]
