"""The benchmarks run; what they measure is nobody's business here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "duckdb-append-16",
        pytest.param("postgres-to-duckdb-append", marks=pytest.mark.every_combination),
        "postgres-to-postgres-upsert1",
    ],
)
def test_a_comparison_measures_both_sides_and_finds_the_same_rows(name: str, tmp_path: Path) -> None:
    options = ["--rows", "1000", "--only", name, "--repeat", "1", "--work", str(tmp_path)]
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    (comparison,) = json.loads((tmp_path / "results.json").read_text())["comparisons"]
    assert [variant["name"] for variant in comparison["variants"]] == ["hand-written", "ecmbatch"]
    assert all(variant["wall"] > 0 for variant in comparison["variants"])
