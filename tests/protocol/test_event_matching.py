"""What starts a job: which events fire it, and that nothing depends on who asks when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.event_matching import EventTrigger, Firing, firings, trigger_of
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus

START = datetime(2026, 11, 23, 2, tzinfo=UTC)
END = START + timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened *minute* minutes after the start."""

    sequence: int
    minute: float
    name: str | None = None
    job_id: str | None = None
    status: RunStatus | None = None

    @property
    def at(self) -> datetime:
        return START + timedelta(minutes=self.minute)


def happened(*what: str, minutes: Sequence[float] = ()) -> list[Event]:
    """Events ``name``, or ``job:status`` for ends of runs, a minute apart."""
    events = []
    for number, (word, minute) in enumerate(zip(what, minutes or range(len(what)), strict=True), start=1):
        job, _, status = word.partition(":")
        if status:
            events.append(Event(number, minute, job_id=job, status=RunStatus(status)))
        else:
            events.append(Event(number, minute, name=word))
    return events


def job(**sections: Any) -> JobDefinition:
    return JobDefinition.from_value(
        {
            "job_id": "y",
            "source": {"connector": "warehouse", "table": "t"},
            "sink": {"store": "context_store", "mode": "upsert"},
            **sections,
        }
    )


def trigger(*on: str, **settings: Any) -> EventTrigger:
    legs = [
        {"job": word.split(":")[0], "status": word.split(":")[1]} if ":" in word else {"event": word}
        for word in on
    ]
    found = trigger_of(job(schedule={"type": "event", "on": legs, **settings}))
    assert found is not None
    return found


def implied(*dependencies: Any) -> EventTrigger:
    found = trigger_of(job(dependencies=list(dependencies)))
    assert found is not None
    return found


def fired(
    trigger: EventTrigger,
    events: Sequence[Event],
    consumed: Mapping[str, int] | None = None,
    *,
    now: float | None = None,
) -> list[list[int]]:
    """The sequences of the events of each firing."""
    until = END if now is None else START + timedelta(minutes=now)
    return [
        [event.sequence for event in each.events] for each in firings(trigger, events, consumed or {}, until)
    ]


# What a trigger is


def test_jobs_that_start_by_time_or_by_hand_have_no_trigger() -> None:
    assert trigger_of(job()) is None
    assert trigger_of(job(schedule="@daily", dependencies=[{"job": "a"}])) is None
    assert trigger_of(job(schedule={"type": "manual"}, dependencies=[{"job": "a"}])) is None


def test_a_trigger_says_what_it_listens_to() -> None:
    found = trigger("a:success", "b:finished", "files.landed", "files.landed")
    assert found.kind == "event"
    assert found.leg_names == ("job:a:success", "job:b:finished", "event:files.landed")
    assert (found.event_names, found.job_ids) == (("files.landed",), ("a", "b"))
    default = trigger_of(job(schedule={"type": "event", "on": {"job": "a"}}))
    assert default is not None and default.leg_names == ("job:a:success",)


@pytest.mark.parametrize(
    ("dependencies", "legs"),
    [
        ([{"job": "a"}], ["job:a:success"]),
        ([{"job": "a", "window": "24 hours"}], ["job:a:success"]),
        (
            [{"job": "a", "status": "finished"}, {"job": "b", "status": "failed"}],
            ["job:a:finished", "job:b:failed"],
        ),
        ([{"job": "a"}, {"job": "a", "window": "1 h"}], ["job:a:success"]),
        (
            [{"any": [{"job": "b"}, {"job": "a"}]}, {"job": "c"}],
            ["job:a:success|job:b:success", "job:c:success"],
        ),
        ([{"all": [{"job": "b"}, {"job": "a"}]}], ["job:b:success", "job:a:success"]),
        (
            [{"any": [{"all": [{"job": "a"}, {"job": "b"}]}, {"job": "c"}]}],
            ["job:a:success|job:b:success|job:c:success"],
        ),
        ([{"job": "a"}, {"job": "b", "optional": True}], ["job:a:success"]),
        ([{"any": [{"job": "a", "optional": True}, {"job": "b"}]}], ["job:b:success"]),
        ([{"job": "a", "optional": True}, {"job": "b", "optional": True}], ["job:a:success|job:b:success"]),
    ],
)
def test_without_a_schedule_dependencies_start_the_job(dependencies: list[Any], legs: list[str]) -> None:
    found = implied(*dependencies)
    assert (found.kind, found.match, list(found.leg_names)) == ("dependency", "all", legs)


def test_the_name_of_a_leg_fits_the_ledger_and_says_which_leg_it_is() -> None:
    many = [{"job": f"job-{number:0100}"} for number in range(50)]
    one, other = implied({"any": many}).leg_names[0], implied({"any": many[1:]}).leg_names[0]
    assert len(one) <= 300
    assert one != other
    assert one == implied({"any": many[::-1]}).leg_names[0], "the order of alternatives means nothing"


# What fires


def test_any_fires_once_for_each_event_that_matches() -> None:
    events = happened("landed", "other", "a:success", "a:failed", "landed")
    assert fired(trigger("landed", "a:success", match="any"), events) == [[1], [3], [5]]


def test_an_event_that_matches_two_legs_fires_once() -> None:
    assert fired(trigger("a:success", "a:finished", match="any"), happened("a:success")) == [[1]]


def test_all_fires_as_soon_as_every_leg_has_an_event_and_consumes_what_there_is() -> None:
    both = trigger("landed", "a:success")
    assert fired(both, happened("landed", "landed")) == []
    assert fired(both, happened("landed", "landed", "a:success", "a:success", "landed")) == [
        [1, 2, 3],
        [4, 5],
    ]


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        ("success", {"success"}),
        ("failed", {"failed", "validation_failed"}),
        ("finished", {"success", "failed", "validation_failed"}),
    ],
)
def test_a_leg_matches_the_ends_it_asks_for(asked: str, by: set[str]) -> None:
    assert {
        status.value for status in RunStatus if fired(trigger(f"a:{asked}"), happened(f"a:{status}"))
    } == by


def test_a_job_and_an_event_of_one_name_are_two_things() -> None:
    assert fired(trigger("a"), happened("a:success")) == []
    assert fired(trigger("a:success"), happened("a")) == []


def test_what_is_consumed_fires_no_more_each_leg_for_itself() -> None:
    both = trigger("landed", "a:success")
    events = happened("landed", "a:success", "landed")
    assert fired(both, events, {"event:landed": 1, "job:a:success": 0}) == [[2, 3]]
    assert fired(both, events, {"event:landed": 0, "job:a:success": 2}) == []
    assert fired(both, events, {"event:landed": 3, "job:a:success": 3}) == []


def test_one_alternative_of_a_leg_is_enough() -> None:
    found = implied({"any": [{"job": "a"}, {"job": "b"}]}, {"job": "c"})
    assert fired(found, happened("b:success", "a:success", "c:success")) == [[1, 2, 3]]


# Debounce: quiet for 5 minutes, 12 at most

CALM = {"debounce": {"quiet": "5 minutes", "max_wait": "12 minutes"}}


@pytest.mark.parametrize(
    ("minutes", "now", "expected"),
    [
        ([0], 4, []),
        ([0], 5, [[1]]),
        ([0, 4], 8, []),
        ([0, 4], 9, [[1, 2]]),
        ([0, 5], 9, [[1]]),
        ([0, 5], 10, [[1], [2]]),
        # Never longer than 12 minutes after the first.
        ([0, 4, 8, 11], 11, []),
        ([0, 4, 8, 11], 12, [[1, 2, 3, 4]]),
        ([0, 4, 8, 11, 12, 13], 60, [[1, 2, 3, 4], [5, 6]]),
        # A clock that was set back an hour.
        ([60, 0, 61], 65, []),
        ([60, 0, 61], 66, [[1, 2, 3]]),
    ],
)
def test_a_debounce_waits_for_a_pause_but_not_for_ever(
    minutes: list[float], now: float, expected: list[list[int]]
) -> None:
    events = happened(*["landed"] * len(minutes), minutes=minutes)
    assert fired(trigger("landed", match="any", **CALM), events, now=now) == expected


def test_a_debounced_firing_is_certain_when_its_last_group_closes() -> None:
    (firing,) = firings(trigger("landed", **CALM), happened("landed", "landed"), {}, END)
    assert firing.closed_at == START + timedelta(minutes=6)
    (at_once,) = firings(trigger("landed"), happened("landed"), {}, END)
    assert at_once.closed_at == START


def test_all_counts_closed_groups_only() -> None:
    both = trigger("landed", "a:success", **CALM)
    events = happened("landed", "a:success", "landed", "a:success", minutes=[0, 6, 7, 20])
    assert fired(both, events[:3], now=11) == []
    assert fired(both, events[:3], now=12) == [[1, 2, 3]]
    assert fired(both, events, now=60) == [[1, 2, 3]]


# Laws

WORDS = ["landed", "other", "a:success", "a:failed", "b:success"]
TRIGGERS = st.builds(
    lambda on, match, calm: trigger(*on, match=match, **(CALM if calm else {})),
    st.lists(st.sampled_from(["landed", "a:success", "a:finished", "b:success"]), min_size=1, max_size=3),
    st.sampled_from(["all", "any"]),
    st.booleans(),
)
HISTORIES = st.lists(
    st.tuples(st.sampled_from(WORDS), st.sampled_from([0, 0.5, 2, 4.5, 5, 7, 12, 30])), max_size=25
).map(lambda steps: happened(*(word for word, _ in steps), minutes=_sums([gap for _, gap in steps])))


def _sums(gaps: Sequence[float]) -> list[float]:
    total, sums = 0.0, []
    for gap in gaps:
        total += gap
        sums.append(total)
    return sums


def asked_often(
    trigger: EventTrigger, events: Sequence[Event], moments: Sequence[float]
) -> list[Firing[Event]]:
    """What a scheduler fires that looks at these moments and after every event, and consumes what it fires."""
    consumed = dict.fromkeys(trigger.leg_names, 0)
    found = []
    times = sorted({*(event.minute for event in events), *moments, 10_000})
    for minute in times:
        known = [event for event in events if event.minute <= minute]
        for each in firings(trigger, known, consumed, START + timedelta(minutes=minute)):
            found.append(each)
            consumed = {leg: max(before, each.up_to) for leg, before in consumed.items()}
    return found


@given(TRIGGERS, HISTORIES, st.lists(st.floats(0, 200), max_size=10))
def test_how_often_a_scheduler_looks_changes_nothing(
    trigger: EventTrigger, events: list[Event], moments: list[float]
) -> None:
    assert asked_often(trigger, events, moments) == list(firings(trigger, events, {}, END))


@given(TRIGGERS, HISTORIES, st.dictionaries(st.integers(0, 2), st.integers(0, 25)))
def test_no_event_is_lost_and_none_fires_twice(
    trigger: EventTrigger, events: list[Event], progress: dict[int, int]
) -> None:
    consumed = {leg: progress.get(number, 0) for number, leg in enumerate(trigger.leg_names)}
    found = firings(trigger, events, consumed, END)
    taken = [event.sequence for each in found for event in each.events]
    up_to = found[-1].up_to if found else 0
    new = [
        event.sequence
        for event in events
        if any(leg.matches(event) and event.sequence > consumed[leg.name] for leg in trigger.legs)
    ]
    assert taken == [sequence for sequence in new if sequence <= up_to]
    left = [event for event in events if event.sequence in new and event.sequence > up_to]
    assert not left or trigger.match == "all"
    assert any(
        not any(leg.matches(event) and event.sequence > consumed[leg.name] for event in left)
        for leg in trigger.legs
    ), "what would fire has fired"


@given(TRIGGERS, HISTORIES, st.integers(0, 200))
def test_what_has_fired_stays_so_whatever_happens_later(
    trigger: EventTrigger, events: list[Event], minute: int
) -> None:
    known = [event for event in events if event.minute <= minute]
    early = list(firings(trigger, known, {}, START + timedelta(minutes=minute)))
    assert early == list(firings(trigger, events, {}, END))[: len(early)]
    assert all(each.closed_at <= START + timedelta(minutes=minute) for each in early)
