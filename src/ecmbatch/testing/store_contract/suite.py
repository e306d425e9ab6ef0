"""What every part of the suite needs of the store under test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch.stores.store import (
    PROVENANCE_COLUMN,
    Store,
)
from ecmbatch.testing.store_contract.staging import (
    Row,
)


class StoreSuite(ABC):
    """The store under test; :class:`StoreContract` puts the parts of the suite together."""

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
