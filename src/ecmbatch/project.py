"""A project in Python: load it, run its jobs, look at its runs. The command line does everything through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ecmbatch.engine.abandoning import abandon_run
from ecmbatch.engine.executors.portability import check_executor
from ecmbatch.engine.history import History, RunView
from ecmbatch.engine.job_check import JobReport, check_job
from ecmbatch.engine.job_files import JobFile, project_jobs, read_job, read_job_file
from ecmbatch.engine.launching import LaunchOptions, launch, stream_of
from ecmbatch.engine.preview import PlanPreview, preview_plan
from ecmbatch.engine.resources import Resources, machine_clock
from ecmbatch.engine.runner import Runner
from ecmbatch.engine.staging import refuse_other_stage
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import (
    ConflictError,
    DependencyNotMet,
    EcmbatchError,
    InvalidDocument,
    RunStopped,
    UsageError,
)
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Alert, Fence, RunRecord, Watermark
from ecmbatch.plugins import Plugins
from ecmbatch.project_file import ProjectFile, ProjectSettings, open_project_file
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import CONTINUED_BY_RUN, RunStatus
from ecmbatch.protocol.scalars import Scalar

if TYPE_CHECKING:
    from ecmbatch.engine.dependency_report import DependencyReport
    from ecmbatch.engine.doctor import Diagnosis
    from ecmbatch.engine.retention import Collection
    from ecmbatch.engine.scheduling.backfill_control import Backfills
    from ecmbatch.engine.scheduling.backfill_views import BackfillPlan, BackfillRequest, BackfillView
    from ecmbatch.engine.scheduling.control import ScheduledJob, Schedules
    from ecmbatch.ledger.records import EventRecord, JobVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. ``error`` is what ended it, ``None`` after success.

    ``profile`` tells where the time of the latest attempt went: seconds by phase and by kind of work, rows per
    second and what bounds them; ``None`` for a run that was refused before it began.
    """

    view: RunView
    error: EcmbatchError | None = None
    profile: Mapping[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """The run's id; the same through all of its attempts."""
        return self.view.run.run_id

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return self.view.run.status

    @property
    def rows(self) -> Mapping[str, int]:
        """Counts of rows: read, filtered, staged, folded, inserted, updated, unchanged, deleted, …"""
        rows: Mapping[str, int] = self.document()["rows"]
        return rows

    @property
    def validation(self) -> Mapping[str, Any] | None:
        """The verdict: ``outcome`` and one entry for each rule; ``None`` before there is one."""
        verdict: Mapping[str, Any] | None = self.document()["validation"]
        return verdict

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return self.error.exit_code if self.error else 0

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.run/1`` document."""
        return self.view.document()


class Project:
    """A folder with an ``ecmbatch.toml``: jobs, and what the names in them stand for.

    Use it as a context manager, or call :meth:`close`. *plugins* adds connectors, processors and stores in
    code. Raises :class:`~ecmbatch.errors.InvalidDocument` when the project file is wrong.
    """

    def __init__(
        self,
        root: Path | str = ".",
        *,
        settings: ProjectSettings | None = None,
        plugins: Plugins | None = None,
        clock: Callable[[], datetime] = machine_clock,
    ) -> None:
        file = ProjectFile(root=Path(root).resolve(), settings=settings or ProjectSettings())
        self._open(file.with_implied_names(), plugins, clock)

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        plugins: Plugins | None = None,
        clock: Callable[[], datetime] = machine_clock,
    ) -> Self:
        """Load the project file *path* (or the folder it is in); by default the nearest one above the current
        folder. *environment* is where ``${env:…}`` and overrides come from, by default that of the process.
        """
        given = Path(path) if path is not None else None
        project = cls.__new__(cls)
        file = open_project_file(given, os.environ if environment is None else environment)
        project._open(file, plugins, clock)
        return project

    def _open(self, file: ProjectFile, plugins: Plugins | None, clock: Callable[[], datetime]) -> None:
        self.file = file
        self._resources = Resources(file, plugins=plugins, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections, stores and the ledger."""
        self._resources.close()

    @property
    def _schedules(self) -> Schedules:
        from ecmbatch.engine.scheduling.control import Schedules

        return Schedules(self._resources)

    @property
    def backfills(self) -> Backfills:
        """The backfills: how far they are; pausing, going on, executing them here."""
        from ecmbatch.engine.scheduling.backfill_control import Backfills

        return Backfills(self._resources)

    @property
    def history(self) -> History:
        """What is remembered of runs."""
        return History(self._resources.ledger)

    def validate(self, job: JobDefinition | Path | str) -> JobReport:
        """Check a job against this project; raises ``InvalidDocument`` when it is not well-formed."""
        return check_job(self._job_file(job).job, self._resources)

    def plan(self, job: JobDefinition | Path | str, **options: Any) -> PlanPreview:
        """Return what :meth:`run` with the same arguments would do.

        Reads a sample of keys at most, and writes nothing.
        """
        return preview_plan(self._checked(job).job, LaunchOptions(**options), self._resources)

    def dependencies(self, job: JobDefinition | Path | str) -> DependencyReport:
        """Return what a job hangs on and what hangs on it, and whether its dependencies are met now."""
        from ecmbatch.engine.dependency_report import report_dependencies

        return report_dependencies(self._job_file(job).job, self._resources)

    def run(
        self,
        job: JobDefinition | Path | str,
        *,
        params: Mapping[str, Scalar] | None = None,
        window: tuple[datetime, datetime] | None = None,
        full_refresh: bool = False,
        fresh: bool = False,
        ignore_dependencies: bool = False,
        wait: bool = False,
        workers: int | None = None,
        stop: StopSignal | None = None,
        on_start: Callable[[str], None] | None = None,
    ) -> RunResult:
        """Run a job, or continue its latest unfinished run, and return how it ended.

        *window* (aware, half-open) makes it a backfill of that interval. With *wait* it waits for the job's
        dependencies, at most for its ``dependency_timeout``; without, it is refused at once. *on_start* gets the
        run's id. Raises what keeps a run from starting: ``InvalidDocument``, ``RunAlreadyActive`` …
        """
        file = self._checked(job)
        options = LaunchOptions(
            params=params or {},
            window=window,
            full_refresh=full_refresh,
            fresh=fresh,
            ignore_dependencies=ignore_dependencies,
        )
        try:
            run, fence = launch(
                file.job,
                file.path,
                options,
                self._resources,
                wait=(stop or StopSignal()) if wait else None,
            )
        except (DependencyNotMet, RunStopped) as error:
            assert error.run_id is not None
            return RunResult(view=self.history.run(error.run_id), error=error)
        return self._execute(file.job, run, fence, workers, stop, on_start)

    def resume(
        self,
        run_id: str,
        *,
        job: JobDefinition | Path | str | None = None,
        accept_definition_change: bool = False,
        workers: int | None = None,
        stop: StopSignal | None = None,
        on_start: Callable[[str], None] | None = None,
    ) -> RunResult:
        """Continue a run from its checkpoints; after a failed validation, judge it again by the job's rules now.

        *job* says where the job is, if not where it was. Raises ``RunAlreadyActive``, ``RunAlreadyComplete``,
        ``NotResumable``, ``DefinitionChanged``, ``StageElsewhere``.
        """
        record = self._resources.ledger.runs.get(run_id)
        file = self._checked(job if job is not None else self._job_of(record))
        if file.job.job_id != record.job_id:
            raise UsageError(f"run {run_id} is of job {record.job_id}, not {file.job.job_id}")
        if record.plan is not None and not accept_definition_change:
            self._refuse_changed_definition(record, file.job)
        run, fence = self._resources.ledger.runs.resume(
            run_id,
            Owner.this_process(),
            permit=lambda run: refuse_other_stage(run, self._resources),
        )
        return self._execute(
            file.job, run, fence, workers, stop, on_start, accept_change=accept_definition_change
        )

    def stop(self, run_id: str) -> RunView:
        """Ask a run to stop at its next checkpoint; one that nobody executes any more is stopped at once."""
        self._resources.ledger.runs.request_stop(run_id)
        return self.history.run(run_id)

    def abandon(self, run_id: str, reason: str = "abandoned on request") -> RunView:
        """Give a run up for good, so that it can never be published."""
        abandon_run(run_id, reason, self._resources)
        return self.history.run(run_id)

    def watermarks(self, job_id: str, params: Mapping[str, Scalar] | None = None) -> Sequence[Watermark]:
        """Return the watermarks of a job's stream, the present one first."""
        return self._resources.ledger.watermarks.history(job_id, stream_of(params or {}))

    def set_watermark(
        self,
        job_id: str,
        window_end: datetime | None,
        *,
        params: Mapping[str, Scalar] | None = None,
        reason: str,
    ) -> None:
        """Move the watermark of a job's stream; ``None`` resets it, so that the next run loads everything.

        Raises :class:`~ecmbatch.errors.ConflictError` while a run of the stream is unfinished: it would go on
        with its old window, and its success would undo the change.
        """
        latest = self._resources.ledger.runs.latest(job_id, stream_of(params or {}))
        if latest is not None and latest.status in CONTINUED_BY_RUN:
            raise ConflictError(
                f"run {latest.run_id} of {job_id} is unfinished ({latest.status}) and would undo the change",
                hint=f"finish it, or give it up first: ecmbatch abandon {latest.run_id}",
            )
        self._resources.ledger.watermarks.set(job_id, stream_of(params or {}), window_end, reason)

    def scheduled_jobs(self) -> Sequence[ScheduledJob]:
        """Return the project's jobs with their next times, by id; also those that are in force though their files
        cannot be read."""
        return self._schedules.all(project_jobs(self.file.root))

    def next_times(self, job: JobDefinition | Path | str, count: int = 5) -> ScheduledJob:
        """Return when a job is due next: as it is written now, or in force where its file is not in order."""
        job_id = self._job_id(job)
        return self._schedules.next(job_id, self._readable(job), count)

    def pause(self, job: JobDefinition | Path | str, reason: str | None = None) -> None:
        """Let nothing start a job by itself until it is resumed; its events are kept, its ticks are not."""
        self._schedules.pause(self._known(job), reason)

    def unpause(self, job: JobDefinition | Path | str) -> None:
        """Let a job start by itself again, from now on."""
        self._schedules.resume(self._known(job))

    def versions(self, job: JobDefinition | Path | str) -> Sequence[JobVersion]:
        """Return the versions of a job that schedulers and backfills have seen, newest first."""
        return self._schedules.versions(self._job_id(job))

    def version_diff(
        self, job: JobDefinition | Path | str, old: int | None = None, new: int | None = None
    ) -> list[str]:
        """Return what changed between two versions of a job, by default the last two, as a unified diff."""
        job_id = self._job_id(job)
        known = [each.version for each in self._schedules.versions(job_id)]
        if not known:
            raise UsageError(f"no scheduler and no backfill has seen a version of {job_id}")
        new = known[0] if new is None else new
        return self._schedules.diff(job_id, max(new - 1, 1) if old is None else old, new)

    def emit(self, event: str, *, key: str | None = None) -> tuple[EventRecord, bool]:
        """Tell that something has happened; tell whether it is new: each *key* of an event counts once."""
        return self._schedules.emit(event, key=key)

    def plan_backfill(self, job: JobDefinition | Path | str, request: BackfillRequest) -> BackfillPlan:
        """Return what :meth:`create_backfill` with the same arguments would do, and write nothing."""
        return self.backfills.plan(self._checked(job).job, request)

    def create_backfill(
        self, job: JobDefinition | Path | str, request: BackfillRequest
    ) -> tuple[BackfillView, bool]:
        """Begin to fill a range of the past, or go on with the same backfill; tell whether it is new.

        Workers execute it, or :meth:`Backfills.execute` of :attr:`backfills`. Raises ``UsageError`` for a job that
        cannot be filled so, and ``ConflictError`` where another backfill has a part of the range.
        """
        return self.backfills.create(self._checked(job), request)

    def alerts(self, run_id: str | None = None) -> Sequence[Alert]:
        """Return the alerts of a run or of all, oldest first; ``delivered_at`` tells those that were told."""
        return self._resources.ledger.alerts.all(run_id=run_id)

    def doctor(self) -> Diagnosis:
        """Look whether the project is well: everything is looked at, nothing is changed."""
        from ecmbatch.engine.doctor import examine

        return examine(self._resources)

    def gc(self, *, dry_run: bool = False, orphans: bool = False) -> Collection:
        """Remove what the project's ``[retention]`` lets go; with *dry_run* only tell what that is.

        *orphans*: also stages of runs that this ledger does not know. What could not be removed is told in
        the answer.
        """
        from ecmbatch.engine.retention import collect_garbage

        return collect_garbage(self._resources, dry_run=dry_run, orphans=orphans)

    def _execute(
        self,
        job: JobDefinition,
        run: RunRecord,
        fence: Fence,
        workers: int | None,
        stop: StopSignal | None,
        on_start: Callable[[str], None] | None,
        *,
        accept_change: bool = False,
    ) -> RunResult:
        runner = Runner(
            job,
            self._resources,
            workers=workers or self.file.settings.run.workers,
            stop=stop or StopSignal(),
            on_start=on_start,
        )
        error: EcmbatchError | None = None
        try:
            runner.execute(run, fence, accept_change=accept_change)
        except EcmbatchError as raised:
            error = raised
        return RunResult(view=self.history.run(run.run_id), error=error, profile=runner.profile.document())

    def _job_of(self, run: RunRecord) -> Path | str:
        """Return where the run's job was: a file of the project, not one of that name where we happen to be."""
        return self.file.root / run.job_file if run.job_file else run.job_id

    def _refuse_changed_definition(self, run: RunRecord, job: JobDefinition) -> None:
        from ecmbatch.engine.launching import check_definition, current_definition

        check_definition(run, current_definition(job, self._resources))

    def _known(self, job: JobDefinition | Path | str) -> str:
        """Return the id of a job that the ledger knows, from its file where no scheduler has seen it yet."""
        if isinstance(job, str) and self._resources.ledger.jobs.find(job) is not None:
            return job
        file = self._checked(job)
        self._schedules.make_known(file)
        return file.job.job_id

    def _readable(self, job: JobDefinition | Path | str) -> JobDefinition | None:
        try:
            return self._job_file(job).job
        except (InvalidDocument, UsageError):
            return None

    def _job_id(self, job: JobDefinition | Path | str) -> str:
        """Return the id of a job, also of one whose file is gone or broken while the ledger knows it."""
        if isinstance(job, str) and self._resources.ledger.jobs.find(job) is not None:
            return job
        return self._job_file(job).job.job_id

    def _job_file(self, job: JobDefinition | Path | str) -> JobFile:
        match job:
            case JobDefinition():
                return JobFile(job=job, path=None)
            case Path():
                return read_job_file(job, self.file.root)
            case _:
                return read_job(job, self.file.root, Path.cwd())

    def _checked(self, job: JobDefinition | Path | str) -> JobFile:
        file = self._job_file(job)
        report = check_job(file.job, self._resources)
        if not report.valid:
            raise InvalidDocument(
                f"job {file.job.job_id} does not fit this project: {report.problems[0]}",
                problems=report.problems,
            )
        check_executor(file.job, self._resources)
        return file
