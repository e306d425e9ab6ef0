"""Small projects with real files, and commands that die on purpose.

Commands that are to die run in children of a fork server that has the slow imports behind it; each child is a
process of its own that really dies by SIGKILL.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ecmbatch import Project
from ecmbatch.cli.main import main
from ecmbatch.crash_points import CrashPoint

_PRELOADED = [
    "adbc_driver_postgresql.dbapi",
    "ecmbatch.cli.execution",
    "ecmbatch.cli.main",
    "ecmbatch.project",
    "ecmbatch.connectors.duckdb",
    "ecmbatch.connectors.files",
    "ecmbatch.connectors.postgres_connector",
    "ecmbatch.ledger.ledger",
    "ecmbatch.ledger.postgres",
    "ecmbatch.processors.field_mapper",
    "ecmbatch.processors.functions",
    "ecmbatch.stage.stage",
    "ecmbatch.stores.duckdb",
    "ecmbatch.stores.postgres_store",
    "ecmbatch.testing.crashes",
    "numpy.ma",
    "pydantic.type_adapter",
    "rich.console",
    "sqlalchemy.dialects.postgresql.psycopg",
    "typer._click.decorators",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code (negative: the signal that killed it) and what it printed."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def command(
    folder: Path,
    *arguments: str,
    crash: CrashPoint | None = None,
    occurrence: int = 1,
) -> Finished:
    """Run ``ecmbatch ARGUMENTS`` in *folder*, in this process; with *crash* in one of its own that dies there."""
    if crash is not None:
        return start(folder, *arguments, crash=crash, occurrence=occurrence).wait()
    out, err = _Captured(), _Captured()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Finished(code, out.text(), err.text())


class _Captured(io.TextIOWrapper):
    """A stream like that of a process whose output goes to a file."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()


@dataclass(frozen=True)
class Started:
    """A command under way."""

    process: Any
    out: Path
    err: Path

    def wait(self) -> Finished:
        self.process.join()
        finished = Finished(self.process.exitcode, self.out.read_text(), self.err.read_text())
        self.out.unlink()
        self.err.unlink()
        return finished


def in_child(function: Callable[..., None], *arguments: Any) -> int:
    """Call *function* in a process of its own; return its exit code (negative: the signal that killed it)."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


_serial = iter(range(10**9))


def start(
    folder: Path,
    *arguments: str,
    crash: CrashPoint | None = None,
    occurrence: int = 1,
) -> Started:
    """Begin a command without waiting for it."""
    number = next(_serial)
    out, err = folder / f".out-{number}", folder / f".err-{number}"
    process = _context.Process(
        target=_child, args=(str(folder), list(arguments), str(out), str(err), crash, occurrence)
    )
    process.start()
    return Started(process, out, err)


def _child(
    folder: str,
    arguments: list[str],
    out: str,
    err: str,
    crash: CrashPoint | None,
    occurrence: int,
) -> None:
    from ecmbatch.testing.crashes import kill_at

    os.chdir(folder)
    for stream, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
    if crash is not None:
        kill_at(crash, occurrence=occurrence)
    code = main(arguments)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def was_killed(finished: Finished) -> bool:
    return finished.exit_code == -signal.SIGKILL


def make_project(folder: Path, *, stage: str | None = None) -> Path:
    """Write a project whose warehouse is ``warehouse.duckdb`` and whose store is ``context.duckdb``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "[connectors.warehouse]",
        'type = "duckdb"',
        'path = "warehouse.duckdb"',
        "[connectors.landing]",
        'type = "files"',
        'root = "."',
    ]
    if stage:
        lines += ["[stage]", f"url = {json.dumps(stage)}"]
    (folder / "ecmbatch.toml").write_text("\n".join(lines) + "\n")
    return folder


def fill_warehouse(folder: Path, rows: pa.Table, table: str = "customers") -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.register("rows", rows)
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM rows")


def write_job(folder: Path, job: Mapping[str, Any], name: str = "job.json") -> str:
    (folder / name).write_text(json.dumps(job))
    return name


def customers_job(
    *, mode: str = "upsert", partitions: int = 1, every_rows: int = 50, **sections: Any
) -> dict[str, Any]:
    """A job over the table ``customers`` (id, name, amount), resumable at every key."""
    job: dict[str, Any] = {
        "job_id": "customers",
        "source": {"connector": "warehouse", "query": "SELECT * FROM customers", "order_by": "id"},
        "transform": {
            "processor": "field_mapper",
            "config": {"fields": {"context_id": "id", "data.name": {"upper": "name"}, "amount": "amount"}},
        },
        "sink": {"store": "context_store", "mode": mode, "table": "customers"},
        "checkpoint": {"every_rows": every_rows},
    }
    if partitions > 1:
        job["partitioning"] = {"strategy": "hash", "key": "id", "partitions": partitions}
    return {**job, **sections}


def customers(count: int, *, start: int = 0) -> pa.Table:
    numbers = range(start, start + count)
    return pa.table(
        {
            "id": pa.array([f"c{number:05d}" for number in numbers]),
            "name": pa.array([None if number % 17 == 0 else f"name {number}" for number in numbers]),
            "amount": pa.array([number * 1.5 for number in numbers]),
        }
    )


def stored(folder: Path, table: str = "customers", *, file: str = "context.duckdb") -> list[tuple[Any, ...]]:
    """Return the rows of a table of the store, sorted, without the run that wrote them."""
    if not (folder / file).exists():
        return []
    with duckdb.connect(str(folder / file), read_only=True) as connection:
        names = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
        if table not in names:
            return []
        rows = connection.execute(f"SELECT * EXCLUDE (_ecm_run_id) FROM {table}").fetchall()
    return sorted(rows, key=repr)


def expected(rows: pa.Table) -> list[tuple[Any, ...]]:
    """Return what ``customers_job`` makes of *rows*, sorted as :func:`stored` does."""
    return sorted(
        (
            (row["id"], {"name": row["name"].upper() if row["name"] else None}, row["amount"])
            for row in rows.to_pylist()
        ),
        key=repr,
    )


def run_documents(folder: Path) -> Sequence[Mapping[str, Any]]:
    """Return the run documents of the project, newest first."""
    with Project.load(folder, environment={}) as project:
        return [view.document() for view in project.history.recent_runs()]
