"""Who executes an attempt, and whether that process is certainly gone.

After ``kill -9`` nobody takes the lease back. Where boot id and pid namespace are ours and no process with
that pid and start time exists, its owner is dead beyond doubt and the lease can be taken at once. In every
other case (another host, another container, a rebooted machine) only the lease's expiry tells.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The identity of a process: pids are reused, (boot, namespace, pid, start) is not."""

    host: str
    pid: int
    started: str
    boot: str
    namespace: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Owner:
        """Return the owner whose JSON form is *document*."""
        return cls(**document)

    @classmethod
    def this_process(cls) -> Owner:
        """Return the identity of the calling process."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            started=_start_of(pid) or "",
            boot=_boot_id(),
            namespace=_pid_namespace(),
        )

    def is_certainly_dead(self) -> bool:
        """Tell whether the process is gone, as far as this process can know; ``False`` when in doubt."""
        if not self.boot or (self.boot, self.namespace) != (_boot_id(), _pid_namespace()):
            return False
        started = _start_of(self.pid)
        if started is None:
            return not _is_hidden(self.pid)
        return started != self.started


def _boot_id() -> str:
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output_of("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")


def _pid_namespace() -> str:
    if sys.platform == "linux":
        return str(Path("/proc/self/ns/pid").readlink())
    return platform.node()


def _start_of(pid: int) -> str | None:
    """Return when a process started, in the kernel's words; ``None`` where it is gone (or only a zombie)."""
    if sys.platform != "linux":
        return _output_of("/bin/ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may itself contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, ticks_since_boot = fields[0], fields[19]
    return None if state in "ZX" else ticks_since_boot


def _is_hidden(pid: int) -> bool:
    """Tell whether a process exists that belongs to somebody else and is not shown to us."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _output_of(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands
    return finished.stdout.strip()
