"""The demo's data are whole, its project is the same every time, and its changes are what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ecmbatch.demo.project import apply_changes, build_project
from ecmbatch.errors import UsageError
from ecmbatch.processors.field_mapper import FIELD_MAPPER
from ecmbatch.processors.processor import RunFacts

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
JOBS = ("flights-context", "flights-incremental")
ALL_JOBS = (*JOBS, "flights-by-date", "flights-by-origin", "daily-delays")

FLIGHTS_TYPES = {
    **dict.fromkeys(("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay"), pa.int16()),
    **dict.fromkeys(("arr_time", "sched_arr_time", "arr_delay"), pa.int16()),
    "carrier": pa.string(),
    "flight": pa.int16(),
    **dict.fromkeys(("tailnum", "origin", "dest"), pa.string()),
    **dict.fromkeys(("air_time", "distance", "hour", "minute"), pa.int16()),
    "time_hour": pa.timestamp("us", "UTC"),
}


def data(name: str) -> Path:
    return Path(str(files("ecmbatch.demo"))) / f"{name}.parquet"


def query(folder: Path, sql: str) -> pa.Table:
    with duckdb.connect(folder / "warehouse.duckdb", read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(sql).to_arrow_table()


def numbers(folder: Path, sql: str) -> list[int]:
    return list(query(folder, sql).to_pylist()[0].values())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that tests only read."""
    folder = tmp_path_factory.mktemp("demo") / "flights"
    build_project(folder)
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A project of the test's own."""
    return Path(shutil.copytree(built, tmp_path / "flights"))


def test_the_flights_are_whole_and_have_their_types():
    flights = pq.read_table(data("flights"))
    assert flights.num_rows == 336_776
    assert {field.name: field.type for field in flights.schema} == FLIGHTS_TYPES
    assert list(flights.schema.names) == list(FLIGHTS_TYPES)


def test_nulls_are_real_nulls():
    flights = pq.read_table(data("flights"))
    nulls = {name: flights[name].null_count for name in flights.column_names if flights[name].null_count}
    assert nulls == {
        "dep_time": 8_255,
        "dep_delay": 8_255,
        "arr_time": 8_713,
        "arr_delay": 9_430,
        "tailnum": 2_512,
        "air_time": 9_430,
    }
    planes = pq.read_table(data("planes"))
    assert (planes["year"].null_count, planes["speed"].null_count) == (70, 3_299)


def test_airlines_and_planes_are_whole():
    assert pq.read_metadata(data("airlines")).num_rows == 16
    assert pq.read_metadata(data("planes")).num_rows == 3_322


def test_the_package_stays_small():
    assert sum(data(name).stat().st_size for name in ("flights", "airlines", "planes")) <= 6_000_000


@pytest.mark.parametrize(
    ("table", "key"),
    [("flights", "time_hour, carrier, flight"), ("airlines", "carrier"), ("planes", "tailnum")],
)
def test_keys_are_unique_and_not_null(built: Path, table: str, key: str):
    rows, keys, whole = numbers(
        built, f"SELECT count(*), count(DISTINCT ({key})), count(*) FILTER (({key}) IS NOT NULL) FROM {table}"
    )
    assert rows == keys == whole


def test_time_hour_is_the_instant_of_the_local_scheduled_hour(built: Path):
    local = "make_timestamp(year, month, day, hour, 0, 0) AT TIME ZONE 'America/New_York'"
    assert numbers(built, f"SELECT count(*) FROM flights WHERE time_hour IS DISTINCT FROM {local}") == [0]


def test_the_warehouse_holds_the_packaged_rows(built: Path):
    packaged = pq.read_table(data("flights"))
    names = ", ".join(packaged.column_names)
    assert query(built, f"SELECT {names} FROM flights ORDER BY time_hour, carrier, flight").equals(packaged)
    assert query(built, "FROM airlines").equals(pq.read_table(data("airlines")))
    assert query(built, "FROM planes").equals(pq.read_table(data("planes")))


def test_updated_at_is_a_day_after_the_scheduled_departure(built: Path):
    summary = query(
        built, "SELECT min(updated_at), max(updated_at), count(updated_at) FROM flights"
    ).to_pylist()[0]
    assert list(summary.values()) == [
        datetime(2013, 1, 2, 10, 15, tzinfo=UTC),
        datetime(2014, 1, 2, 4, 59, tzinfo=UTC),
        336_776,
    ]


def test_two_builds_are_equal_whatever_the_time_zone_of_the_host(built: Path, tmp_path: Path):
    again = tmp_path / "again"
    build = "import pathlib, sys, ecmbatch.demo.project as p; p.build_project(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, again], env={**os.environ, "TZ": "Asia/Kolkata"}, check=True)
    for table in ("flights", "airlines", "planes"):
        assert query(again, f"FROM {table}").equals(query(built, f"FROM {table}"))
    texts = [
        path.relative_to(built) for path in built.rglob("*") if path.is_file() and path.suffix != ".duckdb"
    ]
    assert {str(path): (again / path).read_bytes() for path in texts} == {
        str(path): (built / path).read_bytes() for path in texts
    }


def test_a_project_has_all_its_files(built: Path):
    assert sorted(str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()) == [
        ".gitignore",
        "README.md",
        "changes.py",
        "ecmbatch.toml",
        "jobs/daily-delays.json",
        "jobs/flights-by-date.json",
        "jobs/flights-by-origin.json",
        "jobs/flights-context.json",
        "jobs/flights-incremental.json",
        "warehouse.duckdb",
    ]


@pytest.mark.parametrize(
    "name", ["ecmbatch.toml", "README.md", "warehouse.duckdb", "jobs/flights-context.json"]
)
def test_existing_files_are_refused_and_left_as_they_are(tmp_path: Path, name: str):
    taken = tmp_path / name
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("mine")
    with pytest.raises(UsageError, match=name) as raised:
        build_project(tmp_path)
    assert raised.value.exit_code == 2
    assert taken.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [taken]


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    build_project(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "ecmbatch.toml").is_file()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "flights").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written"):
        build_project(tmp_path / "flights")


@pytest.mark.parametrize("batches", [1, 4])
def test_as_many_flights_change_as_is_reported_and_no_others(built: Path, project: Path, batches: int):
    changed = [apply_changes(project, AT + timedelta(hours=batch)) for batch in range(batches)]
    assert changed[0] == 3_356
    with duckdb.connect(project / "warehouse.duckdb") as connection:
        connection.execute(f"ATTACH '{built / 'warehouse.duckdb'}' AS before (READ_ONLY)")
        untouched = "FROM flights WHERE updated_at < $at"
        stamped = connection.execute(
            "SELECT count(*) FROM flights WHERE updated_at = $at", {"at": AT + timedelta(hours=batches - 1)}
        ).fetchone()
        strangers = connection.execute(f"{untouched} EXCEPT FROM before.flights", {"at": AT}).fetchall()
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT (time_hour, carrier, flight)) FROM flights"
        )
        counted = rows.fetchone()
    assert stamped == (changed[-1],)
    assert strangers == []
    assert counted == (336_776 + 776 * batches,) * 2


def test_the_same_changes_give_the_same_rows(built: Path, project: Path, tmp_path: Path):
    other = Path(shutil.copytree(built, tmp_path / "other"))
    assert apply_changes(project, AT) == apply_changes(other, AT)
    ordered = "FROM flights ORDER BY time_hour, carrier, flight"
    assert query(project, ordered).equals(query(other, ordered))


def test_an_instant_without_a_time_zone_is_refused(project: Path):
    with pytest.raises(ValueError, match="no time zone"):
        apply_changes(project, AT.replace(tzinfo=None))


def test_changes_without_a_warehouse_make_no_new_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no warehouse\.duckdb"):
        apply_changes(tmp_path, AT)
    assert list(tmp_path.iterdir()) == []


def test_the_projects_own_script_changes_flights_from_any_folder(project: Path, tmp_path: Path):
    before = datetime.now(UTC)
    script = [sys.executable, str(project / "changes.py")]
    ran = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("3,356 flights changed")
    newest = query(project, "SELECT max(updated_at) AS newest FROM flights").to_pylist()[0]["newest"]
    assert before <= newest <= datetime.now(UTC)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_gives_each_flight_one_context_id(built: Path, job: str):
    definition = json.loads((built / "jobs" / f"{job}.json").read_text())
    sql = definition["source"]["query"]
    bound = sql.replace(":last_sync", "TIMESTAMPTZ '1970-01-01 00:00:00Z'").replace(
        ":window_end", "TIMESTAMPTZ '2026-01-01 00:00:00Z'"
    )
    facts = RunFacts(run_id="run", job_id=job, started_at=AT)
    mapper = FIELD_MAPPER.build(FIELD_MAPPER.parse_config(definition["transform"]["config"]), facts)
    records = pa.Table.from_batches([mapper.process(batch) for batch in query(built, bound).to_batches()])
    assert records.num_rows == 336_776
    assert pc.count_distinct(records["context_id"]).as_py() == 336_776
    assert "2013-01-01T10Z-UA-1545" in records["context_id"].to_pylist()


def test_both_jobs_write_the_same_records():
    jobs = [
        json.loads(files("ecmbatch.demo").joinpath(f"template/jobs/{job}.json").read_text()) for job in JOBS
    ]
    full, incremental = jobs
    assert full["transform"] == incremental["transform"]
    assert full["sink"] == incremental["sink"]
    assert incremental["source"]["query"].startswith(full["source"]["query"])


@pytest.mark.parametrize("job", ALL_JOBS)
def test_the_jobs_load(built: Path, job: str):
    jobs = pytest.importorskip("ecmbatch.protocol.job")
    loaded = jobs.load_job((built / "jobs" / f"{job}.json").read_text())
    assert loaded.job_id == job
