"""The work folder: source files, loaded targets and ecmbatch projects, made when a variant first needs them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.comparison import TARGET, Variant
from benchmarks.limits import MEMORY_LIMIT, THREADS
from benchmarks.process import run

_BY_HAND, _ECMBATCH = "hand-written", "ecmbatch"

FIELDS = {
    "context_id": "id",
    "email": {"lower": "email"},
    **{name: name for name in ("name", "tier", "region", "amount", "payload", "created_at", "updated_at")},
    "origin": {"value": "crm"},
}

_PROJECT = """
[connectors.source]
{connector}
[stores.context_store]
type = "duckdb"
path = "{target}"
threads = {threads}
memory_limit = "{memory_limit}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source file: a table of *rows* rows, or *changed_percent* of its rows, changed.

    Changes are upserted into a target that has all rows; a whole table is appended to a new one.
    """

    format: Literal["parquet", "duckdb"]
    rows: int
    changed_percent: int | None = None

    @property
    def mode(self) -> str:
        """How it is loaded."""
        return "append" if self.changed_percent is None else "upsert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """Where a run is killed: at the *occurrence*-th time it passes a crash point."""

    point: str
    occurrence: int = 1


@dataclass(frozen=True, slots=True)
class Lab:
    """Everything below *work*. Sources and targets that are there are used again."""

    work: Path

    def by_hand(self, source: Source) -> Variant:
        """Return the hand-written pipeline."""
        path = str(self.path(source))

        def prepare(folder: Path) -> None:
            self.make(source)
            self._copy_target(_BY_HAND, source, folder)

        return Variant(
            name=_BY_HAND,
            command=python("benchmarks.handwritten", path, TARGET, source.mode),
            prepare=prepare,
        )

    def ecmbatch(
        self, source: Source, *, name: str = _ECMBATCH, killed: Crash | None = None, **job: Any
    ) -> Variant:
        """Return ``ecmbatch run`` in a new project, of a job with the default settings and what *job* adds.

        With *killed* the run does not get to its end.
        """
        return Variant(
            name=name, command=_run(killed), prepare=self._project(source, job), ends=-9 if killed else 0
        )

    def resumed(self, source: Source, *, name: str, killed: Crash, **job: Any) -> Variant:
        """Return ``ecmbatch run`` where the job's run was *killed*, which it continues."""
        write_project = self._project(source, job)

        def prepare(folder: Path) -> None:
            write_project(folder)
            run(_run(killed), folder, ends=-9)

        return Variant(name=name, command=_run(None), prepare=prepare)

    def path(self, source: Source) -> Path:
        """Return the source's file."""
        changed = source.changed_percent
        name = "customers" if changed is None else f"changed-{changed}"
        return self.work / "data" / str(source.rows) / f"{name}.{source.format}"

    def make(self, source: Source) -> None:
        """Make the source's file, if it is not there."""
        path = self.path(source)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = source.changed_percent
            what = (source.rows, 100, 0) if changed is None else (source.rows, changed, 1)
            run(python("benchmarks.data", str(path), *map(str, what)), path.parent)

    def _project(self, source: Source, job: dict[str, Any]) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            self.make(source)
            self._copy_target(_ECMBATCH, source, folder)
            (folder / "ecmbatch.toml").write_text(_project_file(source, self.path(source)))
            (folder / "job.json").write_text(json.dumps(_job(source, self.path(source), **job), indent=1))

        return prepare

    def _copy_target(self, side: str, source: Source, folder: Path) -> None:
        if source.mode == "upsert":
            shutil.copyfile(self._target(side, source.rows), folder / TARGET)

    def _target(self, side: str, rows: int) -> Path:
        """Return a target that *side* itself loaded with all rows."""
        folder = self.work / "targets" / str(rows) / side
        if not folder.exists():
            unfinished = folder.with_name(f"{side}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            whole = Source(format="parquet", rows=rows)
            variant = self.by_hand(whole) if side == _BY_HAND else self.ecmbatch(whole)
            variant.prepare(unfinished)
            run(variant.command, unfinished)
            unfinished.rename(folder)
        return folder / TARGET


def hash_partitions(count: int) -> dict[str, Any]:
    """Return what a job says of *count* partitions; nothing for one."""
    if count == 1:
        return {}
    return {"partitioning": {"strategy": "hash", "key": "id", "partitions": count}}


def _project_file(source: Source, path: Path) -> str:
    if source.format == "parquet":
        connector = f'type = "files"\nroot = {json.dumps(str(path.parent))}'
    else:
        connector = (
            f'type = "duckdb"\npath = {json.dumps(str(path))}\n'
            f'threads = {THREADS}\nmemory_limit = "{MEMORY_LIMIT}"'
        )
    return _PROJECT.format(connector=connector, target=TARGET, threads=THREADS, memory_limit=MEMORY_LIMIT)


def _job(
    source: Source, path: Path, *, reading: dict[str, Any] | None = None, **sections: Any
) -> dict[str, Any]:
    """Return the job; *reading* is added to what it says of its source."""
    named = {"path": path.name} if source.format == "parquet" else {"table": "customers"}
    return {
        # A target knows the job that loaded it; to the next project, with a ledger of its own, that is another.
        "job_id": f"customers-{source.mode}",
        "source": {"connector": "source", **named, **(reading or {})},
        "transform": {"processor": "field_mapper", "config": {"fields": FIELDS}},
        "sink": {"store": "context_store", "mode": source.mode, "table": "customers"},
        **sections,
    }


def _run(killed: Crash | None) -> Sequence[str]:
    arguments = ("run", "job.json", "--quiet")
    if killed is None:
        return python("ecmbatch", *arguments)
    return python("benchmarks.killed", killed.point, str(killed.occurrence), *arguments)


def python(module: str, *arguments: str) -> Sequence[str]:
    """Return the command that runs *module* in this environment."""
    return [sys.executable, "-m", module, *arguments]
