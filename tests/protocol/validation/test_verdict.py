import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.protocol.validation.observations import Observations, Observer
from ecmbatch.protocol.validation.rules import Validation
from ecmbatch.protocol.validation.verdict import Verdict, VerdictAction, judge

NOW = datetime(2024, 1, 15, 12, tzinfo=UTC)
Row = tuple[int | None, datetime | None]
GOOD: Row = (1, NOW - timedelta(hours=1))
BLANK: Row = (None, NOW - timedelta(hours=1))
OLD: Row = (1, NOW - timedelta(days=3))
PROTOCOL = {
    "rules": [
        {"type": "row_count", "min": 2, "max": 4},
        {"type": "null_check", "fields": ["id"], "threshold": 0},
        {"type": "freshness", "field": "at", "max_age": "24 hours"},
    ],
    "on_failure": "abort_and_alert",
}


def batch(*rows: Row) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "id": pa.array([row[0] for row in rows], pa.int64()),
            "at": pa.array([row[1] for row in rows], pa.timestamp("us", "UTC")),
        }
    )


def observed(validation: Validation, *partitions: list[Row]) -> dict[int, Observations]:
    observer = Observer(validation.rules)
    return {
        number: observer.observe(observer.start(), batch(*rows), "output")
        for number, rows in enumerate(partitions)
    }


def verdict(document: dict[str, Any], *partitions: list[Row], **keys: Any) -> Verdict:
    validation = Validation.model_validate(document)
    return judge(validation, observed(validation, *partitions), **{"now": NOW, **keys})


def outcome(rule: dict[str, Any], *partitions: list[Row], **keys: Any) -> str:
    return verdict({"rules": [rule]}, *partitions, **keys).outcome


def test_the_protocols_rules_pass_over_all_partitions_together() -> None:
    judged = verdict(PROTOCOL, [GOOD], [GOOD, OLD], [])
    assert judged.outcome == "pass"
    assert judged.action == VerdictAction(publish=True, alert=False, alert_to=())
    assert judged.failures == judged.warnings == ()
    assert [rule.evaluated_rows for rule in judged.rules] == [3, 3, 3]


def test_the_document_is_that_of_the_run() -> None:
    (count, nulls, fresh) = verdict(PROTOCOL, [GOOD], [BLANK]).document()["rules"]
    assert count == {
        "id": count["id"],
        "type": "row_count",
        "outcome": "pass",
        "observed": {"rows": 2},
        "expected": {"min": 2, "max": 4},
        "evaluated_rows": 2,
    }
    assert nulls["outcome"] == "fail"
    assert nulls["observed"] == {"nulls": {"id": 1}}
    assert nulls["expected"] == {"fields": ["id"], "threshold": 0}
    assert fresh["observed"] == {
        "newest": "2024-01-15T11:00:00Z",
        "nulls": 0,
        "reference": "2024-01-15T12:00:00Z",
    }
    assert fresh["expected"] == {"field": "at", "max_age": "1 d", "max_future": "5 min"}


def test_every_rule_is_judged_and_reported_in_its_order() -> None:
    judged = verdict(PROTOCOL, [(None, NOW - timedelta(days=3))])
    assert [rule.outcome for rule in judged.rules] == ["fail", "fail", "fail"]
    assert judged.failures == (
        f"row_count ({judged.rules[0].id}): 1 row, expected 2 to 4",
        f"null_check ({judged.rules[1].id}): nulls in 1 row: 1 in id; accepted: 0 in each field",
        f"freshness ({judged.rules[2].id}): newest 'at' is 3 d old, accepted 1 d",
    )
    assert not judged.action.publish
    assert judged.action.alert


def test_a_remembered_verdict_is_plain_json_with_every_rules_message() -> None:
    judged = verdict(PROTOCOL, [BLANK], default_alerts=["ops"])
    remembered = json.loads(json.dumps(judged.to_json()))
    assert [rule["message"] for rule in remembered["rules"]] == [rule.message for rule in judged.rules]
    assert remembered["action"]["alert_to"] == ["ops"]


def test_a_job_without_rules_passes() -> None:
    assert verdict({"rules": []}, [GOOD]) == Verdict(outcome="pass", rules=(), action=VerdictAction())


@pytest.mark.parametrize(
    ("keys", "rows", "expected"),
    [
        ({"min": 0}, 0, "pass"),
        ({"min": 1}, 0, "fail"),
        ({"min": 2}, 2, "pass"),
        ({"min": 3}, 2, "fail"),
        ({"max": 2}, 2, "pass"),
        ({"max": 1}, 2, "fail"),
        ({"equals": 2}, 2, "pass"),
        ({"equals": 3}, 2, "fail"),
        ({"equals": 0}, 0, "pass"),
        ({"min": 3, "warn": {"min": 2}}, 2, "warn"),
        ({"min": 3, "warn": {"min": 2}}, 1, "fail"),
        ({"equals": 3, "warn": {"max": 4}}, 4, "warn"),
        ({"equals": 3, "warn": {"max": 4}}, 2, "fail"),
        ({"min": 1, "on_empty": "skipped"}, 0, "skipped"),
        ({"min": 1, "on_empty": "pass"}, 0, "pass"),
        ({"min": 0, "on_empty": "fail"}, 0, "fail"),
    ],
)
def test_row_counts_have_inclusive_bounds(keys: dict[str, Any], rows: int, expected: str) -> None:
    assert outcome({"type": "row_count", **keys}, [GOOD] * rows) == expected


@pytest.mark.parametrize(
    ("keys", "rows", "expected"),
    [
        ({}, [GOOD, GOOD], "pass"),
        ({}, [GOOD, BLANK], "fail"),
        ({}, [], "pass"),
        ({"threshold": {"count": 1}}, [GOOD, BLANK], "pass"),
        ({"threshold": 0.5}, [GOOD, BLANK], "pass"),
        ({"threshold": "49%"}, [GOOD, BLANK], "fail"),
        ({"warn": {"threshold": "50%"}}, [GOOD, BLANK], "warn"),
        ({"warn": {"threshold": "50%"}}, [BLANK, BLANK], "fail"),
        ({"on_empty": "warn"}, [], "warn"),
        ({"where": {"field": "id", "op": "=", "value": 1}}, [GOOD, BLANK], "pass"),
    ],
)
def test_null_checks_use_their_threshold(keys: dict[str, Any], rows: list[Row], expected: str) -> None:
    assert outcome({"type": "null_check", "fields": ["id"], **keys}, rows) == expected


def test_each_field_of_a_null_check_stands_by_itself() -> None:
    rows: list[Row] = [(None, NOW), (1, None), (1, NOW)]
    rule = {"type": "null_check", "fields": ["id", "at"], "threshold": {"count": 1}}
    judged = verdict({"rules": [rule]}, rows)
    assert judged.outcome == "pass"
    assert judged.rules[0].observed == {"nulls": {"id": 1, "at": 1}}


def test_a_missing_column_is_an_error_that_gates_like_a_failure() -> None:
    judged = verdict({"rules": [{"type": "null_check", "fields": ["customer_id"]}]}, [GOOD])
    (rule,) = judged.rules
    assert (judged.outcome, rule.outcome, rule.evaluated_rows) == ("error", "error", 0)
    assert '"stage": "source"' in rule.message
    assert "there is no column 'customer_id'" in rule.observed["error"]
    assert not judged.action.publish
    assert judged.failures


@pytest.mark.parametrize(("on_empty", "expected"), [(None, "fail"), ("pass", "pass"), ("skipped", "skipped")])
def test_no_rows_are_not_fresh_unless_told_otherwise(on_empty: str | None, expected: str) -> None:
    keys = {} if on_empty is None else {"on_empty": on_empty}
    assert outcome({"type": "freshness", "field": "at", "max_age": "1 d", **keys}, []) == expected


def test_the_clock_is_read_when_judging() -> None:
    rule = {"type": "freshness", "field": "at", "max_age": "1 d"}
    assert outcome(rule, [GOOD]) == "pass"
    assert outcome(rule, [GOOD], now=NOW + timedelta(days=2)) == "fail"


def test_a_backfill_is_as_fresh_as_its_window_says() -> None:
    rule = {"type": "freshness", "field": "at", "max_age": "1 d"}
    later = NOW + timedelta(days=300)
    assert outcome(rule, [GOOD], now=later, reference=NOW) == "pass"
    assert outcome({**rule, "reference": "clock"}, [GOOD], now=later, reference=NOW) == "fail"
    assert outcome({**rule, "reference": "window_end"}, [GOOD], now=later, window_end=NOW) == "pass"
    assert outcome({**rule, "reference": "window_end"}, [GOOD], now=later) == "error"


def test_each_partition_is_judged_and_the_worst_are_named() -> None:
    rule = {"type": "row_count", "min": 1, "scope": "each_partition"}
    judged = verdict({"rules": [rule]}, [GOOD], [], [GOOD, GOOD], [])
    (result,) = judged.rules
    assert result.outcome == "fail"
    assert result.observed == {
        "partitions": 4,
        "worst_count": 2,
        "worst_partitions": [1, 3],
        "worst": {"rows": 0},
    }
    assert result.evaluated_rows == 3
    assert result.message == "fail in 2 of 4 partitions (1, 3), first: 0 rows, expected at least 1"
    assert outcome({**rule, "scope": "total"}, [GOOD], []) == "pass"


def test_an_error_in_one_partition_is_worse_than_failures_in_others() -> None:
    validation = Validation.model_validate(
        {"rules": [{"type": "null_check", "fields": ["id"], "scope": "each_partition"}]}
    )
    observer = Observer(validation.rules)
    partitions = observed(validation, [BLANK], [GOOD])
    other = pa.record_batch({"name": ["x"]})
    partitions[2] = observer.observe(observer.start(), other, "output")
    (rule,) = judge(validation, partitions, now=NOW).rules
    assert rule.outcome == "error"
    assert rule.message.startswith("error in partition 2 of 3: could not be evaluated")
    assert rule.evaluated_rows == 2


def test_many_bad_partitions_are_counted_but_not_all_listed() -> None:
    rule = {"type": "row_count", "min": 1, "scope": "each_partition"}
    (result,) = verdict({"rules": [rule]}, *([[]] * 30)).rules
    assert result.observed["worst_count"] == 30
    assert result.observed["worst_partitions"] == list(range(10))
    assert "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)" in result.message


def test_without_partitions_there_are_no_rows() -> None:
    for scope in ("total", "each_partition"):
        assert outcome({"type": "row_count", "min": 1, "scope": scope}) == "fail"


def test_a_rule_that_was_not_counted_is_an_error_and_not_a_pass() -> None:
    counted = Validation.model_validate({"rules": []})
    asked = Validation.model_validate({"rules": [{"type": "null_check", "fields": ["id"]}]})
    judged = judge(asked, observed(counted, [GOOD]), now=NOW)
    assert judged.outcome == "error"
    assert "not counted" in judged.rules[0].message


FAILING = {"type": "row_count", "min": 100}


@pytest.mark.parametrize(
    ("on_failure", "expected", "action"),
    [
        ("abort_and_alert", "fail", VerdictAction(publish=False, alert=True, alert_to=("job",))),
        ("abort", "fail", VerdictAction(publish=False)),
        ("warn", "warn", VerdictAction(publish=True)),
        ("warn_and_alert", "warn", VerdictAction(publish=True, alert=True, alert_to=("job",))),
        ({"alert": ["ops"]}, "fail", VerdictAction(publish=False, alert=True, alert_to=("ops",))),
    ],
)
@pytest.mark.parametrize("rule", [FAILING, {"type": "null_check", "fields": ["gone"]}])
def test_on_failure_decides_what_follows(
    rule: dict[str, Any], on_failure: Any, expected: str, action: VerdictAction
) -> None:
    judged = verdict({"rules": [rule], "on_failure": on_failure}, [GOOD], default_alerts=["job"])
    assert judged.outcome in (expected, "error")
    assert (judged.outcome == "warn") == (expected == "warn")
    assert judged.action == action


def test_the_action_of_a_rule_goes_before_that_of_the_job() -> None:
    rules = [{**FAILING, "on_failure": "warn"}, {"type": "row_count", "min": 1}]
    judged = verdict({"rules": rules, "on_failure": "abort_and_alert"}, [GOOD])
    assert [rule.outcome for rule in judged.rules] == ["warn", "pass"]
    assert judged.action == VerdictAction()


def test_the_strictest_of_the_failing_rules_decides() -> None:
    rules = [
        {**FAILING, "id": "a", "on_failure": {"action": "warn_and_alert", "alert": ["team", "ops"]}},
        {**FAILING, "id": "b", "on_failure": "abort"},
        {**FAILING, "id": "c", "on_failure": "warn_and_alert"},
        {"type": "row_count", "min": 1, "id": "d", "on_failure": {"alert": ["never"]}},
    ]
    judged = verdict({"rules": rules}, [GOOD], default_alerts=["ops", "job"])
    assert [rule.outcome for rule in judged.rules] == ["warn", "fail", "warn", "pass"]
    assert judged.outcome == "fail"
    assert judged.action == VerdictAction(publish=False, alert=True, alert_to=("team", "ops", "job"))


def test_a_rule_of_severity_warn_never_aborts_and_is_only_reported() -> None:
    missing = {"type": "null_check", "fields": ["gone"], "severity": "warn"}
    judged = verdict({"rules": [{**FAILING, "severity": "warn"}, missing]}, [GOOD])
    assert [rule.outcome for rule in judged.rules] == ["warn", "warn"]
    assert judged.action == VerdictAction()
    assert len(judged.warnings) == 2
    assert "could not be evaluated" in judged.warnings[1]


def test_a_rule_of_severity_warn_alerts_when_it_says_so() -> None:
    rule = {**FAILING, "severity": "warn", "on_failure": {"action": "warn_and_alert", "alert": ["ops"]}}
    assert verdict({"rules": [rule]}, [GOOD]).action == VerdictAction(alert=True, alert_to=("ops",))


def test_within_the_looser_threshold_nothing_follows() -> None:
    judged = verdict({"rules": [{"type": "row_count", "min": 3, "warn": {"min": 1}}]}, [GOOD])
    assert (judged.outcome, judged.action) == ("warn", VerdictAction())


def test_skipped_is_the_outcome_only_where_nothing_else_is() -> None:
    skipped = {"type": "null_check", "fields": ["id"], "on_empty": "skipped"}
    assert outcome(skipped, []) == "skipped"
    assert verdict({"rules": [skipped, {"type": "row_count", "min": 0}]}, []).outcome == "pass"
    assert outcome({**skipped, "scope": "each_partition"}, [], [GOOD]) == "pass"


def test_no_value_of_a_row_reaches_the_report() -> None:
    rows = pa.record_batch({"name": ["hunter2"], "at": ["hunter2"]})
    validation = Validation.model_validate(
        {
            "rules": [
                {"type": "null_check", "fields": ["name"], "where": {"field": "name", "op": ">", "value": 1}},
                {"type": "freshness", "field": "at", "max_age": "1 d", "format": "iso8601"},
                {"type": "freshness", "field": "name", "max_age": "1 d"},
            ]
        }
    )
    observer = Observer(validation.rules)
    seen = observer.observe(observer.start(), rows, "output")
    judged = judge(validation, {0: seen}, now=NOW)
    assert {rule.outcome for rule in judged.rules} == {"error"}
    assert "hunter2" not in json.dumps([judged.to_json(), observer.to_json(seen)])
