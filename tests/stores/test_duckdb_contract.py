from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from duckdb_tables import read_table
from ecmbatch.stores.duckdb import DUCKDB
from ecmbatch.stores.store import Store
from ecmbatch.testing.store_contract import StoreContract

pytestmark = pytest.mark.slow


class TestDuckDBStoreKeepsTheContract(StoreContract):
    def open_store(self, folder: Path) -> Store:
        self.path = folder / "context.duckdb"
        settings = DUCKDB.parse_config({"path": "context.duckdb", "threads": 1})
        return DUCKDB.build(settings, folder, print)

    def read_table(self, store: Store, name: str) -> pa.Table:
        return read_table(self.path, name)
