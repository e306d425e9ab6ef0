"""Promises of the scheduler, broken on purpose one at a time: the tests of that promise notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from ecmbatch.engine.scheduling import firing, scheduler, waiting
from ecmbatch.errors import Fenced
from ecmbatch.ledger import queue, runs
from scheduling import test_events, test_time, test_waiting

Break = Callable[[pytest.MonkeyPatch], None]


def forget_the_cursor(patch: pytest.MonkeyPatch) -> None:
    """Make the runs of a tick, and do not remember that they were made."""
    decide = scheduler.fire_ticks
    patch.setattr(scheduler, "fire_ticks", lambda *given: _without(decide(*given), cursor=None))


def new_keys_for_old_ticks(patch: pytest.MonkeyPatch) -> None:
    """Forget the cursor, and have no key that would refuse the second run of a tick."""
    forget_the_cursor(patch)
    make = firing._Making._run
    serial = iter(range(1_000_000))
    patch.setattr(
        firing._Making,
        "_run",
        lambda making, key, *rest: make(making, f"{key}#{next(serial)}", *rest),
    )


def consume_nothing(patch: pytest.MonkeyPatch) -> None:
    """Start a job by events, and do not remember which."""
    decide = scheduler.fire_events
    patch.setattr(scheduler, "fire_events", lambda *given: _without(decide(*given), consumed=None))
    make = firing._Making._run
    serial = iter(range(1_000_000))
    patch.setattr(
        firing._Making, "_run", lambda making, key, *rest: make(making, f"{key}#{next(serial)}", *rest)
    )


def open_the_gates(patch: pytest.MonkeyPatch) -> None:
    """Start jobs whatever they depend on."""
    patch.setattr(waiting, "unmet_dependencies", lambda *_, **__: [])


def let_lanes_be(patch: pytest.MonkeyPatch) -> None:
    """Let workers claim a run while another of its lane is under way."""
    patch.setattr(queue, "active_attempts", lambda connection: {})


def fire_the_past(patch: pytest.MonkeyPatch) -> None:
    """Resume a job without moving its cursor."""
    patch.setattr("ecmbatch.ledger.jobs.max", lambda before, now: before, raising=False)


def backfills_are_news(patch: pytest.MonkeyPatch) -> None:
    """Tell everybody of the runs of a backfill."""
    tell = runs.add_completion
    patch.setattr(
        runs,
        "add_completion",
        lambda connection, run, status, now: tell(connection, replace(run, live=True), status, now),
    )


def _without(decided: Any, **changes: Any) -> Any:
    return None if decided is None else replace(decided, **changes)


def _every_tick(folder: Path) -> None:
    # Each look would make all of the runs again: few ticks tell as much as many.
    test_time.check_that_every_tick_has_one_run(folder, hours=2)


BROKEN: dict[str, tuple[Break, Callable[[Path], None]]] = {
    "cursor": (forget_the_cursor, _every_tick),
    "key": (new_keys_for_old_ticks, _every_tick),
    "consumption": (consume_nothing, lambda path: test_events.test_every_event_starts_one_run(path, 1)),
    "gates": (
        open_the_gates,
        test_waiting.test_of_jobs_on_the_same_tick_the_downstream_waits_for_the_upstream,
    ),
    "lanes": (
        let_lanes_be,
        lambda path: test_time.test_ticks_while_the_job_still_runs(path, "queue_all", _ALL),
    ),
    "past": (fire_the_past, test_time.test_a_paused_job_does_not_fire_and_does_not_make_up_for_it),
    "backfills": (
        backfills_are_news,
        test_events.test_the_end_of_a_run_is_an_event_and_that_of_a_backfill_is_not,
    ),
}
_ALL = dict.fromkeys(range(1, 7), "success")


@pytest.mark.slow
@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_noticed(promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_promise, scenario = BROKEN[promise]
    break_promise(monkeypatch)
    with pytest.raises((AssertionError, IntegrityError, Fenced)):
        scenario(tmp_path)
