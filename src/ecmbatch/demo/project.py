"""Builds the project that ``ecmbatch init`` hands out and ``ecmbatch demo`` runs."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ecmbatch.demo.changes import apply_changes
from ecmbatch.errors import UsageError

__all__ = ["apply_changes", "build_project"]

WAREHOUSE = "warehouse.duckdb"

# Where a file of the project comes from, in the order of writing: without ecmbatch.toml a folder
# is no project, so an interrupted build cannot be taken for a whole one.
FILES = {
    "README.md": "template/README.md",
    ".gitignore": "template/gitignore",
    "changes.py": "changes.py",
    "jobs/flights-context.json": "template/jobs/flights-context.json",
    "jobs/flights-incremental.json": "template/jobs/flights-incremental.json",
    "jobs/flights-by-date.json": "template/jobs/flights-by-date.json",
    "jobs/flights-by-origin.json": "template/jobs/flights-by-origin.json",
    "jobs/daily-delays.json": "template/jobs/daily-delays.json",
    "ecmbatch.toml": "template/ecmbatch.toml",
}

# The warehouse's made-up rule: a flight's row was last changed 24 hours after its scheduled departure.
FLIGHTS_COLUMNS = "*, time_hour + to_minutes(minute) + INTERVAL 24 HOURS AS updated_at"


def build_project(folder: Path) -> None:
    """Write the project into *folder*, which is created where it does not exist.

    Two builds give equal files and equal tables. Existing files are never overwritten: raises
    UsageError where *folder* already holds one of the project's files, or cannot be written.
    """
    _require_free(folder)
    try:
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        _build_warehouse(folder / WAREHOUSE)
        for name, source in FILES.items():
            with (folder / name).open("xb") as target:
                target.write(_read(source))
    except (OSError, duckdb.Error) as error:
        raise UsageError(f"the project cannot be written into {folder}: {error}") from error


def _require_free(folder: Path) -> None:
    taken = [name for name in (*FILES, WAREHOUSE) if os.path.lexists(folder / name)]
    if "ecmbatch.toml" in taken:
        raise UsageError(
            f"{folder} already holds a project (ecmbatch.toml); nothing was written",
            hint="name another folder",
        )
    if taken:
        raise UsageError(
            f"{folder} already holds {', '.join(taken)}, which would be overwritten; nothing was written",
            hint="name an empty or a new folder",
        )


def _build_warehouse(path: Path) -> None:
    with duckdb.connect(path) as connection:
        connection.from_arrow(_table("flights")).project(FLIGHTS_COLUMNS).create("flights")
        connection.from_arrow(_table("airlines")).create("airlines")
        connection.from_arrow(_table("planes")).create("planes")


def _table(name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(_read(f"{name}.parquet")))


def _read(name: str) -> bytes:
    return files("ecmbatch.demo").joinpath(name).read_bytes()
