"""Promises broken on purpose, one at a time, to show that the scenarios would notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ecmbatch.crash_points import crash_point
from ecmbatch.engine import runner
from ecmbatch.engine.references import unread_tables
from ecmbatch.ledger import progress, runs, verdicts
from ecmbatch.protocol.run import RunStatus
from ecmbatch.stage import stage
from ecmbatch.stores import duckdb as duckdb_store
from ecmbatch.stores import duckdb_publish, duckdb_statements
from ecmbatch.stores.store import Marker, PublishedRows


def without_marker_check(patch: pytest.MonkeyPatch) -> None:
    """Publish without asking whether the run was published before."""
    patch.setattr(duckdb_publish, "find_marker", lambda connection, run_id: None)
    patch.setattr(
        duckdb_statements,
        "INSERT_MARKER",
        duckdb_statements.INSERT_MARKER.replace("INSERT INTO", "INSERT OR REPLACE INTO"),
    )
    patch.setattr(duckdb_publish, "check_head", lambda publication, current: None)
    patch.setattr(runner._Attempt, "_published_before", lambda attempt, plan: None)


def without_head_check(patch: pytest.MonkeyPatch) -> None:
    """Publish whatever was published since the run started."""
    patch.setattr(duckdb_publish, "check_head", lambda publication, current: None)


def without_tombstone(patch: pytest.MonkeyPatch) -> None:
    """Abandon in the ledger only."""

    def abandon(store: Any, run_id: str, at: Any) -> Marker:
        return Marker(run_id=run_id, outcome="abandoned", manifest=None, rows=PublishedRows(), at=at)

    patch.setattr(duckdb_store.DuckDBStore, "abandon", abandon)
    # Without its files the sleeper could publish nothing, tombstone or not; let only the tombstone count.
    patch.setattr(stage.Stage, "remove", lambda stage, run_id: None)


def checkpoint_before_file(patch: pytest.MonkeyPatch) -> None:
    """Let the ledger name a staged file before it has its name."""
    late: list[Callable[[], Any]] = []
    rename = stage.Path.rename
    save = progress.Progress.checkpoint

    def seal(writer: Any) -> Any:
        patch.setattr(stage.Path, "rename", lambda path, target: late.append(lambda: rename(path, target)))
        try:
            return sealed(writer)
        finally:
            patch.setattr(stage.Path, "rename", rename)

    def checkpoint(*arguments: Any) -> Any:
        status = save(*arguments)
        crash_point("checkpoint.after")
        while late:
            late.pop()()
        return status

    sealed = stage.ChunkWriter.seal
    patch.setattr(stage.ChunkWriter, "seal", seal)
    patch.setattr(progress.Progress, "checkpoint", checkpoint)


def without_fencing(patch: pytest.MonkeyPatch) -> None:
    """Let everybody write who ever held the run."""
    held = {"status": RunStatus.IN_PROGRESS}
    for module in (runs, progress, verdicts):
        patch.setattr(module, "check_fence", lambda connection, fence: held["status"])
    patch.setattr(runs.Runs, "status", lambda ledger, fence: held["status"])
    patch.setattr(runs, "may_follow", lambda status, following: True)
    # The stage of the finished run stays, so that the sleeper comes as far as it can.
    patch.setattr(stage.Stage, "remove", lambda stage, run_id: None)


def without_version_check(patch: pytest.MonkeyPatch) -> None:
    """Publish over a table whatever was published to it since the run has read it."""
    patch.setattr(duckdb_publish, "check_version", lambda publication, current: None)


def with_tables_read_by_every_attempt(patch: pytest.MonkeyPatch) -> None:
    """Look rows up in what is there now, whatever the run has looked others up in."""
    patch.setattr(
        runner,
        "unread_tables",
        lambda plan, resources: unread_tables(replace(plan, references={}), resources),
    )
    patch.setattr(runner, "staged_tables", lambda run_id, plan, resources: {})


MUTATIONS = {
    "without_marker_check": (without_marker_check, "lost_acknowledgement"),
    "without_head_check": (without_head_check, "woken_after_a_newer_run"),
    "without_head_check_replace": (without_head_check, "woken_late_replace"),
    "without_tombstone": (without_tombstone, "woken_after_abandon"),
    "checkpoint_before_file": (checkpoint_before_file, "crash_between_file_and_checkpoint"),
    "without_fencing": (without_fencing, "woken_after_takeover"),
    "without_version_check": (without_version_check, "woken_after_its_own_table_moved_on"),
    "with_tables_read_by_every_attempt": (with_tables_read_by_every_attempt, "looked_up_across_a_crash"),
}
"""What is broken, and the scenario that must notice."""
