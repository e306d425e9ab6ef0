"""When a job runs (protocol: Scheduling Protocol): cron, interval, event or manual.

Only the shape is decided here; :mod:`ecmbatch.protocol.ticks` says when the times are. Backfill, the
protocol's fourth kind, is a command: its range is given when it is asked for, not in the job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from ecmbatch.errors import Problem
from ecmbatch.protocol.cron import check_cron
from ecmbatch.protocol.document import OneOrMany, Section, pointer, refusal
from ecmbatch.protocol.duration import Duration
from ecmbatch.protocol.names import EventName, JobId

RunOutcome = Literal["success", "failed", "finished"]
"""What is asked of another job's run; *finished* is success or failure."""

CatchUp = Literal["merge", "latest", "all", "none"]
"""What becomes of ticks that passed while nothing ran: one run for all, the last only, each, none."""

Overlap = Literal["queue_one", "skip", "queue_all", "replace", "allow"]
"""What becomes of a tick that comes while the job still runs."""

_POLICIES = ("catch_up", "overlap", "late_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePolicy:
    """What is done about ticks that were missed, that come too soon, and about runs that do not start."""

    catch_up: CatchUp = "merge"
    overlap: Overlap = "queue_one"
    late_after: timedelta = timedelta(minutes=15)


_DEFAULT = SchedulePolicy()


def check_timezone(name: str) -> str:
    """Return *name* if it is a time zone of the IANA database; raises ``ValueError`` otherwise."""
    # ZoneInfo would also look for files of other names; 'localtime' is whatever the host says.
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", name)
    try:
        if not is_plain or name.lower() in ("localtime", "local", "posixrules", "factory"):
            raise ValueError
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; use a name such as 'UTC' or 'Europe/Berlin'") from None
    return name


def _at_most_a_year(interval: timedelta) -> timedelta:
    if interval > timedelta(days=366):
        raise ValueError("must be at most 366 days")
    return interval


def _at_least_a_minute(interval: timedelta) -> timedelta:
    if interval < timedelta(minutes=1):
        raise ValueError("must be at least 1 minute")
    return interval


_PolicyTime = Annotated[Duration, AfterValidator(_at_least_a_minute)]


class _Policies(Section):
    """What every schedule that starts runs by itself may say about them."""

    overlap: Overlap = Field(
        default=_DEFAULT.overlap,
        description="A tick while the job still runs: queue_one (later ones join the run that waits), skip, "
        "queue_all, replace (stop at the next checkpoint, then start) or allow (run beside it).",
    )
    late_after: _PolicyTime = Field(
        default=_DEFAULT.late_after,
        description="A run that has not started so long after it was due raises an alert.",
    )


class _TimePolicies(_Policies):
    catch_up: CatchUp = Field(
        default=_DEFAULT.catch_up,
        description="Ticks that passed while nothing ran: merge (one run for all), latest, all (oldest "
        "first) or none.",
    )


class CronSchedule(_TimePolicies):
    """Periodic execution by the calendar."""

    type: Literal["cron"] = "cron"
    cron: Annotated[str, AfterValidator(check_cron)] = Field(
        description="Minute, hour, day, month and weekday, or a name such as @daily."
    )
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="UTC", description="IANA name of the time zone the expression is read in."
    )


class IntervalSchedule(_TimePolicies):
    """Periodic execution by elapsed time, counted from 1970-01-01T00:00Z."""

    type: Literal["every"] = "every"
    every: Annotated[Duration, AfterValidator(_at_least_a_minute), AfterValidator(_at_most_a_year)]


class EventLeg(Section):
    """One thing to wait for: a run of another job, or an event by its name."""

    job: JobId | None = None
    status: RunOutcome | None = None
    event: EventName | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> EventLeg:
        if (self.job is None) == (self.event is None):
            raise ValueError("must have either 'job' or 'event'")
        if self.event is not None and self.status is not None:
            raise ValueError("must not have 'status' beside 'event': an event has no outcome")
        return self


class Debounce(Section):
    """Wait until events pause for ``quiet``, but never longer than ``max_wait``."""

    quiet: Duration
    max_wait: Duration

    @model_validator(mode="after")
    def _ordered(self) -> Debounce:
        if self.max_wait < self.quiet:
            raise ValueError("must have a 'max_wait' of at least 'quiet'")
        return self


def _not_empty(legs: tuple[EventLeg, ...]) -> tuple[EventLeg, ...]:
    if not legs:
        raise ValueError("must name at least one job or event")
    return legs


class EventSchedule(_Policies):
    """Execution when something has happened."""

    type: Literal["event"]
    on: Annotated[OneOrMany[EventLeg], AfterValidator(_not_empty)]
    match: Literal["all", "any"] = "all"
    debounce: Debounce | None = None


class ManualSchedule(Section):
    """Execution only when somebody asks for it."""

    type: Literal["manual"]


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": "cron", "cron": value}
    if isinstance(value, dict) and value.get("type") == "backfill":
        raise refusal(
            Problem(
                "",
                "a backfill is not a schedule: its range is given when it is run",
                "use ecmbatch backfill create JOB --from … --to …",
            )
        )
    return value


def _kind(value: Any) -> str | None:
    """Name the variant of a schedule; the names differ from every key, which keeps error locations clear."""
    if isinstance(value, Section):
        return f"{getattr(value, 'type', '')} schedule"
    if not isinstance(value, dict):
        return None
    implied = next((key for key in ("cron", "every") if key in value), None)
    kind = value.get("type", implied)
    return f"{kind} schedule" if kind in ("cron", "every", "event", "manual") else None


_Variants = Annotated[
    Annotated[CronSchedule, Tag("cron schedule")]
    | Annotated[IntervalSchedule, Tag("every schedule")]
    | Annotated[EventSchedule, Tag("event schedule")]
    | Annotated[ManualSchedule, Tag("manual schedule")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="must be a cron expression, or an object with 'cron', 'every', or a 'type' of "
        "cron, event or manual",
    ),
]
Schedule = Annotated[_Variants, BeforeValidator(_spelled_out, json_schema_input_type=str | _Variants)]
"""Any schedule; a string is cron in UTC."""


def _fit_together(schedules: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list of schedules that contradict each other."""
    problems = []
    if len(schedules) > 1:
        problems += [
            Problem(
                pointer([number]),
                f"is of type {each.type}: only cron and every schedules may stand in a list with others",
                "write it alone; what runs for two reasons is two jobs",
            )
            for number, each in enumerate(schedules)
            if each.type not in ("cron", "every")
        ]
    for name in _POLICIES:
        places = [number for number, each in enumerate(schedules) if name in each.model_fields_set]
        problems += [
            Problem(
                pointer([number, name]),
                f"is not the same as in schedule {places[0]}: it counts for the whole job",
                "write it once",
            )
            for number in places[1:]
            if getattr(schedules[number], name) != getattr(schedules[places[0]], name)
        ]
    policy = policy_of(schedules)
    if policy.catch_up == "all" and policy.overlap in ("skip", "replace"):
        problems.append(
            Problem(
                "",
                f"has catch_up all and overlap {policy.overlap}, which contradict each other: runs for all times "
                "that were missed are due at once",
                "write overlap queue_all, or another catch_up",
            )
        )
    if problems:
        raise refusal(*problems)
    return schedules


Schedules = Annotated[OneOrMany[Schedule], AfterValidator(_fit_together)]
"""All schedules of a job: one, or a list of those that go by time."""


def policy_of(schedule: Sequence[Schedule]) -> SchedulePolicy:
    """Return the policy of a job's *schedule*: what any of its entries says, else the defaults."""
    stated: dict[str, Any] = {}
    for each in schedule:
        stated |= {name: getattr(each, name) for name in _POLICIES if name in each.model_fields_set}
    return SchedulePolicy(**stated)
