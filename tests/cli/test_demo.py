from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ecmbatch.demo.demo import compare

Ecmbatch = Callable[..., Any]


@pytest.mark.slow
def test_the_interrupted_demo_proves_that_every_row_is_there_once(ecmbatch: Ecmbatch) -> None:
    result = ecmbatch("demo", "--interrupt", "--json")
    assert result.exit_code == 0
    kill, (continued, uninterrupted) = result.document["kill"], result.document["runs"]
    assert min(kill["complete"], kill["partial"], kill["untouched"]) > 0
    assert continued["attempt"] == 2
    assert continued["partitions"]["skipped_completed"] == kill["complete"]
    assert continued["partitions"]["resumed"] == kill["partial"]
    assert continued["rows"]["read"] == uninterrupted["rows"]["read"] == 336_776
    comparison = {"rows": 336_776, "only_after_the_kill": 0, "only_in_the_other": 0}
    assert result.document["comparison"] == comparison


@pytest.mark.slow
def test_the_demo_loads_everything_and_then_what_changed(ecmbatch: Ecmbatch, tmp_path: Path) -> None:
    result = ecmbatch("demo", "--keep", str(tmp_path / "kept"))
    assert result.exit_code == 0
    for text in ("336,776 inserted", "336,776 unchanged", "776 inserted, 2,580 updated"):
        assert text in result.out
    assert (tmp_path / "kept" / "ecmbatch.toml").is_file()


def test_the_comparison_sees_every_difference(tmp_path: Path) -> None:
    for name, rows in (("one", "(1, 'a'), (2, 'b'), (2, 'b')"), ("two", "(1, 'a'), (2, 'b'), (3, NULL)")):
        (tmp_path / name).mkdir()
        with duckdb.connect(tmp_path / name / "context.duckdb") as connection:
            connection.execute(
                f"CREATE TABLE flight_context AS SELECT *, '{name}' AS _ecm_run_id FROM (VALUES {rows}) t(id, v)"
            )
    comparison = compare(tmp_path / "one", tmp_path / "two")
    assert (comparison.only_after_the_kill, comparison.only_in_the_other) == (1, 1)
