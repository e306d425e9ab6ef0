"""When a job runs (protocol: Scheduling Protocol): cron, interval, event or manual.

Only the shape is decided here. Backfill, the protocol's fourth kind, is a command: its ranges are given when
it is asked for, not in the job.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from ecmbatch.errors import Problem
from ecmbatch.protocol.document import OneOrMany, Section, refusal
from ecmbatch.protocol.duration import Duration
from ecmbatch.protocol.names import EventName, JobId

RunOutcome = Literal["success", "failed", "finished"]
"""What is asked of another job's run; *finished* is success or failure."""

CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def check_cron(text: str) -> str:
    """Return *text* if it is a cron expression of five fields, or a name such as ``@daily``, that ever fires.

    Raises ``ValueError`` saying what is wrong.
    """
    # Imported here: most jobs are loaded many times more often than their cron expressions change.
    from cronsim import CronSim, CronSimError

    if text.startswith("@"):
        if text not in CRON_NAMES:
            raise ValueError(f"must be one of {', '.join(CRON_NAMES)}, or a cron expression of five fields")
        return text
    if len(text) > 200 or not text.isascii() or len(text.split()) != 5:
        raise ValueError("must be a cron expression of five fields: minute, hour, day, month, weekday")
    try:
        next(CronSim(text, datetime(2000, 1, 1)))
    except CronSimError as error:
        raise ValueError(f"is not a cron expression: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except StopIteration:
        raise ValueError("is a cron expression that never fires") from None
    except (ValueError, AssertionError, OverflowError):
        raise ValueError("is not a cron expression that can be read") from None
    return text


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


def _at_least_a_minute(interval: timedelta) -> timedelta:
    if interval < timedelta(minutes=1):
        raise ValueError("must be at least 1 minute")
    return interval


class CronSchedule(Section):
    """Periodic execution by the calendar."""

    type: Literal["cron"] = "cron"
    cron: Annotated[str, AfterValidator(check_cron)] = Field(
        description="Minute, hour, day, month and weekday, or a name such as @daily."
    )
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="UTC", description="IANA name of the time zone the expression is read in."
    )


class IntervalSchedule(Section):
    """Periodic execution by elapsed time."""

    type: Literal["every"] = "every"
    every: Annotated[Duration, AfterValidator(_at_least_a_minute)]


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


class EventSchedule(Section):
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
                "use ecmbatch run JOB --window-start … --window-end …",
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
