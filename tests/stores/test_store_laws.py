"""Random publications against a model of fifty lines that shares no code with the stores."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckdb_tables import read_table
from ecmbatch.errors import StoreError
from ecmbatch.stores.duckdb import DUCKDB
from ecmbatch.stores.memory import MemoryStore
from ecmbatch.stores.store import PARTITION_COLUMN, PublishedRows, Store
from ecmbatch.testing.store_contract import publication

Row = Mapping[str, Any]

NAN = float("nan")
SCHEMAS = {
    "all": pa.schema([("k", pa.int32()), ("l", pa.string()), ("o", pa.float64()), ("v", pa.string())]),
    "without v": pa.schema([("o", pa.float64()), ("k", pa.int32()), ("l", pa.string())]),
    "with w": pa.schema(
        [
            ("k", pa.int16()),
            ("l", pa.string()),
            ("o", pa.float64()),
            ("v", pa.string()),
            ("w", pa.list_(pa.int8())),
        ]
    ),
}
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "k": st.integers(0, 3) | st.sampled_from([0, 1, 2, 3, None]),
    "l": st.sampled_from(["a", "b"]),
    "o": st.sampled_from([None, -1.0, 0.0, 2.5, float("inf"), NAN]),
    "v": st.sampled_from([None, "", "x", "y"]),
    "w": st.sampled_from([None, [], [1], [None]]),
}


@st.composite
def publications(draw: st.DrawFn) -> dict[str, Any]:
    schema = SCHEMAS[draw(st.sampled_from(sorted(SCHEMAS)))]
    row = st.fixed_dictionaries(
        {name: VALUES[name] for name in schema.names} | {PARTITION_COLUMN: st.integers(0, 2)}
    )
    mode = draw(st.sampled_from(["upsert", "upsert", "upsert", "append", "replace"]))
    return {
        "schema": schema,
        "mode": mode,
        "key": draw(st.sampled_from([("k", "l"), ("l", "k")])) if mode != "append" else (),
        "order_by": draw(st.sampled_from([None, "o"])),
        "files": draw(st.lists(st.lists(row, max_size=5), max_size=3)),
        "allow_empty": True,
    }


class Model:
    """What publishing means, row by row in plain Python."""

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def publish(self, run_id: str, what: Mapping[str, Any]) -> PublishedRows | None:
        staged = [row for file in what["files"] for row in file]
        staged = sorted(staged, key=lambda row: row[PARTITION_COLUMN])
        columns = list(what["schema"].names)
        if what["mode"] != "append" and any(row[name] is None for row in staged for name in what["key"]):
            return None
        winners = self._winners(staged, what)
        if what["mode"] == "upsert" and self._repeats(winners, what["key"]):
            return None
        self.columns += [name for name in columns if name not in self.columns]
        self.rows = [{name: row.get(name) for name in [*self.columns, "_ecm_run_id"]} for row in self.rows]
        counts = {"inserted": 0, "updated": 0, "unchanged": 0, "outdated": 0, "deleted": 0}
        if what["mode"] == "replace":
            counts["deleted"], self.rows = len(self.rows), []
        for row in winners:
            delivered = {name: row[name] for name in columns}
            old = next((r for r in self.rows if what["mode"] == "upsert" and same(r, row, what["key"])), None)
            if old is None:
                counts["inserted"] += 1
                self.rows.append({**dict.fromkeys(self.columns), **delivered, "_ecm_run_id": run_id})
            elif what["order_by"] and rank(old["o"]) > rank(row["o"]):
                counts["outdated"] += 1
            elif same(old, row, columns):
                counts["unchanged"] += 1
            else:
                counts["updated"] += 1
                old.update(delivered, _ecm_run_id=run_id)
        return PublishedRows(folded=len(staged) - len(winners), **counts)

    def _winners(self, staged: Sequence[Row], what: Mapping[str, Any]) -> list[Row]:
        if not what["key"]:
            return list(staged)
        winners: list[Row] = []
        for row in staged:
            other = next((place for place, r in enumerate(winners) if same(r, row, what["key"])), None)
            if other is None:
                winners.append(row)
            elif not what["order_by"] or rank(row["o"]) >= rank(winners[other]["o"]):
                winners[other] = row
        return winners

    def _repeats(self, winners: Sequence[Row], key: Sequence[str]) -> bool:
        return any(sum(same(r, row, key) for r in self.rows) > 1 for row in winners)


def rank(value: float | None) -> tuple[int, float]:
    return (0, 0.0) if value is None else (2, 0.0) if value != value else (1, value)


def same(ours: Row, theirs: Row, names: Sequence[str]) -> bool:
    return all(repr(ours[name]) == repr(theirs[name]) for name in names)


def in_order(rows: Sequence[Row]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


def check_against_model(store: Store, rows_of: Any, folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    model = Model()
    widest_types = {"schema": SCHEMAS["all"], "mode": "append", "key": (), "order_by": None, "files": []}
    for number, step in enumerate([widest_types, *steps]):
        run = publication(
            folder,
            f"run-{number}",
            *step["files"],
            **{name: value for name, value in step.items() if name != "files"},
        )
        expected = model.publish(run.run_id, step)
        if expected is None:
            with pytest.raises(StoreError):
                store.publish(run, datetime(2026, 1, 1, tzinfo=UTC))
        else:
            assert store.publish(run, datetime(2026, 1, 1, tzinfo=UTC)).rows == expected
        assert in_order(rows_of(store)) == in_order(model.rows)


@settings(deadline=None)
@given(st.lists(publications(), max_size=4))
def test_a_memory_store_does_what_the_model_does(steps):
    with tempfile.TemporaryDirectory() as folder:
        check_against_model(MemoryStore(), lambda store: store.rows("customers"), Path(folder), steps)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.lists(publications(), min_size=1, max_size=3))
def test_a_duckdb_store_does_what_the_model_does(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "context.duckdb"
        store = DUCKDB.build(DUCKDB.parse_config({"path": str(path), "threads": 1}), Path(folder), print)
        check_against_model(store, lambda _: read_table(path, "customers").to_pylist(), Path(folder), steps)
