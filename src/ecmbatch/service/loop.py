"""Doing something again and again in a thread, whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ecmbatch.errors import EcmbatchError
from ecmbatch.service.health import Heartbeat

log = logging.getLogger("ecmbatch")

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0


class Loop:
    """A thread that takes *step* again and again; it returns how many seconds it may be until the next one.

    A step that fails is taken again, after a second at first and half a minute at last. *heartbeat* hears of
    every step.
    """

    def __init__(self, step: Callable[[], float], heartbeat: Heartbeat) -> None:
        self._step = step
        self.heartbeat = heartbeat
        self._name = heartbeat.name
        self._woken = threading.Event()
        self._stopped = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"ecmbatch-{self._name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Take the next step now."""
        self._woken.set()

    def stop(self) -> None:
        """Take no further step."""
        self._stopped = True
        self._woken.set()

    def join(self, seconds: float) -> bool:
        """Wait at most *seconds* for the end of the step at hand; tell whether it ended."""
        if self._thread.ident is not None:
            self._thread.join(max(seconds, 0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped:
            # Whoever wakes it during a step wants another one.
            self._woken.clear()
            self._woken.wait(self._one_step())

    def _one_step(self) -> float:
        try:
            seconds = self._step()
        except Exception as error:
            return self._failed(error)
        self.heartbeat.beat()
        if self._failures:
            self._failures = 0
            log.info("%s: at work again", self._name, extra={"event": f"{self._name}.recovered"})
        return seconds

    def _failed(self, error: Exception) -> float:
        known = isinstance(error, EcmbatchError)
        what = str(error) if known else f"an unexpected {type(error).__name__}"
        self.heartbeat.fail(what)
        seconds = min(_FIRST_WAIT * 2.0 ** min(self._failures, 20), _LONGEST_WAIT)
        self._failures += 1
        log.error(
            "%s: %s; trying again in %.0f s",
            self._name,
            what,
            seconds,
            exc_info=None if known else error,
            extra={"event": f"{self._name}.failing"},
        )
        return seconds
