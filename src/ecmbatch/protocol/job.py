"""The job document (protocol: Job Specification and every section that may stand beside it).

:meth:`JobDefinition.from_json` is the way in: strict, with all problems at once. A job is names and plain
values only; what the names stand for is the project's business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from ecmbatch.errors import InvalidDocument, Problem
from ecmbatch.protocol import parameters as expressions
from ecmbatch.protocol import query as sql
from ecmbatch.protocol.dependency_declaration import Dependency, DependencyRule, leaves
from ecmbatch.protocol.document import (
    MAX_PROBLEMS,
    Many,
    OneOrMany,
    Section,
    check_model,
    did_you_mean,
    invalid,
    places,
    pointer,
    read_document,
    refusal,
    under,
    without_free_keys,
)
from ecmbatch.protocol.duration import Duration, Period
from ecmbatch.protocol.job_refusals import is_only_a_checkpoint, object_at, refusals
from ecmbatch.protocol.names import (
    ColumnName,
    JobId,
    ParameterName,
    PluginName,
    ProcessorName,
    TargetTable,
)
from ecmbatch.protocol.partitioning.declaration import Partitioning
from ecmbatch.protocol.schedule import Schedules, policy_of
from ecmbatch.protocol.validation.rules import Validation

JobType = Literal["full_extraction", "incremental_extraction", "full_sync", "transformation"]
Mode = Literal["append", "upsert", "replace"]

_WINDOWED = "updated_at >= :window_start AND updated_at < :window_end"
_Text = Annotated[str, Field(min_length=1, max_length=1_000)]


@dataclass(frozen=True, slots=True)
class SourceName:
    """A connector or a store of the project file, to read from."""

    kind: Literal["connector", "store"]
    name: str


class Source(Section):
    """Where rows come from: a connector or a store of the project, and what it is asked for."""

    connector: PluginName | None = Field(default=None, description="A connector of the project file.")
    store: PluginName | None = Field(
        default=None, description="A store of the project file, which a transformation reads."
    )
    query: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="One SELECT; values come in as :name from parameters or the window."
    )
    table: ColumnName | None = Field(
        default=None, description="A whole table, where the connector has tables."
    )
    path: Annotated[str, Field(min_length=1, max_length=4_096)] | None = Field(
        default=None, description="A file or a glob, for connectors that read files; may hold ${…}."
    )
    order_by: ColumnName | None = Field(
        default=None, description="Resume order inside a partition; default: the partitioning key."
    )
    batch_rows: int = Field(default=65_536, ge=1, le=1_048_576, description="Rows per record batch, at most.")
    lag: Duration | None = Field(
        default=None,
        description="How far the window ends behind the source's clock; default: the connector's.",
    )

    @property
    def named(self) -> SourceName:
        """The connector or the store that is read."""
        if self.store is not None:
            return SourceName("store", self.store)
        assert self.connector is not None
        return SourceName("connector", self.connector)

    @model_validator(mode="after")
    def _reads_one_place(self) -> Source:
        if (self.connector is None) == (self.store is None):
            raise ValueError("needs either a connector or, in a transformation, a store")
        return self

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Source:
        given = [name for name in ("query", "table", "path") if getattr(self, name) is not None]
        if not given:
            raise ValueError("needs one of query, table and path")
        if len(given) > 1:
            raise ValueError(f"must have one of query, table and path, not {' and '.join(given)}")
        if self.query is not None:
            try:
                sql.placeholders(self.query)
            except InvalidDocument as error:
                raise refusal(*under("/query", error.problems)) from None
        return self


class Transform(Section):
    """One step between source and sink."""

    processor: ProcessorName = Field(description="A registered processor.")
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="The processor's own settings; texts may hold ${…}."
    )


class Sink(Section):
    """Where rows go, and how they meet what is there."""

    store: PluginName = Field(description="A store of the project file.")
    mode: Mode | None = Field(
        default=None,
        description="append, upsert (by key) or replace (all rows); full_sync replaces by default.",
    )
    table: TargetTable | None = Field(
        default=None, description="Target table; default: the job id with '_' for '-' and '.'."
    )
    key: OneOrMany[ColumnName] = Field(
        default=(),
        max_length=32,
        description="Columns that identify a row; default: context_id, else the table's.",
    )
    order_by: ColumnName | None = Field(
        default=None, description="Of several rows with one key the one with the greatest value wins."
    )
    provenance: bool = Field(default=True, description="Write the run's id to the column _ecm_run_id.")
    schema_mode: Literal["evolve", "freeze"] = Field(
        default="evolve",
        alias="schema",
        description="Whether new columns are added to the target or refused.",
    )
    allow_empty: bool = Field(
        default=False, description="Let replace publish no rows over a table that has some."
    )

    @model_validator(mode="after")
    def _key_columns_differ(self) -> Sink:
        if len(set(self.key)) < len(self.key):
            raise refusal(Problem("/key", "names a column more than once"))
        return self


class CheckpointPolicy(Section):
    """When a partition's progress is saved, whichever comes first."""

    every_rows: int = Field(default=100_000, ge=1, le=1_000_000_000)
    every_seconds: float = Field(default=30, gt=0, le=86_400)
    resume: Literal["checkpoint", "partition"] = Field(
        default="checkpoint",
        description="Continue a partial partition after its checkpoint, or replay it (needs no order).",
    )


class Retry(Section):
    """Automatic further attempts after errors that may pass; each continues from the checkpoints."""

    max_attempts: int = Field(
        default=1, ge=1, le=100, description="Attempts in all; 1 means that nobody tries again by itself."
    )
    base_delay: Duration = Field(
        default=timedelta(seconds=10),
        description="Longest wait before the second attempt; doubles each time.",
    )


def _parameter_value(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        raise ValueError("must be a string, a number, true, false or null")
    return value


_ParameterValue = Annotated[
    Any,
    BeforeValidator(_parameter_value),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]


class JobDefinition(Section):
    """A batch job: what is declared, before any run of it."""

    schema_uri: str | None = Field(
        default=None, alias="$schema", description="Where editors find this schema."
    )
    job_id: JobId
    job_type: JobType = Field(
        default="full_extraction",
        description="full_extraction: what the query returns; incremental_extraction: bound to the window or "
        "the previous run; full_sync: the result is the table; transformation: reads a store.",
    )
    description: Annotated[str, Field(max_length=10_000)] | None = None
    owner: _Text | None = None
    tags: Many[_Text] = Field(default=(), max_length=100)
    source: Source
    transform: OneOrMany[Transform] = Field(
        default=(), max_length=100, description="A step, or a list of steps applied in order."
    )
    sink: Sink
    partitioning: Partitioning | None = Field(default=None, description="Without it there is one partition.")
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    validation: Validation | None = None
    schedule: Schedules = Field(
        default=(), max_length=100, description="A cron expression in UTC, an object, or a list of them."
    )
    dependencies: Many[DependencyRule] = Field(
        default=(), description="Other jobs that must have run; without a schedule they also start the job."
    )
    dependency_timeout: Period | None = Field(
        default=None,
        description="How long a run waits for its dependencies; default: until the next tick, at most 24 hours.",
    )
    parameters: Annotated[
        dict[ParameterName, _ParameterValue],
        BeforeValidator(without_free_keys),
        Field(max_length=sql.MAX_PARAMETERS),
    ] = Field(default_factory=dict, description="Values of the query's :names; texts may hold ${…}.")
    retry: Retry = Retry()
    timeout: Period | None = Field(default=None, description="Longest time an attempt may take.")
    alerts: Many[PluginName] = Field(default=(), max_length=100, description="Alerts of the project file.")

    @classmethod
    def from_json(cls, text: str | bytes) -> JobDefinition:
        """Return the job that the JSON *text* declares.

        Raises :class:`~ecmbatch.errors.InvalidDocument` with every problem and its JSON pointer.
        """
        value = read_document(text)
        refused = list(islice(refusals(value), MAX_PROBLEMS))
        if is_only_a_checkpoint(value):
            raise invalid("job file", refused)
        job, problems = check_model(cls, value)
        problems = refused + [problem for problem in problems if not _is_covered(problem, refused)]
        if job is None or problems:
            raise invalid("job file", [*problems, *_binding_problems(value)])
        return job

    @classmethod
    def from_value(cls, value: Any) -> JobDefinition:
        """Return the job that *value* declares, dicts, lists and scalars; raises as :meth:`from_json`."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise invalid("job", [Problem("", f"cannot be written as JSON: {error}")]) from None
        return cls.from_json(text)

    def to_json(self) -> str:
        """Return the job as JSON text that :meth:`from_json` reads back to an equal job."""
        return self.model_dump_json(by_alias=True, exclude_unset=True)

    @property
    def mode(self) -> Mode:
        """How rows are published."""
        return self.sink.mode or "replace"

    @property
    def table(self) -> str:
        """The target table: ``sink.table``, or the job id as a table name."""
        return self.sink.table or re.sub("[-.]", "_", self.job_id)

    @property
    def upstream_dependencies(self) -> tuple[Dependency, ...]:
        """Every single dependency, those in groups too."""
        return tuple(dependency for _, dependency in leaves(self.dependencies))

    @property
    def references(self) -> frozenset[str]:
        """Every path that a ``${…}`` of the job looks up."""
        texts = (value for _, value in places(self._looked_up()) if isinstance(value, str))
        return frozenset(path for text in texts for path in expressions.parse(text).references)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The distinct ``:names`` of the query, in order."""
        return sql.placeholders(self.source.query) if self.source.query is not None else ()

    @property
    def uses_window(self) -> bool:
        """Whether what is read depends on the run's window or on the previous run."""
        is_bound = any(name in sql.WINDOW_NAMES for name in self.placeholders)
        return is_bound or any(path.startswith(("previous_job.", "window.")) for path in self.references)

    def definition(self, processor_versions: Mapping[str, str]) -> dict[str, Any]:
        """Return what a run in progress depends on, as JSON: the digest covers exactly this.

        *processor_versions* has the version of every processor the job names. Not part of it are validation,
        schedule, alerts, description, retry, timeouts, checkpoint and dependencies, how much is read at once,
        and the guard ``sink.allow_empty``: a failed run may be resumed after it was corrected.
        """
        source = self.source.model_dump(
            mode="json", include={"connector", "store", "query", "table", "path", "order_by"}
        )
        sink = self.sink.model_dump(
            mode="json", by_alias=True, include={"store", "key", "order_by", "provenance", "schema_mode"}
        )
        return {
            "source": source,
            "transform": [
                {
                    "processor": step.processor,
                    "version": processor_versions[step.processor],
                    "config": step.config,
                }
                for step in self.transform
            ],
            "sink": {**sink, "mode": self.mode, "table": self.table},
            "partitioning": self.partitioning.model_dump(mode="json") if self.partitioning else None,
        }

    def digest(self, processor_versions: Mapping[str, str]) -> str:
        """Return the SHA-256 (hexadecimal) of :meth:`definition`."""
        text = json.dumps(self.definition(processor_versions), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _looked_up(self) -> list[Any]:
        """Return the parts of the job in which ``${…}`` is looked up."""
        return [self.parameters, self.source.path, [step.config for step in self.transform]]

    @model_validator(mode="after")
    def _hangs_together(self) -> JobDefinition:
        problems = [
            *sql.check_binding(self.source.query, list(self.parameters)),
            *_mode_problems(self),
            *_transformation_problems(self),
            *_dependency_problems(self),
        ]
        # An expression that cannot be read is reported by from_json, which knows its place as written.
        with suppress(InvalidDocument):
            problems += [*_bound_problems(self), *_upstream_problems(self), *_overlap_problems(self)]
        if problems:
            raise refusal(*problems)
        return self


def load_job(text: str | bytes) -> JobDefinition:
    """Return the job that the JSON *text* declares; the same as :meth:`JobDefinition.from_json`."""
    return JobDefinition.from_json(text)


def job_warnings(job: JobDefinition) -> list[Problem]:
    """Return what is allowed in *job* but probably not meant."""
    warnings = []
    if job.mode == "replace" and job.uses_window:
        warnings.append(
            Problem(
                "/sink/mode",
                "replaces the whole table by the rows of one window; older rows will be gone",
                "use upsert, or read all rows",
            )
        )
    if job.job_type == "full_sync" and job.mode != "replace":
        warnings.append(
            Problem("/sink/mode", f"rows that are gone from the source stay in the table with {job.mode}")
        )
    if job.sink.order_by is not None and job.mode != "upsert":
        warnings.append(Problem("/sink/order_by", f"has no effect with {job.mode}; it is for upsert"))
    return warnings


def definition_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each difference between two results of :meth:`JobDefinition.definition`.

    Queries, paths and the settings of processors are named but not shown.
    """
    before, after = dict(_entries(old)), dict(_entries(new))
    return [
        f"{place}: {_change(place, before.get(place), after.get(place))}"
        for place in sorted(before.keys() | after.keys())
        if before.get(place) != after.get(place)
    ]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file, for editors and other tools.

    It accepts every job that :meth:`JobDefinition.from_json` accepts; what a schema cannot say (queries,
    references, dates) only the latter refuses.
    """
    schema = JobDefinition.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ecmbatch job"
    schema["$defs"]["Source"]["allOf"] = [
        {"oneOf": [{"required": [name]} for name in names]}
        for names in (("query", "table", "path"), ("connector", "store"))
    ]
    schema["$defs"]["RangePartitioning"]["oneOf"] = [
        {"required": [name], "properties": {other: {"type": "null"}}}
        for name, other in (("partitions", "bounds"), ("bounds", "partitions"))
    ]
    schema["if"] = {"properties": {"job_type": {"const": "transformation"}}, "required": ["job_type"]}
    schema["then"] = {"properties": {"source": {"required": ["store"]}}}
    schema["else"] = {"properties": {"source": {"required": ["connector"]}}}
    schema["anyOf"] = [
        {"properties": {"job_type": {"const": "full_sync"}}, "required": ["job_type"]},
        {"properties": {"sink": {"required": ["mode"]}}},
    ]
    return schema


def _mode_problems(job: JobDefinition) -> Iterator[Problem]:
    if job.sink.mode is None and job.job_type != "full_sync":
        yield Problem("/sink/mode", "is required", "append, upsert or replace")
    if job.sink.table is None and (len(job.table) > 63 or job.table.startswith("_ecmbatch_")):
        yield Problem("/sink/table", "is required: the job id is no table name", "at most 63 characters")


def _transformation_problems(job: JobDefinition) -> Iterator[Problem]:
    if job.job_type == "transformation" and job.source.store is None:
        yield Problem("/source", "needs a store: a transformation reads one", 'write "store" for "connector"')
    if job.source.store is not None and job.job_type != "transformation":
        yield Problem(
            "/job_type", "must be transformation, for the source is a store", '"job_type": "transformation"'
        )


def _bound_problems(job: JobDefinition) -> Iterator[Problem]:
    """Say where the job's type or mode does not fit what bounds its query."""
    if job.job_type == "incremental_extraction" and not job.uses_window:
        yield Problem(
            "/job_type",
            "incremental_extraction must bind the window or a value of previous_job",
            f"write {_WINDOWED} in the query, or choose full_extraction",
        )
    texts = (value for value in job.parameters.values() if isinstance(value, str))
    used = {path for text in texts for path in expressions.parse(text).references}
    has_lower = "window_start" in job.placeholders or bool(used & _LOWER_BOUNDS)
    has_upper = "window_end" in job.placeholders or "window.end" in used
    if job.mode == "append" and has_lower and not has_upper:
        yield Problem(
            "/sink/mode",
            "append with only a lower bound adds rows twice when they change while they are read",
            f"write {_WINDOWED} in the query, or use upsert",
        )


_LOWER_BOUNDS = frozenset(path for path in expressions.TIMES if path.startswith("previous_job.")) | {
    "window.start"
}


def _dependency_problems(job: JobDefinition) -> Iterator[Problem]:
    for place, dependency in leaves(job.dependencies, ("dependencies",)):
        if dependency.job == job.job_id:
            yield Problem(pointer((*place, "job")), "is the job itself; no job waits for itself")


def _upstream_problems(job: JobDefinition) -> Iterator[Problem]:
    declared = {dependency.job for dependency in job.upstream_dependencies}
    for name in sorted(expressions.upstream_jobs(job.references) - declared)[:MAX_PROBLEMS]:
        hint = did_you_mean(name, declared) or f'add {{"job": "{name}"}} to dependencies'
        yield Problem("/dependencies", f"lacks {name}, which ${{upstream.…}} refers to", hint)


def _overlap_problems(job: JobDefinition) -> Iterator[Problem]:
    if job.uses_window and policy_of(job.schedule).overlap == "allow":
        yield Problem(
            "/schedule",
            "overlap allow is not possible: the job's window begins where its previous run ended",
            "use queue_one",
        )


def _binding_problems(value: Any) -> list[Problem]:
    """Check the query against the parameters though something else is wrong: all problems at once."""
    query, parameters = (
        object_at(value, "source").get("query"),
        without_free_keys(object_at(value, "parameters")),
    )
    if not isinstance(query, str) or len(parameters) > sql.MAX_PARAMETERS:
        return []
    try:
        return sql.check_binding(query, list(parameters))
    except InvalidDocument:
        return []


def _is_covered(problem: Problem, refused: Sequence[Problem]) -> bool:
    """Tell whether *problem* only repeats, less clearly, what *refused* says of the same place."""
    return any(
        problem.path == better.path or problem.path.startswith(better.path + "/") for better in refused
    )


def _entries(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and not place.endswith(".config"):
        for key, inner in value.items():
            yield from _entries(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and place == "transform":
        for number, inner in enumerate(value):
            yield from _entries(inner, f"{place}[{number}]")
    else:
        yield place, value


def _change(place: str, old: Any, new: Any) -> str:
    if place.endswith((".query", ".path", ".config")):
        return "changed" if old and new else "removed" if old else "added"
    return f"{_word(old)} → {_word(new)}"


def _word(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
