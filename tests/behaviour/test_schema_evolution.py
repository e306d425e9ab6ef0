"""Columns that come, grow, go and drift: in the store, between partitions, between attempt and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from harness import (
    command,
    customers,
    customers_job,
    fill_warehouse,
    make_project,
    stored,
    was_killed,
    write_job,
)

pytestmark = pytest.mark.slow

ROWS = customers(120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    fill_warehouse(tmp_path, ROWS)
    return tmp_path


def warehouse(folder: Path, *statements: str) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def types(folder: Path) -> dict[str, str]:
    with duckdb.connect(str(folder / "context.duckdb"), read_only=True) as connection:
        return {row[0]: row[1] for row in connection.execute("DESCRIBE customers").fetchall()}


def plain_job(*, schema: str = "evolve", mode: str = "upsert", **sections: Any) -> dict[str, Any]:
    job = customers_job(mode=mode, **sections)
    del job["transform"]
    job["sink"] |= {"key": ["id"], "schema": schema}
    return job


def test_columns_are_added_widened_and_kept_and_the_plan_says_so(folder: Path) -> None:
    warehouse(folder, "ALTER TABLE customers ADD COLUMN visits INTEGER DEFAULT 3")
    write_job(folder, plain_job())
    assert command(folder, "run", "job.json").exit_code == 0
    warehouse(
        folder,
        "ALTER TABLE customers ALTER visits TYPE BIGINT",
        "UPDATE customers SET visits = 5000000000 WHERE id = 'c00001'",
        "ALTER TABLE customers RENAME COLUMN name TO full_name",
    )
    notes = " ".join(command(folder, "plan", "job.json", "--json").document["notes"])
    assert "new columns: full_name" in notes
    assert "column visits of table customers becomes int64; it is int32" in notes
    assert "does not deliver" in notes and "name" in notes
    assert command(folder, "run", "job.json").exit_code == 0
    assert types(folder) == {
        "id": "VARCHAR",
        "name": "VARCHAR",
        "amount": "DOUBLE",
        "visits": "BIGINT",
        "_ecm_run_id": "VARCHAR",
        "full_name": "VARCHAR",
    }
    assert stored(folder)[1] == ("c00001", "name 1", 1.5, 5_000_000_000, "name 1")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE customers ADD COLUMN tier VARCHAR",
        "ALTER TABLE customers ALTER amount TYPE DECIMAL(38, 2)",
        "ALTER TABLE customers RENAME COLUMN name TO full_name",
    ],
)
def test_a_frozen_schema_refuses_every_change_before_a_row_is_read(folder: Path, change: str) -> None:
    write_job(folder, plain_job(schema="freeze"))
    assert command(folder, "run", "job.json").exit_code == 0
    before, columns = stored(folder), types(folder)
    warehouse(folder, change)
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 1 and refused.document["rows"]["read"] == 0
    assert refused.document["error"]["code"] == "store"
    assert (stored(folder), types(folder)) == (before, columns)


def test_an_incompatible_type_is_named_before_a_row_is_read(folder: Path) -> None:
    write_job(folder, plain_job())
    assert command(folder, "run", "job.json").exit_code == 0
    before = stored(folder)
    warehouse(folder, "ALTER TABLE customers ALTER amount TYPE VARCHAR")
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 1 and refused.document["rows"]["read"] == 0
    assert "'amount'" in str(refused.document["error"])
    assert stored(folder) == before


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE customers ALTER amount TYPE VARCHAR",
        "ALTER TABLE customers ADD COLUMN extra INTEGER",
        "ALTER TABLE customers DROP COLUMN name",
    ],
)
def test_types_that_drift_between_attempt_and_resume_publish_nothing(folder: Path, drift: str) -> None:
    write_job(folder, plain_job(mode="append", partitions=4, every_rows=10))
    assert was_killed(command(folder, "run", "job.json", crash="checkpoint.after", occurrence=3))
    warehouse(folder, drift)
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 6 and refused.document["error"]["code"] == "source_changed"
    assert "--fresh" in str(refused.document["error"]["problems"] or refused.document["error"])
    assert stored(folder) == []


def test_a_processor_whose_types_drift_between_partitions_publishes_nothing(folder: Path) -> None:
    (folder / "processors.py").write_text(
        "import pyarrow as pa\nimport ecmbatch\n"
        "@ecmbatch.processor('drifting')\n"
        "def drifting(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:\n"
        "    late = 'c00077' in batch.column('id').to_pylist()\n"
        "    kind = pa.string() if late else pa.float64()\n"
        "    return batch.set_column(2, 'amount', batch.column('amount').cast(kind))\n"
    )
    with (folder / "ecmbatch.toml").open("a") as opened:
        opened.write('[processors]\nmodules = ["processors"]\n')
    write_job(folder, {**plain_job(partitions=4, every_rows=10), "transform": {"processor": "drifting"}})
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 1 and refused.document["error"]["code"] == "transform"
    assert "column 'amount' is string, was double" in refused.document["error"]["message"]
    assert stored(folder) == []
    again = command(folder, "run", "job.json", "--json")
    assert again.exit_code == 1 and stored(folder) == []


def test_a_table_that_was_changed_by_hand_under_a_run_takes_nothing_by_halves(folder: Path) -> None:
    write_job(folder, plain_job(mode="append"))
    assert command(folder, "run", "job.json").exit_code == 0
    fill_warehouse(folder, pa.concat_tables([ROWS, customers(10, start=500)]))
    assert was_killed(command(folder, "run", "job.json", crash="publish.before"))
    with duckdb.connect(str(folder / "context.duckdb")) as connection:
        connection.execute("ALTER TABLE customers ALTER amount TYPE VARCHAR")
    before = stored(folder)
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 1 and refused.document["error"]["code"] == "store"
    assert stored(folder) == before
    with duckdb.connect(str(folder / "context.duckdb")) as connection:
        connection.execute("ALTER TABLE customers ALTER amount TYPE DOUBLE")
    assert command(folder, "run", "job.json").exit_code == 0
    assert len(stored(folder)) == 120 + 130
