"""``python -m benchmarks.serve_idle``: what ``ecmbatch serve`` takes while there is nothing to do.

It serves a project of some jobs that are due once a year, with a ledger in SQLite, and adds up all processes of
the service: the processor time of a span, and the memory at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the processes of a service took together: processor seconds so far, memory in MB (10⁶) now."""

    processes: int
    cpu: float
    resident: float
    proportional: float
    """Resident memory, pages that several processes share counted once."""


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="the span that is measured; default: 60")
    parser.add_argument("--jobs", type=int, default=5, help="how many jobs the project has; default: 5")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecmbatch-serve-") as folder:
        _make_project(Path(folder), arguments.jobs)
        # The first start compiles modules and makes the ledger, and looks at jobs that it has never seen.
        first = _measure(Path(folder), 0)
        found = _measure(Path(folder), arguments.seconds)
    print(
        json.dumps({"jobs": arguments.jobs, "first_ready_seconds": first["ready_seconds"], **found}, indent=1)
    )


def _measure(folder: Path, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    service = subprocess.Popen(
        [sys.executable, "-m", "ecmbatch", "serve", "--port", "0", "--log-format", "json"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert service.stderr is not None
        for line in service.stderr:
            if json.loads(line).get("event") == "service.ready":
                break
        ready = time.monotonic() - began
        # What it does once, such as the hourly upkeep, is not idleness.
        time.sleep(min(seconds, 10))
        before, at = _taken(service.pid), time.monotonic()
        time.sleep(seconds)
        after, span = _taken(service.pid), time.monotonic() - at
    finally:
        service.send_signal(signal.SIGTERM)
        service.communicate()
    return {
        "ready_seconds": round(ready, 2),
        "processes": after.processes,
        "percent_of_a_core": round(100 * (after.cpu - before.cpu) / span, 2) if seconds else None,
        "resident_mb": round(after.resident, 1),
        "proportional_mb": round(after.proportional, 1),
        "load": os.getloadavg()[0],
    }


def _taken(root: int) -> Taken:
    family = [root]
    for pid in family:
        for tasks in Path(f"/proc/{pid}/task").iterdir():
            family += map(int, (tasks / "children").read_text().split())
    cpu, resident, proportional = 0.0, 0.0, 0.0
    for pid in family:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / _TICKS
        kilobytes = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        )
        resident += int(kilobytes["Rss"].split()[0]) * 1_024 / 1e6
        proportional += int(kilobytes["Pss"].split()[0]) * 1_024 / 1e6
    return Taken(processes=len(family), cpu=cpu, resident=resident, proportional=proportional)


def _make_project(folder: Path, jobs: int) -> None:
    (folder / "jobs").mkdir()
    (folder / "ecmbatch.toml").write_text(
        '[connectors.warehouse]\ntype = "duckdb"\npath = "warehouse.duckdb"\n'
    )
    with duckdb.connect(folder / "warehouse.duckdb") as connection:
        connection.execute("CREATE TABLE people AS SELECT range AS id FROM range(10)")
    for number in range(jobs):
        job = {
            "job_id": f"people-{number}",
            "source": {"connector": "warehouse", "table": "people"},
            "sink": {"store": "context_store", "mode": "upsert", "key": ["id"], "table": f"people_{number}"},
            "schedule": "0 0 1 1 *",
        }
        (folder / "jobs" / f"people-{number}.json").write_text(json.dumps(job))


if __name__ == "__main__":
    main()
