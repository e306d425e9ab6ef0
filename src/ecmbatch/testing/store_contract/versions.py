"""Versions: how often a table was published to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import StoreError, Superseded
from ecmbatch.stores.store import (
    Mode,
    Store,
)
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from ecmbatch.testing.store_contract.staging import (
    AT,
    CUSTOMERS,
    PUBLISH_CRASH_POINTS,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class Versions(StoreSuite):
    """How often a table was published to, for runs that read what they replace."""

    def test_versions_count_published_runs_and_nothing_else(self, store: Store, tmp_path: Path) -> None:
        assert store.versions() == {}
        first = publication(tmp_path, "run-1", [customer(1, "Ada")])
        store.publish(first, AT)
        store.publish(first, AT)
        store.publish(publication(tmp_path, "run-2", []), AT)
        store.publish(publication(tmp_path, "run-3", [customer(1, "Ada")], table="others", live=True), AT)
        store.abandon("run-4", AT)
        with pytest.raises(StoreError):
            store.publish(publication(tmp_path, "run-5", [customer(None, "Ada")]), AT)
        fresh = self.open_store(tmp_path)
        assert fresh.versions() == {fresh.table_name("customers"): 2, fresh.table_name("others"): 1}

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_a_run_whose_target_moved_on_since_it_read_it_is_superseded(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], expected_version=0), AT)
        store.publish(publication(tmp_path, "run-2", [customer(1, "Bo")]), AT)
        store.publish(publication(tmp_path, "run-3", [customer(1, "Cy")], table="others"), AT)
        wide = CUSTOMERS.append(pa.field("tier", pa.string()))
        rows = [{**customer(1, "stale"), "tier": None}]
        stale = publication(tmp_path, "run-4", rows, schema=wide, mode=mode, live=True, expected_version=1)
        store.check(stale)
        with pytest.raises(Superseded, match="published to once then and 2 times now"):
            store.publish(stale, AT)
        assert self.rows(store) == [customer(1, "Bo")]
        assert store.marker("run-4") is None
        assert store.head("customers-sync", "customers", "live") is None
        store.publish(replace(stale, run_id="run-5", expected_version=2), AT)

    @pytest.mark.parametrize("crash_point", PUBLISH_CRASH_POINTS)
    def test_a_run_that_was_interrupted_is_published_over_the_version_it_read(
        self, tmp_path: Path, crash_point: CrashPoint
    ) -> None:
        store = self.open_store(tmp_path)
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        run = publication(tmp_path, "run-2", [customer(1, "Bo")], mode="replace", expected_version=1)
        with crash_at(crash_point), pytest.raises(SimulatedCrash):
            store.publish(run, AT)
        fresh = self.open_store(tmp_path)
        name = fresh.table_name("customers")
        assert fresh.versions() == {name: 2 if crash_point == "publish.after_commit" else 1}
        marker = fresh.publish(run, AT)
        assert fresh.versions() == {name: 2}
        assert fresh.publish(run, AT) == marker, "its own publication does not supersede it"
        with pytest.raises(Superseded):
            fresh.publish(replace(run, run_id="run-3"), AT)
