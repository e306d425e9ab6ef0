"""Processes of our own, seen from both ends: how they are started, and how they settle in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

OF_TERMINALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that go to whole groups of processes; children are started with them blocked."""

_STANDARD_ERROR = 2


def start_child(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a fresh interpreter with *arguments*; return it with the pipes to write to it and to read from it.

    Their other ends, and our pid, are its last arguments. Whatever it prints goes to standard error. Raises
    ``OSError`` where no process can be started.
    """
    its_requests, requests = os.pipe()
    replies, its_replies = os.pipe()
    # From its first instruction on, a Ctrl-C in the terminal is not for the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of our own
            [sys.executable, *arguments, str(its_requests), str(its_replies), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            pass_fds=(its_requests, its_replies),
            env=environment,
        )
    except OSError:
        os.close(requests)
        os.close(replies)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(its_requests)
        os.close(its_replies)
    return process, requests, replies


def settle_in() -> tuple[int, int, int]:
    """Return, in a child, the pipes to read from and to write to, and its parent's pid, whom alone it obeys now."""
    requests, replies, parent = map(int, sys.argv[1:])
    for each in OF_TERMINALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINALS)
    for descriptor in (requests, replies):
        # A process that user code leaves behind must not keep the pipes open.
        os.set_inheritable(descriptor, False)
    return requests, replies, parent
