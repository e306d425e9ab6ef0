"""What is compared. Nothing is made or run before a comparison is measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from benchmarks.comparison import Comparison, Variant
from benchmarks.lab import Crash, Lab, Source, hash_partitions

_RULES = [
    {"type": "row_count", "min": 1},
    {"type": "null_check", "fields": ["context_id", "email"], "threshold": 0},
    {"type": "freshness", "field": "updated_at", "max_age": "36500 days"},
]

_CHECKPOINT_ROWS = 100_000


def comparisons(lab: Lab, rows: Sequence[int]) -> Iterator[Comparison]:
    """Yield all comparisons, for every number of *rows* where it matters."""
    yield startup(lab)
    for count in rows:
        yield from loads(lab, count)
        yield checkpoints(lab, count)
        yield rules(lab, count)
        yield partitions(lab, count)
        yield from resume(lab, count)
        yield from memory(lab, 2 * count)


def startup(lab: Lab) -> Comparison:
    """Ten rows, and help: what every command pays."""
    source = Source(format="parquet", rows=10)
    shows_help = Variant(
        name="ecmbatch --help",
        command=[sys.executable, "-m", "ecmbatch", "--help"],
        prepare=lambda folder: None,
    )
    return Comparison(
        name="startup",
        rows=10,
        variants=[lab.by_hand(source), lab.ecmbatch(source), shows_help],
        same_result=False,
    )


def loads(lab: Lab, rows: int) -> Iterator[Comparison]:
    """Appends and upserts from either source, with 1 and 16 partitions, beside the hand-written pipeline."""
    for source in (
        Source(format="parquet", rows=rows),
        Source(format="parquet", rows=rows, changed_percent=1),
        Source(format="parquet", rows=rows, changed_percent=100),
        Source(format="duckdb", rows=rows),
        Source(format="duckdb", rows=rows, changed_percent=1),
        Source(format="duckdb", rows=rows, changed_percent=100),
    ):
        for count in (1, 16):
            yield Comparison(
                name=f"{source.format}-{source.mode}{source.changed_percent or ''}-{count}",
                rows=rows,
                variants=[lab.by_hand(source), lab.ecmbatch(source, **hash_partitions(count))],
            )


def checkpoints(lab: Lab, rows: int) -> Comparison:
    """What checkpoints cost, beside a run with a single one at its end; small batches in all of them."""
    source = Source(format="parquet", rows=rows)
    seldom = {"every_rows": 1_000_000_000, "every_seconds": 86_400}
    reading = {"batch_rows": 10_000}
    variants = [lab.ecmbatch(source, name="one checkpoint", reading=reading, checkpoint=seldom)]
    for every_rows in (250_000, 100_000, 25_000, 10_000):
        often = {"every_rows": every_rows}
        variants.append(lab.ecmbatch(source, name=f"every {every_rows:,}", reading=reading, checkpoint=often))
    return Comparison(name="checkpoints", rows=rows, variants=variants)


def rules(lab: Lab, rows: int) -> Comparison:
    """What the three rules of the protocol cost."""
    source = Source(format="parquet", rows=rows)
    variants = [
        lab.ecmbatch(source, name="no rules"),
        lab.ecmbatch(source, name="three rules", validation={"rules": _RULES}),
    ]
    return Comparison(name="rules", rows=rows, variants=variants)


def partitions(lab: Lab, rows: int) -> Comparison:
    """16 hash partitions beside one read of the same table, without and with an order to resume in."""
    source = Source(format="duckdb", rows=rows)
    variants = [
        lab.ecmbatch(source, name="1, no order"),
        lab.ecmbatch(source, name="1, ordered by id", reading={"order_by": "id"}),
        lab.ecmbatch(source, name="16", **hash_partitions(16)),
    ]
    return Comparison(name="partitions", rows=rows, variants=variants)


def resume(lab: Lab, rows: int) -> Iterator[Comparison]:
    """A run that was killed at 90 % of its rows, continued; beside the whole run."""
    killed = Crash(point="checkpoint.after", occurrence=max(1, rows * 9 // 10 // _CHECKPOINT_ROWS))
    for source, count in _plain_and_partitioned(rows):
        job = {
            "reading": {"batch_rows": _CHECKPOINT_ROWS // 2},
            "checkpoint": {"every_rows": _CHECKPOINT_ROWS},
            **hash_partitions(count),
        }
        variants = [
            lab.ecmbatch(source, name="whole run", **job),
            lab.resumed(source, name="resumed at 90 %", killed=killed, **job),
        ]
        yield Comparison(name=f"resume-{source.format}-{count}", rows=rows, variants=variants)


def memory(lab: Lab, rows: int) -> Iterator[Comparison]:
    """Peak memory of reading and staging, and of publishing, each in a process of its own."""
    staged = Crash(point="publish.before")
    for source, count in _plain_and_partitioned(rows):
        job = hash_partitions(count)
        yield Comparison(
            name=f"memory-{source.format}-{count}",
            rows=rows,
            variants=[
                lab.by_hand(source),
                lab.ecmbatch(source, name="reading and staging", killed=staged, **job),
                lab.resumed(source, name="publishing", killed=staged, **job),
            ],
            same_result=False,
        )


def _plain_and_partitioned(rows: int) -> Sequence[tuple[Source, int]]:
    return [(Source(format="parquet", rows=rows), 1), (Source(format="duckdb", rows=rows), 16)]
