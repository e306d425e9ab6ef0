"""A publishing process that really dies, at every instant between two effects, and the one that follows it."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import publishing
from duckdb_tables import read_table
from ecmbatch.crash_points import CrashPoint
from ecmbatch.stores.store import PARTITION_COLUMN, Mode, Publication, PublishedRows, StagedFile, Store
from ecmbatch.testing.store_contract import AT, customer, publication

STEPS: tuple[CrashPoint, ...] = (
    "publish.marker",
    "publish.head",
    "publish.fold",
    "publish.apply",
    "publish.before_commit",
    "publish.after_commit",
)

SETTINGS = {"path": "context.duckdb", "threads": 1, "memory_limit": "200MB"}


def open_store(folder: Path) -> Store:
    return publishing.open_store("duckdb", SETTINGS, folder)


def second_run(root: Path, mode: Mode) -> Publication:
    """A run big enough that much of it is written to the file before the commit."""
    files = [StagedFile(path=path, rows=100_000) for path in sorted((root / "staged").iterdir())]
    return replace(publication(root, "run-2", mode=mode, live=True), files=files)


def stage_second_run(root: Path) -> None:
    (root / "staged").mkdir()
    for number in range(2):
        ids = pa.array(range(number * 50_000, number * 50_000 + 100_000), pa.int64())
        names = pa.array([f"second {number} {place % 7}" for place in range(100_000)])
        table = pa.table({"id": ids, "name": names, "amount": pa.nulls(100_000, pa.decimal128(12, 2))})
        table = table.append_column(PARTITION_COLUMN, pa.array([0] * 100_000, pa.int32()))
        pq.write_table(table, root / "staged" / f"{number:06d}.parquet", compression="zstd")


def contents(folder: Path) -> pa.Table:
    table = read_table(folder / "context.duckdb", "customers")
    return table.sort_by(
        [(field.name, "ascending") for field in table.schema if not pa.types.is_list(field.type)]
    )


def killed(root: Path, folder: Path, mode: Mode, point: CrashPoint) -> int:
    return publishing.publish_and_die("duckdb", SETTINGS, folder, second_run(root, mode), point)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_killed_anywhere_and_published_again_equals_published_once(tmp_path: Path, mode: Mode) -> None:
    stage_second_run(tmp_path)
    first_run = publication(tmp_path, "run-1", [customer(number, "first") for number in range(1000)])
    whole = tmp_path / "whole"
    open_store(whole).publish(first_run, AT)
    expected = open_store(whole).publish(second_run(tmp_path, mode), AT)
    for point in STEPS:
        folder = tmp_path / point
        store = open_store(folder)
        store.publish(first_run, AT)
        committed = point == "publish.after_commit"
        assert killed(tmp_path, folder, mode, point) == -signal.SIGKILL
        # And killed once more while it recovers.
        assert killed(tmp_path, folder, mode, point) == -signal.SIGKILL
        assert store.marker("run-2") == (expected if committed else None)
        if not committed:
            assert contents(folder)["name"].unique().to_pylist() == ["first"]
        assert store.publish(second_run(tmp_path, mode), AT) == expected
        assert contents(folder).equals(contents(whole))
        head = store.head("customers-sync", "customers", "live")
        assert head is not None
        assert head.run_id == "run-2"


@pytest.mark.slow
def test_killed_while_columns_are_widened_and_published_again_equals_published_once(tmp_path: Path) -> None:
    stage_second_run(tmp_path)
    narrow = pa.schema([("id", pa.int32()), ("amount", pa.int16()), ("kept", pa.list_(pa.int8()))])
    stored = [{"id": number, "amount": number, "kept": [number % 100]} for number in range(5000)]
    first_run = publication(tmp_path, "run-1", stored, schema=narrow)
    whole = tmp_path / "whole"
    open_store(whole).publish(first_run, AT)
    before = contents(whole)
    expected = open_store(whole).publish(second_run(tmp_path, "upsert"), AT)
    assert contents(whole).schema.field("id").type == pa.int64()
    assert contents(whole).schema.field("amount").type == pa.decimal128(12, 2)
    for point in STEPS[:-1]:
        folder = tmp_path / point
        store = open_store(folder)
        store.publish(first_run, AT)
        assert killed(tmp_path, folder, "upsert", point) == -signal.SIGKILL
        assert contents(folder).equals(before)
        assert store.publish(second_run(tmp_path, "upsert"), AT) == expected
        assert contents(folder).equals(contents(whole))


@pytest.mark.slow
def test_a_commit_whose_process_died_is_seen_by_the_next_reader_at_once(tmp_path: Path) -> None:
    stage_second_run(tmp_path)
    folder = tmp_path / "store"
    assert killed(tmp_path, folder, "append", "publish.after_commit") == -signal.SIGKILL
    marker = open_store(folder).marker("run-2")
    assert marker is not None
    assert marker.rows == PublishedRows(inserted=200_000)
    assert contents(folder).num_rows == 200_000
