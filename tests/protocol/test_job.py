"""The job document: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ecmbatch.errors import InvalidDocument
from ecmbatch.protocol.job import (
    JobDefinition,
    Transform,
    definition_diff,
    job_warnings,
    json_schema,
    load_job,
)
from ecmbatch.protocol.partitioning.declaration import HashPartitioning
from ecmbatch.protocol.schedule import CronSchedule, EventSchedule, IntervalSchedule, ManualSchedule

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "docs" / "examples" / "protocol.json"
CORPUS = sorted((ROOT / "tests" / "corpus" / "jobs").glob("*.json"))
VERSIONS = {"customer_transformer": "1.0", "field_mapper": "2"}

SMALLEST: dict[str, Any] = {
    "job_id": "orders-daily",
    "source": {"connector": "warehouse", "query": "SELECT * FROM orders"},
    "sink": {"store": "context_store", "mode": "upsert"},
}
FULL: dict[str, Any] = {
    "$schema": "./.ecmbatch/job.schema.json",
    "x-note": {"any": ["thing", "${here}"]},
    "job_id": "historical-sync-001",
    "job_type": "incremental_extraction",
    "description": "Customers",
    "owner": "data team",
    "tags": ["crm"],
    "source": {
        "connector": "data_warehouse",
        "query": "SELECT * FROM customers WHERE u >= :window_start AND u < :window_end AND region = :r",
        "order_by": "updated_at",
        "batch_rows": 1000,
        "lag": "10 s",
    },
    "transform": [
        {"processor": "customer_transformer", "config": {"as_of": "${window.end}", "deep": [{"n": 1}]}},
        {"processor": "field_mapper", "config": {"fields": {"token": "data.token"}}},
    ],
    "sink": {
        "store": "context_store",
        "mode": "upsert",
        "table": "crm.customer_context",
        "key": ["context_id"],
        "order_by": "updated_at",
        "provenance": False,
        "schema": "freeze",
        "allow_empty": True,
        "x-owner": "me",
    },
    "partitioning": {"strategy": "hash", "key": "customer_id", "partitions": 16},
    "checkpoint": {"every_rows": 5000, "every_seconds": 1.5, "resume": "partition"},
    "validation": {"rules": [{"type": "row_count", "min": 1}], "on_failure": "abort"},
    "schedule": [{"cron": "0 2 * * MON-FRI", "timezone": "Europe/Berlin"}, {"every": "15 minutes"}, "@daily"],
    "dependencies": [
        {"job": "reference-data-sync", "window": "24 hours", "optional": True},
        {"any": [{"job": "customers-eu"}, {"all": [{"job": "customers-us"}, {"job": "customers-asia"}]}]},
    ],
    "dependency_timeout": "6 hours",
    "parameters": {"r": '${param.region | default("EU")}'},
    "retry": {"max_attempts": 3, "base_delay": "5 s"},
    "timeout": "2 hours",
    "alerts": ["ops"],
}


def changed(change: Callable[[dict[str, Any]], object], base: dict[str, Any] = SMALLEST) -> dict[str, Any]:
    value = copy.deepcopy(base)
    change(value)
    return value


def job_with(**sections: Any) -> JobDefinition:
    return JobDefinition.from_value({**SMALLEST, **sections})


def problems_of(value: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as raised:
        JobDefinition.from_value(value)
    return [str(problem) for problem in raised.value.problems]


def problems_with(**sections: Any) -> list[str]:
    return problems_of({**SMALLEST, **sections})


# The protocol


def test_the_protocols_job_loads_as_it_stands() -> None:
    job = load_job(PROTOCOL.read_bytes())
    assert job.job_id == "historical-sync-001"
    assert job.job_type == "full_extraction"
    assert job.source.query == "SELECT * FROM customer_history WHERE updated_at >= :last_sync"
    assert job.transform == (Transform(processor="customer_transformer", config={}),)
    assert (job.mode, job.table) == ("upsert", "historical_sync_001")
    assert job.partitioning == HashPartitioning(strategy="hash", key="customer_id", partitions=16)
    assert job.schedule == (CronSchedule(cron="0 2 * * *"),)
    assert job.parameters == {"last_sync": "${previous_job.end_time}"}
    assert [(one.job, one.window, one.status) for one in job.upstream_dependencies] == [
        ("reference-data-sync", timedelta(hours=24), None),
        ("customer-extract", None, "success"),
    ]
    assert job.validation is not None
    assert [rule.type for rule in job.validation.rules] == ["row_count", "null_check", "freshness"]
    assert job.placeholders == ("last_sync",)
    assert job.references == {"previous_job.end_time"}
    assert job.uses_window
    assert job_warnings(job) == []


def test_the_protocols_first_example_alone_is_a_job() -> None:
    value = json.loads(PROTOCOL.read_text())
    for section in ("partitioning", "validation", "dependencies"):
        del value[section]
    assert JobDefinition.from_value(value).partitioning is None


# What is accepted


def test_the_smallest_job_has_the_documented_defaults() -> None:
    job = JobDefinition.from_value(SMALLEST)
    assert job.job_type == "full_extraction"
    assert job.table == "orders_daily"
    assert job.source.batch_rows == 65_536
    assert job.source.lag is None
    assert (job.checkpoint.every_rows, job.checkpoint.every_seconds) == (100_000, 30)
    assert job.checkpoint.resume == "checkpoint"
    assert job.retry.max_attempts == 1
    assert job.sink.provenance
    assert job.sink.schema_mode == "evolve"
    assert (job.transform, job.schedule, job.dependencies, job.parameters) == ((), (), (), {})
    assert not job.uses_window


@pytest.mark.parametrize(
    "value", [SMALLEST, FULL, json.loads(PROTOCOL.read_text())], ids=["smallest", "full", "protocol"]
)
def test_a_job_survives_being_written(value: dict[str, Any]) -> None:
    job = JobDefinition.from_value(value)
    again = load_job(job.to_json())
    assert again == job
    assert again.digest(VERSIONS) == job.digest(VERSIONS)


def test_one_object_or_a_list_is_the_same_where_both_are_allowed() -> None:
    one = job_with(
        transform={"processor": "p"}, sink={"store": "s", "mode": "upsert", "key": "id"}, schedule="@daily"
    )
    many = job_with(
        transform=[{"processor": "p"}],
        sink={"store": "s", "mode": "upsert", "key": ["id"]},
        schedule=["@daily"],
    )
    assert one == many


def test_free_keys_may_stand_in_every_object_but_are_a_processors_own_business() -> None:
    job = job_with(
        **{
            "x-a": "${not looked up}",
            "parameters": {"x-b": ["c"]},
            "checkpoint": {"x-d": None},
            "transform": {"processor": "p", "x-e": 1, "config": {"x-f": 2}},
        }
    )
    assert job.parameters == {}
    assert job.transform[0].config == {"x-f": 2}
    assert problems_with(transform={"processor": "p", "config": {"x-f": "${nonsense}"}})


def test_full_sync_replaces_unless_told_otherwise() -> None:
    sink = {"store": "context_store"}
    assert job_with(job_type="full_sync", sink=sink).mode == "replace"
    assert problems_with(sink=sink) == ["/sink/mode: is required (append, upsert or replace)"]
    warned = job_with(job_type="full_sync")
    assert [problem.path for problem in job_warnings(warned)] == ["/sink/mode"]


@pytest.mark.parametrize("bound", [":window_start", ":window_end"])
def test_an_incremental_job_may_bind_the_window(bound: str) -> None:
    job = job_with(job_type="incremental_extraction", source={"connector": "c", "query": f"SELECT {bound}"})
    assert job.uses_window


def test_an_incremental_job_may_read_paths_of_its_window() -> None:
    source = {"connector": "c", "path": "data/${window.start}/*.parquet"}
    assert job_with(job_type="incremental_extraction", source=source).references == {"window.start"}


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        ("0 2 * * *", CronSchedule),
        ("*/5 9-17 * JAN,FEB MON#1", CronSchedule),
        ("0 0 LW * *", CronSchedule),
        ("@hourly", CronSchedule),
        ({"type": "cron", "cron": "0 2 29 2 *", "timezone": "America/Argentina/Buenos_Aires"}, CronSchedule),
        ({"every": "PT15M"}, IntervalSchedule),
        ({"type": "manual"}, ManualSchedule),
        ({"type": "event", "on": {"event": "files.landed"}}, EventSchedule),
        (
            {
                "type": "event",
                "on": [{"job": "a", "status": "success"}, {"job": "b"}],
                "match": "any",
                "debounce": {"quiet": "5 minutes", "max_wait": "30 minutes"},
            },
            EventSchedule,
        ),
    ],
)
def test_each_kind_of_schedule_has_its_shape(schedule: Any, kind: type) -> None:
    job = job_with(schedule=schedule)
    assert isinstance(job.schedule[0], kind)
    assert load_job(job.to_json()) == job


# What is refused


def test_all_problems_come_at_once_with_their_places() -> None:
    problems = problems_of(
        {
            "job_id": "../x",
            "job_type": "full",
            "sorce": {},
            "source": {"conector": "a", "query": "SELECT :since", "batch_rows": "5"},
            "sink": {"store": "s", "mode": "upsrt", "key": ["a", 1]},
            "partitioning": {"strategy": "hash", "key": "k", "partitions": True, "count": 1},
            "transform": [{"processor": "p"}, {"processor": "P", "config": []}],
            "schedule": ["0 2 * * *", {"type": "cron", "cron": "0 2 * *", "timezone": "Mars"}],
            "parameters": {"sinc": 1, "api_key": "hunter2", "x": "${previous_job.end}"},
            "validation": {"rules": [{"type": "row_count", "min": 1, "mx": 2}]},
            "dependencies": [{"job": "a", "window": "1 month"}],
            "checkpoint": {"every_rows": 0},
        }
    )
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "/checkpoint/every_rows",
        "/dependencies/0/window",
        "/job_id",
        "/job_type",
        "/parameters/api_key",
        "/parameters/api_key",
        "/parameters/sinc",
        "/parameters/x",
        "/parameters/x",
        "/partitioning/count",
        "/partitioning/partitions",
        "/schedule/1/cron",
        "/schedule/1/timezone",
        "/sink/key/1",
        "/sink/mode",
        "/sorce",
        "/source/batch_rows",
        "/source/conector",
        "/source/query",
        "/transform/1/config",
        "/transform/1/processor",
        "/validation/rules/0/mx",
    ]
    text = "\n".join(problems)
    assert "did you mean 'connector'?" in text
    assert "did you mean 'upsert'?" in text
    assert "did you mean 'source'?" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_broken_job_is_refused_without_repeating_secrets(path: Path) -> None:
    with pytest.raises(InvalidDocument) as raised:
        load_job(path.read_bytes())
    assert raised.value.problems
    said = str(raised.value) + str(raised.value.problems)
    assert "hunter2" not in said
    assert said.isprintable()
    for problem in raised.value.problems:
        assert problem.path == "" or problem.path.startswith("/")


def test_the_corpus_is_there() -> None:
    kinds = {path.stem.partition("-")[0] for path in CORPUS}
    assert kinds == {"meaning", "shape", "text"}
    assert len(CORPUS) > 80


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"job_type": "transformation"}, "/source: needs a store: a transformation reads one"),
        (
            {"sink": {"store": "s", "mode": "mirror"}},
            "/sink/mode: mirror is not supported in this version yet",
        ),
        ({"sink": {"store": "s", "mode": "scd2"}}, "/sink/mode: scd2 is not supported in this version yet"),
        ({"schedule": {"type": "backfill"}}, "/schedule: a backfill is not a schedule"),
        (
            {"checkpoint": {"job_id": "a", "run_id": "run-abc", "partition": 5, "offset": 1}},
            "/checkpoint: is a checkpoint record",
        ),
    ],
)
def test_what_other_versions_know_is_named_in_one_problem(sections: dict[str, Any], says: str) -> None:
    (problem,) = problems_with(**sections)
    assert problem.startswith(says)


def test_a_checkpoint_record_alone_is_answered_with_a_hint() -> None:
    record = {"job_id": "a", "run_id": "run-abc", "partition": 5, "offset": 1, "status": "in_progress"}
    (problem,) = problems_of({"checkpoint": record})
    assert "ecmbatch resume" in problem


def test_only_a_transformation_reads_a_store() -> None:
    source = {"store": "context_store", "query": "SELECT 1 AS id"}
    (problem,) = problems_with(source=source)
    assert problem.startswith("/job_type: must be transformation")
    transformation = {**SMALLEST, "source": source, "job_type": "transformation"}
    assert load_job(json.dumps(transformation)).source.named.kind == "store"
    assert problems_with(source={**source, "connector": "c"}, job_type="transformation") != []


@pytest.mark.parametrize(
    "partitioning",
    [
        {"strategy": "range", "key": "k", "partitions": 4},
        {"strategy": "range", "key": "k", "bounds": [1, 2.5], "ordered": True},
        {"strategy": "range", "key": "k", "bounds": ["2013-01-01", "2013-07-01"]},
        {"strategy": "list", "key": "k", "values": {"emea": ["DE", "FR"], "amer": ["US"]}},
        {"strategy": "list", "key": "k", "values": [["DE"], ["US"]], "default": "other"},
        {"strategy": "list", "key": "k", "values": {"yes": [True], "no": [False]}},
    ],
)
def test_every_strategy_of_the_protocol_is_accepted(partitioning: dict[str, Any]) -> None:
    assert load_job(json.dumps({**SMALLEST, "partitioning": partitioning})).partitioning is not None


@pytest.mark.parametrize(
    ("partitioning", "says"),
    [
        ({"strategy": "range"}, "/partitioning: needs either partitions or bounds"),
        ({"strategy": "range", "partitions": 2, "bounds": [1]}, "/partitioning: needs either"),
        ({"strategy": "range", "bounds": []}, "/partitioning/bounds: "),
        ({"strategy": "range", "bounds": [2, 1]}, "/partitioning/bounds/1: must be greater"),
        ({"strategy": "range", "bounds": [1, "x"]}, "/partitioning/bounds: mixes number and text"),
        ({"strategy": "range", "bounds": [None]}, "/partitioning/bounds/0: NULL keys have a partition"),
        ({"strategy": "range", "bounds": [[1]]}, "/partitioning/bounds/0: must be a text, a number"),
        ({"strategy": "list"}, "/partitioning/values: is required"),
        ({"strategy": "list", "values": {}}, "/partitioning/values: "),
        ({"strategy": "list", "values": {"a": []}}, "/partitioning/values/a: must have at least one value"),
        ({"strategy": "list", "values": {"a": [1], "b": [1]}}, "/partitioning/values/b/0: is listed twice"),
        ({"strategy": "list", "values": [[1], [True]]}, "/partitioning/values: mixes boolean and number"),
        ({"strategy": "rang", "partitions": 2}, "/partitioning: 'strategy' must be one of hash, range, list"),
    ],
)
def test_partitionings_that_mean_nothing_are_refused(partitioning: dict[str, Any], says: str) -> None:
    problems = problems_with(partitioning={"key": "k", **partitioning})
    assert any(problem.startswith(says) for problem in problems), problems


def test_append_needs_an_upper_bound_too() -> None:
    sink = {"store": "s", "mode": "append"}
    lower = {"connector": "c", "query": "SELECT * FROM t WHERE updated_at >= :window_start"}
    both = {"connector": "c", "query": "SELECT * FROM t WHERE u >= :window_start AND u < :window_end"}
    (problem,) = problems_with(source=lower, sink=sink)
    assert problem.startswith("/sink/mode: append with only a lower bound")
    assert "updated_at < :window_end" in problem
    assert job_with(source=both, sink=sink)
    since = {"connector": "c", "query": "SELECT * FROM t WHERE u >= :since"}
    assert problems_with(source=since, sink=sink, parameters={"since": "${previous_job.end_time}"})
    assert job_with(source=since, sink=sink, parameters={"since": "2024-01-01"})
    assert job_with(source=since, parameters={"since": "${previous_job.end_time}"})


def test_a_job_never_waits_for_itself() -> None:
    (problem,) = problems_with(dependencies=[{"job": "a"}, {"job": "orders-daily"}])
    assert problem.startswith("/dependencies/1/job: is the job itself")


def test_upstream_values_need_a_declared_dependency() -> None:
    sections: dict[str, Any] = {
        "source": {"connector": "c", "query": "SELECT :a"},
        "parameters": {"a": "${upstream.reference-data.as_of}"},
    }
    assert job_with(**sections, dependencies=[{"job": "reference-data"}])
    (problem,) = problems_with(**sections, dependencies=[{"job": "reference-dat"}])
    assert "did you mean 'reference-dat'?" in problem


def test_an_expression_that_cannot_be_read_has_its_place_as_written() -> None:
    problems = problems_with(
        source={"connector": "c", "query": "SELECT :a"},
        parameters={"a": "${previous_job.endtime}"},
        transform={"processor": "p", "config": {"deep": ["${job.id"]}},
        dependencies=[{"job": "orders-daily"}],
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "/parameters/a",
        "/transform/config/deep/0",
        "/dependencies/0/job",
    ]


@pytest.mark.parametrize(
    "place",
    [
        ("description",),
        ("job_id",),
        ("source", "connector"),
        ("source", "query"),
        ("sink", "table"),
        ("alerts", 0),
    ],
)
def test_expressions_mean_nothing_outside_their_three_places(place: tuple[str | int, ...]) -> None:
    value: Any = copy.deepcopy({**SMALLEST, "description": "d", "alerts": ["ops"]})
    value["sink"]["table"] = "t"
    inner = value
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = "a${run.id}"
    pointer = "/" + "/".join(map(str, place))
    assert any(problem.startswith(f"{pointer}: holds ${{") for problem in problems_of(value))


@pytest.mark.parametrize(
    "sections",
    [
        {"parameters": {"password": "hunter2"}},
        {"parameters": {"db_password": "hunter2"}},
        {"parameters": {"apiKey": "hunter2"}},
        {"transform": {"processor": "p", "config": {"auth": {"client_secret": "hunter2"}}}},
        {"transform": [{"processor": "p", "config": {"tokens": [{"access-token": "hunter2"}]}}]},
        {"transform": {"processor": "p", "config": {"token": ["hunter2"]}}},
        {"x-password": "hunter2"},
        {"description": "see https://me:hunter2@example.org/x"},
        {"source": {"connector": "c", "query": "SELECT * FROM postgres_scan('postgresql://u:hunter2@h/d')"}},
        {"source": {"connector": "c", "path": "s3://key:hunter2@bucket/*.parquet"}},
    ],
)
def test_secrets_are_refused_and_not_repeated(sections: dict[str, Any]) -> None:
    problems = problems_with(**sections)
    assert any("project file" in problem for problem in problems)
    assert "hunter2" not in str(problems)


@pytest.mark.parametrize(
    "sections",
    [
        {"transform": {"processor": "field_mapper", "config": {"fields": {"token": "data.token"}}}},
        {
            "transform": {
                "processor": "p",
                "config": {"password_column": "pw", "token": "", "tokenizer": "bpe"},
            }
        },
        {"transform": {"processor": "p", "config": {"token": "${param.token}", "secret": 5}}},
        {"description": "see https://example.org:8080/a@b and mail me@example.org"},
    ],
)
def test_what_only_resembles_a_secret_is_accepted(sections: dict[str, Any]) -> None:
    assert job_with(**sections)


def test_a_long_job_id_needs_a_table_name() -> None:
    (problem,) = problems_with(job_id="a" * 64)
    assert problem.startswith("/sink/table: is required")
    assert job_with(job_id="a.b-c").table == "a_b_c"


def test_python_values_that_are_not_json_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (loop, {"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}, {"a": 10**5000}):
        assert problems_of(value)


# Digest and differences


def test_the_digest_is_the_same_everywhere() -> None:
    job = load_job(PROTOCOL.read_bytes())
    assert job.digest(VERSIONS) == "e32fe930d78eb7a6e2a1d4a29f7ad1f620386ae11f07f365329853044551304a"


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["source"].update(query="SELECT 1 WHERE :window_start < :window_end AND :r = 1"),
        lambda job: job["source"].update(connector="other"),
        lambda job: job["source"].update(order_by="id"),
        lambda job: job["sink"].update(mode="replace"),
        lambda job: job["sink"].update(table="t"),
        lambda job: job["sink"].update(key="id"),
        lambda job: job["sink"].update(order_by="id"),
        lambda job: job["sink"].update(schema="evolve"),
        lambda job: job["sink"].update(provenance=True),
        lambda job: job["partitioning"].update(partitions=8),
        lambda job: job.pop("partitioning"),
        lambda job: job["transform"].pop(),
        lambda job: job["transform"].reverse(),
        lambda job: job["transform"][0]["config"].update(deep=[]),
    ],
)
def test_the_digest_covers_what_a_run_in_progress_depends_on(
    change: Callable[[dict[str, Any]], object],
) -> None:
    old, new = JobDefinition.from_value(FULL), JobDefinition.from_value(changed(change, FULL))
    assert old.digest(VERSIONS) != new.digest(VERSIONS)
    assert definition_diff(old.definition(VERSIONS), new.definition(VERSIONS))


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job.pop("validation"),
        lambda job: job.pop("schedule"),
        lambda job: job.pop("alerts"),
        lambda job: job.pop("description"),
        lambda job: job.pop("retry"),
        lambda job: job.pop("timeout"),
        lambda job: job.pop("checkpoint"),
        lambda job: job.pop("dependencies"),
        lambda job: job["source"].update(batch_rows=5, lag="1 s"),
        lambda job: job["sink"].update(allow_empty=False),
        lambda job: job.update({"x-b": 1}),
    ],
)
def test_the_digest_covers_nothing_else(change: Callable[[dict[str, Any]], object]) -> None:
    old, new = JobDefinition.from_value(FULL), JobDefinition.from_value(changed(change, FULL))
    assert old.digest(VERSIONS) == new.digest(VERSIONS)
    assert definition_diff(old.definition(VERSIONS), new.definition(VERSIONS)) == []


def test_the_digest_covers_the_versions_of_processors() -> None:
    job = JobDefinition.from_value(FULL)
    newer = {**VERSIONS, "field_mapper": "3"}
    assert job.digest(VERSIONS) != job.digest(newer)
    assert definition_diff(job.definition(VERSIONS), job.definition(newer)) == ["transform[1].version: 2 → 3"]


def test_a_difference_says_what_changed_but_shows_no_query_and_no_settings() -> None:
    def change(job: dict[str, Any]) -> None:
        job["source"]["query"] += " AND 1 = 1"
        job["sink"].update(mode="replace", key=["a", "b"])
        job["transform"][0]["config"]["as_of"] = "hunter2"
        del job["partitioning"]

    old, new = JobDefinition.from_value(FULL), JobDefinition.from_value(changed(change, FULL))
    assert definition_diff(old.definition(VERSIONS), new.definition(VERSIONS)) == [
        "partitioning.key: customer_id → none",
        "partitioning.partitions: 16 → none",
        "partitioning.strategy: hash → none",
        "sink.key: context_id → a, b",
        "sink.mode: upsert → replace",
        "source.query: changed",
        "transform[0].config: changed",
    ]


# Warnings


def test_a_window_that_replaces_everything_is_warned_of() -> None:
    source = {"connector": "c", "query": "SELECT :window_start"}
    job = job_with(source=source, sink={"store": "s", "mode": "replace", "order_by": "u"})
    assert [problem.path for problem in job_warnings(job)] == ["/sink/mode", "/sink/order_by"]


# JSON Schema

SCHEMA = Draft202012Validator(json_schema())


def test_the_schema_is_a_schema_and_explains_the_keys() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    assert schema["properties"]["source"]
    assert "description" in schema["$defs"]["Sink"]["properties"]["schema"]


@pytest.mark.parametrize(
    "value", [SMALLEST, FULL, json.loads(PROTOCOL.read_text())], ids=["smallest", "full", "protocol"]
)
def test_the_schema_accepts_jobs(value: dict[str, Any]) -> None:
    SCHEMA.validate(value)


@pytest.mark.parametrize(
    "path", [path for path in CORPUS if path.stem.startswith("shape-")], ids=lambda path: path.stem
)
def test_the_schema_refuses_jobs_of_a_wrong_shape(path: Path) -> None:
    assert not SCHEMA.is_valid(json.loads(path.read_text()))


# Anything at all

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["hash", "upsert", "cron", "0 2 * * *", "${run.id}", "SELECT :a", "1 h", "event", "x-a", "a://b:c@d"]
)
KEYS = st.sampled_from(
    sorted(
        {
            *FULL,
            *FULL["source"],
            *FULL["sink"],
            "type",
            "cron",
            "on",
            "job",
            "rules",
            "config",
            "processor",
            "token",
        }
    )
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=5),
    max_leaves=15,
)


def _places(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [place] if place else []
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        found += _places(inner, (*place, key))
    return found


@settings(deadline=None)
@given(ANYTHING)
def test_any_value_is_a_job_or_refused(value: Any) -> None:
    try:
        JobDefinition.from_value(value)
    except InvalidDocument as error:
        assert error.problems


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_places(FULL)), ANYTHING | KEYS), min_size=1, max_size=3))
def test_a_job_with_anything_anywhere_is_a_job_or_refused(
    changes: list[tuple[tuple[str | int, ...], Any]],
) -> None:
    value = copy.deepcopy(FULL)
    for place, replacement in changes:
        inner: Any = value
        try:
            for part in place[:-1]:
                inner = inner[part]
            inner[place[-1]] = replacement
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    try:
        job = JobDefinition.from_value(value)
    except InvalidDocument as error:
        assert error.problems
    else:
        assert load_job(job.to_json()) == job
        assert SCHEMA.is_valid(value)


@settings(deadline=None)
@given(st.text() | st.binary())
def test_any_text_is_a_job_or_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidDocument):
        load_job(text)
