"""Executing a run: the story from the claim to the end.

::

    plan ─▶ scans ─▶ verdict ─▶ publish ─▶ done

Every step finds out what an earlier attempt left and goes on from there, so that resuming is the same story.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ecmbatch.connectors.connector import Scan
from ecmbatch.crash_points import crash_point
from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.cancelling import CancelledWhenStopped
from ecmbatch.engine.executors.executor import Executor
from ecmbatch.engine.executors.processes import Processes
from ecmbatch.engine.executors.threads import Threads
from ecmbatch.engine.failures import redacted_document
from ecmbatch.engine.judging import NO_RULES, judge_run, manifest_of
from ecmbatch.engine.launching import check_definition, current_definition, digest_of
from ecmbatch.engine.lease import LeaseKeeper
from ecmbatch.engine.lineage.lineage import Lineage
from ecmbatch.engine.plan import RunPlan, TablesRead
from ecmbatch.engine.planning import make_plan, replan_transform_and_sink
from ecmbatch.engine.profile import Profile
from ecmbatch.engine.publishing import publication_document, publish_run
from ecmbatch.engine.references import stage_tables, staged_tables, unread_tables
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scan_run import AttemptSpec, run_scan
from ecmbatch.engine.staging import remove_finished_stages, stage_here
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.engine.table_versions import tables_to_read
from ecmbatch.engine.transform import bound_chain
from ecmbatch.engine.worker_deaths import WorkerDeaths
from ecmbatch.errors import (
    ConflictError,
    EcmbatchError,
    Fenced,
    RunAbandoned,
    RunAlreadyComplete,
    RunFailed,
    RunReleased,
    RunStopped,
    Superseded,
    TimedOut,
    Unreachable,
    UsageError,
    ValidationFailed,
    WorkerDied,
)
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Fence, RunRecord
from ecmbatch.processors.chain import BoundChain
from ecmbatch.processors.processor import RunFacts
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.partitioning.partitions import RangePartitions
from ecmbatch.protocol.recovery import PartitionProgress, remaining_work
from ecmbatch.protocol.run import RunStatus
from ecmbatch.stores.store import Marker

log = logging.getLogger("ecmbatch")

_LONGEST_DELAY = timedelta(minutes=10)
_SECONDS_BETWEEN_LOOKS = 0.5
_REFUSED = (UsageError.exit_code, ConflictError.exit_code)
"""A run that was refused for such a reason before it had a plan never began; resuming it could not help."""


class Runner:
    """Executes runs of *job* with the resources of its project; *stop* may be set by a signal at any time.

    *on_start* gets the run's id at the beginning of each attempt. ``profile`` is that of the latest attempt.
    """

    def __init__(
        self,
        job: JobDefinition,
        resources: Resources,
        *,
        workers: int,
        stop: StopSignal,
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        self._job = job
        self._resources = resources
        self._workers = workers
        self._stop = stop
        self._on_start = on_start
        self.profile = Profile()

    def execute(self, run: RunRecord, fence: Fence, *, accept_change: bool = False) -> RunRecord:
        """Execute a claimed run, with as many automatic attempts as the job allows; return how it ended.

        Raises what the last attempt raised; by then the run's status and error are in the ledger.
        """
        lineage = Lineage(self._job, self._resources)
        try:
            return self._execute(run, fence, lineage, accept_change=accept_change)
        finally:
            lineage.close()

    def _execute(self, run: RunRecord, fence: Fence, lineage: Lineage, *, accept_change: bool) -> RunRecord:
        failure: EcmbatchError | None = None
        for tries in range(1, self._job.retry.max_attempts + 1):
            goes_on = tries < self._job.retry.max_attempts
            try:
                if failure is not None:
                    # The ledger may have missed that the last attempt is over: it was what could not be reached.
                    run, fence = self._resources.ledger.runs.resume(
                        run.run_id, Owner.this_process(), ended=fence, error=self._document(failure)
                    )
                self.profile = Profile()
                attempt = _Attempt(
                    self._job, run, fence, self._resources, self._workers, self._stop, self.profile
                )
                with lineage.attempt(fence):
                    return attempt.execute(self._on_start, accept_change=accept_change, goes_on=goes_on)
            except RunAlreadyComplete:
                # Nothing was lost but the acknowledgement.
                return self._resources.ledger.runs.get(run.run_id)
            except EcmbatchError as error:
                if error.error_class != "transient" or not goes_on:
                    raise
                failure = error
            self._back_off(tries, fence, failure)
        raise AssertionError("a job has at least one attempt")

    def _back_off(self, tries: int, fence: Fence, failure: EcmbatchError) -> None:
        """Wait for the next attempt. The run stays ours meanwhile: if we die now, whoever takes it over goes on.

        Raises what the run is asked to stop with, once the ledger knows.
        """
        delay = self._delay(tries)
        log.warning("attempt %d failed: %s; trying again in %.0f s", fence.attempt, failure.message, delay)
        stop = StopSignal(self._stop)
        until = time.monotonic() + delay
        with LeaseKeeper(self._resources.ledger, fence, stop):
            while not stop.is_set() and (left := until - time.monotonic()) > 0:
                stop.wait(min(left, _SECONDS_BETWEEN_LOOKS))
        if not stop.is_set() or isinstance(stop.reason, Unreachable):
            return
        if isinstance(stop.reason, RunStopped):
            status = RunStatus.QUEUED if isinstance(stop.reason, RunReleased) else RunStatus.STOPPED
            self._resources.ledger.runs.finish(fence, status, error=self._document(stop.reason))
        raise stop.reason

    def _document(self, error: EcmbatchError) -> dict[str, Any]:
        return redacted_document(error, self._resources)

    def _delay(self, tries: int) -> float:
        """Exponential back-off with full jitter: many jobs that failed together do not come back together."""
        longest = min(self._job.retry.base_delay * 2 ** (tries - 1), _LONGEST_DELAY)
        return random.uniform(0, longest.total_seconds())  # noqa: S311 - not for secrets


class _Attempt:
    """One attempt at a run."""

    def __init__(
        self,
        job: JobDefinition,
        run: RunRecord,
        fence: Fence,
        resources: Resources,
        workers: int,
        stop: StopSignal,
        profile: Profile,
    ) -> None:
        self._profile = profile
        self._job = job
        self._run = run
        self._fence = fence
        self._resources = resources
        self._ledger = resources.ledger
        self._workers = workers
        self._stop = StopSignal(stop)
        self._deadline = time.monotonic() + job.timeout.total_seconds() if job.timeout else None

    def execute(
        self, on_start: Callable[[str], None] | None, *, accept_change: bool, goes_on: bool
    ) -> RunRecord:
        """Tell the story, and write down how it ended; not where another attempt *goes_on* after the error."""
        try:
            if on_start is not None:
                on_start(self._run.run_id)
            deliver_alerts(self._resources)
            with LeaseKeeper(self._ledger, self._fence, self._stop):
                return self._story(accept_change=accept_change)
        except Fenced:
            # Somebody else owns the run now; its status is theirs to write.
            raise
        except EcmbatchError as error:
            if (finished := self._finished_after_all(error)) is not None:
                return finished
            ending = self._ending(error)
            if not (goes_on and ending.error_class == "transient"):
                self._end_as(self._status_after(ending), ending)
            if ending is error:
                raise
            raise ending from error
        except KeyboardInterrupt:
            # Not ours to handle, but the run must not look alive once we are gone.
            self._end_as(RunStatus.STOPPED, RunStopped("interrupted"))
            raise
        except (Exception, SystemExit) as error:
            failure = RunFailed(
                f"run {self._run.run_id} failed with an unexpected {type(error).__name__}",
                hint="this is a defect; run again with --log-level debug and report the trace",
            )
            self._end_as(RunStatus.FAILED, failure)
            raise failure from error

    def _story(self, *, accept_change: bool) -> RunRecord:
        connector = self._resources.source(self._job.source.named)
        with (
            self._profile.timed("plan"),
            CancelledWhenStopped(self._stop, connector, look=self._check_deadline),
        ):
            plan = self._plan(accept_change=accept_change)
            marker = self._published_before(plan)
        if marker is None:
            self._check_head(plan)
            self._check_stage()
            with self._profile.timed("scan"):
                self._read(plan)
            self._check_stop()
            with self._profile.timed("verdict"):
                judge_run(self._job, self._run, self._fence, plan, self._resources)
            self._check_stop()
            self._ledger.runs.renew(self._fence)
            with self._profile.timed("publish"):
                marker = self._publish(plan)
        return self._finish(marker, plan)

    def _plan(self, *, accept_change: bool) -> RunPlan:
        """Freeze the plan, or take the frozen one: a resume never resolves and never plans again."""
        if self._run.plan is None:
            return self._freeze()
        plan = RunPlan.from_document(self._run.plan)
        definition = current_definition(self._job, self._resources)
        if not accept_change:
            check_definition(self._run, definition)
            return plan
        plan = replan_transform_and_sink(self._job, self._run, plan, self._resources)
        self._ledger.runs.amend(
            self._fence, plan=plan.document(), digest=digest_of(definition), definition=definition
        )
        return plan

    def _freeze(self) -> RunPlan:
        started_at = self._ledger.clock()
        definition = current_definition(self._job, self._resources)
        window, plan = make_plan(self._job, self._run, self._resources, started_at=started_at)
        for note in plan.notes:
            log.info("%s", note)
        self._ledger.runs.freeze(
            self._fence,
            started_at=started_at,
            window=(window.start, window.end),
            plan=plan.document(),
            digest=digest_of(definition),
            definition=definition,
            partitions_of_scan=[scan.partitions for scan in plan.scans],
            stage=stage_here(self._resources.stage),
        )
        crash_point("run.frozen")
        self._run = self._ledger.runs.get(self._run.run_id)
        return plan

    def _published_before(self, plan: RunPlan) -> Marker | None:
        """The store's marker is the truth: a predecessor may have died between its commit and our ledger."""
        if self._fence.attempt == 1:
            return None
        marker = self._resources.store(plan.sink.store).marker(self._run.run_id)
        if marker is None:
            return None
        if marker.outcome == "abandoned":
            raise self._abandoned()
        log.info("run %s was published before; finishing it", self._run.run_id)
        return marker

    def _check_head(self, plan: RunPlan) -> None:
        """A run that was overtaken could read everything and still never publish; better told at once."""
        if self._fence.attempt == 1 or not self._run.ordered:
            return
        head = self._resources.store(plan.sink.store).head(
            self._run.job_id, plan.sink.table, self._run.stream
        )
        found = head.run_id if head is not None else None
        if found != plan.sink.expected_head:
            raise Superseded(
                f"run {self._run.run_id} was overtaken: run {found} has published to "
                f"{plan.sink.store}.{plan.sink.table} since it started",
                hint=f"start a new run: ecmbatch run {self._job.job_id}",
            )

    def _check_stage(self) -> None:
        """What a run has lost of its stage is better told before the rest is read."""
        if self._fence.attempt == 1:
            return
        chunks = self._ledger.progress.chunks(self._run.run_id)
        self._resources.stage.check_present(self._run.run_id, manifest_of(chunks))
        here = stage_here(self._resources.stage)
        if self._run.stage is not None and self._run.stage["id"] != here["id"] and not chunks:
            # The folder was made anew before anything was staged in it.
            self._ledger.runs.amend_stage(self._fence, here)

    def _read(self, plan: RunPlan) -> None:
        """Execute the scans that are not complete, as many at a time as workers and connector allow."""
        work = remaining_work(
            PartitionProgress(
                partition=each.partition, scan=each.scan, status=each.status, offset=each.offset
            )
            for each in self._ledger.progress.partitions(self._run.run_id)
        )
        if not work.scans:
            return
        if self._fence.attempt > 1:
            log.info(
                "partitions: %d skipped, %d resumed, %d fresh",
                len(work.skipped),
                len(work.resumed),
                len(work.fresh),
            )
        tables = tables_to_read(plan, self._fence.attempt, self._resources)
        plan, chain = self._chain(plan)
        connector = self._resources.source(plan.source)
        slots = min(self._workers, len(work.scans), connector.max_scans or self._workers)
        if isinstance(plan.request.partitioning, RangePartitions) and plan.request.partitioning.ordered:
            slots = 1
        try:
            with connector.snapshot() as snapshot:
                of_attempt = replace(plan, request=replace(plan.request, snapshot=snapshot))
                executor = self._executor(self._spec(of_attempt, tables), chain, slots)
                # Where workers have chains of their own, tables to look things up in need not be here too.
                del chain
                self._drive(executor, plan, work.scans)
        finally:
            # What the source holds is not needed to publish: its memory, and a file that others may wait for.
            connector.close()

    def _executor(self, spec: AttemptSpec, chain: BoundChain, slots: int) -> Executor:
        file = self._resources.project_file
        if file.settings.run.executor == "processes":
            return Processes(spec, file, slots=slots, stop=self._stop, profile=self._profile)
        return Threads(
            lambda scan: run_scan(spec, scan, self._resources, chain, self._stop, self._profile), slots
        )

    def _chain(self, plan: RunPlan) -> tuple[RunPlan, BoundChain]:
        """Build the processors, once for all scans, with the tables that they look things up in.

        The plan that is returned says where those tables are staged.
        """
        new = unread_tables(plan, self._resources)
        tables = {**staged_tables(self._run.run_id, plan, self._resources), **new}
        # A table that its processor refuses is not staged, so it can be corrected and read again.
        chain = bound_chain(plan, self._resources, self._facts(), tables)
        if new:
            staged = stage_tables(self._fence, new, self._resources)
            plan = replace(plan, references={**plan.references, **staged})
            self._ledger.runs.amend_plan(self._fence, plan.document())
            crash_point("run.references")
        return plan, chain

    def _drive(self, executor: Executor, plan: RunPlan, scans: Sequence[int]) -> None:
        """Execute *scans* and close the executor; whatever ends this asks the scans under way to stop."""
        try:
            self._keep_busy(executor, plan, scans)
        except EcmbatchError as error:
            self._stop.set(error)
            raise
        except (KeyboardInterrupt, SystemExit):
            self._stop.set(RunStopped("interrupted"))
            raise
        except Exception as error:
            self._stop.set(RunFailed(f"the driver failed with an unexpected {type(error).__name__}"))
            raise
        finally:
            executor.close()

    def _keep_busy(self, executor: Executor, plan: RunPlan, scans: Sequence[int]) -> None:
        """Keep the executor's slots filled; the first error asks the other scans to checkpoint and stop."""
        deaths = WorkerDeaths(self._run.run_id, self._ledger)
        waiting = list(scans)
        running: dict[Future[None], int] = {}
        first_error: BaseException | None = None
        while running or (waiting and not self._stop.is_set()):
            while waiting and len(running) < executor.slots and not self._stop.is_set():
                scan = waiting.pop(0)
                running[executor.submit(scan)] = scan
            done, _ = wait(running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            self._check_deadline()
            for future in done:
                scan = running.pop(future)
                error = self._error_of(future, plan.scans[scan], deaths, waiting)
                if error is not None and error is not self._stop_reason():
                    first_error = first_error or error
                    self._note_failure(scan, error)
        if first_error is not None:
            raise first_error
        self._stop.raise_if_set()

    def _error_of(
        self, future: Future[None], scan: Scan, deaths: WorkerDeaths, waiting: list[int]
    ) -> BaseException | None:
        """Return what *scan* failed with; one that has only lost its worker waits for another."""
        error = future.exception()
        if not isinstance(error, WorkerDied):
            return error
        if self._stop.is_set():
            log.warning("%s when it was to stop", error.message)
            return None
        try:
            if deaths.goes_on(scan, error):
                waiting.insert(0, scan.number)
        except WorkerDied as poisoned:
            return poisoned
        return None

    def _stop_reason(self) -> EcmbatchError | None:
        return self._stop.reason if self._stop.is_set() else None

    def _note_failure(self, scan: int, error: BaseException) -> None:
        if isinstance(error, EcmbatchError):
            self._stop.set(error)
        else:
            self._stop.set(RunFailed(f"scan {scan} failed: {type(error).__name__}"))
        if not isinstance(error, Fenced):
            self._ledger.progress.mark_failed(self._fence, scan)

    def _check_stop(self) -> None:
        self._check_deadline()
        self._stop.raise_if_set()

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._stop.set(
                TimedOut(
                    f"attempt {self._fence.attempt} took longer than the job's timeout; "
                    "what is checkpointed is kept",
                    hint=f"continue with: ecmbatch resume {self._run.run_id}",
                )
            )

    def _spec(self, plan: RunPlan, tables: TablesRead | None) -> AttemptSpec:
        return AttemptSpec(
            fence=self._fence,
            facts=self._facts(),
            plan=plan,
            tables=tables,
            checkpoint=self._job.checkpoint,
            validation=self._job.validation or NO_RULES,
        )

    def _facts(self) -> RunFacts:
        assert self._run.started_at is not None
        return RunFacts(run_id=self._run.run_id, job_id=self._run.job_id, started_at=self._run.started_at)

    def _publish(self, plan: RunPlan) -> Marker:
        try:
            return publish_run(self._run, plan, self._resources)
        except Fenced as error:
            raise self._abandoned() from error

    def _abandoned(self) -> RunAbandoned:
        """The store has the run's tombstone: whoever put it there may have died before telling the ledger."""
        return RunAbandoned(
            f"run {self._run.run_id} was abandoned", hint=f"start a new one: ecmbatch run {self._job.job_id}"
        )

    def _finish(self, marker: Marker, plan: RunPlan) -> RunRecord:
        crash_point("finish.before")
        run = self._ledger.runs.finish(
            self._fence, RunStatus.SUCCESS, publication=publication_document(marker, plan)
        )
        crash_point("finish.after")
        remove_finished_stages(self._resources)
        return run

    def _finished_after_all(self, error: EcmbatchError) -> RunRecord | None:
        """Return the run where the ledger took our success and only its acknowledgement was lost."""
        if not isinstance(error, Unreachable):
            return None
        run = self._ledger.runs.get(self._run.run_id)
        return run if run.status is RunStatus.SUCCESS and run.epoch == self._fence.epoch else None

    def _ending(self, error: EcmbatchError) -> EcmbatchError:
        """What may pass does not matter to somebody who asked the run to stop; it is stopped, not failed."""
        if error.error_class != "transient" or isinstance(error, RunStopped):
            return error
        if self._stop.is_set() and isinstance(self._stop.reason, RunStopped):
            return self._stop.reason
        if self._ledger.runs.status(self._fence) is RunStatus.STOPPING:
            return RunStopped("stopped on request")
        return error

    def _status_after(self, error: EcmbatchError) -> RunStatus:
        match error:
            case RunAbandoned():
                return RunStatus.ABANDONED
            case RunReleased():
                return RunStatus.QUEUED
            case RunStopped():
                return RunStatus.STOPPED
            case ValidationFailed():
                return RunStatus.VALIDATION_FAILED
            case Superseded():
                # The head only moves forward: this run can never be published any more.
                return RunStatus.ABANDONED
        if error.exit_code in _REFUSED:
            if self._run.plan is None:
                # Who gave the command is told. Of what a schedule made, a failure must come of it.
                return RunStatus.SKIPPED if self._run.job_version is None else RunStatus.FAILED
            verdict = self._ledger.verdicts.latest(self._run.run_id)
            if verdict is not None and not verdict.publish:
                # Judging again was refused; the verdict that there is still stands.
                return RunStatus.VALIDATION_FAILED
        return RunStatus.FAILED

    def _end_as(self, status: RunStatus, error: EcmbatchError) -> None:
        self._ledger.runs.finish(self._fence, status, error=redacted_document(error, self._resources))
