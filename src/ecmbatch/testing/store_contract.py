"""What every store must do, as tests. A store may call itself exactly-once when it passes them all.

Subclass :class:`StoreContract` in a test module and say how to open your store and read its tables::

    class TestLakeStore(StoreContract):
        def open_store(self, folder: Path) -> Store:
            return LakeStore(folder / "lake")

        def read_table(self, store: Store, name: str) -> pa.Table:
            return store.scan(name)

``open_store`` is called again with the same folder where a test plays a new process: what was published
must be there.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import MAX_PREC, Context, Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import Fenced, IntegrityError, StoreError, Superseded
from ecmbatch.stores.store import (
    PARTITION_COLUMN,
    PROVENANCE_COLUMN,
    Head,
    Mode,
    Publication,
    PublishedRows,
    StagedFile,
    Store,
)
from ecmbatch.testing.crashes import SimulatedCrash, crash_at

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


class StoreContract(ABC):
    """Tests that every store passes; see the module on how to use them."""

    @abstractmethod
    def open_store(self, folder: Path) -> Store:
        """Return a store whose data live below *folder*, as a new process would open it."""

    @abstractmethod
    def read_table(self, store: Store, name: str) -> pa.Table:
        """Return all rows and columns of a table, in any order."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return self.open_store(tmp_path)

    def rows(self, store: Store, *, table: str = "customers", provenance: bool = False) -> list[Row]:
        """Return the rows of a table, in an order that depends on nothing but the rows."""
        found = self.read_table(store, table)
        if not provenance and PROVENANCE_COLUMN in found.column_names:
            found = found.drop_columns([PROVENANCE_COLUMN])
        return sorted(found.to_pylist(), key=repr)

    # Nothing there yet.

    def test_a_new_store_knows_no_table_head_or_marker(self, store: Store) -> None:
        assert store.table("customers") is None
        assert store.head("customers-sync", "customers", "live") is None
        assert store.marker("run-1") is None

    # Modes.

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_the_first_publication_creates_the_table(self, store: Store, tmp_path: Path, mode: Mode) -> None:
        rows = [customer(1, "Ada"), customer(2, None), customer(3, "Žofie ☕", None)]
        marker = store.publish(publication(tmp_path, "run-1", rows, mode=mode), AT)
        assert self.rows(store) == sorted(rows, key=repr)
        assert marker.rows == PublishedRows(inserted=3)
        table = store.table("customers")
        assert table is not None
        assert (table.schema.names, table.rows) == (["id", "name", "amount"], 3)

    def test_append_adds_every_staged_row_duplicates_included(self, store: Store, tmp_path: Path) -> None:
        rows = [customer(1, "Ada"), customer(1, "Ada"), customer(None, None)]
        store.publish(publication(tmp_path, "run-1", rows, mode="append"), AT)
        marker = store.publish(publication(tmp_path, "run-2", rows, mode="append", key=("id",)), AT)
        assert marker.rows == PublishedRows(inserted=3)
        assert self.rows(store) == sorted([*rows, *rows], key=repr)

    def test_upsert_inserts_updates_and_leaves_alone(self, store: Store, tmp_path: Path) -> None:
        before = [customer(1, "Ada"), customer(2, "Bo"), customer(3, None)]
        after = [customer(2, "Bo"), customer(3, "Cy"), customer(4, "Di")]
        store.publish(publication(tmp_path, "run-1", before), AT)
        marker = store.publish(publication(tmp_path, "run-2", after), AT)
        assert marker.rows == PublishedRows(inserted=1, updated=1, unchanged=1)
        assert self.rows(store, provenance=True) == sorted(
            [
                {**customer(1, "Ada"), PROVENANCE_COLUMN: "run-1"},
                {**customer(2, "Bo"), PROVENANCE_COLUMN: "run-1"},
                {**customer(3, "Cy"), PROVENANCE_COLUMN: "run-2"},
                {**customer(4, "Di"), PROVENANCE_COLUMN: "run-2"},
            ],
            key=repr,
        )

    def test_upsert_tells_null_from_a_value_both_ways(self, store: Store, tmp_path: Path) -> None:
        store.publish(
            publication(tmp_path, "run-1", [customer(1, None), customer(2, "Bo"), customer(3, None)]), AT
        )
        after = [customer(1, "Ada"), customer(2, None), customer(3, None)]
        marker = store.publish(publication(tmp_path, "run-2", after), AT)
        assert marker.rows == PublishedRows(updated=2, unchanged=1)
        assert self.rows(store) == sorted(after, key=repr)

    def test_replace_leaves_exactly_the_staged_rows(self, store: Store, tmp_path: Path) -> None:
        store.publish(
            publication(tmp_path, "run-1", [customer(1, "Ada"), customer(2, "Bo")], mode="append"), AT
        )
        after = [customer(2, "Bo"), customer(2, "Bo"), customer(None, "Cy")]
        marker = store.publish(publication(tmp_path, "run-2", after, mode="replace"), AT)
        assert marker.rows == PublishedRows(inserted=3, deleted=2)
        assert self.rows(store) == sorted(after, key=repr)

    def test_no_rows_replace_a_table_with_rows_only_where_that_is_allowed(
        self, store: Store, tmp_path: Path
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        empty = publication(tmp_path, "run-2", mode="replace")
        with pytest.raises(StoreError, match="no rows"):
            store.publish(empty, AT)
        assert self.rows(store) == [customer(1, "Ada")]
        assert store.publish(replace(empty, allow_empty=True), AT).rows == PublishedRows(deleted=1)
        assert self.rows(store) == []

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_no_rows_create_an_empty_table(self, store: Store, tmp_path: Path, mode: Mode) -> None:
        assert store.publish(publication(tmp_path, "run-1", [], mode=mode), AT).rows == PublishedRows()
        table = store.table("customers")
        assert table is not None
        assert table.rows == 0

    # Keys.

    def test_the_last_staged_row_of_a_key_wins_by_partition_file_and_row(
        self, store: Store, tmp_path: Path
    ) -> None:
        def row(number: int, name: str, partition: int) -> Row:
            return {**customer(number, name), PARTITION_COLUMN: partition}

        first = [row(1, "partition 1", 1), row(2, "first row", 0), row(2, "last row", 0), row(3, "file 0", 0)]
        second = [row(1, "partition 0, later file", 0), row(3, "file 1", 0)]
        marker = store.publish(publication(tmp_path, "run-1", first, second), AT)
        assert marker.rows == PublishedRows(inserted=3, folded=3)
        assert self.rows(store) == [
            customer(1, "partition 1"),
            customer(2, "last row"),
            customer(3, "file 1"),
        ]

    def test_the_greatest_order_by_wins_null_is_lowest_and_a_tie_takes_the_last(
        self, store: Store, tmp_path: Path
    ) -> None:
        first = [customer(1, "newest", "9"), customer(2, "no amount", None), customer(3, "first", "5")]
        second = [customer(1, "older", "8"), customer(2, "some", "-1"), customer(3, "last", "5")]
        more = [customer(1, "no amount", None)]
        marker = store.publish(publication(tmp_path, "run-1", first, second, more, order_by="amount"), AT)
        assert marker.rows == PublishedRows(inserted=3, folded=4)
        assert self.rows(store) == [
            customer(1, "newest", "9.00"),
            customer(2, "some", "-1.00"),
            customer(3, "last", "5.00"),
        ]

    def test_a_stored_row_that_is_newer_by_order_by_stays(self, store: Store, tmp_path: Path) -> None:
        before = [
            customer(1, "stored", "5.00"),
            customer(2, "stored", "5.00"),
            customer(3, "stored", None),
            customer(4, "stored", "5.00"),
            customer(5, "stored", None),
        ]
        after = [
            customer(1, "older", "4.00"),
            customer(2, "tie", "5.00"),
            customer(3, "newer", "0.00"),
            customer(4, "no amount", None),
            customer(5, "no amount either", None),
        ]
        store.publish(publication(tmp_path, "run-1", before), AT)
        marker = store.publish(publication(tmp_path, "run-2", after, order_by="amount"), AT)
        assert marker.rows == PublishedRows(updated=3, outdated=2)
        assert self.rows(store) == sorted([before[0], after[1], after[2], before[3], after[4]], key=repr)

    def test_folding_counts_against_updates_not_beside_them(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        twice = [customer(1, "Bo"), customer(1, "Ada")]
        assert store.publish(publication(tmp_path, "run-2", twice), AT).rows == PublishedRows(
            unchanged=1, folded=1
        )

    def test_replace_folds_only_where_it_has_a_key(self, store: Store, tmp_path: Path) -> None:
        rows = [customer(1, "Ada"), customer(1, "Bo")]
        assert store.publish(
            publication(tmp_path, "run-1", rows, mode="replace", key=("id",)), AT
        ).rows == PublishedRows(inserted=1, folded=1)
        assert self.rows(store) == [customer(1, "Bo")]
        assert store.publish(publication(tmp_path, "run-2", rows, mode="replace"), AT).rows == PublishedRows(
            inserted=2, deleted=1
        )

    def test_a_key_may_have_several_columns(self, store: Store, tmp_path: Path) -> None:
        before = [customer(1, "Ada", "1"), customer(1, "Bo", "1"), customer(2, "Ada", "1")]
        store.publish(publication(tmp_path, "run-1", before, key=("id", "name")), AT)
        after = [customer(1, "Bo", "2"), customer(2, "Bo", "1")]
        marker = store.publish(publication(tmp_path, "run-2", after, key=("name", "id")), AT)
        assert marker.rows == PublishedRows(inserted=1, updated=1)
        assert len(self.rows(store)) == 4

    def test_a_table_of_nothing_but_keys_can_be_upserted(self, store: Store, tmp_path: Path) -> None:
        schema = pa.schema([("id", pa.int64())])
        store.publish(publication(tmp_path, "run-1", [{"id": 1}], schema=schema), AT)
        marker = store.publish(publication(tmp_path, "run-2", [{"id": 1}, {"id": 2}], schema=schema), AT)
        assert marker.rows == PublishedRows(inserted=1, unchanged=1)

    @pytest.mark.parametrize("mode", ["upsert", "replace"])
    def test_null_in_a_key_refuses_the_whole_with_the_count(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        rows = [customer(2, "Bo"), customer(None, "Cy"), customer(3, None)]
        bad = publication(tmp_path, "run-2", rows, mode=mode, key=("id", "name"))
        with pytest.raises(StoreError, match="2 rows have NULL in the key"):
            store.publish(bad, AT)
        assert self.rows(store) == [customer(1, "Ada")]
        assert store.marker("run-2") is None

    def test_a_table_that_repeats_a_delivered_key_is_refused(self, store: Store, tmp_path: Path) -> None:
        stored = [customer(1, "Ada"), customer(1, "Bo"), customer(2, "Cy")]
        store.publish(publication(tmp_path, "run-1", stored, mode="append"), AT)
        with pytest.raises(StoreError, match="another stored row"):
            store.publish(publication(tmp_path, "run-2", [customer(1, "Di")]), AT)
        assert self.rows(store) == sorted(stored, key=repr)

    # Exactly once.

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_publishing_again_changes_nothing_and_returns_the_marker(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        run = publication(
            tmp_path, "run-1", [customer(1, "Ada")], mode=mode, live=True, window_end=WINDOW_END
        )
        first = store.publish(run, AT)
        again = self.open_store(tmp_path)
        assert again.publish(run, AT.replace(year=2027)) == first
        assert again.marker("run-1") == first
        assert (first.outcome, first.manifest, first.at) == ("published", "manifest of run-1", AT)
        assert self.rows(again) == [customer(1, "Ada")]

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    @pytest.mark.parametrize("crash_point", PUBLISH_CRASH_POINTS)
    def test_a_publication_interrupted_anywhere_is_published_once(
        self, tmp_path: Path, crash_point: CrashPoint, mode: Mode
    ) -> None:
        store = self.open_store(tmp_path)
        store.publish(publication(tmp_path, "run-0", [customer(1, "Ada"), customer(2, "Bo")]), AT)
        run = publication(tmp_path, "run-1", [customer(2, "Cy"), customer(3, "Di")], mode=mode, live=True)

        with crash_at(crash_point), pytest.raises(SimulatedCrash):
            store.publish(run, AT)
        fresh = self.open_store(tmp_path)
        committed = crash_point == "publish.after_commit"
        assert (fresh.marker("run-1") is not None) == committed
        if not committed:
            assert self.rows(fresh) == [customer(1, "Ada"), customer(2, "Bo")]
            assert fresh.head("customers-sync", "customers", "live") is None
        fresh.publish(run, AT)
        expected = {
            "append": [customer(1, "Ada"), customer(2, "Bo"), customer(2, "Cy"), customer(3, "Di")],
            "upsert": [customer(1, "Ada"), customer(2, "Cy"), customer(3, "Di")],
            "replace": [customer(2, "Cy"), customer(3, "Di")],
        }
        assert self.rows(fresh) == expected[mode]

    def test_a_run_that_was_overtaken_is_superseded(self, store: Store, tmp_path: Path) -> None:
        stale = publication(tmp_path, "run-1", [customer(1, "old")], mode="append", live=True)
        newer = publication(
            tmp_path, "run-2", [customer(1, "new")], mode="append", live=True, window_end=WINDOW_END
        )
        store.publish(newer, AT)
        assert store.head("customers-sync", "customers", "live") == Head(
            run_id="run-2", window_end=WINDOW_END
        )
        with pytest.raises(Superseded, match="run-2"):
            store.publish(stale, AT)
        assert self.rows(store) == [customer(1, "new")]
        assert store.marker("run-1") is None

    def test_heads_move_run_by_run_for_each_table_and_stream(self, store: Store, tmp_path: Path) -> None:
        def live(run_id: str, **settings: Any) -> None:
            run = publication(tmp_path, run_id, [customer(1, run_id)], live=True, **settings)
            store.publish(run, AT)

        live("run-1")
        live("run-2", expected_head="run-1")
        live("run-3", stream="region=EU")
        live("run-4", table="others")
        heads = [
            store.head("customers-sync", *place)
            for place in (("customers", "live"), ("customers", "region=EU"), ("others", "live"))
        ]
        assert [head and head.run_id for head in heads] == ["run-2", "run-3", "run-4"]
        with pytest.raises(Superseded, match="none"):
            live("run-5", expected_head="run-9", stream="region=US")

    def test_a_backfill_neither_checks_nor_moves_the_head(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], live=True), AT)
        store.publish(publication(tmp_path, "run-2", [customer(2, "Bo")], expected_head="run-0"), AT)
        head = store.head("customers-sync", "customers", "live")
        assert head is not None
        assert head.run_id == "run-1"
        assert len(self.rows(store)) == 2

    def test_an_abandoned_run_is_never_published(self, store: Store, tmp_path: Path) -> None:
        tombstone = store.abandon("run-1", AT)
        assert tombstone.outcome == "abandoned"
        fresh = self.open_store(tmp_path)
        assert fresh.abandon("run-1", AT.replace(year=2027)) == tombstone == fresh.marker("run-1")
        with pytest.raises(Fenced, match="run-1"):
            fresh.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        assert fresh.table("customers") is None

    def test_a_published_run_cannot_be_abandoned(self, store: Store, tmp_path: Path) -> None:
        marker = store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        assert store.abandon("run-1", AT) == marker
        assert store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT) == marker

    def test_of_a_publication_and_an_abandonment_at_once_one_stands(self, tmp_path: Path) -> None:
        run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append")
        start = threading.Barrier(2)
        outcomes: list[str] = []

        def act(action: Callable[[Store], Any]) -> None:
            store = self.open_store(tmp_path)
            start.wait()
            try:
                outcomes.append(action(store).outcome)
            except Fenced:
                outcomes.append("abandoned")

        threads = [
            threading.Thread(target=act, args=(action,))
            for action in (lambda store: store.publish(run, AT), lambda store: store.abandon("run-1", AT))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store = self.open_store(tmp_path)
        marker = store.marker("run-1")
        assert marker is not None
        assert outcomes == [marker.outcome] * 2
        assert (store.table("customers") is not None) == (marker.outcome == "published")

    def test_a_stage_with_other_rows_than_the_manifest_is_refused(self, store: Store, tmp_path: Path) -> None:
        run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append")
        torn = [replace(file, rows=2) for file in run.files]
        with pytest.raises(IntegrityError, match="should hold 2"):
            store.publish(replace(run, files=torn), AT)
        assert store.table("customers") is None

    # Columns.

    def test_undelivered_columns_keep_their_values(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada", "7"), customer(2, "Bo", "8")]), AT)
        narrow = pa.schema([("name", pa.string()), ("id", pa.int64())])
        rows = [{"id": 1, "name": "Cy"}, {"id": 2, "name": "Bo"}, {"id": 3, "name": "Di"}]
        marker = store.publish(publication(tmp_path, "run-2", rows, schema=narrow), AT)
        assert marker.rows == PublishedRows(inserted=1, updated=1, unchanged=1)
        assert self.rows(store) == [
            customer(1, "Cy", "7.00"),
            customer(2, "Bo", "8.00"),
            customer(3, "Di", None),
        ]

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_new_columns_are_added_where_the_schema_may_evolve(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada"), customer(2, "Bo")]), AT)
        wide = CUSTOMERS.append(pa.field("tier", pa.string()))
        rows = [{**customer(2, "Bo"), "tier": "gold"}, {**customer(3, "Cy"), "tier": None}]
        store.publish(publication(tmp_path, "run-2", rows, schema=wide, mode=mode), AT)
        tiers = [(row["id"], row["tier"]) for row in self.rows(store)]
        assert (
            tiers
            == {
                "append": [(1, None), (2, "gold"), (2, None), (3, None)],
                "upsert": [(1, None), (2, "gold"), (3, None)],
                "replace": [(2, "gold"), (3, None)],
            }[mode]
        )

    def test_a_frozen_schema_refuses_new_columns_by_name(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        wide = CUSTOMERS.append(pa.field("tier", pa.string()))
        rows = [{**customer(1, "Ada"), "tier": "gold"}]
        frozen = publication(tmp_path, "run-2", rows, schema=wide, evolve=False)
        with pytest.raises(StoreError, match="'tier' is not in the table"):
            store.check(replace(frozen, files=[]))
        with pytest.raises(StoreError, match="'tier' is not in the table"):
            store.publish(frozen, AT)
        assert self.rows(store) == [customer(1, "Ada")]
        store.publish(publication(tmp_path, "run-3", [customer(1, "Bo")], evolve=False), AT)
        assert self.rows(store) == [customer(1, "Bo")]

    def test_a_narrower_type_goes_into_a_wider_column(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada", "1.00")]), AT)
        narrow = pa.schema([("id", pa.int16()), ("name", pa.large_string()), ("amount", pa.int32())])
        rows = [{"id": 1, "name": "Ada", "amount": 1}, {"id": 2, "name": "Bo", "amount": 2}]
        marker = store.publish(publication(tmp_path, "run-2", rows, schema=narrow), AT)
        assert marker.rows == PublishedRows(inserted=1, unchanged=1)
        assert self.rows(store) == [customer(1, "Ada", "1.00"), customer(2, "Bo", "2.00")]

    @pytest.mark.parametrize(
        "type_",
        [pa.float64(), pa.decimal128(13, 3), pa.string(), pa.bool_(), pa.uint64(), pa.list_(pa.int8())],
    )
    def test_a_type_that_could_lose_values_is_refused_by_name(
        self, store: Store, tmp_path: Path, type_: pa.DataType
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        other = CUSTOMERS.set(2, pa.field("amount", type_))
        bad = publication(tmp_path, "run-2", schema=other)
        with pytest.raises(StoreError, match=r"'amount' is .* but decimal128\(12, 2\) in the table"):
            store.check(bad)
        with pytest.raises(StoreError, match="'amount'"):
            store.publish(bad, AT)

    def test_provenance_can_be_left_out(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], provenance=False), AT)
        assert self.rows(store, provenance=True) == [customer(1, "Ada")]
        store.publish(publication(tmp_path, "run-2", [customer(2, "Bo")]), AT)
        store.publish(publication(tmp_path, "run-3", [customer(2, "Cy")], provenance=False), AT)
        assert self.rows(store, provenance=True) == [
            {**customer(1, "Ada"), PROVENANCE_COLUMN: None},
            {**customer(2, "Cy"), PROVENANCE_COLUMN: None},
        ]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"key": ()}, "needs a key"),
            ({"key": ("nope",)}, "'nope' is not among the columns"),
            ({"key": ("id", "id")}, "named twice"),
            ({"order_by": "nope"}, "'nope' is not among the columns"),
            ({"schema": pa.schema([])}, "no columns"),
            ({"schema": pa.schema([("id", pa.int64()), ("_ecm_run_id", pa.string())])}, "reserved"),
            ({"schema": pa.schema([("id", pa.int64()), ("id", pa.string())])}, "same name"),
            ({"schema": pa.schema([("id", pa.int64()), ("", pa.string())])}, "cannot name a column"),
        ],
    )
    def test_what_never_fits_is_refused_before_a_row_is_read(
        self, store: Store, tmp_path: Path, settings: Mapping[str, Any], message: str
    ) -> None:
        bad = replace(publication(tmp_path, "run-1"), **settings)
        with pytest.raises(StoreError, match=message):
            store.check(bad)
        with pytest.raises(StoreError, match=message):
            store.publish(bad, AT)
        assert store.table("customers") is None

    def test_columns_may_have_any_name(self, store: Store, tmp_path: Path) -> None:
        names = [
            'say "hi"',
            "select",
            "a b",
            "ключ",
            "x'; DROP TABLE customers; --",
            "a.b",
            "filename",
            "s",
            "t",
        ]
        schema = pa.schema([(name, pa.int32()) for name in names])
        for run, value in (("run-1", 1), ("run-2", 2)):
            rows = [{name: 1 if name == names[0] else value for name in names}]
            store.publish(publication(tmp_path, run, rows, schema=schema, key=(names[0],)), AT)
        assert self.rows(store) == [{name: 1 if name == names[0] else 2 for name in names}]

    # Types.

    @pytest.mark.parametrize(
        ("type_", "values"),
        [
            (pa.bool_(), [True, False]),
            (pa.int8(), [-128, 127]),
            (pa.uint64(), [0, 2**64 - 1]),
            (pa.float32(), [1.5, float("inf")]),
            (pa.float64(), [float("-inf"), float("nan"), 5e-324]),
            (pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(-1)]),
            (pa.decimal128(38, 38), [Decimal("0.1") ** 38, Decimal("-0.5")]),
            (pa.decimal128(9, 4), [Decimal("12345.6789")]),
            (pa.string(), ["", "naïve ☕\nline", "nul"]),
            (pa.large_string(), ["x" * 100_000]),
            (pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
            (pa.binary(), [b"", b"\x00\xff"]),
            (pa.binary(3), [b"abc"]),
            (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
            (pa.time64("us"), [time(23, 59, 59, 999_999)]),
            (pa.timestamp("s"), [datetime(1969, 12, 31, 23, 59, 59)]),
            (pa.timestamp("ms"), [datetime(2026, 1, 1, 0, 0, 0, 1000)]),
            (pa.timestamp("us"), [datetime(2026, 1, 1, 0, 0, 0, 1)]),
            (pa.timestamp("ns"), [datetime(2026, 1, 1, 0, 0, 0, 1)]),
            (pa.timestamp("us", "UTC"), [datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]),
            (pa.timestamp("us", "America/New_York"), [datetime(2026, 3, 8, 7, 0, tzinfo=UTC)]),
            (pa.uuid(), [UUID(int=0), UUID(int=2**128 - 1)]),
            (pa.list_(pa.int16()), [[], [1, None]]),
            (
                pa.struct([("a b", pa.int64()), ("c", pa.struct([("d", pa.string())]))]),
                [{"a b": 1, "c": {"d": None}}],
            ),
            (pa.map_(pa.string(), pa.decimal128(5, 1)), [[("k", Decimal("1.5"))]]),
            (pa.list_(pa.struct([("at", pa.timestamp("us", "UTC"))])), [[{"at": AT}]]),
        ],
        ids=str,
    )
    def test_types_and_values_are_kept(
        self, store: Store, tmp_path: Path, type_: pa.DataType, values: Sequence[Any]
    ) -> None:
        schema = pa.schema([("id", pa.int64()), ("value", type_)])
        rows = [{"id": number, "value": value} for number, value in enumerate([*values, None])]
        store.publish(publication(tmp_path, "run-1", rows, schema=schema), AT)
        found = sorted(self.read_table(store, "customers").to_pylist(), key=lambda row: int(row["id"]))
        # NaN is not equal to itself, but its text is.
        assert [repr(comparable(row["value"])) for row in found] == [
            repr(comparable(row["value"])) for row in rows
        ]
        again = store.publish(publication(tmp_path, "run-2", rows, schema=schema), AT)
        assert again.rows == PublishedRows(unchanged=len(rows)), "the stored values equal the staged ones"
        swapped = [{"id": row["id"], "value": rows[-1 - number]["value"]} for number, row in enumerate(rows)]
        store.publish(publication(tmp_path, "run-3", swapped, schema=schema), AT)
        store.publish(publication(tmp_path, "run-4", rows, schema=schema), AT)
        back = sorted(self.read_table(store, "customers").to_pylist(), key=lambda row: int(row["id"]))
        assert [repr(comparable(row["value"])) for row in back] == [
            repr(comparable(row["value"])) for row in rows
        ]


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
