"""Publishing in a process of its own, which dies there by SIGKILL."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ecmbatch.crash_points import CrashPoint
from ecmbatch.stores import postgres_staging
from ecmbatch.stores.duckdb import DUCKDB
from ecmbatch.stores.postgres import POSTGRES
from ecmbatch.stores.store import Publication, StagedFile, Store
from ecmbatch.testing.crashes import kill_at
from ecmbatch.testing.store_contract import AT
from harness import in_child

Kind = Literal["duckdb", "postgres"]


def open_store(kind: Kind, settings: Mapping[str, Any], folder: Path) -> Store:
    store_type = DUCKDB if kind == "duckdb" else POSTGRES
    return store_type.build(store_type.parse_config(settings), folder, print)


def publish_and_die(
    kind: Kind, settings: Mapping[str, Any], folder: Path, publication: Publication, point: CrashPoint
) -> int:
    """Publish in a process that is killed at *point*; return its exit code (negative: the signal)."""
    return in_child(_publish, kind, settings, folder, publication, point)


def load_and_die(settings: Mapping[str, Any], folder: Path, publication: Publication) -> int:
    """Publish to PostgreSQL in a process that is killed when it comes to the second staged file."""
    return in_child(_load, settings, folder, publication)


def _publish(
    kind: Kind, settings: Mapping[str, Any], folder: Path, publication: Publication, point: CrashPoint
) -> None:
    kill_at(point)
    open_store(kind, settings, folder).publish(publication, AT)


def _load(settings: Mapping[str, Any], folder: Path, publication: Publication) -> None:
    read = postgres_staging._read

    def killed(file: StagedFile) -> Iterator[pa.RecordBatch]:
        if file != publication.files[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file)

    postgres_staging._read = killed
    open_store("postgres", settings, folder).publish(publication, AT)
