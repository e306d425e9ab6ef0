"""The ``${…}`` grammar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmbatch.errors import InvalidDocument, UsageError
from ecmbatch.protocol.parameters import (
    EPOCH,
    Expression,
    format_time,
    parse,
    parse_param_option,
    parse_time,
    resolve,
    resolve_parameters,
    resolve_text,
    resolve_tree,
    unknown_params,
    upstream_jobs,
)
from ecmbatch.protocol.scalars import Scalar

END = datetime(2026, 11, 22, 2, tzinfo=UTC)
FACTS: dict[str, Scalar] = {
    "previous_job.end_time": END,
    "previous_job.run_id": "run-abc",
    "previous_job.rows": 5,
    "job.id": "orders",
    "param.region": "EU",
    "param.limit": 10,
    "param.exact": True,
    "param.since": "2026-11-01T00:00:00+01:00",
    "param.trap": "${job.id}",
    "param.nothing": None,
    "upstream.a.b-c.as_of": END,
}


def value_of(text: str, facts: dict[str, Scalar] = FACTS) -> Any:
    return resolve(parse(text), facts)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${previous_job.end_time}", END),
        ("${ previous_job.end_time }", END),
        ('${previous_job.end_time | default("2020-01-01T00:00:00Z")}', END),
        ('${previous_job.end_time|minus("5 minutes")}', END - timedelta(minutes=5)),
        ('${previous_job.end_time | plus("1 day") | minus("1 hour")}', END + timedelta(hours=23)),
        ("${previous_job.rows}", 5),
        ("${param.limit}", 10),
        ("${param.exact}", True),
        ("${param.nothing}", None),
        ('${param.nothing | default("x")}', "x"),
        ('${param.absent | default("}")}', "}"),
        ("${param.absent | default(7)}", 7),
        ("${param.absent | default(false)}", False),
        ("${param.absent | default(null)}", None),
        (r'${param.absent | default("a\"\u00e9")}', 'a"é'),
        ('${param.since | minus("1 h")}', datetime(2026, 10, 31, 22, tzinfo=UTC)),
        ("${upstream.a.b-c.as_of}", END),
        ("${upstream.a.b-c.run_id}", None),
        ("rows after ${previous_job.end_time}", "rows after 2026-11-22T02:00:00Z"),
        ("${param.region}/${param.limit}/${param.exact}", "EU/10/true"),
        ("$${param.region}", "${param.region}"),
        ("a$${b} $5 $ { ${param.region}", "a${b} $5 $ { EU"),
        ("$$${x", "$${x"),
    ],
)
def test_expressions_have_the_value_and_type_of_what_they_find(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_what_was_found_is_never_looked_at_again() -> None:
    assert value_of("${param.trap}") == "${job.id}"
    assert value_of("x ${param.trap}") == "x ${job.id}"


def test_times_are_in_utc_whatever_zone_they_came_in() -> None:
    berlin = datetime(2026, 11, 22, 3, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert value_of("at ${window.end}", {"window.end": berlin}) == "at 2026-11-22T02:00:00.000005Z"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${previous_job.endtime}", "did you mean 'previous_job.end_time'?"),
        ("${nonsense}", "known are job.id"),
        ("${upstream.orders.rows}", "upstream.<job>.run_id"),
        ("${param.a.b}", "unknown name"),
        ("${env.HOME}", "looks into the environment"),
        ("${env:HOME}", "looks into the environment"),
        ("${file:/etc/passwd}", "a job cannot"),
        ("${}", "without a name"),
        ("${previous_job.end_time", "never closed"),
        ("${previous_job.end_time | }", "cannot be read"),
        ('${previous_job.end_time | defalt("x")}', "did you mean 'default'?"),
        ("${previous_job.end_time | upper()}", "unknown function upper"),
        ("${previous_job.end_time | default(x)}", "cannot be read"),
        ("${previous_job.end_time | default()}", "cannot be read"),
        ("${previous_job.end_time | default([1])}", "cannot be read"),
        ("${param.x | default(1e999)}", "not a JSON string, number"),
        (r'${param.x | default("\ud800")}', "not a JSON string, number"),
        (r'${param.x | default("\q")}', "not a JSON string, number"),
        ('${previous_job.end_time | minus("5")}', "without a usable duration"),
        ('${previous_job.end_time | minus("1 month")}', "no fixed length"),
        ("${previous_job.end_time | minus(5)}", 'write minus("5 minutes")'),
        ('${previous_job.run_id | minus("5 minutes")}', "not a time"),
        ("${job.id + 1}", "cannot be read"),
        ("${job.id}${", "without a name"),
        ("${__class__.__mro__}", "unknown name"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        parse(text)
    assert says in str(raised.value.problems[0])


def test_references_name_every_path() -> None:
    template = parse('${job.id} $${run.id} ${upstream.a.b-c.as_of | minus("1 h")} ${job.id}')
    assert template.references == {"job.id", "upstream.a.b-c.as_of"}
    assert upstream_jobs(template.references) == {"a.b-c"}


def test_a_parameter_that_was_not_given_is_refused_by_name() -> None:
    with pytest.raises(InvalidDocument, match=r"needs --param regoin.*did you mean 'region'"):
        value_of("${param.regoin}")


def test_nothing_cannot_be_put_into_text() -> None:
    with pytest.raises(InvalidDocument, match=r"no value for run\.id"):
        value_of("x-${run.id}", {})


def test_only_times_can_be_moved() -> None:
    with pytest.raises(InvalidDocument, match="not a time"):
        value_of('${param.region | minus("1 h")}')
    with pytest.raises(InvalidDocument, match="leaves the calendar"):
        value_of('${window.end | minus("900000 days")}', {"window.end": END})


class TestTheFirstRun:
    def test_begins_at_the_epoch_and_says_so(self) -> None:
        found = resolve_parameters({"since": "${previous_job.end_time}", "n": 3}, {})
        assert found.values == {"since": EPOCH, "n": 3}
        assert found.notes == (
            "no earlier run: previous_job.end_time in parameter 'since' is 1970-01-01T00:00:00Z",
        )

    def test_takes_defaults_wherever_they_stand(self) -> None:
        text = '${previous_job.end_time | minus("1 h") | default("2024-01-01T00:00:00+01:00")}'
        found = resolve_parameters({"since": text}, {})
        assert found.values == {"since": datetime(2023, 12, 31, 23, tzinfo=UTC)}
        assert found.notes == ()
        assert value_of(
            '${previous_job.end_time | default("2024-01-01T00:00:00Z") | minus("1 h")}', {}
        ) == datetime(2023, 12, 31, 23, tzinfo=UTC)

    def test_keeps_a_default_that_is_no_time_as_text(self) -> None:
        assert value_of('${previous_job.end_time | default("never")}', {}) == "never"
        assert value_of('${param.x | default("2024-01-01T00:00:00Z")}', {}) == "2024-01-01T00:00:00Z"

    def test_has_nothing_for_the_rest(self) -> None:
        for path in ("run_id", "rows", "scheduled_for", "finished_at"):
            assert value_of(f"${{previous_job.{path}}}", {}) is None
        assert value_of("${window.start}", {}) is None


def test_an_earlier_run_needs_no_note() -> None:
    found = resolve_parameters({"since": "${previous_job.end_time}"}, FACTS)
    assert (found.values, found.notes) == ({"since": END}, ())


def test_problems_of_parameters_have_their_places() -> None:
    with pytest.raises(InvalidDocument) as raised:
        resolve_parameters({"a": "x", "b": "${param.absent}"}, {})
    assert raised.value.problems[0].path == "/parameters/b"


def test_a_tree_is_resolved_into_json() -> None:
    tree = {
        "a": ["${previous_job.end_time}", {"b": "${param.limit}"}],
        "c": 1.5,
        "${job.id}": "$${d}",
        "e": None,
    }
    assert resolve_tree(tree, FACTS) == {
        "a": ["2026-11-22T02:00:00Z", {"b": 10}],
        "c": 1.5,
        "${job.id}": "${d}",
        "e": None,
    }
    with pytest.raises(InvalidDocument) as raised:
        resolve_tree({"a": [1, {"b/c": "${param.absent}"}]}, FACTS)
    assert raised.value.problems[0].path == "/a/1/b~1c"


def test_a_path_is_always_text() -> None:
    assert resolve_text("${param.limit}", FACTS) == "10"
    assert resolve_text("data/${param.region}/*.parquet", FACTS) == "data/EU/*.parquet"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("region=EU", "EU"),
        ("n=5", 5),
        ("n=-2.5e1", -25.0),
        ("b=true", True),
        ("n=null", None),
        ("a=b=c", "b=c"),
        ("empty=", ""),
        ("zip=01234", "01234"),
        ('quoted="5"', '"5"'),
        ("big=99999999999999999999", "99999999999999999999"),
        ("big=1e999", "1e999"),
        ("word=NaN", "NaN"),
        ("digits=" + "9" * 5000, "9" * 5000),
        ("five=٥", "٥"),
    ],
)
def test_options_are_json_scalars_or_text(option: str, value: Scalar) -> None:
    name, found = parse_param_option(option)
    assert (name, found) == (option.partition("=")[0], value)
    assert type(found) is type(value)


@pytest.mark.parametrize("option", ["region", "=EU", "1a=b", "a b=c", ""])
def test_options_of_another_shape_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match="name=value"):
        parse_param_option(option)


def test_options_that_the_job_does_not_use_are_problems() -> None:
    problems = unknown_params({"param.region", "job.id"}, ["regoin", "region"])
    assert [str(problem) for problem in problems] == [
        "the job does not use --param regoin (did you mean 'region'?)"
    ]
    assert unknown_params({"job.id"}, ["x"])[0].hint == "the job uses none"


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-22T02:00:00Z", END),
        ("2026-11-22t03:00:00.000+01:00", END),
        ("2026-11-22 02:00:00z", END),
        ("2026-11-22T02:00:00.123456789Z", END.replace(microsecond=123456)),
        ("2026-11-22T02:00:00", None),
        ("2026-11-22", None),
        ("2026-13-22T02:00:00Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("٢026-11-22T02:00:00Z", None),
    ],
)
def test_times_are_rfc_3339_with_a_zone(text: str, time: datetime | None) -> None:
    assert parse_time(text) == time


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_being_written(time: datetime) -> None:
    assert parse_time(format_time(time)) == time


@settings(deadline=None)
@given(st.text(st.sampled_from("${}| \"\\()param.xdefultminus5 'é\0\n")) | st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        template = parse(text)
    except InvalidDocument as error:
        assert error.problems
        return
    if "${" not in text:
        assert resolve(template, {}) == text
    assert all(isinstance(part, str | Expression) for part in template.parts)


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="$")) | st.just("$${") | st.just("${param.x}")),
    st.text(),
)
def test_text_around_expressions_stays_as_it_is(pieces: list[str], value: str) -> None:
    said = {"$${": "${", "${param.x}": value}
    assert resolve_text("".join(pieces), {"param.x": value}) == "".join(
        said.get(piece, piece) for piece in pieces
    )
