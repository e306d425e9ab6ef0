"""What is remembered: the ledger, unfinished runs, the stage, alerts, and what the stores know beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from ecmbatch.engine.diagnosis.finding import Finding, ok, unusable, warning
from ecmbatch.engine.launching import DEFAULT_STREAM
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.staging import StagedRun, idle_since, staged_runs
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.ledger import Ledger, untouched_database
from ecmbatch.ledger.place import LedgerPlace, PostgresPlace
from ecmbatch.ledger.sqlite import UntouchedSQLite
from ecmbatch.ledger.tables import SCHEMA_VERSION
from ecmbatch.project_file import STATE_FOLDER
from ecmbatch.protocol.duration import format_duration
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import ACTIVE, FINAL

if TYPE_CHECKING:
    from ecmbatch.ledger.postgres import UntouchedPostgres

_LONG = timedelta(days=7)
_TOLERANCE = timedelta(seconds=5)


def ledger_file(resources: Resources) -> Iterator[Finding]:
    """Open the ledger if there is one: its version, its place, its soundness."""
    place = resources.project_file.ledger
    database = untouched_database(place)
    if database is None:
        yield ok("ledger", f"{place} is not there yet; the first run makes it")
        return
    with closing(database):
        yield _ledger_found(place, database)


def _ledger_found(place: LedgerPlace, database: UntouchedSQLite | UntouchedPostgres) -> Finding:
    version = database.version()
    if version is None and isinstance(place, PostgresPlace):
        return _ledger_to_come(database)
    if damage := database.damage():
        return unusable("ledger", f"the ledger {place} is damaged: {damage}", "restore it from a backup")
    if version is None or version < SCHEMA_VERSION:
        return warning(
            "ledger",
            f"the ledger {place} has version {version or 'none'}; the next run brings it to {SCHEMA_VERSION}",
            "back it up before",
        )
    if version > SCHEMA_VERSION:
        return unusable(
            "ledger",
            f"the ledger {place} has version {version}; this ecmbatch knows {SCHEMA_VERSION}",
            "use the ecmbatch that other processes of this project use",
        )
    return ok("ledger", f"{database.state()}, version {version}")


def _ledger_to_come(database: UntouchedSQLite | UntouchedPostgres) -> Finding:
    if lacking := database.lacks():
        return unusable(
            "ledger",
            f"{database.state()} is not there yet, and its user lacks the right to make it: {lacking}",
            "grant it, or make the schema for the user",
        )
    return ok("ledger", f"{database.state()} is not there yet; the first run makes it")


def runs(ledger: Ledger) -> Iterator[Finding]:
    """Find runs that only look alive, those that nobody finishes, and those from the future."""
    now = ledger.clock()
    for run in ledger.runs.unfinished():
        idle = idle_since(run, ledger)
        if idle is None:
            continue
        if run.status in ACTIVE:
            owner = ledger.runs.attempts(run.run_id)[-1].owner
            yield warning(
                "leases",
                f"run {run.run_id} of {run.job_id} looks alive, but nobody executes it: {owner} is gone",
                f"ecmbatch resume {run.run_id}",
            )
        elif (age := now - idle) > _LONG:
            yield warning(
                "runs",
                f"run {run.run_id} of {run.job_id} is {run.status} for {format_duration(_days(age))}",
                f"ecmbatch resume {run.run_id}, or: ecmbatch abandon {run.run_id}",
            )
    newest = ledger.runs.recent(limit=1)
    if newest and newest[0].created_at > now + _TOLERANCE:
        yield warning(
            "clocks",
            f"the ledger's newest run {newest[0].run_id} is from the future: the clock was set back",
            "leases and retention count by this clock",
        )


def alerts(ledger: Ledger) -> Iterator[Finding]:
    """Count the alerts that nobody was told."""
    waiting = len(ledger.alerts.all(undelivered=True))
    if waiting:
        yield warning("alerts", f"{waiting} alerts wait to be delivered", "the next run delivers them")


def stage(resources: Resources, ledger: Ledger | None) -> Iterator[Finding]:
    """Find staged rows that no run needs."""
    staged = list(staged_runs(resources.stage, ledger))
    finished = [each for each in staged if each.run is not None and each.run.status in FINAL]
    unknown = [each for each in staged if each.run is None]
    if finished:
        yield warning("stages", f"{_amount(finished)} of runs that are over", "ecmbatch gc")
    if unknown:
        yield warning(
            "stages",
            f"{_amount(unknown)} of runs that this ledger does not know",
            "if no other project uses this stage: ecmbatch gc --orphans",
        )
    if not finished and not unknown:
        yield ok(
            "stages", f"{_amount(staged)}, all of runs that may need them" if staged else "nothing is staged"
        )


def heads(resources: Resources, ledger: Ledger | None, jobs: Sequence[JobDefinition]) -> Iterator[Finding]:
    """Find tables that were last loaded by a run which the ledger does not know: a ledger was lost."""
    for job in jobs:
        # A store that cannot be reached is told by another check.
        with suppress(EcmbatchError):
            head = resources.store(job.sink.store).head(job.job_id, job.table, DEFAULT_STREAM)
            if head is None or _accounted_for(job, head.run_id, ledger):
                continue
            yield warning(
                "heads",
                f"{job.sink.store}.{job.table} was last loaded by run {head.run_id} of {job.job_id}, "
                "which this ledger does not know",
                f"restore the ledger, or say from where to go on: ecmbatch watermark set {job.job_id} TIME",
            )


def leftover_files(resources: Resources) -> Iterator[Finding]:
    """Find what sorts of a process that was killed have spilled."""
    folder = resources.project_file.root / STATE_FOLDER / "tmp"
    files = [path for path in folder.rglob("*") if path.is_file()]
    if files:
        size = sum(path.stat().st_size for path in files)
        yield warning(
            "temporary files",
            f"{len(files)} files, {size / 2**20:,.1f} MiB in {folder}",
            "they belong to a run at work, or to one that was killed: then they may be deleted",
        )


def _accounted_for(job: JobDefinition, run_id: str, ledger: Ledger | None) -> bool:
    """Tell whether the ledger knows the run, or somebody said by hand from where to go on."""
    if ledger is None:
        return False
    mark = ledger.watermarks.latest(job.job_id, DEFAULT_STREAM)
    return ledger.runs.find(run_id) is not None or (mark is not None and mark.run_id is None)


def _amount(staged: Sequence[StagedRun]) -> str:
    size = sum(each.size.bytes for each in staged)
    return f"{len(staged)} stages ({size / 2**20:,.1f} MiB)"


def _days(age: timedelta) -> timedelta:
    return timedelta(days=age.days)
