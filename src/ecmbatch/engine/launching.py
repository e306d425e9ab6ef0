"""Launching: which run a command means, whether its gates are open, and claiming it."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.abandoning import abandon_run
from ecmbatch.engine.failures import error_document
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.gates import unmet_dependencies
from ecmbatch.engine.staging import refuse_other_stage
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import (
    ConflictError,
    DefinitionChanged,
    DependencyNotMet,
    EcmbatchError,
    RunAlreadyComplete,
    RunStopped,
    UsageError,
)
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Fence, NewRun, RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import Interval, IntervalStatus, without
from ecmbatch.protocol.job import JobDefinition, definition_diff
from ecmbatch.protocol.parameters import unknown_params
from ecmbatch.protocol.recovery import Launch, LaunchDecision, decide_launch
from ecmbatch.protocol.run import FINAL, RunStatus
from ecmbatch.protocol.scalars import Scalar, encode_scalar, encode_scalars
from ecmbatch.protocol.ticks import Ticks

log = logging.getLogger("ecmbatch")

LONGEST_WAIT = timedelta(hours=24)
"""How long a run waits for its dependencies, where the job does not say."""

_SECONDS_BETWEEN_LOOKS = 2

DEFAULT_STREAM = "default"
"""The stream of runs without ``--param``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What was asked for beside the job. A window makes the run a backfill of that interval."""

    params: Mapping[str, Scalar] = field(default_factory=dict)
    window: tuple[datetime, datetime] | None = None
    full_refresh: bool = False
    fresh: bool = False
    ignore_dependencies: bool = False


class _LookAgain(Exception):
    """The run that was to go on has ended since it was looked at, and nobody has judged whether a new one may."""


def launch(
    job: JobDefinition,
    job_file: str | None,
    options: LaunchOptions,
    resources: Resources,
    *,
    wait: StopSignal | None = None,
) -> tuple[RunRecord, Fence]:
    """Create a run of *job* or continue its latest one, and claim it.

    With *wait* a new run waits for its dependencies, until that signal is set or its patience is over; without,
    it is refused at once where they are not met. Raises ``DependencyNotMet``, ``RunAlreadyActive``,
    ``RunAlreadyComplete``, ``RunStopped``, ``StageElsewhere`` or ``UsageError``.
    """
    unknown = unknown_params(job.references, options.params)
    if unknown:
        raise UsageError(str(unknown[0]), problems=unknown)
    runs = resources.ledger.runs
    definition = current_definition(job, resources)

    def choose(latest: RunRecord | None, new: NewRun, *, judged: bool) -> LaunchDecision:
        decision = decide(latest, new, options)
        if latest is not None and decision.launch is Launch.CONTINUE:
            refuse_other_stage(latest, resources)
        elif not judged:
            raise _LookAgain
        return decision

    while True:
        new = new_run(job, job_file, options, definition, resources.ledger.clock())
        runs.refuse_if_live(job.job_id, new.lane)
        latest = runs.latest(job.job_id, new.lane)
        decision = choose(latest, new, judged=True)
        is_new = decision.launch is not Launch.CONTINUE
        if is_new:
            check_key(latest, new, options, resources)
            reasons = [] if options.ignore_dependencies else unmet_gates(job, new, options, resources)
            if reasons and wait is None:
                _refuse_unmet(job, new, reasons, resources)
            elif reasons and wait is not None:
                return _claim_when_met(job, new, options, resources, wait)
        try:
            decision, run, fence = runs.launch(
                new, partial(choose, new=new, judged=is_new), Owner.this_process()
            )
        except _LookAgain:
            continue
        log.info("%s %s: %s", job.job_id, run.run_id, decision.reason)
        if fence is not None:
            crash_point("run.claimed")
            return run, fence
        abandon_run(run.run_id, f"a new run was started: {decision.reason}", resources)


def current_definition(job: JobDefinition, resources: Resources) -> dict[str, object]:
    """Return what the job's digest covers, with the processors' versions as they are installed."""
    if job.transform:
        resources.load_processors()
    versions = {
        step.processor: resources.plugins.processors.get(step.processor).version for step in job.transform
    }
    return job.definition(versions)


def digest_of(definition: Mapping[str, object]) -> str:
    """Return the digest of a definition."""
    return hashlib.sha256(json.dumps(definition, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_definition(run: RunRecord, definition: Mapping[str, object]) -> None:
    """Refuse to go on with *run* under another definition than it started with, telling the difference."""
    if digest_of(definition) == run.digest:
        return
    changes = definition_diff(run.definition, definition)
    raise DefinitionChanged(
        f"the job changed since run {run.run_id} started: {'; '.join(changes)}",
        hint=f"start anew with: ecmbatch run {run.job_id} --fresh; or go on with the new transform and sink: "
        f"ecmbatch resume {run.run_id} --accept-definition-change",
    )


def stream_of(params: Mapping[str, Scalar]) -> str:
    """Return the stream of runs with these ``--param`` values: each has its own watermark and head."""
    if not params:
        return DEFAULT_STREAM
    text = json.dumps(encode_scalars(params), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_run_id(now: datetime) -> str:
    """Return a UUIDv7: ordered by time, unique without asking anybody."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    random = secrets.randbits(74)
    high = (milliseconds << 16) | (0x7 << 12) | (random >> 62)
    return str(UUID(int=(high << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))))


def new_run(
    job: JobDefinition,
    job_file: str | None,
    options: LaunchOptions,
    definition: dict[str, object],
    now: datetime,
) -> NewRun:
    run_id = new_run_id(now)
    stream = stream_of(options.params)
    window = options.window
    interval = f"{rfc3339(window[0])}/{rfc3339(window[1])}" if window else None
    backfill_key = f"backfill:{stream}:{interval}"
    return NewRun(
        run_id=run_id,
        job_id=job.job_id,
        # A backfill that is done again on request is another run of the same interval.
        run_key=(f"{backfill_key}:{run_id}" if options.fresh else backfill_key) if window else run_id,
        stream=stream,
        lane=backfill_key if window else stream,
        live=window is None,
        trigger="backfill" if window else "manual",
        digest=digest_of(definition),
        definition=definition,
        job_file=job_file,
        options={
            "params": encode_scalars(options.params),
            "window": {"start": encode_scalar(window[0]), "end": encode_scalar(window[1])}
            if window
            else None,
            "full_refresh": options.full_refresh,
            "ignore_dependencies": options.ignore_dependencies,
        },
        scheduled_for=now,
    )


def decide(latest: RunRecord | None, new: NewRun, options: LaunchOptions) -> LaunchDecision:
    if latest is None:
        return decide_launch(None, same_definition=True, fresh=options.fresh)
    # A run that was never started is defined by what the job is when it starts.
    changes = definition_diff(latest.definition, new.definition) if latest.plan is not None else []
    if latest.options["full_refresh"] != new.options["full_refresh"]:
        changes.append("--full-refresh differs")
    return decide_launch(latest.status, same_definition=not changes, fresh=options.fresh, changes=changes)


def check_key(latest: RunRecord | None, new: NewRun, options: LaunchOptions, resources: Resources) -> None:
    """Refuse to run an interval again that is loaded, or that has a run already, unless asked for it."""
    if options.window is None or options.fresh:
        return
    hint = "load it again with --fresh"
    if latest is not None and latest.status is RunStatus.SUCCESS:
        raise RunAlreadyComplete(
            f"this interval of {new.job_id} was loaded by run {latest.run_id}", hint=hint
        )
    if _is_loaded(Interval(*options.window), new, resources):
        # By runs that are forgotten, or of other intervals.
        raise RunAlreadyComplete(f"this interval of {new.job_id} was loaded before", hint=hint)
    if latest is None:
        return
    resumable = latest.status not in FINAL
    raise ConflictError(
        f"this interval of {new.job_id} has run {latest.run_id}, which is {latest.status}",
        hint=(f"ecmbatch resume {latest.run_id}, or " if resumable else "") + "start anew with --fresh",
    )


def _is_loaded(interval: Interval, new: NewRun, resources: Resources) -> bool:
    done = resources.ledger.backfills.done(new.job_id, new.stream, interval)
    loaded = [each.interval for each in done if each.status is IntervalStatus.LOADED]
    return not any(without(interval, loaded))


def unmet_gates(job: JobDefinition, new: NewRun, options: LaunchOptions, resources: Resources) -> list[str]:
    """Return one sentence for each dependency that is not met now."""
    at = options.window[1] if options.window else new.scheduled_for
    return unmet_dependencies(job, at=at, backfill=not new.live, ledger=resources.ledger)


def _refuse_unmet(job: JobDefinition, new: NewRun, reasons: Sequence[str], resources: Resources) -> None:
    """Refuse a new run whose dependencies are not met, and remember that it was refused."""
    error = _not_met(job, reasons, "run what it depends on first, or add --wait or --ignore-dependencies")
    error.run_id = resources.ledger.runs.record_skipped(new, error_document(error)).run_id
    raise error


def _claim_when_met(
    job: JobDefinition, new: NewRun, options: LaunchOptions, resources: Resources, wait: StopSignal
) -> tuple[RunRecord, Fence]:
    """Let a new run wait for its dependencies, and claim it once they are met."""
    ledger, run_id, owner = resources.ledger, new.run_id, Owner.this_process()
    limit = wait_limit(job, ledger.clock())
    ledger.queue.wait(replace(new, waiting=[], wait_until=limit), owner)
    told: list[str] = []
    try:
        while reasons := unmet_gates(job, new, options, resources):
            if reasons != told:
                log.info("%s %s waits: %s", job.job_id, run_id, "; ".join(reasons))
                told = reasons
            if ledger.clock() >= limit:
                error = _not_met(job, reasons, f"run what it depends on, then: ecmbatch run {job.job_id}")
                alert = waited_alert(run_id, job.alerts, error.message)
                ledger.queue.give_up(run_id, error_document(error), alert)
                error.run_id = run_id
                raise error
            if not ledger.queue.keep_waited_for(run_id, owner, reasons):
                status = ledger.runs.get(run_id).status
                raise _stopped(run_id, f"run {run_id} was {status} while it waited for its dependencies")
            if wait.wait(_SECONDS_BETWEEN_LOOKS):
                raise _stopped(run_id, "stopped while it waited for its dependencies")
        return ledger.runs.resume(run_id, owner, waited=True)
    except EcmbatchError:
        # Nobody waits for it any more.
        if ledger.runs.get(run_id).status is RunStatus.WAITING:
            ledger.runs.request_stop(run_id)
        raise


def _stopped(run_id: str, message: str) -> RunStopped:
    error = RunStopped(message)
    error.run_id = run_id
    return error


def wait_limit(job: JobDefinition, now: datetime) -> datetime:
    """Return until when a run that is made *now* waits for its dependencies: by default until the next tick."""
    if job.dependency_timeout is not None:
        return now + job.dependency_timeout
    ticks = Ticks.of(job.schedule)
    following = ticks.next_after(now) if ticks is not None else None
    return min(following or now + LONGEST_WAIT, now + LONGEST_WAIT)


def waited_alert(run_id: str, recipients: Sequence[str], message: str) -> NewAlert:
    """Return the alert for a run that has waited too long."""
    return NewAlert(key=f"waited {run_id}", outcome="skipped", recipients=recipients, message=message)


def _not_met(job: JobDefinition, reasons: Sequence[str], hint: str) -> DependencyNotMet:
    return DependencyNotMet(f"{job.job_id} did not run: {'; '.join(reasons)}", unmet=reasons, hint=hint)
