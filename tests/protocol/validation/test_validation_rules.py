import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from ecmbatch.protocol.validation.predicate import AllOf, Comparison, Not
from ecmbatch.protocol.validation.rules import FreshnessRule, NullCheckRule, RowCountRule, Rule, Validation
from ecmbatch.protocol.validation.threshold import Threshold

PROTOCOL = """{
  "rules": [
    {"type": "row_count", "min": 100000, "max": 200000},
    {"type": "null_check", "fields": ["customer_id"], "threshold": 0},
    {"type": "freshness", "field": "updated_at", "max_age": "24 hours"}
  ],
  "on_failure": "abort_and_alert"
}"""


def load(*rules: dict[str, Any], **keys: Any) -> Validation:
    return Validation.model_validate_json(json.dumps({"rules": rules, **keys}))


def rule(**keys: Any) -> Rule:
    return load(keys).rules[0]


def problems(document: Any) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        Validation.model_validate_json(json.dumps(document))
    return [
        "/".join(str(part) for part in error["loc"]) + ": " + error["msg"]
        for error in raised.value.errors(include_url=False, include_input=False)
    ]


def test_the_protocols_own_validation_loads_as_it_stands() -> None:
    validation = Validation.model_validate_json(PROTOCOL)
    count, nulls, fresh = validation.rules
    assert isinstance(count, RowCountRule)
    assert isinstance(nulls, NullCheckRule)
    assert isinstance(fresh, FreshnessRule)
    assert count.bounds == (100_000, 200_000)
    assert (nulls.fields, nulls.threshold) == (("customer_id",), Threshold(count=0))
    assert (fresh.field, fresh.max_age, fresh.max_future) == (
        "updated_at",
        timedelta(hours=24),
        timedelta(minutes=5),
    )
    assert (fresh.timezone, fresh.severity, fresh.scope, fresh.stage) == ("UTC", "error", "total", "output")
    assert validation.on_failure.action == "abort_and_alert"


def test_json_text_and_python_values_give_the_same_rules() -> None:
    assert Validation.model_validate(json.loads(PROTOCOL)) == Validation.model_validate_json(PROTOCOL)


def test_what_was_declared_is_written_back_canonically_and_loads_again() -> None:
    validation = Validation.model_validate_json(PROTOCOL)
    assert Validation.model_validate_json(json.dumps(validation.as_json())) == validation


def test_on_failure_defaults_to_abort_and_alert() -> None:
    assert load({"type": "row_count", "min": 1}).on_failure.action == "abort_and_alert"


@pytest.mark.parametrize("action", ["abort_and_alert", "abort", "warn", "warn_and_alert"])
def test_on_failure_is_a_string_or_an_object(action: str) -> None:
    counted = {"type": "row_count", "min": 1}
    assert load(counted, on_failure=action) == load(counted, on_failure={"action": action})


def test_on_failure_names_alerts() -> None:
    on_failure = load({"type": "row_count", "min": 1}, on_failure={"alert": ["ops"]}).on_failure
    assert (on_failure.action, on_failure.alert) == ("abort_and_alert", ("ops",))


@pytest.mark.parametrize(
    ("on_failure", "reason"),
    [
        ("quarantine", "this version knows abort_and_alert, abort, warn, warn_and_alert"),
        ("hold", "this version knows"),
        ("abort_and_alrt", "did you mean 'abort_and_alert'"),
        ({"action": "hold"}, "this version knows"),
        ({"action": "abort", "alert": ["ops"]}, "sends no alert"),
        ({"action": "warn", "alert": ["ops"]}, "warn_and_alert"),
        ({"alert": []}, "at least one"),
        ({"alert": "ops"}, "a list is expected"),
        ({"alert": [""]}, "at least 1 character"),
        ({"alerts": ["ops"]}, "not permitted"),
        (True, "is one of"),
        (None, "is one of"),
        (["abort"], "is one of"),
    ],
)
def test_unknown_and_contradictory_actions_are_refused(on_failure: Any, reason: str) -> None:
    (problem,) = problems({"rules": [{"type": "row_count", "min": 1}], "on_failure": on_failure})
    assert problem.startswith("on_failure")
    assert reason in problem


def test_no_rules_together_with_on_failure_is_refused() -> None:
    assert load().rules == ()
    (problem,) = problems({"rules": [], "on_failure": "abort"})
    assert "checks nothing" in problem
    assert problems({"on_failure": "abort"}) == ["rules: Field required"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (
            {"type": "unique", "fields": ["id"]},
            "unknown rule type 'unique'; this version knows row_count, null_check, freshness",
        ),
        ({"type": "row_cuont", "min": 1}, "did you mean 'row_count'?"),
        ({"type": "a secret\nvalue", "min": 1}, "unknown rule type; this version knows"),
        ({"type": 5}, "unknown rule type"),
        ({"type": None}, "a rule needs a 'type'"),
        ({"min": 1}, "a rule needs a 'type'"),
        ("row_count", "should be an object"),
        # row_count
        ({"type": "row_count"}, "needs 'min', 'max' or 'equals'"),
        ({"type": "row_count", "min": 5, "max": 4}, "must not be greater"),
        ({"type": "row_count", "min": 5, "equals": 5}, "stands alone"),
        ({"type": "row_count", "min": -1}, "greater than or equal to 0"),
        ({"type": "row_count", "min": 1.0}, "valid integer"),
        ({"type": "row_count", "min": "5"}, "valid integer"),
        ({"type": "row_count", "min": True}, "valid integer"),
        ({"type": "row_count", "min": 2**63}, "less than or equal"),
        ({"type": "row_count", "min": 1, "field": "id"}, "not permitted"),
        ({"type": "row_count", "min": 10, "warn": {"min": 11}}, "looser"),
        ({"type": "row_count", "min": 10, "warn": {"min": 10}}, "looser"),
        ({"type": "row_count", "min": 10, "warn": {}}, "looser"),
        ({"type": "row_count", "min": 10, "warn": {"min": 9, "max": 20}}, "looser"),
        ({"type": "row_count", "min": 10, "warn": {"min": 9, "max": 8}}, "must not be greater"),
        ({"type": "row_count", "equals": 10, "warn": {"equals": 9}}, "not permitted"),
        # null_check
        ({"type": "null_check"}, "Field required"),
        ({"type": "null_check", "fields": []}, "at least one entry"),
        ({"type": "null_check", "fields": "id"}, "a list is expected"),
        ({"type": "null_check", "fields": [""]}, "at least 1 character"),
        ({"type": "null_check", "fields": [1]}, "valid string"),
        ({"type": "null_check", "fields": ["id", "id"]}, "stands once"),
        ({"type": "null_check", "fields": ["id"], "threshold": 1}, "ambiguous"),
        ({"type": "null_check", "fields": ["id"], "threshold": True}, "true or false"),
        ({"type": "null_check", "fields": ["id"], "nan_as_null": 1}, "valid boolean"),
        ({"type": "null_check", "fields": ["id"], "threshold": 5, "warn": {"threshold": 5}}, "looser"),
        ({"type": "null_check", "fields": ["id"], "threshold": 0.2, "warn": {"threshold": "10%"}}, "looser"),
        ({"type": "null_check", "fields": ["id"], "threshold": 5, "warn": {"threshold": "0%"}}, "looser"),
        ({"type": "null_check", "fields": ["id"], "warn": {"max_age": "1 d"}}, "Field required"),
        # freshness
        ({"type": "freshness", "field": "at"}, "Field required"),
        ({"type": "freshness", "max_age": "1 d"}, "Field required"),
        ({"type": "freshness", "field": "at", "max_age": 24}, "text with a unit"),
        ({"type": "freshness", "field": "at", "max_age": "24"}, "needs a unit"),
        ({"type": "freshness", "field": "at", "max_age": "1 month"}, "no fixed length"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "max_future": "-1 s"}, "no sign"),
        (
            {"type": "freshness", "field": "at", "max_age": "1 d", "timezone": "Mars/Base"},
            "no such time zone",
        ),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "timezone": "Europe"}, "no such time zone"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "timezone": "../etc"}, "no such time zone"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "timezone": ""}, "no such time zone"),
        (
            {"type": "freshness", "field": "at", "max_age": "1 d", "timezone": "localtime"},
            "no such time zone",
        ),
        (
            {"type": "freshness", "field": "at", "max_age": "1 d", "reference": "now"},
            "'clock' or 'window_end'",
        ),
        (
            {"type": "freshness", "field": "at", "max_age": "1 d", "unit": "minutes"},
            "'s', 'ms', 'us' or 'ns'",
        ),
        (
            {"type": "freshness", "field": "at", "max_age": "1 d", "unit": "s", "format": "%Y"},
            "one of the two",
        ),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "iso"}, "pattern with a year"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%m/%d"}, "pattern with a year"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%Y-%m-%d %H:%M:%S.%f"}, "iso8601"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%Y %j"}, "not %j"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%Y%"}, "not %"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%FT%TZ"}, "%z"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "format": "%F %I:%M"}, "%p"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "warn": {"max_age": "24 h"}}, "longer"),
        ({"type": "freshness", "field": "at", "max_age": "1 d", "warn": {"max_age": "1 h"}}, "longer"),
        # common keys
        ({"type": "row_count", "min": 1, "severity": "fatal"}, "'error' or 'warn'"),
        ({"type": "row_count", "min": 1, "scope": "each"}, "'total' or 'each_partition'"),
        ({"type": "row_count", "min": 1, "stage": "store"}, "'source' or 'output'"),
        ({"type": "row_count", "min": 1, "on_empty": "ignore"}, "'pass', 'warn', 'fail' or 'skipped'"),
        ({"type": "row_count", "min": 1, "id": "no spaces"}, "should match pattern"),
        ({"type": "row_count", "min": 1, "id": ""}, "should match pattern"),
        ({"type": "row_count", "min": 1, "id": 5}, "valid string"),
        ({"type": "row_count", "min": 1, "treshold": 0}, "not permitted"),
        ({"type": "row_count", "min": 1, "severity": "warn", "on_failure": "abort"}, "never aborts"),
        ({"type": "row_count", "min": 1, "on_failure": "hold"}, "this version knows"),
        # where
        ({"type": "row_count", "min": 1, "where": "tier = 'gold'"}, "a predicate is an object"),
        ({"type": "row_count", "min": 1, "where": {}}, "Field required"),
        (
            {"type": "row_count", "min": 1, "where": {"field": "a", "op": "==", "value": 1}},
            "did you mean '='",
        ),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "like", "value": "x"}}, "unknown op"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "="}}, "needs a value"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "=", "value": None}}, "is_null"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "=", "value": {}}}, "a value is"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "=", "value": [1]}}, "one value"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "in", "value": 1}}, "list of values"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "in", "value": []}}, "at least one"),
        ({"type": "row_count", "min": 1, "where": {"field": "a", "op": "is_null", "value": 1}}, "no value"),
        ({"type": "row_count", "min": 1, "where": {"and": []}}, "at least one entry"),
        ({"type": "row_count", "min": 1, "where": {"and": {"field": "a", "op": "is_null"}}}, "a list is"),
        ({"type": "row_count", "min": 1, "where": {"not": 5}}, "a predicate is an object"),
        (
            {"type": "row_count", "min": 1, "where": {"not": {"field": "a", "op": "is_null"}, "or": []}},
            "at least one entry",
        ),
    ],
)
def test_what_a_rule_may_not_say_is_refused_in_words(keys: Any, reason: str) -> None:
    found = problems({"rules": [keys]})
    assert any(reason in problem for problem in found), found
    assert all(problem.startswith("rules/0") for problem in found)


def test_all_faulty_rules_are_reported_at_once_with_their_places() -> None:
    found = problems(
        {
            "rules": [
                {"type": "unique"},
                {"type": "row_count", "min": 1},
                {"type": "null_check", "fields": [], "treshold": 0},
            ],
            "on_failure": "hold",
            "rule": [],
        }
    )
    assert [problem.split(":")[0] for problem in found] == [
        "rules/0",
        "rules/2/null_check/fields",
        "rules/2/null_check/treshold",
        "on_failure",
        "rule",
    ]


def test_values_of_a_document_are_never_printed() -> None:
    secret = "hunter2-" * 3
    document = {"rules": [{"type": secret, "min": secret}, {"type": "row_count", "min": secret, "id": 5}]}
    with pytest.raises(ValidationError) as raised:
        Validation.model_validate_json(json.dumps({**document, "on_failure": secret}))
    assert "hunter2" not in str(raised.value)


def test_keys_that_start_with_x_are_free_in_every_object() -> None:
    note = {"x-note": {"any": ["thing"]}}
    free = load(
        {
            "type": "row_count",
            "min": 2,
            "warn": {"min": 1, **note},
            "where": {"and": [{"field": "a", "op": "is_null", **note}], **note},
            "on_failure": {"action": "warn", **note},
            **note,
        },
        **note,
    )
    plain = load(
        {
            "type": "row_count",
            "min": 2,
            "warn": {"min": 1},
            "where": {"and": [{"field": "a", "op": "is_null"}]},
            "on_failure": {"action": "warn"},
        }
    )
    assert free == plain


def test_the_default_id_is_a_stable_digest_of_the_rule() -> None:
    # A literal: reports, alerts and history are compared by it across versions.
    assert rule(type="row_count", min=100_000, max=200_000).id == "5db7982b482a"
    assert rule(type="freshness", field="at", max_age="24 hours").id == (
        rule(type="freshness", field="at", max_age="1 day", max_future="5 min", severity="error").id
    )
    assert rule(type="row_count", min=1).id != rule(type="row_count", min=2).id
    assert rule(type="row_count", min=1, id="enough").id == "enough"


def test_rules_with_the_same_id_are_refused() -> None:
    same = {"type": "row_count", "min": 1}
    (problem,) = problems({"rules": [same, {"type": "row_count", "max": 9}, {**same, "x-note": "again"}]})
    assert problem.startswith("rules: ")
    assert "rules 0, 2 have the same id" in problem
    assert load(same, {**same, "id": "again"}).rules[1].id == "again"


def test_looser_bounds_keep_the_bounds_that_they_do_not_name() -> None:
    counted = rule(type="row_count", min=10, max=20, warn={"min": 5})
    assert isinstance(counted, RowCountRule)
    assert counted.warn_bounds == (5, 20)


def test_a_predicate_is_read_into_its_parts() -> None:
    counted = rule(
        type="row_count",
        min=1,
        where={
            "and": [{"field": "a", "op": "in", "value": [1, 2]}, {"not": {"field": "b", "op": "is_null"}}]
        },
    )
    assert isinstance(counted.where, AllOf)
    first, second = counted.where.parts
    assert isinstance(first, Comparison)
    assert first.value == (1, 2)
    assert isinstance(second, Not)


def test_rules_cannot_be_changed() -> None:
    counted = rule(type="row_count", min=1)
    with pytest.raises(ValidationError):
        counted.severity = "warn"  # type: ignore[misc]


def test_the_schema_accepts_the_protocols_rules_and_refuses_unknown_keys() -> None:
    schema = Validation.model_json_schema()
    jsonschema.validate(json.loads(PROTOCOL), schema)
    jsonschema.validate({"rules": [], "x-free": 1}, schema)
    jsonschema.validate({"rules": [{"type": "row_count", "min": 1, "on_failure": {"alert": ["a"]}}]}, schema)
    wrong: list[dict[str, Any]] = [{"rules": [], "rule": []}, {"rules": [{"type": "row_count", "mni": 1}]}]
    for document in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)


def test_loading_rules_does_not_load_arrow() -> None:
    code = "import sys, ecmbatch.protocol.validation.rules as _; sys.exit('pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
