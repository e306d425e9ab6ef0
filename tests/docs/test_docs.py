"""The documents cannot drift: jobs load, settings load, code runs, commands exist, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from typer.main import get_command

import ecmbatch
from ecmbatch import errors
from ecmbatch.cli.invocation import Unexpected
from ecmbatch.cli.main import make_app
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    KeySample,
    ReadPlan,
    ReadRequest,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.duckdb import DuckDBSource
from ecmbatch.connectors.file_formats.csv_settings import CsvSettings
from ecmbatch.connectors.file_formats.json_settings import JsonSettings
from ecmbatch.connectors.files import FilesSource
from ecmbatch.connectors.postgres import PostgresSource
from ecmbatch.connectors.sqlalchemy_connector import SQLAlchemySettings
from ecmbatch.connectors.sqlite import SQLiteSettings
from ecmbatch.demo.project import build_project
from ecmbatch.engine.profile import PHASES, WORK
from ecmbatch.processors.filter import FilterConfig
from ecmbatch.processors.lookup import LookupConfig
from ecmbatch.processors.processor import ProcessorType, Reference, RunFacts, Transformed
from ecmbatch.processors.sql import SqlConfig
from ecmbatch.project_file import ProjectSettings, load_project_file
from ecmbatch.protocol.job import JobDefinition, load_job
from ecmbatch.protocol.partitioning.hashing import hash_keys, hash_partitions
from ecmbatch.protocol.run import RunStatus
from ecmbatch.stores.duckdb import DuckDBStoreSettings
from ecmbatch.stores.postgres import PostgresStoreSettings
from ecmbatch.stores.store import (
    Head,
    Marker,
    Publication,
    PublishedRows,
    StagedFile,
    Store,
    StoreType,
    TableChange,
    TargetTable,
    WidenedColumn,
)
from ecmbatch.testing.crashes import CRASH_POINTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
_OF_PLUG_INS = ("pyproject", "pyproject.toml", "ecmbatch.toml")
"""Marks of TOML blocks that belong to a package of a how-to."""
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the words behind the fence, and its text."""

    page: Path
    number: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}#{self.number}"


def blocks(language: str, mark: str | None = None) -> list[Block]:
    """All blocks of *language*; with *mark* only those that have it."""
    return [
        block
        for page in PAGES
        for block in blocks_of(page)
        if block.language == language and mark in (None, block.mark)
    ]


def blocks_of(page: Path) -> Iterator[Block]:
    for number, found in enumerate(_BLOCK.finditer(page.read_text(encoding="utf-8")), 1):
        language, _, mark = found[1].partition(" ")
        yield Block(page, number, language, mark, found[2])


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def first_column(page: str) -> list[str]:
    """The code words in the first column of all tables of a page."""
    return re.findall(r"^\| `([^`]+)`", text_of(page), re.MULTILINE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "flights"
    build_project(folder)
    return folder


@pytest.fixture
def flights(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that ``init`` makes, of the test's own, as the current folder."""
    folder = Path(shutil.copytree(built, tmp_path / "flights"))
    monkeypatch.chdir(folder)
    return folder


# -- blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("json", "job"), ids=str)
def test_every_documented_job_loads(block: Block) -> None:
    load_job(block.text)


@pytest.mark.parametrize("path", sorted((ROOT / "docs/examples").glob("*.json")), ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    load_job(path.read_bytes())


def test_the_readmes_job_is_the_example_and_fits_the_project_that_init_makes(flights: Path) -> None:
    (block,) = [each for each in blocks_of(ROOT / "README.md") if each.mark == "job"]
    assert block.text.strip() == text_of("examples/flights-sync.json").strip()
    with ecmbatch.Project.load(flights, environment={}) as project:
        assert project.validate(load_job(block.text)).valid


@pytest.mark.parametrize("block", [each for each in blocks("toml") if each.mark not in _OF_PLUG_INS], ids=str)
def test_every_project_file_loads_and_its_connectors_and_stores_take_their_settings(
    block: Block, tmp_path: Path
) -> None:
    (tmp_path / "ecmbatch.toml").write_text(block.text, encoding="utf-8")
    environment = {block.mark.removeprefix("env="): "warehouse.duckdb"} if block.mark else {}
    settings = load_project_file(tmp_path / "ecmbatch.toml", environment).settings
    plugins = ecmbatch.Plugins()
    for registry, entries in ((plugins.connectors, settings.connectors), (plugins.stores, settings.stores)):
        for entry in entries.values():
            given = dict(entry)
            registry.get(given.pop("type")).parse_config(given)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def slow_where_all_flights_are_read(block: Block) -> Any:
    marks = [pytest.mark.slow] if "flights-context" in block.text else []
    return pytest.param(block, marks=marks, id=str(block))


@pytest.mark.parametrize(
    "block", [slow_where_all_flights_are_read(block) for block in blocks("python", "run")]
)
def test_the_python_page_runs_as_printed(block: Block, flights: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {})


def commands() -> list[tuple[str, str]]:
    """Every ``ecmbatch …`` of a shell block, and where it stands."""
    found = []
    for block in blocks("sh"):
        for line in block.text.splitlines():
            for part in line.split("&&"):
                words = re.sub(r"^\s*(?:[A-Z_]+=\S+ )*(?:\S*/)?", "", part)
                if words.startswith("ecmbatch "):
                    found.append((str(block), words.strip()))
    return found


@pytest.mark.parametrize(("place", "line"), sorted(set(commands())), ids=lambda value: value)
def test_every_documented_command_and_option_exists(place: str, line: str) -> None:
    _, *words = shlex.split(line)
    command = get_command(make_app())
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    # Parses as the command line does, and raises what it would refuse; nothing is carried out.
    command.make_context("ecmbatch", words)


# -- links ------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What headings can be linked to, as GitHub spells them."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        found += [(page, target) for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [(page, target) for page, target in found if "://" not in target]


@pytest.mark.parametrize(
    ("page", "target"), links(), ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_every_relative_link_resolves(page: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    linked = (page.parent / file).resolve() if file else page
    assert linked.exists()
    if anchor:
        assert anchor in anchors(linked)


def test_every_page_is_linked_from_the_index_or_the_readme() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page, target in links()
        if page in (ROOT / "README.md", ROOT / "docs/README.md")
    }
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_the_readmes_test_command_is_the_one_that_the_checks_run() -> None:
    (command,) = re.findall(r"^python3 -m venv .*pytest$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    shell = [block.text.strip() for block in blocks_of(ROOT / "README.md") if block.language == "sh"]
    assert command in shell


# -- references -------------------------------------------------------------------------------------


def every_error() -> list[type[errors.EcmbatchError]]:
    found, waiting = [], [errors.EcmbatchError]
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting += [each for each in error.__subclasses__() if each.__module__ == errors.__name__]
    return [*found, Unexpected]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_the_errors_page_tells_every_code_with_its_exit_and_class(error: type[errors.EcmbatchError]) -> None:
    row = f"| `{error.code}` | {error.exit_code} | {error.error_class} |"
    assert row in text_of("reference/errors.md")


def test_the_errors_page_has_no_code_that_does_not_exist() -> None:
    assert sorted(first_column("reference/errors.md")) == sorted({error.code for error in every_error()})


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_the_exit_codes_page_tells_every_exit_code(error: type[errors.EcmbatchError]) -> None:
    assert f"\n| {error.exit_code} |" in text_of("reference/exit-codes-and-json.md")


def test_the_job_file_page_has_every_key_and_no_other() -> None:
    keys = set(first_column("reference/job-file.md")) | set(re.findall(r"`(\$?\w+)`", _key_lists()))
    known = set()
    for name, definition in {
        **JobDefinition.model_json_schema()["$defs"],
        "JobDefinition": JobDefinition.model_json_schema(),
    }.items():
        if name in _KEYS_IN_TABLES:
            known |= set(definition["properties"])
    assert known - keys == set()
    assert {key for key in keys if not key.startswith("{")} - known - _WORDS_BESIDE_KEYS == set()


_KEYS_IN_TABLES = {
    "JobDefinition",
    "Source",
    "Transform",
    "Sink",
    "HashPartitioning",
    "RangePartitioning",
    "ListPartitioning",
    "CheckpointPolicy",
    "Dependency",
    "AnyGroup",
    "AllGroup",
    "CronSchedule",
    "IntervalSchedule",
    "EventSchedule",
    "Retry",
    "Validation",
    "RowCountRule",
    "NullCheckRule",
    "FreshnessRule",
}
_WORDS_BESIDE_KEYS = {"row_count", "null_check", "freshness"}


def _key_lists() -> str:
    """The lines that list keys in another way than one to a row."""
    lines = text_of("reference/job-file.md").splitlines()
    listing = ("Keys of every rule", "| `row_count`", "| `null_check`", "| `freshness`", "| `description`")
    return "\n".join(re.sub(r"\([^)]*\)", "", line) for line in lines if line.startswith(listing))


def code_words(*pages: str) -> set[str]:
    """Every word that stands alone in code marks, or as a key of JSON or TOML, on any of *pages*."""
    found: set[str] = set()
    for page in pages:
        text = text_of(page)
        found |= set(re.findall(r"`([^`\n]+)`", text)) | set(re.findall(r'"(\w+)":', text))
        found |= {key.rpartition(".")[2] for key in found} | set(re.findall(r"^(\w+) =", text, re.MULTILINE))
    return found


@pytest.mark.parametrize(
    ("settings", "pages"),
    [
        (DuckDBSource, ["reference/project-file.md"]),
        (DuckDBStoreSettings, ["reference/project-file.md"]),
        (FilesSource, ["reference/files.md", "reference/project-file.md"]),
        (CsvSettings, ["reference/files.md"]),
        (JsonSettings, ["reference/files.md"]),
        (PostgresSource, ["reference/postgres.md"]),
        (PostgresStoreSettings, ["reference/postgres-store.md"]),
        (SQLiteSettings, ["reference/databases.md"]),
        (SQLAlchemySettings, ["reference/databases.md"]),
        (FilterConfig, ["reference/processors.md"]),
        (LookupConfig, ["reference/processors.md"]),
        (SqlConfig, ["reference/processors.md"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_setting_of_connectors_stores_and_processors_is_told(
    settings: type[BaseModel], pages: Sequence[str]
) -> None:
    known = {field.alias or name for name, field in settings.model_fields.items()}
    assert known - code_words(*pages) == set()


def keys_in(value: Any) -> Iterator[str]:
    """The keys of a document; not those below what holds columns, parameters or a connector's own values."""
    for key, inner in value.items():
        yield key
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict) and key not in (
                "columns",
                "parameters",
                "detail",
                "observed",
                "expected",
            ):
                yield from keys_in(each)


_CARRIERS = {
    "job_id": "carriers",
    "source": {
        "connector": "data_warehouse",
        "query": "SELECT * FROM airlines WHERE carrier >= :least",
    },
    "transform": {"processor": "sql", "config": {"query": "SELECT *, upper(name) AS loud FROM batch"}},
    "sink": {"store": "context_store", "mode": "upsert", "key": "carrier"},
    "partitioning": {"strategy": "range", "key": "carrier", "bounds": ["M"]},
    "parameters": {"least": "B"},
    "validation": {"rules": [{"type": "row_count", "min": 1}]},
}


def test_the_exit_codes_page_tells_every_key_of_plan_and_run_documents(flights: Path) -> None:
    told = code_words("reference/exit-codes-and-json.md")
    with ecmbatch.Project.load(flights, environment={}) as project:
        plan = project.plan(JobDefinition.from_value(_CARRIERS)).document()
        result = project.run(JobDefinition.from_value(_CARRIERS))
    assert set(keys_in(plan)) - told == set()
    assert set(keys_in({**result.document(), "profile": result.profile})) - told == set()


def test_the_profile_pages_tell_everything_that_can_bound_a_run() -> None:
    for page in ("howto/profile.md", "reference/exit-codes-and-json.md"):
        assert {*PHASES, *WORK} - code_words(page) == set()


_NEEDS_NO_RECOVERY = {
    "error",
    "invalid_document",
    "plugin",
    "usage",
    "run_already_complete",
    "run_failed",
    "run_stopped",
    "run_released",
    "run_abandoned",
    "unexpected",
}
"""Told in full where they occur, or nothing has failed."""


def test_the_recovery_how_to_has_every_failure_that_a_user_can_meet() -> None:
    told = code_words("howto/recover.md")
    assert {error.code for error in every_error()} - _NEEDS_NO_RECOVERY - told == set()


PLUG_IN_WORDS: Sequence[type] = (
    ConnectorType,
    Connector,
    ReadRequest,
    ReadPlan,
    Scan,
    ScannedBatch,
    KeySample,
    StoreType,
    Store,
    Publication,
    PublishedRows,
    Marker,
    Head,
    TargetTable,
    TableChange,
    WidenedColumn,
    StagedFile,
    ProcessorType,
    RunFacts,
    Reference,
    Transformed,
)


@pytest.mark.parametrize("word", PLUG_IN_WORDS, ids=lambda word: word.__name__)
def test_the_plug_in_page_tells_every_member_of_the_contracts(word: type) -> None:
    told = {re.sub(r"\(.*|^\w+\.", "", each) for each in code_words("reference/plug-ins.md")}
    own = {name for name in [*vars(word), *getattr(word, "__annotations__", {})] if not name.startswith("_")}
    assert {word.__name__, *own} - told == set()


def test_the_project_file_page_shows_every_section() -> None:
    shown = text_of("reference/project-file.md")
    for section in ProjectSettings.model_fields:
        assert re.search(rf"^## `\[{section}(\.NAME)?\]`$", shown, re.MULTILINE), section


def test_the_recovery_guide_names_every_crash_point_and_status_that_a_user_can_meet() -> None:
    guide = text_of("guide/checkpoints-and-recovery.md")
    assert [point for point in CRASH_POINTS if f"`{point}`" not in guide] == []
    never_seen = {RunStatus.QUEUED, RunStatus.WAITING, RunStatus.HELD}
    assert [status for status in RunStatus if status not in never_seen and f"`{status}`" not in guide] == []


def golden_values() -> list[tuple[str, str, str, int]]:
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| `(0x\w+)` \| (\d+) \|$", text_of("reference/hash.md"), re.MULTILINE
    )
    return [(kind, value, hashed, int(partition)) for kind, value, hashed, partition in rows]


_TYPES = {
    "int8": pa.int8(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
    "double": pa.float64(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
    "time64[us]": pa.time64("us"),
    "decimal128(12, 2)": pa.decimal128(12, 2),
}


def key(kind: str, written: Any) -> pa.Array:
    """One key of the type *kind*, from its text; Arrow has no cast from text to times of day."""
    if kind == "time64[us]":
        return pa.array([time.fromisoformat(written)], _TYPES[kind])
    return pa.array([str(written)]).cast(_TYPES[kind])


@pytest.mark.parametrize(("kind", "value", "hashed", "partition"), golden_values())
def test_the_hash_has_its_golden_values(kind: str, value: str, hashed: str, partition: int) -> None:
    keys = key(kind, json.loads(value))
    assert f"0x{int(hash_keys(keys)[0]):016x}" == hashed
    assert int(hash_partitions(keys, 16)[0]) == partition


def test_there_are_golden_values_of_every_kind() -> None:
    assert len(golden_values()) >= 18
    assert hash_partitions(pa.array([None], pa.string()), 16)[0] == 0


# -- how-tos ----------------------------------------------------------------------------------------


def test_the_processor_how_to_works_step_by_step(tmp_path: Path) -> None:
    found = list(blocks_of(ROOT / "docs/howto/write-a-processor.md"))
    (code,) = [block.text for block in found if block.mark == "processors.py"]
    (settings,) = [block.text for block in found if block.language == "toml"]
    (job,) = [block.text for block in found if block.mark == "job"]
    (tmp_path / "processors.py").write_text(code)
    (tmp_path / "ecmbatch.toml").write_text(settings)
    (tmp_path / "landing/customers").mkdir(parents=True)
    pq.write_table(
        pa.table({"customer_id": ["a", "b", "c"], "tier": ["gold", "test", None], "amount": [1.0, 2.0, 3.0]}),
        tmp_path / "landing/customers/part-0.parquet",
    )
    with ecmbatch.Project.load(tmp_path, environment={}) as project:
        result = project.run(load_job(job))
    assert result.error is None
    assert (result.rows["read"], result.rows["filtered"], result.rows["inserted"]) == (3, 1, 2)


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python", "") if block.page.name == "write-a-processor.md"],
    ids=str,
)
def test_every_other_processor_registers(block: Block, tmp_path: Path) -> None:
    (tmp_path / "processors.py").write_text(block.text)
    (tmp_path / "ecmbatch.toml").write_text('[processors]\nmodules = ["processors"]\n')
    job = {
        "job_id": "any",
        "source": {"connector": "files", "path": "*.parquet"},
        "transform": {"processor": re.findall(r'@processor\("(\w+)"\)', block.text)[0], "config": {}},
        "sink": {"store": "context_store", "mode": "append"},
    }
    with ecmbatch.Project.load(tmp_path, environment={}) as project:
        assert project.validate(JobDefinition.from_value(job)).problems == []


# -- plug-ins ---------------------------------------------------------------------------------------


def package_of(page: str, folder: Path) -> Path:
    """Write the files that a page shows, and beside them what pip would make of its ``pyproject.toml``."""
    found = list(blocks_of(ROOT / "docs" / page))
    for block in found:
        if block.mark.endswith(".py"):
            (folder / block.mark).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.mark).write_text(block.text, encoding="utf-8")
    for block in found:
        if block.mark == "pyproject.toml":
            install(tomllib.loads(block.text)["project"], folder)
    return folder


def install(project: Any, folder: Path) -> None:
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(metadata)
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))


def modules_of(page: str) -> list[str]:
    """The test modules that a page shows."""
    found = [block.mark for block in blocks_of(ROOT / "docs" / page)]
    return [mark for mark in found if Path(mark).name.startswith("test_")]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["howto/write-a-connector.md", "howto/write-a-store.md"])
def test_the_tests_of_the_how_tos_pass(page: str, tmp_path: Path) -> None:
    package = package_of(page, tmp_path)
    modules = modules_of(page)
    assert modules
    path = os.pathsep.join([str(package), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "few_examples", "-q", *modules],
        cwd=package,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


USE = """
import json, sqlite3, sys
import ecmbatch
with ecmbatch.Project.load() as project:
    report = project.validate(sys.argv[1])
    plan = project.plan(sys.argv[1])
    healthy = project.doctor().healthy
    rows = project.run(sys.argv[1]).rows
print(json.dumps([report.valid, healthy, plan.document(), rows]))
"""


def used(package: Path, project: Path, job: str) -> Any:
    """Validate, plan, diagnose and run the job in *project*, in a process that finds *package*."""
    done = subprocess.run(
        [sys.executable, "-c", USE, job],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_connector_how_to_works_in_a_project_as_printed(tmp_path: Path) -> None:
    page = ROOT / "docs/howto/write-a-connector.md"
    package = package_of("howto/write-a-connector.md", tmp_path / "package")
    project = tmp_path / "project"
    (project / "jobs").mkdir(parents=True)
    (settings,) = [block.text for block in blocks_of(page) if block.mark == "ecmbatch.toml"]
    (job,) = [block.text for block in blocks_of(page) if block.mark == "job"]
    (project / "ecmbatch.toml").write_text(settings)
    (project / "jobs/customers.json").write_text(job)
    with closing(sqlite3.connect(project / "crm.db")) as database, database:
        database.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT)")
        rows = [(number, f"name {number}", "Bonn") for number in range(1, 1001)]
        database.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
    valid, healthy, plan, counts = used(package, project, "customers")
    assert (valid, healthy, counts["inserted"]) == (True, True, 1000)
    shown = page.read_text(encoding="utf-8")
    assert plan["scans"][0]["statement"] in shown
    assert all(f"{each['rows']}  " in shown for each in plan["partitions"])


@pytest.mark.slow
def test_the_store_how_to_works_in_a_project_as_printed(tmp_path: Path) -> None:
    package = package_of("howto/write-a-store.md", tmp_path / "package")
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (settings,) = [
        block.text
        for block in blocks_of(ROOT / "docs/howto/write-a-store.md")
        if block.mark == "ecmbatch.toml"
    ]
    (project / "ecmbatch.toml").write_text(settings)
    job = {
        "job_id": "customers",
        "source": {"connector": "files", "path": "*.parquet"},
        "sink": {"store": "context_store", "mode": "upsert", "key": "id"},
    }
    (project / "customers.json").write_text(json.dumps(job))
    pq.write_table(pa.table({"id": [1, 2]}), project / "data/customers.parquet")
    valid, healthy, _, counts = used(package, project, "customers.json")
    assert (valid, healthy, counts["inserted"]) == (True, True, 2)


def test_the_plug_in_pages_processor_keeps_its_contract() -> None:
    (block,) = blocks("python", "ecmbatch_upper.py")
    module = types.ModuleType("ecmbatch_upper")
    # Annotations are looked up in the module that the class names.
    exec(compile(block.text, str(block), "exec"), vars(module))
    plugins = ecmbatch.Plugins()
    plugins.processors.add(module.UPPER)
    plugin = plugins.processors.get("upper")
    facts = RunFacts(run_id="r", job_id="j", started_at=datetime(2026, 1, 1, tzinfo=UTC))
    processor = plugin.build(plugin.parse_config({"column": "name"}), facts)
    made = processor.process(pa.record_batch({"id": [1, 2], "name": ["a", None]}))
    assert isinstance(made, pa.RecordBatch)
    assert made.to_pydict() == {"id": [1, 2], "name": ["A", None]}


def test_the_entry_points_of_the_plug_in_page_are_those_of_the_how_tos() -> None:
    (block,) = [each for each in blocks("toml", "pyproject") if each.page.name == "plug-ins.md"]
    announced = tomllib.loads(block.text)["project"]["entry-points"]
    for page in ("write-a-connector.md", "write-a-store.md"):
        (package,) = [
            tomllib.loads(each.text)
            for each in blocks_of(ROOT / "docs/howto" / page)
            if each.mark == "pyproject.toml"
        ]
        entries = package["project"]["entry-points"]
        shown = [group for group in entries if entries[group].items() <= announced[group].items()]
        assert shown
