"""Which row of a key wins, and what a key must not be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch.errors import StoreError
from ecmbatch.stores.store import (
    PARTITION_COLUMN,
    Mode,
    PublishedRows,
    Store,
)
from ecmbatch.testing.store_contract.staging import (
    AT,
    Row,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class Keys(StoreSuite):
    """Which row of a key wins, and what a key must not be."""

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
