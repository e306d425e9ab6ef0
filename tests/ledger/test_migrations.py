"""Older ledgers are brought up to date with everything that is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from ecmbatch.errors import UsageError
from ecmbatch.ledger.ledger import Ledger, ledger_exists
from ecmbatch.ledger.migrations import upgrade
from ecmbatch.ledger.place import LedgerPlace, PostgresPlace
from ecmbatch.ledger.tables import SCHEMA_VERSION, metadata

RUN_OF_0001 = {
    "run_id": "old",
    "number": 1,
    "job_id": "job",
    "run_key": "old",
    "stream": "default",
    "lane": "default",
    "live": True,
    "trigger": "manual",
    "status": "stopped",
    "attempt": 1,
    "epoch": 1,
    "digest": "d",
    "definition": json.dumps({"source": {"query": "SELECT 'ü'"}}),
    "options": "{}",
    "scheduled_for": "2026-01-01 00:00:00.000000",
    "created_at": "2026-01-01 00:00:00.000000",
    "plan": json.dumps({"any": 1}),
}


@contextmanager
def tables_of(place: LedgerPlace) -> Iterator[Connection]:
    """A transaction beside the ledger's own, in which its tables need no prefix."""
    engine = engine_of(place)
    with engine.begin() as connection:
        if isinstance(place, PostgresPlace):
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {place.schema}")
            connection.exec_driver_sql(f"SET LOCAL search_path = {place.schema}")
            connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
        yield connection
    engine.dispose()


def engine_of(place: LedgerPlace) -> Engine:
    if isinstance(place, PostgresPlace):
        return create_engine(place.url.replace("postgresql://", "postgresql+psycopg://"))
    return create_engine(f"sqlite:///{place}")


def schema_in(connection: Connection, place: LedgerPlace) -> dict[str, Any]:
    """Everything that tells one version of the tables from another."""
    if isinstance(place, PostgresPlace):
        indexes = connection.execute(
            text("SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = :s"), {"s": place.schema}
        )
    else:
        indexes = connection.execute(text("SELECT tbl_name, sql FROM sqlite_master WHERE type = 'index'"))
    of_table: dict[str, list[str]] = {}
    for table, definition in indexes:
        of_table.setdefault(table, []).append(str(definition))
    found = inspect(connection)
    schema = place.schema if isinstance(place, PostgresPlace) else None
    return {
        table: (
            [
                (each["name"], str(each["type"]), each["nullable"])
                for each in found.get_columns(table, schema)
            ],
            sorted(of_table.get(table, [])),
        )
        for table in metadata.tables.keys() - {"alembic_version"}
    }


def another(place: LedgerPlace) -> LedgerPlace:
    if isinstance(place, PostgresPlace):
        return PostgresPlace(url=place.url, schema="another")
    return place.with_name("another.db")


def test_migrations_lead_to_the_same_tables_as_a_new_ledger(place: LedgerPlace) -> None:
    new = another(place)
    with tables_of(place) as connection:
        upgrade(connection)
        migrated = schema_in(connection, place)
    Ledger(new).close()
    with tables_of(new) as connection:
        made = json.loads(json.dumps(schema_in(connection, new)).replace("another.", "ecmbatch."))
    assert json.loads(json.dumps(migrated)) == made


def test_a_ledger_of_the_first_version_is_brought_up_to_date_with_its_rows(place: LedgerPlace) -> None:
    with tables_of(place) as connection:
        upgrade(connection, "0001")
        columns = ", ".join(RUN_OF_0001)
        values = ", ".join(f":{name}" for name in RUN_OF_0001)
        connection.execute(text(f"INSERT INTO runs ({columns}) VALUES ({values})"), RUN_OF_0001)
    with pytest.raises(UsageError, match=f"has version 0001, this ecmbatch has {SCHEMA_VERSION}"):
        Ledger.untouched(place)
    assert ledger_exists(place)
    ledger = Ledger(place)
    run = ledger.runs.get("old")
    assert (run.definition, run.plan, run.live, run.stage) == (
        {"source": {"query": "SELECT 'ü'"}},
        {"any": 1},
        True,
        None,
    )
    ledger.close()
    with tables_of(place) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == SCHEMA_VERSION


def test_many_who_find_no_ledger_make_one(place: LedgerPlace) -> None:
    def make(_: int) -> int:
        ledger = Ledger(place)
        try:
            return len(ledger.runs.recent())
        finally:
            ledger.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [0] * 8


def test_many_who_find_an_old_ledger_bring_it_up_to_date_once(place: LedgerPlace) -> None:
    with tables_of(place) as connection:
        upgrade(connection, "0001")

    def open_it(_: int) -> None:
        Ledger(place).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_it, range(8)))
    with tables_of(place) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [
            (SCHEMA_VERSION,)
        ]


def test_a_ledger_of_a_newer_version_is_refused_and_stays_as_it_is(place: LedgerPlace) -> None:
    Ledger(place).close()
    with tables_of(place) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UsageError, match="another version") as raised:
        Ledger(place)
    assert "pip install --upgrade" in (raised.value.hint or "")


def test_where_there_is_no_ledger_none_is_made_by_looking(place: LedgerPlace) -> None:
    assert Ledger.untouched(place) is None
    assert not ledger_exists(place)
    if isinstance(place, Path):
        assert not place.exists()
