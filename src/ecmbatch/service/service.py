"""A service: a scheduler, workers or both, and what they tell about themselves, until it is asked to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from ecmbatch.engine.resources import Resources
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import Unreachable
from ecmbatch.service.health import Health, Heartbeat
from ecmbatch.service.http_server import Answer, HttpServer
from ecmbatch.service.loop import Loop
from ecmbatch.service.scheduler_lock import only_scheduler
from ecmbatch.service.scheduler_loop import Passes
from ecmbatch.service.slot_pool import SlotPool

if TYPE_CHECKING:
    from ecmbatch.project_file import ProjectFile

log = logging.getLogger("ecmbatch")

_SECONDS_BETWEEN_LOOKS = 0.5
_LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What a service does. ``slots`` is how many runs it executes at once, ``None`` for no worker.

    ``grace`` is how long it may take to stop; ``address`` is where it answers over HTTP.
    """

    schedules: bool
    slots: int | None
    grace: timedelta
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnd:
    """How a service ended: ``killed`` are the process ids of slots that did not end in time."""

    killed: Sequence[int]

    @property
    def clean(self) -> bool:
        """Whether everything was put in order."""
        return not self.killed


class Service:
    """The processes of one project that stay.

    :meth:`run` raises :class:`~ecmbatch.errors.ConflictError` where another scheduler has the ledger and
    :class:`~ecmbatch.errors.UsageError` where it cannot listen. A ledger that cannot be reached is waited for.
    """

    def __init__(self, project: ProjectFile, options: ServiceOptions) -> None:
        self._project = project
        self._options = options
        self._resources = Resources(project)
        self._passes = Passes(self._resources, then=self._look_at_queue) if options.schedules else None
        self._pool = self._new_pool(options.slots) if options.slots is not None else None
        self._scheduler, self._worker = _loop("scheduler", self._passes), _loop("worker", self._pool)
        self._loops = [loop for loop in (self._scheduler, self._worker) if loop is not None]
        self._health = Health([loop.heartbeat for loop in self._loops])
        self._told: Sequence[str] | None = None

    def run(self, stop: StopSignal) -> ServiceEnd:
        """Work until *stop* is set; return how it ended."""
        with ExitStack() as opened:
            server = self._listen()
            if server is not None:
                opened.callback(server.close)
            if self._options.schedules:
                opened.enter_context(only_scheduler(self._project.ledger))
            _tell("service.started", f"{self._words()}{f'; {server.url}' if server else ''}")
            if server is not None:
                server.start()
            self._open_ledger(stop)
            for loop in self._loops if not stop.is_set() else ():
                loop.start()
            while not stop.wait(_SECONDS_BETWEEN_LOOKS):
                self._tell_health()
            return self._shut_down()

    # -- beginning ---------------------------------------------------------------------------------

    def _new_pool(self, slots: int) -> SlotPool:
        return SlotPool(
            self._project,
            slots=slots,
            grace=self._options.grace,
            claimable=lambda: self._resources.ledger.queue.claimable(),
            on_news=self._look_at_queue,
            on_run_ended=self._look_at_schedule,
        )

    def _listen(self) -> HttpServer | None:
        if self._options.address is None:
            return None
        from ecmbatch.service.metrics import Metrics

        host, port = self._options.address
        metrics = Metrics(self._resources, passes=self._passes, pool=self._pool)
        pages = {"/healthz": _alive, "/readyz": self._readiness, "/metrics": metrics.page}
        return HttpServer(host, port, pages)

    def _words(self) -> str:
        parts = ["scheduler"] if self._options.schedules else []
        if self._options.slots is not None:
            parts.append(f"worker of {self._options.slots} runs at once")
        return f"{' and '.join(parts)} of {self._project.root}, ledger {self._project.ledger}"

    def _open_ledger(self, stop: StopSignal) -> None:
        """Wait until the ledger can be opened; one that never can be, because it is none, is an error."""
        seconds = 1.0
        while not stop.is_set():
            try:
                self._resources.ledger.clock()
                return
            except Unreachable as error:
                for loop in self._loops:
                    loop.heartbeat.fail(error.message)
                text = f"{error.message}; trying again in {seconds:.0f} s"
                log.error("%s", text, extra={"event": "ledger.unreachable"})
            stop.wait(seconds)
            seconds = min(2 * seconds, _LONGEST_WAIT)

    # -- being at work -----------------------------------------------------------------------------

    def _look_at_queue(self) -> None:
        if self._worker is not None:
            self._worker.wake()

    def _look_at_schedule(self) -> None:
        if self._scheduler is not None:
            self._scheduler.wake()

    def _readiness(self) -> Answer:
        problems = [self._project.redact(problem) for problem in self._health.problems]
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return Answer.of({"ready": not problems, "problems": problems}, status)

    def _tell_health(self) -> None:
        problems = self._health.problems
        if not problems and self._told != problems:
            _tell("service.ready", "ready")
        elif problems and self._told == []:
            log.error("not ready: %s", "; ".join(problems), extra={"event": "service.unready"})
        self._told = problems

    # -- the end -----------------------------------------------------------------------------------

    def _shut_down(self) -> ServiceEnd:
        """Claim nothing more, let the slots release their runs, and wait for the pass at hand."""
        deadline = time.monotonic() + self._options.grace.total_seconds()
        for loop in self._loops:
            loop.stop()
        killed = self._pool.release(deadline) if self._pool is not None else []
        # A ledger that does not answer is not waited for for ever; what a pass began is done or undone by it.
        if all(loop.join(deadline - time.monotonic()) for loop in self._loops):
            self._resources.close()
        _tell("service.stopped", "stopped")
        return ServiceEnd(killed=killed)


def _loop(name: str, steps: Passes | SlotPool | None) -> Loop | None:
    return None if steps is None else Loop(steps.step, Heartbeat(name, interval=steps.interval))


def _alive() -> Answer:
    return Answer.of({"status": "ok"})


def _tell(event: str, text: str) -> None:
    log.info("%s", text, extra={"event": event})
