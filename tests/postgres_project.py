"""Projects whose warehouse, context store and ledger are databases of a real PostgreSQL server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa

from postgres_server import PostgresServer

EVERYTHING = ("source", "store", "ledger")


def make_postgres_project(
    folder: Path,
    server: PostgresServer,
    *,
    of_postgres: tuple[str, ...] = EVERYTHING,
    executor: str = "threads",
    url: str | None = None,
    store_url: str | None = None,
) -> str:
    """Write a project like that of ``harness`` on a new database of *server*, and return the database's URL.

    What is not *of_postgres* is a DuckDB file or the SQLite ledger. *store_url* is another way to the database.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = url or server.new_database()
    sections = {
        "connectors.warehouse": {"type": "duckdb", "path": "warehouse.duckdb"},
        "stores.context_store": {"type": "duckdb", "path": "context.duckdb"},
        "run": {"executor": executor},
    }
    if "source" in of_postgres:
        sections["connectors.warehouse"] = {"type": "postgres", "url": url}
    if "store" in of_postgres:
        sections["stores.context_store"] = {"type": "postgres", "url": store_url or url, "schema": "context"}
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS context")
    if "ledger" in of_postgres:
        sections["ledger"] = {"url": url}
    lines = []
    for name, settings in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    (folder / "ecmbatch.toml").write_text("\n".join(lines) + "\n")
    return url


def fill_postgres(url: str, rows: pa.Table, table: str = "customers") -> None:
    """Make *table* anew with *rows*."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(table, rows, mode="create")
        connection.commit()


def stored_in_postgres(url: str, table: str = "customers") -> list[tuple[Any, ...]]:
    """Return the rows of a table of the store, sorted, without the run that wrote them."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regclass(%s)", [f"context.{table}"]).fetchone()
        if found is None or found[0] is None:
            return []
        cursor = connection.execute(f"SELECT * FROM context.{table}")
        assert cursor.description is not None
        kept = [place for place, column in enumerate(cursor.description) if column.name != "_ecm_run_id"]
        return sorted((tuple(row[place] for place in kept) for row in cursor), key=repr)
