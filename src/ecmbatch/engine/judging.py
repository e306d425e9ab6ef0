"""The verdict: judging the staged rows before anybody can read them (protocol: Quality Validation)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.plan import RunPlan
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import IntegrityError, UsageError, ValidationFailed
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.records import Chunk, Fence, PartitionRecord, RunRecord
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.validation.observations import Observations, Observer
from ecmbatch.protocol.validation.rules import Rule, Validation
from ecmbatch.protocol.validation.verdict import Verdict, judge
from ecmbatch.stage.stage import SealedFile, manifest_digest
from ecmbatch.stores.store import PARTITION_COLUMN

NO_RULES = Validation(rules=())

log = logging.getLogger("ecmbatch")


def manifest_of(chunks: Sequence[Chunk]) -> tuple[SealedFile, ...]:
    """Return the exact list of files that is judged and published."""
    return tuple(
        SealedFile(file=chunk.file, rows=chunk.rows, bytes=chunk.bytes, sha256=chunk.sha256)
        for chunk in chunks
    )


def judge_run(job: JobDefinition, run: RunRecord, fence: Fence, plan: RunPlan, resources: Resources) -> None:
    """Judge what is staged, remember the verdict, and raise ``ValidationFailed`` where it must not be published.

    A verdict on the same files by the same rules that allowed publishing stands: a run whose publishing failed
    is not judged again. Raises ``IntegrityError`` when files, rows and observations disagree.
    """
    ledger, stage = resources.ledger, resources.stage
    files = manifest_of(ledger.progress.chunks(run.run_id))
    manifest = manifest_digest(files)
    validation = job.validation or NO_RULES
    rules_digest = _digest(validation)
    earlier = ledger.verdicts.latest(run.run_id)
    stage.verify(run.run_id, files)
    partitions = ledger.progress.partitions(run.run_id)
    _check_rows(run, partitions, files)
    if earlier and earlier.publish and (earlier.manifest, earlier.rules_digest) == (manifest, rules_digest):
        return
    observations = _observations(validation, run, partitions, files, resources)
    crash_point("verdict.before")
    verdict = judge(
        validation,
        observations,
        now=ledger.clock(),
        reference=None if run.live else run.window_end,
        window_end=run.window_end,
        default_alerts=job.alerts,
    )
    ledger.verdicts.record(
        fence,
        job.job_id,
        manifest=manifest,
        rules_digest=rules_digest,
        publish=verdict.action.publish,
        report=verdict.to_json(),
        alerts=_alerts(job, run, verdict),
    )
    crash_point("verdict.recorded")
    deliver_alerts(resources)
    for warning in verdict.warnings:
        log.warning("%s", warning)
    if not verdict.action.publish:
        raise ValidationFailed(
            f"validation failed: {'; '.join(verdict.failures)}",
            failures=verdict.failures,
            hint=f"{plan.sink.store} is untouched and the rows are staged: correct the rule or the data, then "
            f"ecmbatch resume {run.run_id}",
        )


def _digest(validation: Validation) -> str:
    text = json.dumps(validation.model_dump(mode="json", by_alias=True), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_rows(run: RunRecord, partitions: Sequence[PartitionRecord], files: Sequence[SealedFile]) -> None:
    """Files, partitions and observations are three independent counts of the same rows."""
    staged = sum(partition.staged for partition in partitions)
    in_files = sum(file.rows for file in files)
    if staged != in_files:
        raise IntegrityError(
            f"{staged:,} rows were staged, but the staged files hold {in_files:,}; nothing was published",
            hint=f"start anew with: ecmbatch run {run.job_id} --fresh",
        )


def _observations(
    validation: Validation,
    run: RunRecord,
    partitions: Sequence[PartitionRecord],
    files: Sequence[SealedFile],
    resources: Resources,
) -> Mapping[int, Observations]:
    """Return what was counted for every rule, counting from the stage what a changed rule newly asks for."""
    observer = Observer(validation.rules)
    observations = {
        partition.partition: observer.from_json(partition.observations)
        if partition.observations is not None
        else observer.start()
        for partition in partitions
    }
    for partition in partitions:
        seen = observations[partition.partition]
        if (seen.source_rows, seen.output_rows) != (partition.offset, partition.staged):
            raise IntegrityError(
                f"partition {partition.partition} staged {partition.staged:,} rows but observed "
                f"{seen.output_rows:,}; nothing was published",
                hint=f"start anew with: ecmbatch run {run.job_id} --fresh",
            )
    missing = [
        rule for rule in validation.rules if not all(seen.covers(rule) for seen in observations.values())
    ]
    if not missing:
        return observations
    return _counted_again(missing, observations, run, files, resources)


def _counted_again(
    rules: Sequence[Rule],
    observations: Mapping[int, Observations],
    run: RunRecord,
    files: Sequence[SealedFile],
    resources: Resources,
) -> Mapping[int, Observations]:
    of_source = [rule.id for rule in rules if rule.stage == "source"]
    if of_source:
        raise UsageError(
            f"rule {of_source[0]} looks at source rows and is new; source rows are not kept",
            hint=f"start anew with: ecmbatch run {run.job_id} --fresh",
        )
    log.info("counting %d changed rule(s) from the stage", len(rules))
    observer = Observer(rules)
    counted = dict.fromkeys(observations, observer.start())
    for file in files:
        with pq.ParquetFile(resources.stage.path(run.run_id, file.file)) as opened:
            for batch in opened.iter_batches():
                for partition in batch.column(PARTITION_COLUMN).unique().to_pylist():
                    rows = batch.filter(pc.equal(batch.column(PARTITION_COLUMN), partition)).drop_columns(
                        [PARTITION_COLUMN]
                    )
                    counted[partition] = observer.observe(counted[partition], rows, "output")
    return {
        partition: replace(seen, states={**counted[partition].states, **seen.states})
        for partition, seen in observations.items()
    }


def _alerts(job: JobDefinition, run: RunRecord, verdict: Verdict) -> list[NewAlert]:
    """Return the state of every rule that somebody is to hear of; the ledger keeps the changes.

    A backfill tells of all of its runs at once, at its end.
    """
    if run.backfill_id is not None:
        return []
    alerts = []
    for rule in verdict.rules:
        failing = rule.outcome in ("warn", "fail", "error")
        if failing and not verdict.action.alert:
            continue
        alerts.append(
            NewAlert(
                key=f"{run.stream}:{rule.id}",
                outcome=rule.outcome if failing else "pass",
                recipients=verdict.action.alert_to or job.alerts,
                message=f"{job.job_id}, run {run.run_id}, rule {rule.id} ({rule.type}) "
                f"{rule.outcome if failing else 'passes again'}: {rule.message}",
            )
        )
    return alerts
