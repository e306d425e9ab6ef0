"""How a table takes columns and types that it does not have yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import StoreError
from ecmbatch.stores.store import (
    Mode,
    PublishedRows,
    Store,
    TableChange,
    WidenedColumn,
)
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from ecmbatch.testing.store_contract.staging import (
    AT,
    CUSTOMERS,
    PUBLISH_CRASH_POINTS,
    Row,
    comparable,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite

STORED = pa.schema([("id", pa.int64()), ("value", pa.int32())])


class Evolution(StoreSuite):
    """How a table takes columns and types that it does not have yet."""

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

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_new_rows_have_null_in_undelivered_columns(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        narrow = pa.schema([("id", pa.int64())])
        store.publish(publication(tmp_path, "run-2", [{"id": 2}], schema=narrow, mode=mode), AT)
        kept = [] if mode == "replace" else [customer(1, "Ada")]
        assert self.rows(store) == [*kept, customer(2, None, None)]

    def test_a_renamed_column_is_one_added_and_one_undelivered(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada"), customer(2, "Bo")]), AT)
        renamed = CUSTOMERS.set(1, pa.field("full_name", pa.string()))
        rows = [{"id": 2, "full_name": "Bo B.", "amount": None}, {"id": 3, "full_name": "Cy", "amount": None}]
        run = publication(tmp_path, "run-2", rows, schema=renamed)
        assert store.check(run) == TableChange(added=("full_name",), undelivered=("name",))
        store.publish(run, AT)
        assert self.rows(store) == [
            {**customer(1, "Ada"), "full_name": None},
            {**customer(2, "Bo", None), "full_name": "Bo B."},
            {**customer(3, None, None), "full_name": "Cy"},
        ]

    def test_what_changes_is_told_before_anything_is_published(self, store: Store, tmp_path: Path) -> None:
        assert store.check(publication(tmp_path, "run-1")) == TableChange()
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        assert store.check(publication(tmp_path, "run-2")) == TableChange()
        amount, wider = CUSTOMERS.field("amount"), pa.decimal128(13, 3)
        schema = pa.schema([("tier", pa.string()), amount.with_type(wider), ("id", pa.int64())])
        assert store.check(publication(tmp_path, "run-2", schema=schema)) == TableChange(
            added=("tier",),
            widened=(WidenedColumn(name="amount", before=amount.type, after=wider),),
            undelivered=("name",),
        )
        table = store.table("customers")
        assert table is not None
        assert table.schema.names == CUSTOMERS.names

    @pytest.mark.parametrize(
        ("before", "staged", "same", "old", "new"),
        [
            (pa.int8(), pa.int64(), 1, -128, 2**62),
            (pa.uint32(), pa.int32(), 1, 2**32 - 1, -(2**31)),
            (pa.int64(), pa.uint64(), 1, -(2**63), 2**64 - 1),
            (pa.float32(), pa.float64(), 0.5, float("inf"), 0.1),
            (pa.int32(), pa.float64(), 3, 2**31 - 1, 0.1),
            (pa.float32(), pa.int32(), 3, 0.5, 2**31 - 1),
            (
                pa.decimal128(10, 2),
                pa.decimal128(10, 4),
                Decimal("1.5"),
                Decimal("99999999.99"),
                Decimal("0.0001"),
            ),
            (pa.int64(), pa.decimal128(5, 2), 7, 2**63 - 1, Decimal("0.01")),
            (pa.decimal128(5, 2), pa.int64(), 7, Decimal("0.01"), 2**63 - 1),
            (
                pa.timestamp("s"),
                pa.timestamp("us"),
                datetime(2026, 1, 1),
                datetime(1969, 12, 31, 23, 59, 59),
                datetime(2026, 1, 1, 0, 0, 0, 1),
            ),
            (
                pa.timestamp("ms", "UTC"),
                pa.timestamp("ns", "UTC"),
                datetime(2026, 1, 1, tzinfo=UTC),
                datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
                datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            ),
            (pa.time64("us"), pa.time64("ns"), time(1), time(23, 59, 59, 999_999), time(0, 0, 0, 1)),
            (pa.list_(pa.int8()), pa.list_(pa.int32()), [1, None], [-128], [2**31 - 1]),
            (
                pa.struct([("a", pa.int8()), ("b", pa.string())]),
                pa.struct([("b", pa.string()), ("a", pa.int64())]),
                {"a": 1, "b": "x"},
                {"a": None, "b": None},
                {"a": 2**62, "b": "y"},
            ),
            (
                pa.map_(pa.string(), pa.list_(pa.float32())),
                pa.map_(pa.string(), pa.list_(pa.float64())),
                [("k", [0.5])],
                [("k", None)],
                [("k", [0.1]), ("l", [])],
            ),
        ],
        ids=str,
    )
    def test_a_column_is_widened_and_every_value_stays_as_it_is(
        self,
        store: Store,
        tmp_path: Path,
        before: pa.DataType,
        staged: pa.DataType,
        same: Any,
        old: Any,
        new: Any,
    ) -> None:
        def run(run_id: str, type_: pa.DataType, values: Mapping[int, Any]) -> PublishedRows:
            schema = STORED.set(1, pa.field("value", type_))
            rows = [{"id": number, "value": value} for number, value in values.items()]
            return store.publish(publication(tmp_path, run_id, rows, schema=schema), AT).rows

        run("run-1", before, {1: same, 2: old, 3: same, 4: None})
        counts = run("run-2", staged, {1: same, 3: new, 4: None, 5: new})
        assert counts == PublishedRows(inserted=1, updated=1, unchanged=2)
        found = {row["id"]: comparable(row["value"]) for row in self.rows(store)}
        expected = {1: same, 2: old, 3: new, 4: None, 5: new}
        assert found == {number: comparable(value) for number, value in expected.items()}
        assert run("run-3", before, {2: old}) == PublishedRows(unchanged=1)

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_every_mode_widens(self, store: Store, tmp_path: Path, mode: Mode) -> None:
        before = [{"id": 1, "value": 1}, {"id": 2, "value": 2}]
        store.publish(publication(tmp_path, "run-1", before, schema=STORED), AT)
        wide = STORED.set(1, pa.field("value", pa.int64()))
        after = [{"id": 2, "value": 2**40}]
        store.publish(publication(tmp_path, "run-2", after, schema=wide, mode=mode), AT)
        expected = {"append": [*before, *after], "upsert": [before[0], *after], "replace": after}
        assert self.rows(store) == sorted(expected[mode], key=repr)

    @pytest.mark.parametrize("crash_point", PUBLISH_CRASH_POINTS)
    def test_a_publication_that_changes_the_table_is_published_once(
        self, tmp_path: Path, crash_point: CrashPoint
    ) -> None:
        store = self.open_store(tmp_path)
        store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": 1}], schema=STORED), AT)
        before = store.table("customers")
        schema = pa.schema([("id", pa.int64()), ("value", pa.float64()), ("extra", pa.string())])
        rows = [{"id": 2, "value": 0.1, "extra": "x"}]
        run = publication(tmp_path, "run-2", rows, schema=schema)

        with crash_at(crash_point), pytest.raises(SimulatedCrash):
            store.publish(run, AT)
        fresh = self.open_store(tmp_path)
        if crash_point != "publish.after_commit":
            assert fresh.table("customers") == before
            assert self.rows(fresh) == [{"id": 1, "value": 1}]
        fresh.publish(run, AT)
        assert self.rows(fresh) == [{"id": 1, "value": 1, "extra": None}, *rows]

    def test_refused_rows_leave_the_columns_as_they_were(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": 1}], schema=STORED), AT)
        before = store.table("customers")
        schema = pa.schema([("id", pa.int64()), ("value", pa.int64()), ("extra", pa.string())])
        rows: list[Row] = [{"id": 1, "value": 2, "extra": "x"}, {"id": None, "value": 2**40, "extra": "x"}]
        with pytest.raises(StoreError, match="NULL in the key"):
            store.publish(publication(tmp_path, "run-2", rows, schema=schema), AT)
        assert store.table("customers") == before
        assert self.rows(store) == [{"id": 1, "value": 1}]

    def test_key_and_order_may_be_widened(self, store: Store, tmp_path: Path) -> None:
        narrow = pa.schema([("id", pa.int32()), ("value", pa.int16())])
        before = [{"id": 1, "value": 1}, {"id": 2, "value": 9}]
        store.publish(publication(tmp_path, "run-1", before, schema=narrow), AT)
        wide = pa.schema([("id", pa.uint32()), ("value", pa.float64())])
        rows = [{"id": 1, "value": 1.5}, {"id": 2, "value": 8.5}, {"id": 2**32 - 1, "value": 0.1}]
        marker = store.publish(publication(tmp_path, "run-2", rows, schema=wide, order_by="value"), AT)
        assert marker.rows == PublishedRows(inserted=1, updated=1, outdated=1)
        assert self.rows(store) == sorted([rows[0], before[1], rows[2]], key=repr)

    def test_a_column_never_gets_narrower_not_even_where_all_rows_are_replaced(
        self, store: Store, tmp_path: Path
    ) -> None:
        wide = STORED.set(1, pa.field("value", pa.int64()))
        store.publish(publication(tmp_path, "run-1", [{"id": 1, "value": 2**40}], schema=wide), AT)
        narrow = publication(tmp_path, "run-2", [{"id": 1, "value": 1}], schema=STORED, mode="replace")
        assert store.check(narrow) == TableChange()
        store.publish(narrow, AT)
        again = publication(tmp_path, "run-3", [{"id": 2, "value": 2**40}], schema=wide, evolve=False)
        store.publish(again, AT)
        assert self.rows(store) == [{"id": 1, "value": 1}, {"id": 2, "value": 2**40}]

    def test_a_frozen_schema_refuses_to_widen_by_name(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        wide = CUSTOMERS.set(2, pa.field("amount", pa.decimal128(13, 3)))
        frozen = publication(tmp_path, "run-2", [customer(1, "Bo")], schema=wide, evolve=False)
        message = r"'amount' is decimal128\(13, 3\) .* but decimal128\(12, 2\) in the table.* frozen"
        with pytest.raises(StoreError, match=message):
            store.check(frozen)
        with pytest.raises(StoreError, match=message):
            store.publish(frozen, AT)
        assert self.rows(store) == [customer(1, "Ada")]

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    @pytest.mark.parametrize(
        "type_",
        [pa.float64(), pa.decimal128(38, 29), pa.string(), pa.bool_(), pa.date32(), pa.list_(pa.int8())],
        ids=str,
    )
    def test_types_that_no_type_can_hold_together_are_refused_by_name(
        self, store: Store, tmp_path: Path, type_: pa.DataType, mode: Mode
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        other = CUSTOMERS.set(2, pa.field("amount", type_))
        bad = publication(tmp_path, "run-2", schema=other, mode=mode)
        with pytest.raises(StoreError, match=r"'amount' is .* but decimal128\(12, 2\) in the table"):
            store.check(bad)
        with pytest.raises(StoreError, match=r"'amount'.* cast it in the transform"):
            store.publish(bad, AT)
        assert self.rows(store) == [customer(1, "Ada")]
