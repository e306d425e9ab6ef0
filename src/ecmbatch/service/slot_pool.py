"""The worker's slots: processes that are started when there is work, and sent home when there is none."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from ecmbatch.engine.executors.messages import Message
from ecmbatch.service.children import how_it_ended
from ecmbatch.service.slot_process import SlotProcess

if TYPE_CHECKING:
    from ecmbatch.project_file import ProjectFile

log = logging.getLogger("ecmbatch")

_INTERVAL = 1.0
_IDLE_SECONDS = 30.0
_LONGEST_WAIT = 30.0


class SlotPool:
    """Keeps at most *slots* processes at work while *claimable* says that there are runs to claim.

    *on_news*, called from other threads, asks for the next :meth:`step`; *on_run_ended* tells that a run has ended.
    """

    def __init__(
        self,
        project: ProjectFile,
        *,
        slots: int,
        grace: timedelta,
        claimable: Callable[[], int],
        on_news: Callable[[], None],
        on_run_ended: Callable[[], None],
    ) -> None:
        assert project.file is not None  # a service is started by the command line
        self.size = slots
        self._setup: Message = {
            "project_file": str(project.file),
            "grace": grace.total_seconds(),
            "path": sys.path,
            "log_level": log.getEffectiveLevel(),
        }
        self._environment = project.environment_for_children(os.environ)
        self._claimable = claimable
        self._on_news = on_news
        self._on_run_ended = on_run_ended
        self._lock = threading.Lock()
        self._closed = False
        self._slots: list[SlotProcess] = []
        self._waiting = 0
        self._fruitless = 0
        self._not_before = 0.0

    # A look at the queue may take long; that one takes three times as long says that something is wrong.
    interval = 5 * _INTERVAL

    @property
    def busy(self) -> int:
        """How many slots execute runs."""
        return sum(slot.is_busy for slot in tuple(self._slots))

    def step(self) -> float:
        """Look after the slots once; return how many seconds it may be until the next time."""
        waiting = self._claimable()
        with self._lock:
            if not self._closed:
                self._look_after(waiting)
        return _INTERVAL

    def release(self, deadline: float) -> Sequence[int]:
        """Let all slots put their runs back and end, until *deadline* of the monotonic clock.

        Then they are killed; return the process ids of those.
        """
        with self._lock:
            self._closed = True
        for slot in self._slots:
            slot.release()
        killed = []
        for slot in self._slots:
            if not slot.join(deadline - time.monotonic()):
                log.error(
                    "slot process %d did not release its run in time; it is killed, and the run goes on from its "
                    "checkpoints with the next worker",
                    slot.pid,
                    extra={"event": "slot.killed", "slot": slot.pid, **(slot.run or {})},
                )
                slot.kill()
                killed.append(slot.pid)
            slot.close()
        self._slots = []
        return killed

    def _look_after(self, waiting: int) -> None:
        self._bury()
        self._count_news()
        if waiting != self._waiting:
            # Something has changed: what was in vain before need not be now.
            self._waiting, self._not_before = waiting, 0.0
        if waiting and time.monotonic() >= self._not_before:
            self._put_to_work(waiting)
        self._send_home()

    def _bury(self) -> None:
        for slot in tuple(self._slots):
            status = slot.exit_status()
            if status is None:
                continue
            self._slots.remove(slot)
            slot.close()
            if slot.may_leave and status == 0:
                log.debug("slot process %d ended", slot.pid, extra={"event": "slot.ended", "slot": slot.pid})
                continue
            self._in_vain()
            run = slot.run
            rest = f"; run {run['run_id']} goes on from its checkpoints" if run else ""
            log.error(
                "slot process %d %s%s",
                slot.pid,
                how_it_ended(status),
                rest,
                extra={"event": "slot.died", "slot": slot.pid, **(run or {})},
            )

    def _count_news(self) -> None:
        for slot in self._slots:
            for executed in slot.news():
                if executed:
                    self._fruitless, self._not_before = 0, 0.0
                else:
                    self._in_vain()

    def _in_vain(self) -> None:
        """Wait with the next attempt to work, longer each time: its reason will not go away by itself."""
        self._not_before = time.monotonic() + min(2.0 ** min(self._fruitless, 20), _LONGEST_WAIT)
        self._fruitless += 1

    def _put_to_work(self, waiting: int) -> None:
        # A slot that is starting will claim one of them.
        wanted = waiting - sum(slot.is_starting for slot in self._slots)
        idle = [slot for slot in self._slots if not slot.is_busy and not slot.may_leave]
        for slot in idle[: max(wanted, 0)]:
            slot.give_work()
        for _ in range(min(wanted - len(idle), self.size - len(self._slots))):
            self._start()

    def _start(self) -> None:
        try:
            slot = SlotProcess(
                self._setup, self._environment, on_news=self._on_news, on_run_ended=self._on_run_ended
            )
        except OSError as error:
            self._in_vain()
            log.error(
                "no slot process can be started: %s", error.strerror, extra={"event": "slot.not_started"}
            )
            return
        self._slots.append(slot)
        log.info("slot process %d started", slot.pid, extra={"event": "slot.started", "slot": slot.pid})

    def _send_home(self) -> None:
        for slot in self._slots:
            if slot.idle_seconds() > _IDLE_SECONDS and not slot.may_leave:
                slot.end()
