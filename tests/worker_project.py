"""A project whose scans are executed by worker processes, with processors that can be seen at work."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import customers, customers_job, fill_warehouse, make_project, write_job

ROWS = customers(400)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PROCESSORS = """
import logging
import os
import pathlib
import subprocess
import sys
import time

import pyarrow as pa

from ecmbatch import processor


@processor("pulse")
def pulse(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Writes the pid of its process into a pipe for each batch."
    if batch.num_rows:
        with open(config["pipe"], "wb", buffering=0) as pipe:
            pipe.write(b"%d\\n" % os.getpid())
    return batch


@processor("noise")
def noise(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Says something in every way there is."
    if batch.num_rows:
        print("printed", flush=True)
        os.write(1, b"written\\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        logging.getLogger("ecmbatch").warning("logged")
    return batch


@processor("refuses")
def refuses(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Fails over one row."
    if config["id"] in batch.column("id").to_pylist():
        raise ValueError(os.environ.get("CANARY", "no such row"))
    return batch


@processor("leaves")
def leaves(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Ends its process without a word."
    if batch.num_rows:
        os._exit(3)
    return batch


@processor("edits")
def edits(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Changes a file and ends its process, once."
    file = pathlib.Path(config["file"])
    if batch.num_rows and config["old"] in (text := file.read_text()):
        file.write_text(text.replace(config["old"], config["new"]))
        os._exit(3)
    return batch


@processor("hangs")
def hangs(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Begins with a batch and never ends."
    if batch.num_rows:
        with open(config["pipe"], "wb", buffering=0) as pipe:
            pipe.write(b"%d\\n" % os.getpid())
        time.sleep(100_000)
    return batch


# the first edition
"""

PROJECT = """
[connectors.warehouse]
type = "duckdb"
path = "warehouse.duckdb"
scans = 2
[stores.context_store]
type = "duckdb"
path = "context.duckdb"
[processors]
modules = ["processors"]
[run]
executor = "processes"
"""


def worker_project(folder: Path) -> Path:
    """Make a project of 400 rows, read by up to two workers."""
    make_project(folder)
    (folder / "ecmbatch.toml").write_text(PROJECT)
    (folder / "processors.py").write_text(PROCESSORS)
    fill_warehouse(folder, ROWS)
    write_job(folder, customers_job(partitions=4))
    return folder


def processed_by(name: str, config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the job with the processor *name* before the others."""
    job = customers_job(**{"partitions": 4, **changes})
    return {**job, "transform": [{"processor": name, "config": dict(config)}, job["transform"]]}


class Pulse:
    """A pipe in *folder* that workers write their pids to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pulse"
        os.mkfifo(self.path)
        # With both ends open here, nobody waits for anybody.
        self._pipe = os.open(self.path, os.O_RDWR)

    def __iter__(self) -> Iterator[int]:
        """Yield the pid behind each batch, waiting for the next one."""
        with os.fdopen(os.dup(self._pipe), "rb", buffering=0) as pipe:
            while True:
                yield int(b"".join(iter(lambda: pipe.read(1), b"\n")))

    def config(self) -> dict[str, str]:
        return {"pipe": str(self.path)}

    def close(self) -> None:
        os.close(self._pipe)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie that nobody has looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here."""
    if not is_alive(pid):
        return
    process = os.pidfd_open(pid)
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended, f"process {pid} is still there"
