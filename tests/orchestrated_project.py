"""A project for orchestrators: flights by day, and a run that dies or waits in the middle when it is told to.

Files of the current folder tell it: ``dies`` and the pipe ``waits``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness import fill_warehouse, make_project, run_documents, write_job

EXAMPLES = Path(__file__).parents[1] / "examples/orchestrators"
ECMBATCH = (sys.executable, "-P", str(Path(__file__).parent / "dying_command.py"))
DAY = datetime(2013, 1, 2, tzinfo=UTC)
WINDOW = (DAY, DAY + timedelta(days=1))
ROWS_OF_A_DAY = 96

PROCESSORS = """
import sys
from pathlib import Path
import pyarrow as pa
from ecmbatch import processor

@processor("waits")
def waits(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    if batch.num_rows and Path("waits").exists():
        print("at work", file=sys.stderr, flush=True)
        Path("waits").read_bytes()
    return batch
"""


def orchestrated_project(folder: Path, **sections: Any) -> Path:
    """Make the project; *sections* change the job ``flights-by-day``."""
    make_project(folder)
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write('[processors]\nmodules = ["processors"]\n')
    (folder / "processors.py").write_text(PROCESSORS)
    begin = DAY - timedelta(days=1)
    minutes = range(3 * ROWS_OF_A_DAY)
    flights = pa.table(
        {
            "number": pa.array(minutes, pa.int32()),
            "departed": pa.array([begin + timedelta(minutes=15 * number) for number in minutes]),
        }
    )
    fill_warehouse(folder, flights, "flights")
    (folder / "jobs").mkdir()
    write_job(folder / "jobs", flights_by_day(**sections), "flights-by-day.json")
    return folder


def flights_by_day(**sections: Any) -> Mapping[str, Any]:
    job: dict[str, Any] = {
        "job_id": "flights-by-day",
        "source": {
            "connector": "warehouse",
            "query": "SELECT * FROM flights WHERE departed >= :window_start AND departed < :window_end",
            "order_by": "number",
            "batch_rows": 24,
        },
        "transform": {"processor": "waits"},
        "sink": {"store": "context_store", "mode": "upsert", "key": "number", "table": "flights"},
        "checkpoint": {"every_rows": 24},
    }
    return {**job, **sections}


def attempts_and_resumed(folder: Path) -> tuple[int, int]:
    """The attempts of the newest run, and how many partitions the last one continued."""
    document = run_documents(folder)[0]
    return document["attempt"], document["partitions"]["resumed"]


def python_path() -> str:
    """Where the examples' modules are, for other processes."""
    return os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])
