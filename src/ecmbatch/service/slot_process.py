"""One slot as its service sees it: started, given work, told to release its run, and mourned."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ecmbatch.engine.executors.child import start_child
from ecmbatch.engine.executors.messages import Message, Outbox

log = logging.getLogger("ecmbatch")

_COMMAND = ("-P", "-m", "ecmbatch.service.slot")
_SECONDS_FOR_LAST_WORDS = 1


class SlotProcess:
    """A process that executes runs. A thread here listens to it.

    It calls *on_news* when there is something to look at, and *on_run_ended* when a run has ended. Raises
    ``OSError`` where no process can be started.
    """

    def __init__(
        self,
        setup: Message,
        environment: Mapping[str, str],
        *,
        on_news: Callable[[], None],
        on_run_ended: Callable[[], None],
    ) -> None:
        self._on_news = on_news
        self._on_run_ended = on_run_ended
        self._lock = threading.Lock()
        self._ready = False
        self._busy = True
        self._leaving = False
        self._idle_since = 0.0
        self._run: Mapping[str, str] | None = None
        self._news: list[int] = []
        self._process, requests, replies = start_child(_COMMAND, environment)
        self._requests = Outbox(requests)
        self._listener = threading.Thread(
            target=self._listen, args=(replies,), name=f"ecmbatch-slot-{self.pid}", daemon=True
        )
        self._listener.start()
        self._requests.send({"setup": setup})
        self._requests.send({"work": True})

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_starting(self) -> bool:
        """Whether it has not begun to work yet."""
        with self._lock:
            return not self._ready

    @property
    def is_busy(self) -> bool:
        """Whether it works, or looks for work."""
        with self._lock:
            return self._busy

    @property
    def run(self) -> Mapping[str, str] | None:
        """The ``run_id`` and ``job_id`` of the run at hand."""
        with self._lock:
            return self._run

    @property
    def may_leave(self) -> bool:
        """Whether it was asked to end."""
        return self._leaving

    def idle_seconds(self) -> float:
        """Return for how long it has had nothing to do."""
        with self._lock:
            return 0.0 if self._busy else time.monotonic() - self._idle_since

    def news(self) -> list[int]:
        """Return, once, what it came back with: how many runs it had executed each time it ran out of work."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def exit_status(self) -> int | None:
        """Return what the process ended with, ``None`` while it is there."""
        status = self._process.poll()
        if status is not None:
            # What it said last is still on its way.
            self._listener.join(_SECONDS_FOR_LAST_WORDS)
        return status

    def give_work(self) -> None:
        """Let it execute runs until there are no more."""
        with self._lock:
            self._busy = True
        self._requests.send({"work": True})

    def release(self) -> None:
        """Ask it to put its run back for the next worker, and to end."""
        self._leaving = True
        self._requests.send({"release": True})

    def end(self) -> None:
        """Ask it to end when it has nothing at hand."""
        self._leaving = True
        self._requests.send({"end": True})

    def join(self, seconds: float) -> bool:
        """Wait at most *seconds* for its end; tell whether it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(seconds, 0))
        return self.exit_status() is not None

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the pipe to it, after its end."""
        self._requests.close()

    def _listen(self, replies: int) -> None:
        with os.fdopen(replies, "rb") as lines:
            for line in lines:
                # A process that is killed may leave half a line.
                with suppress(ValueError):
                    self._take(json.loads(line))
        self._on_news()

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"log": {"level": level, "text": text, "fields": fields}}:
                self._tell(level, text, fields)
            case {"ready": _}:
                with self._lock:
                    self._ready = True
            case {"ended": _}:
                with self._lock:
                    self._run = None
                self._on_run_ended()
            case {"idle": executed}:
                with self._lock:
                    self._busy, self._idle_since = False, time.monotonic()
                    self._news.append(executed)
                self._on_news()

    def _tell(self, level: int, text: str, fields: dict[str, Any]) -> None:
        if fields.get("event") == "run.started":
            with self._lock:
                self._run = {name: fields[name] for name in ("run_id", "job_id")}
        # What is said in the middle of a run is about that run.
        log.log(level, "%s", text, extra={**(self.run or {}), **fields})
