"""What the tests of a store publish: rows, staged files and publications of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import MAX_PREC, Context, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecmbatch.crash_points import CrashPoint
from ecmbatch.stores.store import (
    PARTITION_COLUMN,
    Mode,
    Publication,
    StagedFile,
)

Row = Mapping[str, Any]

AT = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
WINDOW_END = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
PUBLISH_CRASH_POINTS: tuple[CrashPoint, ...] = (
    "publish.marker",
    "publish.head",
    "publish.before_commit",
    "publish.after_commit",
)
"""Crash points that every store has; one with more steps may have more."""

CUSTOMERS = pa.schema([("id", pa.int64()), ("name", pa.string()), ("amount", pa.decimal128(12, 2))])


def stage_file(path: Path, rows: Sequence[Row], schema: pa.Schema, partition: int = 0) -> StagedFile:
    """Write *rows* as one sealed file of the stage and return what a publication says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    partitions = pa.array([row.get(PARTITION_COLUMN, partition) for row in rows], pa.int32())
    staged = table.append_column(PARTITION_COLUMN, partitions)
    pq.write_table(staged, path, compression="zstd", use_dictionary=False, write_statistics=False)
    return StagedFile(path=path, rows=len(rows))


def publication(
    folder: Path,
    run_id: str,
    *files: Sequence[Row],
    schema: pa.Schema = CUSTOMERS,
    mode: Mode = "upsert",
    key: tuple[str, ...] | None = None,
    **settings: Any,
) -> Publication:
    """Stage *files* and return a publication of them to table ``customers``; backfills unless told otherwise.

    The key is ``id`` for upserts where nothing else is said.
    """
    staged = [
        stage_file(folder / "stage" / run_id / f"{number:06d}.parquet", rows, schema)
        for number, rows in enumerate(files)
    ]
    return replace(
        Publication(
            run_id=run_id,
            job_id="customers-sync",
            stream="live",
            table="customers",
            mode=mode,
            key=key if key is not None else ("id",) * (mode == "upsert"),
            schema=schema,
            files=staged,
            manifest=f"manifest of {run_id}",
            live=False,
        ),
        **settings,
    )


def customer(number: int | None, name: str | None, amount: str | None = "1.00") -> Row:
    """Return a row of :data:`CUSTOMERS`."""
    return {"id": number, "name": name, "amount": None if amount is None else Decimal(amount)}


def comparable(value: Any) -> Any:
    """Return *value* so that equal ones look equal, whatever time zone or trailing zeros a store names."""
    if isinstance(value, Decimal):
        return value.normalize(Context(prec=MAX_PREC))
    if isinstance(value, datetime):
        return (
            value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        )
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(inner) for inner in value]
    return value
