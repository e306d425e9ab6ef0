"""What is compared where PostgreSQL is the source or the target: a server of its own, started when needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import psycopg
from tests.postgres_server import PostgresServer

from benchmarks.comparison import TARGET, Comparison, Variant
from benchmarks.lab import FIELDS, Lab, Source, python
from benchmarks.process import run

_BY_HAND, _ECMBATCH = "hand-written", "ecmbatch"
_ROUTE = "route.json"

_PROJECT = """
[connectors.source]
{source}
[stores.context_store]
{target}
"""

Side = Literal["file", "postgres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """From where to where, and what. A file is Parquet as the source and DuckDB as the target."""

    source: Side
    target: Side
    rows: Source

    @property
    def name(self) -> str:
        """The name of the comparison."""
        start = "postgres" if self.source == "postgres" else self.rows.format
        end = "postgres" if self.target == "postgres" else "duckdb"
        return f"{start}-to-{end}-{self.rows.mode}{self.rows.changed_percent or ''}"


@dataclass
class PostgresLab:
    """Routes through a server; *lab* makes the files that its tables are loaded from."""

    lab: Lab
    _databases: set[str] = field(default_factory=set)

    def comparisons(self, rows: int) -> Iterator[Comparison]:
        """Yield appends and upserts, each beside the hand-written pipeline."""
        whole = Source(format="parquet", rows=rows)
        changes = [Source(format="parquet", rows=rows, changed_percent=percent) for percent in (1, 100)]
        routes = [
            Route(source="postgres", target="file", rows=whole),
            *(Route(source="file", target="postgres", rows=what) for what in (whole, *changes)),
            *(Route(source="postgres", target="postgres", rows=what) for what in (whole, *changes)),
        ]
        for route in routes:
            variants = [self._variant(route, side) for side in (_BY_HAND, _ECMBATCH)]
            yield Comparison(name=route.name, rows=rows, variants=variants)

    @cached_property
    def server(self) -> PostgresServer:
        """The server, started by the first comparison that is measured."""
        return PostgresServer()

    def close(self) -> None:
        """Stop the server, if one was started."""
        if "server" in self.__dict__:
            self.server.__exit__()

    def _variant(self, route: Route, side: str) -> Variant:
        def prepare(folder: Path) -> None:
            self.lab.make(route.rows)
            if route.target == "postgres":
                self._make_target(route, side)
            self._write(route, side, folder)

        return Variant(name=side, command=_command(side), prepare=prepare)

    def _write(self, route: Route, side: str, folder: Path) -> None:
        file = self.lab.path(route.rows)
        source = self._source_url(route.rows) if route.source == "postgres" else str(file)
        target = self.server.url(_target_of(side)) if route.target == "postgres" else TARGET
        (folder / _ROUTE).write_text(json.dumps([source, target, route.rows.mode]))
        if side == _ECMBATCH:
            (folder / "ecmbatch.toml").write_text(
                _PROJECT.format(
                    source=f'type = "postgres"\nurl = {json.dumps(source)}'
                    if route.source == "postgres"
                    else f'type = "files"\nroot = {json.dumps(str(file.parent))}',
                    target=f'type = "postgres"\nurl = {json.dumps(target)}'
                    if route.target == "postgres"
                    else f'type = "duckdb"\npath = {json.dumps(target)}',
                )
            )
            (folder / "job.json").write_text(json.dumps(_job(route, file), indent=1))

    def _make_target(self, route: Route, side: str) -> None:
        """Make the database to load: empty, or a copy of one that *side* itself loaded with all rows."""
        template = "template1"
        if route.rows.mode == "upsert":
            template = f"loaded_{_target_of(side)}_{route.rows.rows}"
            if template not in self._databases:
                self._load(route, side, template)
        self._execute(f"DROP DATABASE IF EXISTS {_target_of(side)}")
        self._execute(f"CREATE DATABASE {_target_of(side)} TEMPLATE {template} STRATEGY file_copy")

    def _load(self, route: Route, side: str, database: str) -> None:
        whole = replace(route, rows=replace(route.rows, changed_percent=None))
        folder = self.lab.work / "runs" / database
        folder.mkdir(parents=True)
        self.lab.make(whole.rows)
        self._make_target(whole, side)
        self._write(whole, side, folder)
        if side == _ECMBATCH:
            # Loaded by the job that upserts later, so that the table has its key.
            (folder / "job.json").write_text(json.dumps(_job(route, self.lab.path(whole.rows))))
        run(_command(side), folder)
        with psycopg.connect(self.server.url(_target_of(side)), autocommit=True) as connection:
            if side == _BY_HAND:
                connection.execute("ALTER TABLE customers ADD PRIMARY KEY (context_id)")
            connection.execute("VACUUM ANALYZE customers")
        self._execute(f"ALTER DATABASE {_target_of(side)} RENAME TO {database}")
        self._databases.add(database)

    def _source_url(self, rows: Source) -> str:
        """Return the URL of a database whose table ``customers`` has the rows of the file."""
        database = f"source_{rows.rows}_{rows.changed_percent or 'all'}"
        if database not in self._databases:
            self._execute(f"CREATE DATABASE {database}")
            run(
                python(
                    "benchmarks.postgres_handwritten",
                    str(self.lab.path(rows)),
                    self.server.url(database),
                    "copy",
                ),
                self.lab.work,
            )
            self._databases.add(database)
        return self.server.url(database)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(statement)


def _target_of(side: str) -> str:
    return "by_hand" if side == _BY_HAND else "by_ecmbatch"


def _command(side: str) -> list[str]:
    if side == _BY_HAND:
        return [*python("benchmarks.postgres_handwritten", _ROUTE)]
    return [*python("ecmbatch", "run", "job.json", "--quiet")]


def _job(route: Route, file: Path) -> dict[str, object]:
    named = {"table": "customers"} if route.source == "postgres" else {"path": file.name}
    mode = route.rows.mode
    return {
        "job_id": f"customers-{mode}-{file.stem}",
        "source": {"connector": "source", **named},
        "transform": {"processor": "field_mapper", "config": {"fields": FIELDS}},
        "sink": {"store": "context_store", "mode": mode, "table": "customers"},
    }
