"""Comparing processes: all variants once, then all again (A B A B …), so that a busy minute hits every one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.process import Usage, run

TARGET = "context.duckdb"
"""The file that every variant loads, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A command. ``prepare`` fills its empty folder, untimed; ``ends`` is the exit code (or − signal) it has."""

    name: str
    command: Sequence[str]
    prepare: Callable[[Path], None]
    ends: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Variants of one piece of work on *rows* rows; the first one is the measure of the others.

    With ``same_result`` all of them must leave the same rows in their targets.
    """

    name: str
    rows: int
    variants: Sequence[Variant]
    same_result: bool = True

    def measure(self, repeat: int, folder: Path) -> Result:
        """Run every variant *repeat* times, each in a new folder below *folder*."""
        taken: dict[str, list[Usage]] = {variant.name: [] for variant in self.variants}
        for round_ in range(1, repeat + 1):
            for variant in self.variants:
                usage = _measure(variant, folder / variant.name)
                taken[variant.name].append(usage)
                _tell(f"{self.name} {self.rows:,} {variant.name} {round_}/{repeat}: {usage.wall:.2f} s")
        if self.same_result:
            self._check_results(folder)
        shutil.rmtree(folder)
        return Result(comparison=self, taken=taken)

    def _check_results(self, folder: Path) -> None:
        found = {variant.name: _fingerprint(folder / variant.name) for variant in self.variants}
        if len(set(found.values())) > 1:
            raise RuntimeError(f"{self.name}: the variants did not load the same rows: {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What every run of every variant took."""

    comparison: Comparison
    taken: Mapping[str, Sequence[Usage]]

    def summary(self, variant: str) -> dict[str, float]:
        """Return medians, and the medians over the rounds of the ratios to the first variant."""
        taken, first = self.taken[variant], self.taken[self.comparison.variants[0].name]
        return {
            "wall": median(usage.wall for usage in taken),
            "cpu": median(usage.cpu for usage in taken),
            "peak_mb": median(usage.peak_mb for usage in taken),
            "wall_ratio": median(a.wall / b.wall for a, b in zip(taken, first, strict=True)),
            "cpu_ratio": median(a.cpu / b.cpu for a, b in zip(taken, first, strict=True)),
        }

    def table(self) -> str:
        """Return the lines of the table, one for each variant."""
        lines = []
        for variant in self.comparison.variants:
            summary = self.summary(variant.name)
            lines.append(
                f"{self.comparison.name:30} {self.comparison.rows:>12,} {variant.name:24}"
                f"{summary['wall']:8.2f}{summary['cpu']:8.2f}{summary['peak_mb']:9.0f}"
                f"{summary['wall_ratio']:8.2f}{summary['cpu_ratio']:8.2f}"
            )
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.comparison.name,
            "rows": self.comparison.rows,
            "variants": [
                {"name": name, **self.summary(name), "runs": [asdict(usage) for usage in taken]}
                for name, taken in self.taken.items()
            ],
        }


HEADER = f"{'comparison':30} {'rows':>12} {'variant':24}  wall s   cpu s  peak MB  × wall   × cpu"


def _measure(variant: Variant, folder: Path) -> Usage:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variant.prepare(folder)
    # What the preparation wrote must not be written back while the clock runs.
    os.sync()
    return run(variant.command, folder, ends=variant.ends)


def _fingerprint(folder: Path) -> str:
    run([sys.executable, "-m", "benchmarks.fingerprint", TARGET], folder)
    return (folder / "output.txt").read_text()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
