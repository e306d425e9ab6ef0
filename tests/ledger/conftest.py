"""Every test of the ledger is asked of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecmbatch.ledger.place import LedgerPlace, PostgresPlace


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerPlace:
    """Where a new ledger can be made."""
    if request.param == "sqlite":
        return tmp_path / "ledger.db"
    return PostgresPlace(url=request.getfixturevalue("postgres_url"))
