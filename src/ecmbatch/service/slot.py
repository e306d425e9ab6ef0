"""A slot: a process that executes runs, one after the other, for the service that started it.

======================  =================================================================================
to the slot             means
======================  =================================================================================
``{"setup": …}``        the first line: the project file, how much time there is to release a run
``{"work": true}``      execute runs until there are none to claim
``{"release": true}``   checkpoint, put the run back for the next worker, and end
``{"end": true}``       end when there is nothing at hand
(the pipe ends)         the service is gone: release the run and end
======================  =================================================================================

======================  =================================================================================
from the slot           means
======================  =================================================================================
``{"ready": true}``     it has loaded everything and begins to work
``{"log": …}``          a line of the log: ``level``, ``text``, ``fields``
``{"ended": …}``        a run has ended, or was released: its ``run_id``, ``job_id`` and ``status``
``{"idle": 2}``         there are no more runs; it has executed so many
======================  =================================================================================

It obeys its service alone: a Ctrl-C or a shutdown goes to whole groups of processes, and the service asks for a
release. No line holds a secret: the slot loads the project file by itself, anew for every run.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.executors.child import settle_in
from ecmbatch.engine.executors.messages import Message, Outbox
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError, RunReleased
from ecmbatch.service.children import log_to_service

if TYPE_CHECKING:
    from ecmbatch.ledger.records import RunRecord
    from ecmbatch.project_file import ProjectFile

_FAILED = 1
_HUNG = 2

log = logging.getLogger("ecmbatch")


def main() -> int:
    """Work for the service at the other ends of the pipes that the arguments name; return what to exit with."""
    requests, replies, _ = settle_in()
    return _Slot(_Inbox(requests), Outbox(replies)).work()


class _Inbox:
    """What the service asks for. A thread reads it, so that a release is heard in the middle of a run."""

    def __init__(self, requests: int) -> None:
        self.stop = StopSignal()
        self.orders: SimpleQueue[bool] = SimpleQueue()
        """Whether to work once more, or to end."""
        self._setup: SimpleQueue[Message | None] = SimpleQueue()
        self._grace = 0.0
        threading.Thread(target=self._read, args=(requests,), name="ecmbatch-service", daemon=True).start()

    def setup(self) -> Message | None:
        """Wait for what comes first; ``None`` where nothing comes."""
        return self._setup.get()

    def _read(self, requests: int) -> None:
        with os.fdopen(requests, "rb") as lines:
            for line in lines:
                self._take(json.loads(line))
        self._release("the service that this worker belongs to is gone")

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"setup": setup}:
                self._grace = setup["grace"]
                self._setup.put(setup)
            case {"work": _}:
                self.orders.put(True)
            case {"release": _}:
                self._release("the service shuts down")
            case {"end": _}:
                self.orders.put(False)

    def _release(self, why: str) -> None:
        self.stop.set(RunReleased(f"released: {why}"))
        self.orders.put(False)
        self._setup.put(None)
        # Code that hangs would keep the lease of its run for ever.
        end = threading.Timer(self._grace, os._exit, [_HUNG])
        end.daemon = True
        end.start()


class _Slot:
    """Executes runs, each with resources of its own: whatever a run opened is closed before the next one."""

    def __init__(self, inbox: _Inbox, replies: Outbox) -> None:
        self._inbox = inbox
        self._replies = replies
        self._project: ProjectFile | None = None

    def work(self) -> int:
        """Execute runs when asked to, until it is to end; return what to exit with."""
        setup = self._inbox.setup()
        if setup is None:
            return 0
        # Plug-ins must be found where the service finds them.
        sys.path[:] = setup["path"]
        log_to_service(self._replies, self.redact, setup["log_level"])
        path = Path(setup["project_file"])
        try:
            import ecmbatch.engine.scheduling.worker  # noqa: F401 - it takes a second, which is no run's

            self._replies.send({"ready": True})
            while self._inbox.orders.get() and not self._inbox.stop.is_set():
                self._replies.send({"idle": self._execute_runs(path)})
        except EcmbatchError as error:
            hint = f" ({error.hint})" if error.hint else ""
            log.error("no run can be executed: %s%s", error, hint, extra={"event": "slot.failed"})
            return _FAILED
        except Exception as error:
            log.exception("an unexpected %s", type(error).__name__, extra={"event": "slot.failed"})
            return _FAILED
        return 0

    def redact(self, text: str) -> str:
        """Return *text* without the project's secrets."""
        return text if self._project is None else self._project.redact(text)

    def _execute_runs(self, path: Path) -> int:
        executed = 0
        while not self._inbox.stop.is_set() and (run := self._execute_next(path)) is not None:
            executed += 1
            self._replies.send(
                {"ended": {"run_id": run.run_id, "job_id": run.job_id, "status": str(run.status)}}
            )
        return executed

    def _execute_next(self, path: Path) -> RunRecord | None:
        from ecmbatch.engine.resources import Resources
        from ecmbatch.engine.scheduling.worker import execute_next
        from ecmbatch.project_file import load_project_file

        self._project = load_project_file(path, os.environ)
        with Resources(self._project) as resources:
            return execute_next(resources, workers=self._project.settings.run.workers, stop=self._inbox.stop)


if __name__ == "__main__":
    sys.exit(main())
