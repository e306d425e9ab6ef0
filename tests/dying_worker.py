"""A worker process that dies by SIGKILL at a crash point: the first of its kind, or every one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.engine.executors import worker

ALWAYS = "always"


def command(point: CrashPoint, *, occurrence: int = 1, once: Path | None = None) -> tuple[str, ...]:
    """Return what a fresh interpreter is started with.

    Every worker dies when it passes *point* for the *occurrence*-th time; with *once*, a file that is made
    then, only the first that gets there.
    """
    return ("-P", __file__, point, str(occurrence), ALWAYS if once is None else str(once))


def main() -> None:
    point, occurrence, once, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    left = int(occurrence)

    def die(name: CrashPoint) -> None:
        nonlocal left
        if name != point:
            return
        left -= 1
        if left == 0 and (once == ALWAYS or _is_first(once)):
            os.kill(os.getpid(), signal.SIGKILL)

    set_hook(die)
    worker.main()


def _is_first(marker: str) -> bool:
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main()
