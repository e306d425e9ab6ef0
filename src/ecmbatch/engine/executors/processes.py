"""Executing scans in processes of their own: for processors in Python, which share one lock in threads."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import Future, wait

from ecmbatch.engine.executors.messages import Message
from ecmbatch.engine.executors.worker_process import WorkerProcess
from ecmbatch.engine.profile import Profile
from ecmbatch.engine.scan_run import AttemptSpec
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import WorkerDied
from ecmbatch.project_file import ProjectFile


class Processes:
    """Executes in fresh interpreters that load the project file by themselves, one scan each at a time.

    They stay for the scans that follow: to start one takes a second. A dead one is replaced when the next
    scan is submitted.
    """

    def __init__(
        self, attempt: AttemptSpec, project: ProjectFile, *, slots: int, stop: StopSignal, profile: Profile
    ) -> None:
        assert project.file is not None  # others are refused before a run begins
        self.slots = slots
        self._setup: Message = {
            "project_file": {"path": str(project.file), "digest": project.digest},
            "attempt": attempt.document(),
            "path": sys.path,
            "log_level": logging.getLogger("ecmbatch").getEffectiveLevel(),
        }
        self._environment = project.environment_for_children(os.environ)
        self._redact = project.redact
        self._stop = stop
        self._profile = profile
        self._workers: list[WorkerProcess] = []
        self._futures: list[Future[None]] = []

    def submit(self, scan: int) -> Future[None]:
        """Begin to execute *scan* in a process that is idle, or in a new one."""
        future = self._given(scan)
        self._futures.append(future)
        return future

    def close(self) -> None:
        """Wait for the scans and then for the processes to end: what they have open, publishing may need."""
        try:
            wait(self._futures)
            for worker in self._workers:
                worker.end()
            for worker in self._workers:
                worker.join()
        except BaseException:
            # A second Ctrl-C.
            for worker in self._workers:
                worker.kill()
            raise

    def _given(self, scan: int) -> Future[None]:
        for worker in self._workers:
            future = worker.give(scan)
            if future is not None:
                return future
        try:
            worker = WorkerProcess(
                self._setup, self._environment, stop=self._stop, profile=self._profile, redact=self._redact
            )
        except OSError as error:
            return _failed(
                WorkerDied(f"no worker process can be started: {error.strerror}", hint="use fewer workers")
            )
        self._workers.append(worker)
        return worker.give(scan) or _failed(WorkerDied("a worker process ended when it had just begun"))


def _failed(error: Exception) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error)
    return future
