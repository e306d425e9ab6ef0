"""A project whose job starts with an event, and services of it in processes of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import (
    customers,
    customers_job,
    expected,
    fill_warehouse,
    make_project,
    run_documents,
    stored,
    write_job,
)

ROWS = customers(200)
PATIENCE = 120
"""Seconds after which something that is waited for does not come any more."""

PROCESSORS = """
import os
import time
import pyarrow as pa
from ecmbatch import processor


@processor("pulse")
def pulse(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Says that it is at work, and goes on when the test lets it."
    if batch.num_rows:
        with open(config["pipe"], "wb", buffering=0) as pipe:
            pipe.write(b"%d\\n" % os.getpid())
        with open(config["gate"], "rb", buffering=0) as gate:
            gate.read(1)
    return batch


@processor("hangs")
def hangs(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    "Begins with a batch and never ends."
    if batch.num_rows:
        with open(config["pipe"], "wb", buffering=0) as pipe:
            pipe.write(b"%d\\n" % os.getpid())
        time.sleep(100_000)
    return batch
"""


@dataclass
class ServiceProcess:
    """``ecmbatch serve`` or one of its kind; its log is read line by line."""

    process: subprocess.Popen[bytes]
    lines: list[dict[str, Any]] = field(default_factory=list)
    _rest: bytes = b""
    _looked_at: int = 0

    def await_event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next line of the log with *event* and *fields*, waiting for it."""
        deadline = time.monotonic() + PATIENCE
        wanted = {"event": event, **fields}
        while True:
            while self._looked_at < len(self.lines):
                line = self.lines[self._looked_at]
                self._looked_at += 1
                if wanted.items() <= line.items():
                    return line
            assert self._read(deadline), f"no {wanted} in {self.lines}"

    def _read(self, deadline: float) -> bool:
        """Read more of the log; tell whether there was more."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        readable, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
        read = os.read(descriptor, 65_536) if readable else b""
        *lines, self._rest = (self._rest + read).split(b"\n")
        self.lines += [json.loads(line) for line in lines]
        return bool(read)

    def end(self) -> int:
        """Return what it exits with, after its last word."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)

    def terminate(self) -> int:
        """Ask it to stop as systemd would; return what it exits with."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def url(self) -> str:
        """Where it answers."""
        return str(self.await_event("service.started")["message"].rpartition("; ")[2])

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines if "event" in line]


def get(url: str, method: str = "GET") -> tuple[int, str]:
    """Return status and body of an answer."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


@dataclass(frozen=True)
class ServedProject:
    """A project with the job ``customers``, started by the event ``go``; its processor says when it is at work."""

    path: Path
    services: list[ServiceProcess]
    pipe: int
    gate: int

    def job(self, processor: str = "pulse", **sections: Any) -> None:
        """Write the job."""
        config = {"pipe": str(self.path / "pipe"), "gate": str(self.path / "gate")}
        job = customers_job(
            transform=[{"processor": processor, "config": config}, customers_job()["transform"]],
            schedule={"type": "event", "on": [{"event": "go"}]},
            **sections,
        )
        write_job(self.path, job, "jobs/customers.json")

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> ServiceProcess:
        """Start a service."""
        service = ServiceProcess(
            subprocess.Popen(
                [sys.executable, "-m", "ecmbatch", *arguments],
                cwd=self.path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
            )
        )
        self.services.append(service)
        return service

    def serve(self, *options: str) -> ServiceProcess:
        """Start ``serve`` and wait until it knows the job."""
        service = self.start("serve", "--port", "0", *options)
        service.await_event("service.ready")
        return service

    def emit(self) -> None:
        """Let the job be due."""
        subprocess.run([sys.executable, "-m", "ecmbatch", "emit", "go"], cwd=self.path, check=True)

    def await_work(self) -> int:
        """Wait until a batch is being processed; return the process that does it."""
        readable, _, _ = select.select([self.pipe], [], [], PATIENCE)
        assert readable, f"nobody is at work: {[service.lines for service in self.services]}"
        return int(b"".join(iter(lambda: os.read(self.pipe, 1), b"\n")))

    def let_go(self, batches: int = 1_000) -> None:
        """Let that many batches be processed."""
        os.write(self.gate, b"." * batches)

    def statuses(self) -> list[str]:
        """Return those of all runs."""
        return [run["status"] for run in run_documents(self.path)]

    def is_whole(self) -> bool:
        """Tell whether each row is in the store, once."""
        return stored(self.path) == expected(ROWS)


@contextmanager
def served_project(folder: Path, ledger: str = "") -> Iterator[ServedProject]:
    """Make the project in *folder*; *ledger* is the URL of one on PostgreSQL."""
    make_project(folder)
    with (folder / "ecmbatch.toml").open("a") as settings:
        settings.write('[processors]\nmodules = ["processors"]\n')
        if ledger:
            settings.write(f"[ledger]\nurl = {json.dumps(ledger)}\n")
    (folder / "processors.py").write_text(PROCESSORS)
    (folder / "jobs").mkdir()
    fill_warehouse(folder, ROWS)
    for name in ("pipe", "gate"):
        os.mkfifo(folder / name)
    # With both ends open here, nobody waits for anybody to open one.
    pipe, gate = (os.open(folder / name, os.O_RDWR) for name in ("pipe", "gate"))
    project = ServedProject(folder, [], pipe, gate)
    project.job()
    try:
        yield project
    finally:
        for service in project.services:
            service.process.kill()
            service.process.communicate()
        for descriptor in (pipe, gate):
            os.close(descriptor)
