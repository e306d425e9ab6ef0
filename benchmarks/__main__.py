"""``python -m benchmarks``: measure, print a table, write ``results.json``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.cases import comparisons
from benchmarks.comparison import HEADER, Result
from benchmarks.lab import Lab
from benchmarks.limits import MEMORY_LIMIT, THREADS
from benchmarks.postgres import PostgresLab


def main() -> None:
    """Measure what was asked for, one comparison after the other."""
    arguments = _arguments()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    found = _conditions()
    print("  ".join(f"{name}: {value}" for name, value in found.items()))
    print(HEADER, flush=True)
    results: list[Result] = []
    lab = Lab(work)
    with closing(PostgresLab(lab)) as postgres:
        through_postgres = chain.from_iterable(map(postgres.comparisons, arguments.rows))
        for comparison in chain(comparisons(lab, arguments.rows), through_postgres):
            if not any(fnmatch(comparison.name, pattern) for pattern in arguments.only):
                continue
            results.append(comparison.measure(arguments.repeat, work / "runs"))
            print(results[-1].table(), flush=True)
            _write(work / "results.json", found, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="See benchmarks/README.md.")
    parser.add_argument(
        "--rows", type=_numbers, default=[1_000_000, 10_000_000], help="default: 1000000,10000000"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=["*"],
        help="names of comparisons, with wildcards, separated by commas: parquet-*,startup",
    )
    parser.add_argument("--repeat", type=int, default=3, help="how often each variant runs; default: 3")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "ecmbatch-benchmarks"),
        help="where data is made, and kept for the next time; default: %(default)s",
    )
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _conditions() -> dict[str, Any]:
    packages = ("ecmbatch", "duckdb", "pyarrow", "numpy")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": os.getloadavg()[0],
        "duckdb_threads": THREADS,
        "duckdb_memory_limit": MEMORY_LIMIT,
    }


def _write(path: Path, found: dict[str, Any], results: Sequence[Result]) -> None:
    document = {"conditions": found, "comparisons": [result.document() for result in results]}
    path.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
