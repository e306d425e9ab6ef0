"""The files in deploy/ say what the product does: commands, options and times fit together."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from ecmbatch.cli.main import make_app
from ecmbatch.project_file import ServeSettings
from ecmbatch.protocol.duration import parse_duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "systemd/ecmbatch.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
COMMANDS: dict[str, Any] = vars(get_command(make_app()))["commands"]
GRACE = ServeSettings().grace.total_seconds()


def check_command(words: list[str]) -> None:
    """Take *words* for a command line of ecmbatch and let its parser read it."""
    name, *options = words
    COMMANDS[name].make_context(name, options)


def unit_value(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_the_unit_runs_a_command_that_there_is() -> None:
    _, *words = unit_value("ExecStart").split()
    check_command(words)


def test_systemd_waits_longer_than_the_service_does_and_leaves_its_slots_to_it() -> None:
    assert float(unit_value("TimeoutStopSec")) > GRACE
    assert (unit_value("KillMode"), unit_value("KillSignal")) == ("mixed", "SIGTERM")
    assert unit_value("Restart") == "on-failure"


def test_the_unit_may_write_its_project() -> None:
    assert unit_value("ReadWritePaths") == unit_value("WorkingDirectory")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "ecmbatch.service"
    # What it starts has to be there to be found in order.
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_does_not_run_as_root_and_serves_where_its_health_check_asks() -> None:
    assert re.search(r"^USER ecmbatch$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", DOCKERFILE, re.MULTILINE)
    (words,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    command = yaml.safe_load(words)
    check_command(command)
    port = command[command.index("--port") + 1]
    assert f"http://127.0.0.1:{port}/healthz" in DOCKERFILE


def test_compose_has_a_ledger_a_scheduler_and_two_workers() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"ledger", "stage", "scheduler", "worker"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for name in ("scheduler", "worker"):
        check_command(services[name]["command"])
        assert services[name]["command"][0] == name
        assert services[name]["depends_on"]["ledger"] == {"condition": "service_healthy"}
        assert parse_duration(services[name]["stop_grace_period"]).total_seconds() > GRACE
    assert {"ledger", "stage"} == set(COMPOSE["volumes"])


def test_compose_has_no_password_in_it() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or str(value).startswith("${LEDGER_PASSWORD:?")


def test_every_event_of_the_log_is_documented() -> None:
    page = (ROOT / "docs/howto/serve.md").read_text()
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    events = set(re.findall(r'(?:"event": |_tell\(|_about\()"([a-z]+\.[a-z_]+)"', source))
    assert {"run.started", "service.ready", "job.refused"} <= events
    assert {event for event in events if f"`{event}`" not in page} == set()


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs/howto/serve.md").read_text()
    source = (ROOT / "src/ecmbatch/service/metrics.py").read_text()
    counters = re.findall(r'CounterMetricFamily\(\s*"(ecmbatch_\w+)"', source)
    metrics = set(re.findall(r'"(ecmbatch_\w+)"', source)) - set(counters)
    metrics |= {f"{counter}_total" for counter in counters}
    assert len(metrics) > 10
    assert {metric for metric in metrics if f"`{metric}" not in page} == set()
