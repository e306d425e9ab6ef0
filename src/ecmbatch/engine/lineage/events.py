"""Facts of an attempt as an event of OpenLineage. Needs the client; nothing else of ecmbatch does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar, cast
from uuid import UUID

import pyarrow as pa
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    JobFacet,
    OutputDatasetFacet,
    RunFacet,
    data_quality_assertions_dataset,
    data_quality_metrics_dataset,
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    ownership_job,
    parent_run,
    processing_engine_run,
    schema_dataset,
    sql_job,
    tags_job,
    tags_run,
    test_run,
)

from ecmbatch import __version__
from ecmbatch.engine.lineage.datasets import DatasetName
from ecmbatch.engine.lineage.facts import AttemptFacts
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.scalars import decode_scalar
from ecmbatch.protocol.type_names import type_name
from ecmbatch.protocol.validation.rules import NullCheckRule, Rule

State = Literal["START", "COMPLETE", "FAIL", "ABORT"]

_PRODUCER = f"https://pypi.org/project/ecmbatch/{__version__}/"
_ENGINE = "ecmbatch"
_ASSERTIONS: Mapping[str, str] = {"null_check": "not_null"}
"""What OpenLineage calls a type of rule, where it has another word."""

_Facet = TypeVar("_Facet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The run of another job, of the orchestrator as a rule, in which a run of ours takes place."""

    namespace: str
    job: str
    run_id: str

    @classmethod
    def from_text(cls, text: str) -> Parent | None:
        """Return what ``OPENLINEAGE_PARENT_ID`` says, ``namespace/job/run``; ``None`` if it is not of that form."""
        namespace, _, rest = text.partition("/")
        job, _, run_id = rest.rpartition("/")
        try:
            UUID(run_id)
        except ValueError:
            return None
        return cls(namespace=namespace, job=job, run_id=run_id) if namespace and job else None


def run_event(
    state: State,
    facts: AttemptFacts,
    *,
    at: datetime,
    error: str | None,
    namespace: str,
    parent: Parent | None,
    redact: Callable[[str], str],
) -> RunEvent:
    """Return the event that tells that an attempt is in *state* since *at*; *error* is why it failed."""
    return RunEvent(
        eventTime=rfc3339(at),
        eventType=RunState[state],
        run=Run(
            runId=attempt_id(facts.run.run_id, facts.attempt.attempt),
            facets=dict(_run_facets(facts, parent, redact(error) if error is not None else None)),
        ),
        job=Job(namespace=namespace, name=facts.job.job_id, facets=dict(_job_facets(facts, redact))),
        inputs=[*_inputs(facts)],
        outputs=[_output(facts)],
        producer=_PRODUCER,
    )


def attempt_id(run_id: str, attempt: int) -> str:
    """Return the id that an attempt has for OpenLineage: that of the run for the first one.

    There, nothing follows the event that ends a run, so every further attempt is a run of its own. Its id is
    made of the run's, for whoever has to say it later: a UUIDv7 of the same millisecond.
    """
    if attempt == 1:
        return run_id
    kept = UUID(run_id).int >> 76
    digest = hashlib.sha256(f"{run_id}/{attempt}".encode()).digest()
    bits = int.from_bytes(digest) & ((1 << 76) - 1)
    return str(UUID(int=kept << 76 | bits & ~(0b11 << 62) | 0b10 << 62))


def _facet(kind: Callable[..., _Facet], **values: Any) -> _Facet:
    return kind(producer=_PRODUCER, **values)


def _run_facets(
    facts: AttemptFacts, parent: Parent | None, error: str | None
) -> Iterator[tuple[str, RunFacet]]:
    run = facts.run
    yield "nominalTime", _nominal_time(run)
    yield (
        "processing_engine",
        _facet(processing_engine_run.ProcessingEngineRunFacet, name=_ENGINE, version=__version__),
    )
    yield "tags", _facet(tags_run.TagsRunFacet, tags=[_run_tag(*tag) for tag in _tags(facts)])
    if parent is not None:
        yield (
            "parent",
            _facet(
                parent_run.ParentRunFacet,
                run=parent_run.Run(runId=parent.run_id),
                job=parent_run.Job(namespace=parent.namespace, name=parent.job),
            ),
        )
    if error is not None:
        yield (
            "errorMessage",
            _facet(error_message_run.ErrorMessageRunFacet, message=error, programmingLanguage="Python"),
        )
    if tests := [_test(rule) for rule in _judged(facts)]:
        yield "test", _facet(test_run.TestRunFacet, tests=tests)


def _nominal_time(run: RunRecord) -> nominal_time_run.NominalTimeRunFacet:
    """The interval of a backfill; else when the run was due, for its window is not known before it starts."""
    window = run.options["window"]
    start, end = (decode_scalar(window["start"]), decode_scalar(window["end"])) if window else (None, None)
    if isinstance(start, datetime) and isinstance(end, datetime):
        return _facet(
            nominal_time_run.NominalTimeRunFacet,
            nominalStartTime=rfc3339(start),
            nominalEndTime=rfc3339(end),
        )
    return _facet(nominal_time_run.NominalTimeRunFacet, nominalStartTime=rfc3339(run.scheduled_for))


def _tags(facts: AttemptFacts) -> Iterator[tuple[str, str]]:
    run = facts.run
    yield "ecmbatch.run_id", run.run_id
    yield "ecmbatch.attempt", str(facts.attempt.attempt)
    yield "ecmbatch.trigger", run.trigger
    if run.window_start is not None:
        yield "ecmbatch.window_start", rfc3339(run.window_start)
    if run.window_end is not None:
        yield "ecmbatch.window_end", rfc3339(run.window_end)
    if run.backfill_id is not None:
        yield "ecmbatch.backfill_id", run.backfill_id


def _run_tag(key: str, value: str) -> tags_run.TagsRunFacetFields:
    return tags_run.TagsRunFacetFields(key=key, value=value, source=_ENGINE.upper())


def _job_facets(facts: AttemptFacts, redact: Callable[[str], str]) -> Iterator[tuple[str, JobFacet]]:
    job = facts.job
    yield (
        "jobType",
        _facet(
            job_type_job.JobTypeJobFacet,
            processingType="BATCH",
            integration=_ENGINE.upper(),
            jobType=job.job_type.upper(),
        ),
    )
    if job.description is not None:
        yield (
            "documentation",
            _facet(documentation_job.DocumentationJobFacet, description=redact(job.description)),
        )
    if job.owner is not None:
        yield (
            "ownership",
            _facet(ownership_job.OwnershipJobFacet, owners=[ownership_job.Owner(name=redact(job.owner))]),
        )
    if job.source.query is not None:
        yield "sql", _facet(sql_job.SQLJobFacet, query=redact(job.source.query), dialect=facts.dialect)
    if job.tags:
        tags = [tags_job.TagsJobFacetFields(key=redact(tag), value="true", source="USER") for tag in job.tags]
        yield "tags", _facet(tags_job.TagsJobFacet, tags=tags)


def _inputs(facts: AttemptFacts) -> Iterator[InputDataset]:
    for name in facts.inputs:
        yield InputDataset(
            namespace=name.namespace,
            name=name.name,
            facets=dict(_schema(facts.source_schema)),
            inputFacets=dict(_input_facets(facts)) if len(facts.inputs) == 1 else {},
        )
    for name in facts.references:
        if name not in facts.inputs:
            yield InputDataset(namespace=name.namespace, name=name.name)


def _input_facets(facts: AttemptFacts) -> Iterator[tuple[str, InputDatasetFacet]]:
    if facts.plan is not None:
        yield (
            "inputStatistics",
            _facet(input_statistics_input_dataset.InputStatisticsInputDatasetFacet, rowCount=facts.rows_read),
        )
    if assertions := _assertions(facts, "source"):
        yield "dataQualityAssertions", assertions


def _output(facts: AttemptFacts) -> OutputDataset:
    name: DatasetName = facts.output
    return OutputDataset(
        namespace=name.namespace,
        name=name.name,
        facets=dict(_output_dataset_facets(facts)),
        outputFacets=dict(_output_facets(facts)),
    )


def _output_dataset_facets(facts: AttemptFacts) -> Iterator[tuple[str, DatasetFacet]]:
    yield from _schema(facts.plan.output_schema if facts.plan is not None else None)
    if assertions := _assertions(facts, "output"):
        # The specification has them for inputs only. Named as one, the table would seem to be made of itself.
        yield "dataQualityAssertions", cast(DatasetFacet, assertions)
    if facts.verdict is not None:
        nulls = dict(_nulls(facts))
        yield (
            "dataQualityMetrics",
            _facet(
                data_quality_metrics_dataset.DataQualityMetricsDatasetFacet,
                rowCount=facts.rows_staged,
                columnMetrics={
                    column: data_quality_metrics_dataset.ColumnMetrics(nullCount=count)
                    for column, count in nulls.items()
                },
            ),
        )


def _output_facets(facts: AttemptFacts) -> Iterator[tuple[str, OutputDatasetFacet]]:
    if facts.run.publication is not None:
        rows = facts.run.publication["rows"]
        yield (
            "outputStatistics",
            _facet(
                output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
                rowCount=rows["inserted"] + rows["updated"],
            ),
        )


def _schema(schema: pa.Schema | None) -> Iterator[tuple[str, DatasetFacet]]:
    if schema is not None:
        yield "schema", _facet(schema_dataset.SchemaDatasetFacet, fields=_fields(list(schema)))


def _fields(fields: Sequence[pa.Field]) -> list[schema_dataset.SchemaDatasetFacetFields]:
    return [
        schema_dataset.SchemaDatasetFacetFields(
            name=field.name,
            type=type_name(field.type),
            ordinal_position=position,
            fields=_fields(field.type.fields) if pa.types.is_struct(field.type) else [],
        )
        for position, field in enumerate(fields, 1)
    ]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A rule of the job, and its entry in the verdict."""

    rule: Rule
    entry: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.entry["outcome"] == "pass")

    @property
    def severity(self) -> str:
        """What failing does: ``warn`` where it did not keep the rows from being published."""
        return "warn" if self.entry["outcome"] == "warn" else str(self.rule.severity)

    @property
    def kind(self) -> str:
        return _ASSERTIONS.get(self.rule.type, self.rule.type)

    @property
    def described(self) -> dict[str, Any]:
        """What was expected and found: counts and times, never values of rows."""
        return {
            "name": self.rule.id,
            "severity": self.severity,
            "expected": json.dumps(self.entry["expected"], sort_keys=True),
            "actual": json.dumps(self.entry["observed"], sort_keys=True),
        }


def _judged(facts: AttemptFacts) -> list[_Judged]:
    rules = {rule.id: rule for rule in facts.job.validation.rules} if facts.job.validation is not None else {}
    entries = facts.verdict.report["rules"] if facts.verdict is not None else []
    return [_Judged(rules[entry["id"]], entry) for entry in entries if entry["id"] in rules]


def _test(judged: _Judged) -> test_run.TestExecution:
    status = "skip" if judged.entry["outcome"] == "skipped" else "pass" if judged.passed else "fail"
    return test_run.TestExecution(status=status, type=judged.kind, **judged.described)


def _assertions(
    facts: AttemptFacts, stage: str
) -> data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet | None:
    assertions = [
        data_quality_assertions_dataset.Assertion(
            assertion=judged.kind, success=judged.passed, column=_column(judged.rule), **judged.described
        )
        for judged in _judged(facts)
        if judged.rule.stage == stage and judged.entry["outcome"] != "skipped"
    ]
    if not assertions:
        return None
    return _facet(data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet, assertions=assertions)


def _column(rule: Rule) -> str | None:
    """Return the one column that a rule looks at."""
    fields = rule.fields if isinstance(rule, NullCheckRule) else (getattr(rule, "field", None),)
    return fields[0] if len(fields) == 1 else None


def _nulls(facts: AttemptFacts) -> Iterator[tuple[str, int]]:
    """Yield the columns whose nulls were counted in all of the output, and how many there are."""
    for judged in _judged(facts):
        rule = judged.rule
        if isinstance(rule, NullCheckRule) and (rule.stage, rule.scope, rule.where) == (
            "output",
            "total",
            None,
        ):
            yield from judged.entry["observed"].get("nulls", {}).items()
