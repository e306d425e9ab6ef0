"""What a service measures, in the words of Prometheus.

States are computed when they are asked for, from the ledger: they are right after a restart, and the same
whichever process is asked. No label is a run: there are ever more of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ecmbatch import __version__
from ecmbatch.errors import EcmbatchError, Unreachable
from ecmbatch.service.http_server import Answer

if TYPE_CHECKING:
    from ecmbatch.engine.resources import Resources
    from ecmbatch.ledger.statistics import LedgerStatistics
    from ecmbatch.service.scheduler_loop import Passes
    from ecmbatch.service.slot_pool import SlotPool

log = logging.getLogger("ecmbatch")

_SECONDS_KEPT = 1.0
_SECONDS_TO_WAIT = 5.0


class Metrics(Collector):
    """Collects the figures of one service: those of the ledger of *resources*, and its own."""

    def __init__(
        self,
        resources: Resources,
        *,
        passes: Passes | None = None,
        pool: SlotPool | None = None,
    ) -> None:
        self._figures = _Kept(lambda: _ask(resources))
        self._passes = passes
        self._pool = pool
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> Answer:
        """Return the figures as a scrape gets them."""
        return Answer(content_type=CONTENT_TYPE_LATEST, body=generate_latest(self._registry))

    def describe(self) -> list[Metric]:
        """Name nothing in advance: that would ask the ledger before anybody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all figures; those of the ledger only where it can be reached."""
        yield _labelled("ecmbatch_info", "The version of ecmbatch.", ["version"], {(__version__,): 1})
        if self._passes is not None:
            yield CounterMetricFamily(
                "ecmbatch_scheduler_passes", "Passes of this scheduler.", value=self._passes.passed
            )
            yield CounterMetricFamily(
                "ecmbatch_scheduler_failed_passes",
                "Passes of this scheduler that failed, because the ledger could not be reached, say.",
                value=self._passes.failed,
            )
        if self._pool is not None:
            yield _gauge(
                "ecmbatch_slots", "Runs that this worker executes at once, at most.", self._pool.size
            )
            yield _gauge("ecmbatch_slots_busy", "Slots of this worker that are at work.", self._pool.busy)
        try:
            figures = self._figures.get()
        except EcmbatchError as error:
            text = f"there are no figures of the ledger: {error.message}"
            log.warning("%s", text, extra={"event": "metrics.failed"})
            yield _gauge("ecmbatch_ledger_up", "Whether the ledger can be asked.", 0)
            return
        yield _gauge("ecmbatch_ledger_up", "Whether the ledger can be asked.", 1)
        yield from _of_ledger(figures.statistics)
        yield _by_job(
            "ecmbatch_backfill_intervals_remaining",
            "Intervals that backfills of the job have still to load.",
            figures.backfill_remaining,
        )


def _of_ledger(found: LedgerStatistics) -> Iterator[Metric]:
    by_status = ["job", "status"]
    yield _labelled("ecmbatch_runs", "Runs that have not ended for good.", by_status, found.unfinished)
    ended = CounterMetricFamily("ecmbatch_runs_ended", "Runs that ended for good.", labels=by_status)
    for labels, count in sorted(found.ended.items()):
        ended.add_metric(labels, count)
    yield ended
    yield _by_job(
        "ecmbatch_oldest_waiting_seconds",
        "Age of the oldest run that waits for its dependencies.",
        _ages(found.waiting_since, found.at),
    )
    yield _by_job(
        "ecmbatch_oldest_queued_seconds",
        "Age of the oldest run that waits for a worker.",
        _ages(found.queued_since, found.at),
    )
    yield _by_job(
        "ecmbatch_watermark_lag_seconds",
        "How long ago the instant was up to which the job is loaded; of its stream without parameters.",
        _ages(found.window_ends, found.at),
    )
    yield _by_job(
        "ecmbatch_last_success_timestamp_seconds",
        "When a live run of the job last succeeded.",
        {job: at.timestamp() for job, at in found.last_success.items()},
    )
    yield _by_job("ecmbatch_job_late", "Runs of the job that should have started by now.", found.late)
    yield _gauge(
        "ecmbatch_alerts_undelivered", "Alerts that nobody was told of yet.", found.undelivered_alerts
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What the ledger was asked for."""

    statistics: LedgerStatistics
    backfill_remaining: Mapping[str, int]


def _ask(resources: Resources) -> _Figures:
    from ecmbatch.engine.launching import DEFAULT_STREAM

    return _Figures(
        statistics=resources.ledger.statistics.now(DEFAULT_STREAM),
        backfill_remaining=_backfill_remaining(resources),
    )


def _backfill_remaining(resources: Resources) -> dict[str, int]:
    backfills = resources.ledger.backfills
    remaining: Counter[str] = Counter()
    for backfill_id in backfills.unsettled():
        from ecmbatch.engine.scheduling.backfills import Work, counts

        backfill = backfills.get(backfill_id)
        found = counts(Work(backfill, resources).intervals, backfills.state(backfill_id))
        remaining[backfill.job_id] += (
            sum(found.values()) - found["loaded"] - found["skipped"] - found["failed"]
        )
    return remaining


class _Kept:
    """Asks once a second at most, and one at a time: what scrapes cost does not depend on who scrapes."""

    def __init__(self, ask: Callable[[], _Figures]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asked = 0.0
        self._answer: _Figures | None = None

    def get(self) -> _Figures:
        if not self._lock.acquire(timeout=_SECONDS_TO_WAIT):
            raise Unreachable("the ledger does not answer")
        try:
            if self._answer is None or time.monotonic() > self._asked + _SECONDS_KEPT:
                self._answer = self._ask()
                self._asked = time.monotonic()
            return self._answer
        finally:
            self._lock.release()


def _gauge(name: str, means: str, value: float) -> Metric:
    return GaugeMetricFamily(name, means, value=value)


def _by_job(name: str, means: str, values: Mapping[str, float]) -> Metric:
    return _labelled(name, means, ["job"], {(job,): value for job, value in values.items()})


def _labelled(name: str, means: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, means, labels=labels)
    for each, value in sorted(values.items()):
        family.add_metric(each, value)
    return family


def _ages(since: Mapping[str, datetime], now: datetime) -> dict[str, float]:
    return {job: max((now - at).total_seconds(), 0) for job, at in since.items()}
