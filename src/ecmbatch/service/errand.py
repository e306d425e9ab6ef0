"""An errand: a process that does one thing for its scheduler which imports plug-ins and users' modules, and ends.

======================  =================================================================================
to the errand           means
======================  =================================================================================
``{"setup": …}``        the first line: the project file
``{"check": […]}``      look at these jobs, each by itself
``{"tidy": true}``      remove what ``[retention]`` lets go
(the pipe ends)         the service is gone: end at once
======================  =================================================================================

======================  =================================================================================
from the errand         means
======================  =================================================================================
``{"log": …}``          a line of the log: ``level``, ``text``, ``fields``
``{"checked": […]}``    what is wrong with the next of the jobs: a list of problems
======================  =================================================================================

No line holds a secret: the errand loads the project file by itself.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ecmbatch.engine.executors.child import settle_in
from ecmbatch.engine.executors.messages import Message, Outbox
from ecmbatch.errors import EcmbatchError, Problem
from ecmbatch.service.children import log_to_service

if TYPE_CHECKING:
    from ecmbatch.engine.resources import Resources

_FAILED = 1

log = logging.getLogger("ecmbatch")


def main() -> int:
    """Run the errand that comes over the first of the pipes that the arguments name; return what to exit with."""
    requests, replies, _ = settle_in()
    lines = os.fdopen(requests, "rb")
    setup, errand = lines.readline(), lines.readline()
    if not errand:
        return _FAILED
    threading.Thread(target=_end_with, args=(lines,), name="ecmbatch-service", daemon=True).start()
    return _run(json.loads(setup)["setup"], json.loads(errand), Outbox(replies))


def _end_with(service: IO[bytes]) -> None:
    service.read()
    os._exit(_FAILED)


def _run(setup: Message, errand: dict[str, Any], replies: Outbox) -> int:
    # Plug-ins must be found where the service finds them.
    sys.path[:] = setup["path"]
    from ecmbatch.engine.resources import Resources
    from ecmbatch.project_file import load_project_file

    log_to_service(replies, str, setup["log_level"])
    try:
        project = load_project_file(Path(setup["project_file"]), os.environ)
        log_to_service(replies, project.redact, setup["log_level"])
        with Resources(project) as resources:
            match errand:
                case {"check": documents}:
                    _check(documents, resources, replies)
                case {"tidy": _}:
                    from ecmbatch.engine.scheduling.upkeep import tidy_up

                    tidy_up(resources)
    except EcmbatchError as error:
        log.error("%s", error, extra={"event": "scheduler.trouble"})
        return _FAILED
    return 0


def _check(documents: list[Any], resources: Resources, replies: Outbox) -> None:
    from ecmbatch.engine.job_check import name_problems
    from ecmbatch.protocol.job import JobDefinition

    for document in documents:
        job = JobDefinition.from_json(json.dumps(document))
        try:
            problems = name_problems(job, resources)
        except Exception as error:
            # A plug-in may raise anything; it must not keep the other jobs from being checked.
            kind = type(error).__name__
            log.exception("job %s: an unexpected %s", job.job_id, kind, extra={"event": "scheduler.trouble"})
            problems = [Problem("", f"to check it raised an unexpected {kind}")]
        replies.send({"checked": [asdict(problem) for problem in problems]})


if __name__ == "__main__":
    sys.exit(main())
