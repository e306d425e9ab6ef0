"""Tidying up: what staged rows and details of runs nobody needs any more.

What is removed can never be missed by a run: the stage of a run that could still be resumed goes only after
the run was abandoned, with its tombstone in the store. Every step can be repeated, by another process at the
same time as well: one that is killed leaves what the next one finishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.abandoning import abandon_run
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.staging import StagedRun, staged_runs
from ecmbatch.errors import ConflictError, EcmbatchError, StageError
from ecmbatch.ledger.ledger import Ledger, ledger_exists
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.duration import format_duration
from ecmbatch.protocol.run import FINAL

GC_FORMAT = "ecmbatch.gc/1"

Outcome = Literal["planned", "removed", "kept", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One thing that can go: the stage of a run, the details of its history, the run itself, or a table in a store
    that a publication was loaded into when it was killed.

    ``records`` counts rows of the ledger. ``run_status`` is that before anything was done, ``None`` for a run
    that the ledger does not know. ``store`` and ``table`` are set for what is in a store.
    """

    what: Literal["stage", "history", "run", "staging"]
    run_id: str
    store: str | None = None
    table: str | None = None
    job_id: str | None = None
    run_status: str | None = None
    reason: str
    files: int = 0
    bytes: int = 0
    records: int = 0
    outcome: Outcome = "planned"
    error: EcmbatchError | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        error = None if self.error is None else {"code": self.error.code, "message": self.error.message}
        return {**asdict(replace(self, error=None)), "error": error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What ``gc`` removed; with ``dry_run``, what it would remove."""

    dry_run: bool
    removals: Sequence[Removal]

    @property
    def gone(self) -> Sequence[Removal]:
        """What was removed, or would be."""
        return [each for each in self.removals if each.outcome in ("planned", "removed")]

    @property
    def error(self) -> EcmbatchError | None:
        """What kept the first of those from being removed that could not be."""
        return next((each.error for each in self.removals if each.outcome == "failed"), None)

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.gc/1`` document."""
        return {
            "format": GC_FORMAT,
            "dry_run": self.dry_run,
            "runs": len({each.run_id for each in self.gone if each.run_id}),
            "files": sum(each.files for each in self.gone),
            "bytes": sum(each.bytes for each in self.gone),
            "records": sum(each.records for each in self.gone),
            "removals": [each.document() for each in self.removals],
        }


def collect_garbage(resources: Resources, *, dry_run: bool = False, orphans: bool = False) -> Collection:
    """Remove what the project's ``[retention]`` lets go, or with *dry_run* only tell what that is.

    Stages of runs that the ledger does not know are kept, unless *orphans* asks for them too: they may belong
    to another project. What cannot be removed does not keep the rest.
    """
    with _ledger_of(resources, dry_run=dry_run) as ledger:
        planned = [
            *_stages(resources, ledger, orphans=orphans),
            *_histories(resources, ledger),
            *_runs(resources, ledger),
            *_leftovers(resources),
        ]
        removals = planned if dry_run else [_carry_out(removal, resources) for removal in planned]
    return Collection(dry_run=dry_run, removals=removals)


@contextmanager
def _ledger_of(resources: Resources, *, dry_run: bool) -> Iterator[Ledger | None]:
    """Lend the project's ledger, if it has one yet; untouched where nothing is to change."""
    if not dry_run:
        yield resources.ledger if _has_ledger(resources) else None
        return
    ledger = Ledger.untouched(resources.project_file.ledger, clock=resources.clock_by_hand)
    try:
        yield ledger
    finally:
        if ledger is not None:
            ledger.close()


def _has_ledger(resources: Resources) -> bool:
    return ledger_exists(resources.project_file.ledger)


def _stages(resources: Resources, ledger: Ledger | None, *, orphans: bool) -> Iterator[Removal]:
    kept_for = resources.project_file.settings.retention.stages
    now = ledger.clock() if ledger is not None else None
    for staged in staged_runs(resources.stage, ledger):
        run = staged.run
        if run is None:
            reason = "the ledger does not know the run" + ("" if orphans else "; --orphans removes it")
            yield _of_stage(staged, reason, "planned" if orphans else "kept")
        elif run.status in FINAL:
            yield _of_stage(staged, "the run is over")
        elif staged.idle_since is not None and now is not None and staged.idle_since + kept_for <= now:
            yield _of_stage(staged, f"nothing happened since {rfc3339(staged.idle_since)}")


def _of_stage(staged: StagedRun, reason: str, outcome: Outcome = "planned") -> Removal:
    return Removal(
        what="stage",
        run_id=staged.run_id,
        job_id=staged.run.job_id if staged.run else None,
        run_status=str(staged.run.status) if staged.run else None,
        reason=reason,
        files=staged.size.files,
        bytes=staged.size.bytes,
        outcome=outcome,
    )


def _histories(resources: Resources, ledger: Ledger | None) -> Iterator[Removal]:
    if ledger is None:
        return
    before = ledger.clock() - resources.project_file.settings.retention.history
    for details in ledger.retention.details_before(before):
        yield Removal(
            what="history",
            run_id=details.run_id,
            job_id=details.job_id,
            reason=f"the run ended at {rfc3339(details.ended_at)}",
            records=details.records,
        )


def _runs(resources: Resources, ledger: Ledger | None) -> Iterator[Removal]:
    kept_for = resources.project_file.settings.retention.runs
    if ledger is None or kept_for is None:
        return
    for details in ledger.retention.runs_before(ledger.clock() - kept_for):
        yield Removal(
            what="run",
            run_id=details.run_id,
            job_id=details.job_id,
            reason=f"the run ended at {rfc3339(details.ended_at)}",
            records=details.records,
        )


def _leftovers(resources: Resources) -> Iterator[Removal]:
    for name in sorted(resources.project_file.settings.stores):
        try:
            for leftover in resources.store(name).leftovers():
                yield Removal(
                    what="staging",
                    run_id=leftover.run_id,
                    store=name,
                    table=leftover.name,
                    reason="whoever loaded it is gone",
                    bytes=leftover.bytes,
                )
        except EcmbatchError as error:
            reason = "the store cannot be looked at"
            yield Removal(what="staging", run_id="", store=name, reason=reason, outcome="failed", error=error)


def _carry_out(removal: Removal, resources: Resources) -> Removal:
    if removal.outcome != "planned":
        return removal
    try:
        if removal.what == "history":
            resources.ledger.retention.forget(removal.run_id)
            crash_point("gc.history")
        elif removal.what == "run":
            resources.ledger.retention.forget_run(removal.run_id)
            crash_point("gc.run")
        elif removal.what == "staging":
            _remove_leftover(removal, resources)
        else:
            _give_up_if_unfinished(removal, resources)
            _remove_stage(removal, resources)
    except ConflictError as error:
        # Somebody goes on with the run after all.
        return replace(removal, outcome="kept", error=error)
    except EcmbatchError as error:
        return replace(removal, outcome="failed", error=error)
    return replace(removal, outcome="removed")


def _give_up_if_unfinished(removal: Removal, resources: Resources) -> None:
    if removal.run_status is None:
        # The first run of the project may have begun while we looked.
        if _has_ledger(resources) and resources.ledger.runs.find(removal.run_id):
            raise ConflictError(f"run {removal.run_id} has just begun")
    elif removal.run_status not in FINAL:
        kept_for = format_duration(resources.project_file.settings.retention.stages)
        reason = f"given up by gc: {removal.reason}, and stages are kept for {kept_for}"
        abandon_run(removal.run_id, reason, resources)
        crash_point("gc.abandoned")


def _remove_leftover(removal: Removal, resources: Resources) -> None:
    assert removal.store is not None and removal.table is not None
    if not resources.store(removal.store).remove_leftover(removal.table):
        raise ConflictError(f"table {removal.table!r} of store {removal.store!r} is in use")


def _remove_stage(removal: Removal, resources: Resources) -> None:
    if not resources.stage.remove(removal.run_id):
        raise StageError(
            f"the stage of run {removal.run_id} cannot be removed from {resources.stage.root}",
            hint="see whether you may write there, and run gc again",
        )
    crash_point("gc.stage")
