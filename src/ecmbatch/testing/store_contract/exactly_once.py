"""Published once or never, whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import Fenced, IntegrityError, Superseded
from ecmbatch.stores.store import (
    Head,
    Mode,
    Store,
)
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from ecmbatch.testing.store_contract.staging import (
    AT,
    PUBLISH_CRASH_POINTS,
    WINDOW_END,
    customer,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class ExactlyOnce(StoreSuite):
    """Published once or never, whatever happens meanwhile."""

    def test_a_new_store_knows_no_table_head_or_marker(self, store: Store) -> None:
        assert store.table("customers") is None
        assert store.head("customers-sync", "customers", "live") is None
        assert store.marker("run-1") is None

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    def test_publishing_again_changes_nothing_and_returns_the_marker(
        self, store: Store, tmp_path: Path, mode: Mode
    ) -> None:
        run = publication(
            tmp_path, "run-1", [customer(1, "Ada")], mode=mode, live=True, window_end=WINDOW_END
        )
        first = store.publish(run, AT)
        again = self.open_store(tmp_path)
        assert again.publish(run, AT.replace(year=2027)) == first
        assert again.marker("run-1") == first
        assert (first.outcome, first.manifest, first.at) == ("published", "manifest of run-1", AT)
        assert self.rows(again) == [customer(1, "Ada")]

    @pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
    @pytest.mark.parametrize("crash_point", PUBLISH_CRASH_POINTS)
    def test_a_publication_interrupted_anywhere_is_published_once(
        self, tmp_path: Path, crash_point: CrashPoint, mode: Mode
    ) -> None:
        store = self.open_store(tmp_path)
        store.publish(publication(tmp_path, "run-0", [customer(1, "Ada"), customer(2, "Bo")]), AT)
        run = publication(tmp_path, "run-1", [customer(2, "Cy"), customer(3, "Di")], mode=mode, live=True)

        with crash_at(crash_point), pytest.raises(SimulatedCrash):
            store.publish(run, AT)
        fresh = self.open_store(tmp_path)
        committed = crash_point == "publish.after_commit"
        assert (fresh.marker("run-1") is not None) == committed
        if not committed:
            assert self.rows(fresh) == [customer(1, "Ada"), customer(2, "Bo")]
            assert fresh.head("customers-sync", "customers", "live") is None
        fresh.publish(run, AT)
        expected = {
            "append": [customer(1, "Ada"), customer(2, "Bo"), customer(2, "Cy"), customer(3, "Di")],
            "upsert": [customer(1, "Ada"), customer(2, "Cy"), customer(3, "Di")],
            "replace": [customer(2, "Cy"), customer(3, "Di")],
        }
        assert self.rows(fresh) == expected[mode]

    def test_a_run_that_was_overtaken_is_superseded(self, store: Store, tmp_path: Path) -> None:
        stale = publication(tmp_path, "run-1", [customer(1, "old")], mode="append", live=True)
        newer = publication(
            tmp_path, "run-2", [customer(1, "new")], mode="append", live=True, window_end=WINDOW_END
        )
        store.publish(newer, AT)
        assert store.head("customers-sync", "customers", "live") == Head(
            run_id="run-2", window_end=WINDOW_END
        )
        with pytest.raises(Superseded, match="run-2"):
            store.publish(stale, AT)
        assert self.rows(store) == [customer(1, "new")]
        assert store.marker("run-1") is None

    def test_heads_move_run_by_run_for_each_table_and_stream(self, store: Store, tmp_path: Path) -> None:
        def live(run_id: str, **settings: Any) -> None:
            run = publication(tmp_path, run_id, [customer(1, run_id)], live=True, **settings)
            store.publish(run, AT)

        live("run-1")
        live("run-2", expected_head="run-1")
        live("run-3", stream="region=EU")
        live("run-4", table="others")
        heads = [
            store.head("customers-sync", *place)
            for place in (("customers", "live"), ("customers", "region=EU"), ("others", "live"))
        ]
        assert [head and head.run_id for head in heads] == ["run-2", "run-3", "run-4"]
        with pytest.raises(Superseded, match="none"):
            live("run-5", expected_head="run-9", stream="region=US")

    def test_a_backfill_neither_checks_nor_moves_the_head(self, store: Store, tmp_path: Path) -> None:
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")], live=True), AT)
        store.publish(publication(tmp_path, "run-2", [customer(2, "Bo")], expected_head="run-0"), AT)
        head = store.head("customers-sync", "customers", "live")
        assert head is not None
        assert head.run_id == "run-1"
        assert len(self.rows(store)) == 2

    def test_an_abandoned_run_is_never_published(self, store: Store, tmp_path: Path) -> None:
        tombstone = store.abandon("run-1", AT)
        assert tombstone.outcome == "abandoned"
        fresh = self.open_store(tmp_path)
        assert fresh.abandon("run-1", AT.replace(year=2027)) == tombstone == fresh.marker("run-1")
        with pytest.raises(Fenced, match="run-1"):
            fresh.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        assert fresh.table("customers") is None

    def test_a_published_run_cannot_be_abandoned(self, store: Store, tmp_path: Path) -> None:
        marker = store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        assert store.abandon("run-1", AT) == marker
        assert store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT) == marker

    def test_of_a_publication_and_an_abandonment_at_once_one_stands(self, tmp_path: Path) -> None:
        run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append")
        start = threading.Barrier(2)
        outcomes: list[str] = []

        def act(action: Callable[[Store], Any]) -> None:
            store = self.open_store(tmp_path)
            start.wait()
            try:
                outcomes.append(action(store).outcome)
            except Fenced:
                outcomes.append("abandoned")

        threads = [
            threading.Thread(target=act, args=(action,))
            for action in (lambda store: store.publish(run, AT), lambda store: store.abandon("run-1", AT))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store = self.open_store(tmp_path)
        marker = store.marker("run-1")
        assert marker is not None
        assert outcomes == [marker.outcome] * 2
        assert (store.table("customers") is not None) == (marker.outcome == "published")

    def test_a_stage_with_other_rows_than_the_manifest_is_refused(self, store: Store, tmp_path: Path) -> None:
        run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append")
        torn = [replace(file, rows=2) for file in run.files]
        with pytest.raises(IntegrityError, match="should hold 2"):
            store.publish(replace(run, files=torn), AT)
        assert store.table("customers") is None
