"""Running one process and taking its wall time, processor time and peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process took: seconds on the clock, seconds of processors, peak resident memory in MB (10⁶)."""

    wall: float
    cpu: float
    peak_mb: float


def run(command: Sequence[str], folder: Path, *, ends: int = 0) -> Usage:
    """Run *command* in *folder* and wait for its end, which must be the exit code (or − signal) *ends*.

    A child's peak memory is never less than that of the process that starts it, so this one has to stay small:
    no Arrow and no DuckDB in it.
    """
    log = folder / "output.txt"
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != ends:
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}, not {ends}:\n{log.read_text()[-4000:]}"
        )
    # Linux counts in KiB, macOS in bytes.
    unit = 1024 if os.uname().sysname == "Linux" else 1
    return Usage(wall=wall, cpu=used.ru_utime + used.ru_stime, peak_mb=used.ru_maxrss * unit / 1e6)


def _environment() -> dict[str, str]:
    """Return the present environment, in which a module is compiled once and not in every process."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(_ROOT)}
