"""OpenLineage: what is told of attempts, to whom, and that telling it never harms a run."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch import Plugins, Project
from ecmbatch.connectors.connector import ConnectorType, ReadPlan, ReadRequest
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.engine.lineage import lineage
from ecmbatch.engine.lineage.datasets import DatasetName, place_of
from ecmbatch.engine.lineage.events import Parent, attempt_id
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import InvalidDocument, RunStopped, Unreachable
from ecmbatch.project import RunResult
from ecmbatch.project_file import ProjectFile, ProjectSettings, load_project_file
from ecmbatch.protocol.run import RunStatus
from harness import (
    command,
    customers,
    customers_job,
    fill_warehouse,
    make_project,
    start,
    was_killed,
    write_job,
)

RUN_ID = "01a20780-b9a2-7b6d-9ae6-333c3df670d2"
BACKFILL = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))

Event = Mapping[str, Any]


class Backend:
    """A server that takes events, as Marquez and others do, and gives *status* for each."""

    def __init__(self) -> None:
        self.status = 201
        self.events: queue.Queue[Event] = queue.Queue()
        self.headers: list[Mapping[str, str]] = []
        self.answers = threading.Event()
        self.answers.set()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                backend.answers.wait()
                backend.headers.append({"path": self.path, **dict(self.headers)})
                self.send_response(backend.status)
                self.end_headers()
                backend.events.put(json.loads(body))

            def log_message(self, *values: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next(self) -> Event:
        return checked(self.events.get(timeout=60))

    def rest(self) -> list[Event]:
        """The events that came and were not looked at yet."""
        events = []
        while not self.events.empty():
            events.append(checked(self.events.get()))
        return events

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    fill_warehouse(tmp_path, customers(120))
    return tmp_path


def told_by(folder: Path, transport: str, **keys: str) -> Path:
    """Give the project in *folder* an ``[openlineage]``."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write("\n".join(["[openlineage]", f"transport = {{ {transport} }}", *lines]) + "\n")
    return folder


def told_over_http(folder: Path, backend: Backend, more: str = "", **keys: str) -> Path:
    return told_by(folder, f'type = "http", url = "{backend.url}", retry = {{ total = 0 }}{more}', **keys)


def run(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    plugins: Plugins | None = None,
    **options: Any,
) -> RunResult:
    with Project.load(folder, environment=environment or {}, plugins=plugins) as project:
        return project.run(folder / "job.json", **options)


def checked(event: Event) -> Event:
    """Return *event*, which has everything that the specification requires (version 2-0-2, RunEvent)."""
    assert re.fullmatch(
        r"https://openlineage.io/spec/2-\d-\d/OpenLineage.json#/\$defs/RunEvent", event["schemaURL"]
    )
    assert event["eventType"] in {"START", "COMPLETE", "FAIL", "ABORT"}
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert event["producer"].startswith("https://")
    assert UUID(event["run"]["runId"]).version == 7
    assert event["job"]["namespace"] and event["job"]["name"]
    datasets = [*event["inputs"], *event["outputs"]]
    assert all(dataset["namespace"] and dataset["name"] for dataset in datasets)
    holders = [event["run"]["facets"], event["job"]["facets"], *(dataset["facets"] for dataset in datasets)]
    holders += [each.get("inputFacets", {}) for each in event["inputs"]]
    holders += [each.get("outputFacets", {}) for each in event["outputs"]]
    for name, facet in [item for holder in holders for item in holder.items()]:
        assert facet["_producer"] == event["producer"], name
        assert re.fullmatch(
            r"https://openlineage.io/spec/facets/\d-\d-\d/\w+.json#/\$defs/\w+", facet["_schemaURL"]
        )
    return event


def states(events: list[Event]) -> list[tuple[str, str]]:
    return [(event["eventType"], event["run"]["runId"]) for event in events]


def tags(event: Event) -> Mapping[str, str]:
    return {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}


# -- what is told ---------------------------------------------------------------------------------------


def test_a_run_is_told_with_its_job_its_tables_and_its_quality(folder: Path, backend: Backend) -> None:
    told_over_http(folder, backend, namespace="crm")
    rules: list[dict[str, Any]] = [
        {"type": "row_count", "min": 1},
        {"type": "null_check", "fields": ["context_id"], "threshold": 0},
        {"type": "row_count", "min": 1_000, "severity": "warn"},
        {"type": "row_count", "equals": 120, "stage": "source"},
    ]
    write_job(
        folder,
        customers_job(
            description="All customers.", owner="team:crm", tags=["gold"], validation={"rules": rules}
        ),
    )
    result = run(folder)
    begun, ended = backend.rest()
    assert states([begun, ended]) == [("START", result.run_id), ("COMPLETE", result.run_id)]
    assert begun["outputs"][0]["name"] == ended["outputs"][0]["name"] == "context.main.customers"

    job = ended["job"]
    assert (job["namespace"], job["name"]) == ("crm", "customers")
    facets = job["facets"]
    assert (facets["jobType"]["processingType"], facets["jobType"]["integration"]) == ("BATCH", "ECMBATCH")
    assert facets["documentation"]["description"] == "All customers."
    assert facets["ownership"]["owners"][0]["name"] == "team:crm"
    assert (facets["sql"]["query"], facets["sql"]["dialect"]) == ("SELECT * FROM customers", "duckdb")
    assert facets["tags"]["tags"][0]["key"] == "gold"

    document = result.document()
    of_run = ended["run"]["facets"]
    assert of_run["nominalTime"]["nominalStartTime"] == document["scheduled_for"]
    assert of_run["processing_engine"]["name"] == "ecmbatch"
    assert tags(ended)["ecmbatch.run_id"] == result.run_id
    assert tags(ended)["ecmbatch.window_end"] == document["window"]["end"]
    assert "errorMessage" not in of_run
    assert [(test["type"], test["status"], test["severity"]) for test in of_run["test"]["tests"]] == [
        ("row_count", "pass", "error"),
        ("not_null", "pass", "error"),
        ("row_count", "fail", "warn"),
        ("row_count", "pass", "error"),
    ]

    (read,) = ended["inputs"]
    assert (read["namespace"], read["name"]) == (
        f"duckdb://{folder / 'warehouse.duckdb'}",
        "warehouse.main.customers",
    )
    assert [field["name"] for field in read["facets"]["schema"]["fields"]] == ["id", "name", "amount"]
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 120
    (of_source,) = read["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert of_source["success"] is True

    (written,) = ended["outputs"]
    assert written["namespace"] == f"duckdb://{folder / 'context.duckdb'}"
    names = {field["name"]: field for field in written["facets"]["schema"]["fields"]}
    assert names["amount"]["type"] == "float64"
    assert names["data"]["fields"][0]["name"] == "name"
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 120
    metrics = written["facets"]["dataQualityMetrics"]
    assert (metrics["rowCount"], metrics["columnMetrics"]["context_id"]["nullCount"]) == (120, 0)
    assertions = written["facets"]["dataQualityAssertions"]["assertions"]
    assert [(each["assertion"], each.get("column"), each["success"]) for each in assertions] == [
        ("row_count", None, True),
        ("not_null", "context_id", True),
        ("row_count", None, False),
    ]


def test_a_failed_validation_is_told_with_the_rules_that_failed(folder: Path, backend: Backend) -> None:
    told_over_http(folder, backend)
    rules = [{"type": "row_count", "min": 1_000}, {"type": "row_count", "min": 1}]
    write_job(folder, customers_job(validation={"rules": rules, "on_failure": "abort"}))
    result = run(folder)
    assert result.status is RunStatus.VALIDATION_FAILED
    _, failed = backend.rest()
    assert failed["eventType"] == "FAIL"
    assert "120 rows, expected at least 1,000" in failed["run"]["facets"]["errorMessage"]["message"]
    (written,) = failed["outputs"]
    assertions = written["facets"]["dataQualityAssertions"]["assertions"]
    assert [(each["success"], each["severity"]) for each in assertions] == [(False, "error"), (True, "error")]
    assert json.loads(assertions[0]["actual"]) == {"rows": 120}
    assert written["outputFacets"] == {}


def test_every_further_attempt_is_a_run_of_its_own(folder: Path, backend: Backend) -> None:
    class OnceUnreachable(MemoryConnector):
        left = 1

        def plan(self, request: ReadRequest) -> ReadPlan:
            if self.left:
                self.left -= 1
                raise Unreachable("the source is away")
            return super().plan(request)

    plugins = Plugins()
    plugins.connectors.add(
        ConnectorType(
            name="away",
            fields=frozenset({"table"}),
            parse_config=dict,
            build=lambda config, folder: OnceUnreachable(customers(10)),
        )
    )
    (folder / "ecmbatch.toml").write_text('[connectors.away]\ntype = "away"\n')
    told_over_http(folder, backend)
    job = customers_job(
        source={"connector": "away", "table": "people", "order_by": "id"},
        retry={"max_attempts": 2, "base_delay": "0 seconds"},
    )
    write_job(folder, job)
    result = run(folder, plugins=plugins)
    assert result.status is RunStatus.SUCCESS
    first, second = result.run_id, attempt_id(result.run_id, 2)
    events = backend.rest()
    assert states(events) == [("START", first), ("FAIL", first), ("START", second), ("COMPLETE", second)]
    assert events[1]["run"]["facets"]["errorMessage"]["message"] == "the source is away"
    assert [tags(event)["ecmbatch.run_id"] for event in events] == [first] * 4
    assert [tags(event)["ecmbatch.attempt"] for event in events] == ["1", "1", "2", "2"]
    assert {(each["namespace"], each["name"]) for event in events for each in event["inputs"]} == {
        ("away://away", "people")
    }


def test_a_stopped_run_is_aborted_and_its_resuming_completes(folder: Path, backend: Backend) -> None:
    told_over_http(folder, backend)
    write_job(folder, customers_job())
    stop = StopSignal()
    stop.set(RunStopped("stopped by SIGTERM"))
    stopped = run(folder, stop=stop)
    assert stopped.status is RunStatus.STOPPED
    resumed = run(folder)
    assert resumed.run_id == stopped.run_id
    events = backend.rest()
    assert [event["eventType"] for event in events] == ["START", "ABORT", "START", "COMPLETE"]
    assert events[1]["run"]["facets"]["errorMessage"]["message"] == "stopped by SIGTERM"


def test_a_killed_attempt_is_told_to_be_over_by_the_next_one(folder: Path, backend: Backend) -> None:
    (folder / "gates.py").write_text(
        "from pathlib import Path\n"
        "from ecmbatch import processor\n"
        '@processor("waits")\n'
        "def waits(batch, config):\n"
        '    Path("gate").read_bytes()\n'
        "    return batch\n"
    )
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write('[processors]\nmodules = ["gates"]\n')
    told_over_http(folder, backend)
    job = customers_job()
    write_job(folder, {**job, "transform": [{"processor": "waits"}, job["transform"]]})
    os.mkfifo(folder / "gate")
    started = start(folder, "run", "job.json")
    begun = backend.next()
    os.kill(started.process.pid, signal.SIGKILL)
    assert was_killed(started.wait())
    (folder / "gate").unlink()
    (folder / "gate").touch()
    finished = command(folder, "run", "job.json", "--json")
    assert finished.exit_code == 0, finished.err
    run_id = finished.document["run_id"]
    second = attempt_id(run_id, 2)
    events = backend.rest()
    assert states([begun, *events]) == [
        ("START", run_id),
        ("ABORT", run_id),
        ("START", second),
        ("COMPLETE", second),
    ]
    assert "ended without a word" in events[0]["run"]["facets"]["errorMessage"]["message"]
    assert events[-1]["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 120


def test_a_backfill_is_told_with_its_interval_and_the_orchestrators_run(
    folder: Path, backend: Backend
) -> None:
    told_over_http(folder, backend)
    query = "SELECT * FROM customers WHERE :window_start < :window_end"
    write_job(
        folder,
        customers_job(source={"connector": "warehouse", "query": query, "order_by": "id"}),
    )
    run(folder, window=BACKFILL, environment={"OPENLINEAGE_PARENT_ID": f"airflow/nightly.load/{RUN_ID}"})
    for event in backend.rest():
        facets = event["run"]["facets"]
        assert facets["nominalTime"]["nominalStartTime"] == "2026-01-01T00:00:00Z"
        assert facets["nominalTime"]["nominalEndTime"] == "2026-01-02T00:00:00Z"
        parent = facets["parent"]
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("airflow", "nightly.load")
        assert parent["run"]["runId"] == RUN_ID


def test_every_table_of_a_join_and_of_a_lookup_is_an_input(folder: Path, backend: Backend) -> None:
    told_over_http(folder, backend)
    fill_warehouse(folder, pa.table({"id": ["c00001"], "tier": ["gold"]}), "tiers")
    fill_warehouse(folder, pa.table({"name": ["name 1"], "known": [True]}), "known")
    query = "SELECT c.id, c.name, t.tier FROM customers c LEFT JOIN tiers t USING (id)"
    lookup = {"connector": "warehouse", "table": "known", "key": "name", "columns": ["known"]}
    job = customers_job(
        source={"connector": "warehouse", "query": query, "order_by": "id"},
        transform={"processor": "lookup", "config": lookup},
        sink={"store": "context_store", "mode": "replace", "table": "customers"},
    )
    write_job(folder, job)
    result = run(folder)
    assert result.status is RunStatus.SUCCESS, result.error
    *_, ended = backend.rest()
    assert {read["name"] for read in ended["inputs"]} == {
        "warehouse.main.customers",
        "warehouse.main.tiers",
        "warehouse.main.known",
    }
    # Which of the columns are whose is not known.
    assert all("schema" not in read["facets"] for read in ended["inputs"])


# -- to whom --------------------------------------------------------------------------------------------


def test_events_go_to_a_file_of_the_project(folder: Path) -> None:
    told_by(folder, 'type = "file", log_file_path = "lineage.jsonl", append = true')
    write_job(folder, customers_job())
    run(folder)
    lines = (folder / "lineage.jsonl").read_text().splitlines()
    assert [checked(json.loads(line))["eventType"] for line in lines] == ["START", "COMPLETE"]


def test_the_console_is_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    told_by(folder, 'type = "console"')
    write_job(folder, customers_job())
    with caplog.at_level(logging.INFO, logger="ecmbatch"):
        run(folder)
    lines = [record.getMessage() for record in caplog.records if record.name == "ecmbatch"]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [checked(event)["eventType"] for event in events] == ["START", "COMPLETE"]


def test_secrets_go_to_the_backend_as_keys_only(folder: Path, backend: Backend) -> None:
    told_over_http(folder, backend, more=', auth = { type = "api_key", apiKey = "${env:KEY}" }')
    write_job(folder, customers_job(description="the key is hush-hush"))
    run(folder, environment={"KEY": "hush-hush"})
    assert [each["Authorization"] for each in backend.headers] == ["Bearer hush-hush"] * 2
    assert {each["path"] for each in backend.headers} == {"/api/v1/lineage"}
    events = backend.rest()
    assert "hush-hush" not in json.dumps(events)
    assert events[0]["job"]["facets"]["documentation"]["description"] == "the key is ***"


# -- harmless ------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name == "ecmbatch"]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def test_a_backend_that_refuses_is_told_once(
    folder: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.status = 403
    told_over_http(folder, backend, more=', auth = { type = "api_key", apiKey = "${env:KEY}" }')
    write_job(folder, customers_job())
    assert run(folder, environment={"KEY": "hush-hush"}).status is RunStatus.SUCCESS
    assert warnings_of(caplog) == [
        "2 of 2 OpenLineage events were not delivered (HTTP status 403); the run is not affected"
    ]


def test_nobody_listening_is_told_once(
    folder: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    told_over_http(folder, backend)
    backend.close()
    write_job(folder, customers_job())
    assert run(folder).status is RunStatus.SUCCESS
    (warning,) = warnings_of(caplog)
    assert (
        warning == "2 of 2 OpenLineage events were not delivered (ConnectionError); the run is not affected"
    )


def test_a_backend_that_hangs_does_not_keep_the_run(
    folder: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lineage, "_PATIENCE", 0.25)
    backend.answers.clear()
    told_over_http(folder, backend)
    write_job(folder, customers_job())
    assert run(folder).status is RunStatus.SUCCESS
    assert warnings_of(caplog) == [
        "2 of 2 OpenLineage events were not delivered (no answer within 0.25 s); the run is not affected"
    ]


def test_a_transport_that_does_not_exist_is_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    told_by(folder, 'type = "carrier.pigeon"')
    write_job(folder, customers_job())
    assert run(folder).status is RunStatus.SUCCESS
    assert warnings_of(caplog) == [
        "2 of 2 OpenLineage events were not delivered (ImportError); the run is not affected"
    ]


def test_a_missing_client_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    told_by(folder, 'type = "console"')
    write_job(folder, customers_job())
    assert run(folder).status is RunStatus.SUCCESS
    (warning,) = warnings_of(caplog)
    assert "pip install 'ecmbatch[openlineage]'" in warning


@pytest.mark.parametrize("words", [["--help"], ["run", "job.json"]], ids=" ".join)
def test_without_the_section_nothing_of_openlineage_is_imported(folder: Path, words: list[str]) -> None:
    write_job(folder, customers_job())
    program = (
        "import sys\n"
        "from ecmbatch.cli.main import main\n"
        f"assert main({words!r}) == 0\n"
        "assert not [name for name in sys.modules if name.startswith('openlineage')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- settings and names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[openlineage]\nnamespace = "crm"\n', "/openlineage/transport"),
        ('[openlineage]\ntransport = { url = "http://x" }\n', "/openlineage/transport"),
        ('[openlineage]\ntransport = { type = "console" }\nurl = "x"\n', "/openlineage/url"),
        ('[openlineage]\ntransport = { type = "console" }\nnamespace = ""\n', "/openlineage/namespace"),
    ],
)
def test_settings_are_checked(text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "ecmbatch.toml").write_text(text)
    with pytest.raises(InvalidDocument) as raised:
        load_project_file(tmp_path / "ecmbatch.toml", {})
    assert [problem.path for problem in raised.value.problems] == [place]


HERE = ProjectFile(root=Path("/srv/etl"), settings=ProjectSettings())


@pytest.mark.parametrize(
    ("settings", "table", "expected"),
    [
        (
            {"type": "postgres", "url": "postgresql://etl:secret@db.example.com:6432/crm?sslmode=require"},
            "sales.orders",
            ("postgres://db.example.com:6432", "crm.sales.orders"),
        ),
        (
            {"type": "postgres", "url": "postgresql://a:1,b:2/crm"},
            "orders",
            ("postgres://a:1", "crm.public.orders"),
        ),
        (
            {"type": "postgres", "url": "postgresql:///crm?host=/run/postgresql", "schema": "ctx"},
            "orders",
            ("postgres://localhost:5432", "crm.ctx.orders"),
        ),
        (
            {"type": "postgres", "url": "postgresql://etl@[::1]/"},
            "o",
            ("postgres://::1:5432", "etl.public.o"),
        ),
        (
            {"type": "duckdb", "path": "data/context.duckdb"},
            "flights",
            ("duckdb:///srv/etl/data/context.duckdb", "context.main.flights"),
        ),
        ({"type": "duckdb", "path": "/x.db"}, "raw.flights", ("duckdb:///x.db", "x.raw.flights")),
        ({"type": "sqlite", "path": "app.db"}, "users", ("sqlite:///srv/etl/app.db", "main.users")),
        (
            {"type": "sqlalchemy", "url": "mysql+pymysql://u:secret@db/shop"},
            "orders",
            ("mysql://db:3306", "shop.orders"),
        ),
        (
            {"type": "sqlalchemy", "url": "postgresql+psycopg://u:secret@db/shop"},
            "orders",
            ("postgres://db:5432", "shop.public.orders"),
        ),
        ({"type": "pigeon"}, "orders", ("pigeon://web", "orders")),
    ],
)
def test_tables_have_the_names_that_others_know_them_by(
    settings: dict[str, Any], table: str, expected: tuple[str, str]
) -> None:
    assert place_of("web", settings, HERE).table(table) == DatasetName(*expected)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("flights.parquet", "/srv/etl/landing/flights.parquet"),
        ("year=*/flights-*.parquet", "/srv/etl/landing"),
        ("raw/2013/*.csv", "/srv/etl/landing/raw/2013"),
    ],
)
def test_files_are_known_by_their_path_and_patterns_by_their_folder(path: str, name: str) -> None:
    place = place_of("landing", {"type": "files", "root": "landing"}, HERE)
    assert place.path(path) == DatasetName("file", name)


@given(run_id=st.uuids(version=4), attempt=st.integers(2, 1_000))
def test_an_attempts_id_is_always_the_same_and_its_own(run_id: UUID, attempt: int) -> None:
    seventh = str(UUID(int=run_id.int & ~(0xF << 76) | 7 << 76))
    made = attempt_id(seventh, attempt)
    assert made == attempt_id(seventh, attempt)
    assert len({made, seventh, attempt_id(seventh, attempt + 1)}) == 3
    assert (UUID(made).version, UUID(made).variant) == (7, UUID(seventh).variant)
    assert attempt_id(seventh, 1) == seventh


@pytest.mark.parametrize("text", ["", "a/b", f"a/{RUN_ID}", f"/b/{RUN_ID}", "a/b/not-a-uuid"])
def test_a_parent_of_another_form_is_none(text: str) -> None:
    assert Parent.from_text(text) is None


def test_a_parents_job_may_have_slashes() -> None:
    parent = Parent.from_text(f"airflow/team/nightly/{RUN_ID}")
    assert parent == Parent(namespace="airflow", job="team/nightly", run_id=RUN_ID)
