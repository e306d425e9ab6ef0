from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch.errors import InvalidDocument
from ecmbatch.stores.memory import MEMORY, MemoryStore, MemoryTables
from ecmbatch.stores.store import Store
from ecmbatch.testing.store_contract import StoreContract


class TestMemoryStoreKeepsTheContract(StoreContract):
    @pytest.fixture(autouse=True)
    def shared_memory(self) -> None:
        self.tables = MemoryTables()

    def open_store(self, folder: Path) -> Store:
        return MemoryStore(self.tables)

    def read_table(self, store: Store, name: str) -> pa.Table:
        return self.tables.tables[name]


def test_a_memory_store_has_no_settings():
    store = MEMORY.build(MEMORY.parse_config({}), Path(), print)
    assert store.table("anything") is None
    with pytest.raises(InvalidDocument):
        MEMORY.parse_config({"path": "x"})
