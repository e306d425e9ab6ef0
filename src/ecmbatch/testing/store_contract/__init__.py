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

from ecmbatch.testing.store_contract.columns import Columns
from ecmbatch.testing.store_contract.evolution import Evolution
from ecmbatch.testing.store_contract.exactly_once import ExactlyOnce
from ecmbatch.testing.store_contract.keys import Keys
from ecmbatch.testing.store_contract.modes import Modes
from ecmbatch.testing.store_contract.staging import (
    AT,
    CUSTOMERS,
    PUBLISH_CRASH_POINTS,
    WINDOW_END,
    customer,
    publication,
    stage_file,
)
from ecmbatch.testing.store_contract.types import Types
from ecmbatch.testing.store_contract.versions import Versions

__all__ = [
    "AT",
    "CUSTOMERS",
    "PUBLISH_CRASH_POINTS",
    "WINDOW_END",
    "StoreContract",
    "customer",
    "publication",
    "stage_file",
]


class StoreContract(Modes, Keys, ExactlyOnce, Versions, Columns, Evolution, Types):
    """Tests that every store passes; see the module on how to use them."""
