"""Which columns are taken, kept and refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.errors import StoreError
from ecmbatch.stores.store import (
    PROVENANCE_COLUMN,
    Store,
)
from ecmbatch.testing.store_contract.staging import (
    AT,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class Columns(StoreSuite):
    """Which columns are taken, kept and refused."""

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
