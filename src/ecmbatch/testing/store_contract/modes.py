"""Append, upsert and replace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ecmbatch.errors import StoreError
from ecmbatch.stores.store import (
    PROVENANCE_COLUMN,
    Mode,
    PublishedRows,
    Store,
)
from ecmbatch.testing.store_contract.staging import (
    AT,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class Modes(StoreSuite):
    """Append, upsert and replace."""

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
