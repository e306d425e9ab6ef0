"""``python host.py NAME LEASE_SECONDS STOP_AT ARGUMENT…``: ecmbatch as if on a host of that name.

The process stops itself (SIGSTOP) when it first passes the crash point STOP_AT; ``-`` is none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from ecmbatch.cli.main import main
from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.ledger import owner
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.stores import postgres_statements

SECONDS_BETWEEN_TRIES = 1


def be(name: str, lease: timedelta, stop_at: str) -> None:
    """Give this process the identity of another host, and leases and sessions whose end tests can wait for."""
    owner._boot_id = lambda: f"boot of {name}"
    owner.socket.gethostname = lambda: name
    assert Ledger.__init__.__kwdefaults__ is not None
    Ledger.__init__.__kwdefaults__["lease"] = lease
    set_up = postgres_statements.SET_UP_SESSION
    assert "'60s'" in set_up
    postgres_statements.SET_UP_SESSION = set_up.replace("'60s'", "'10s'")

    def stop(point: CrashPoint) -> None:
        if point == stop_at:
            set_hook(None)
            os.kill(os.getpid(), signal.SIGSTOP)

    set_hook(stop)


def start_on_host(
    name: str, folder: Path, *arguments: str, lease: float = 4, stop_at: str = "-"
) -> subprocess.Popen[str]:
    """Run ``ecmbatch ARGUMENTS`` in *folder* as if on the host *name*."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), name, str(lease), stop_at, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Return when the process has stopped itself."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        assert process.stderr is not None
        raise AssertionError(f"the process ended and did not stop: {process.stderr.read()}")


def take_over(name: str, folder: Path, *arguments: str, lease: float = 4) -> subprocess.CompletedProcess[str]:
    """Give the command until the lease of another host has run out and nothing it left is in the way."""
    deadline = time.monotonic() + 120
    while True:
        process = start_on_host(name, folder, *arguments, lease=lease)
        out, err = process.communicate()
        if process.returncode not in (6, 7) or time.monotonic() > deadline:
            return subprocess.CompletedProcess(arguments, process.returncode, out, err)
        time.sleep(SECONDS_BETWEEN_TRIES)


if __name__ == "__main__":
    be(sys.argv[1], timedelta(seconds=float(sys.argv[2])), sys.argv[3])
    sys.exit(main(sys.argv[4:]))
