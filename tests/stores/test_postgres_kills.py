"""Publishing processes that really die, servers that stop, and answers that get lost; and who comes next."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import publishing
from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.errors import Unreachable
from ecmbatch.stores.store import PARTITION_COLUMN, Mode, Publication, PublishedRows, StagedFile, Store
from ecmbatch.testing.store_contract import AT, CUSTOMERS, customer, publication
from postgres_server import PostgresServer

STEPS: tuple[CrashPoint, ...] = (
    "publish.marker",
    "publish.head",
    "publish.fold",
    "publish.apply",
    "publish.before_commit",
    "publish.after_commit",
)
ROWS = 20_000


def open_store(url: str, schema: str = "public") -> Store:
    return publishing.open_store("postgres", {"url": url, "schema": schema}, Path())


def second_run(root: Path, mode: Mode) -> Publication:
    files = [StagedFile(path=path, rows=ROWS) for path in sorted((root / "staged").iterdir())]
    wide = CUSTOMERS.set(2, pa.field("amount", pa.decimal128(14, 2)))
    return replace(publication(root, "run-2", mode=mode, live=True, schema=wide), files=files)


def stage_second_run(root: Path) -> None:
    (root / "staged").mkdir()
    for number in range(2):
        ids = pa.array(range(number * ROWS // 2, number * ROWS // 2 + ROWS), pa.int64())
        names = pa.array([f"second {number} {place % 7}" for place in range(ROWS)])
        table = pa.table({"id": ids, "name": names, "amount": pa.nulls(ROWS, pa.decimal128(14, 2))})
        table = table.append_column(PARTITION_COLUMN, pa.array([0] * ROWS, pa.int32()))
        pq.write_table(table, root / "staged" / f"{number:06d}.parquet", compression="zstd")


def contents(url: str, schema: str = "public") -> list[tuple[Any, ...]]:
    query = f'SELECT id, name, amount, _ecm_run_id FROM "{schema}".customers ORDER BY 1, 2, 4'
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_killed_anywhere_and_published_again_equals_published_once(
    postgres_url: str, tmp_path: Path, mode: Mode
) -> None:
    stage_second_run(tmp_path)
    first_run = publication(tmp_path, "run-1", [customer(number, "first") for number in range(1000)])
    whole = open_store(postgres_url, "whole")
    whole.publish(first_run, AT)
    expected = whole.publish(second_run(tmp_path, mode), AT)
    for point in STEPS:
        schema = point.replace(".", " ")
        store = open_store(postgres_url, schema)
        store.publish(first_run, AT)
        committed = point == "publish.after_commit"
        settings = {"url": postgres_url, "schema": schema}
        run = second_run(tmp_path, mode)
        assert publishing.publish_and_die("postgres", settings, tmp_path, run, point) == -signal.SIGKILL
        if not committed:
            assert {row[1] for row in contents(postgres_url, schema)} == {"first"}
            assert store.marker("run-2") is None
        assert store.publish(second_run(tmp_path, mode), AT) == expected == store.marker("run-2")
        assert contents(postgres_url, schema) == contents(postgres_url, "whole")
        head = store.head("customers-sync", "customers", "live")
        assert head is not None
        assert head.run_id == "run-2"
        (leftover,) = wait_for_leftovers(store)
        assert leftover.run_id == "run-2"
        assert store.remove_leftover(leftover.name)
        assert store.leftovers() == []


def wait_for_leftovers(store: Store) -> Any:
    """The session of a process that was killed ends when the server notices."""
    while not (found := store.leftovers()):
        pass
    return found


@pytest.mark.slow
def test_what_is_left_of_a_process_killed_while_loading_is_removed_by_gc(
    postgres_url: str, tmp_path: Path
) -> None:
    stage_second_run(tmp_path)
    settings = {"url": postgres_url, "schema": "public"}
    assert publishing.load_and_die(settings, tmp_path, second_run(tmp_path, "append")) == -signal.SIGKILL
    wait_for_leftovers(open_store(postgres_url))
    toml = f'[stores.lake]\ntype = "postgres"\nurl = "{postgres_url}"\n'
    toml += '[stores.gone]\ntype = "postgres"\nurl = "postgresql://127.0.0.1:1/x"\n'
    (tmp_path / "ecmbatch.toml").write_text(toml)
    for dry_run, outcome in ((True, "planned"), (False, "removed")):
        with Project.load(tmp_path) as project:
            collection = project.gc(dry_run=dry_run)
        failed, removal = collection.removals
        assert (removal.what, removal.store, removal.run_id) == ("staging", "lake", "run-2")
        assert (removal.outcome, removal.bytes > 0) == (outcome, True)
        assert (failed.store, failed.outcome, collection.error) == ("gone", "failed", failed.error)
    assert open_store(postgres_url).leftovers() == []


@contextmanager
def losing_answers(port: int) -> Iterator[int]:
    """A way to the server that passes a COMMIT on and cuts the line before its answer; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=forward, args=(server, client, False), daemon=True).start()

    def forward(source: socket.socket, target: socket.socket, watches: bool) -> None:
        while True:
            try:
                data = source.recv(65536)
                if watches and b"COMMIT" in data:
                    # The other direction must not carry the answer before the line is cut.
                    source.shutdown(socket.SHUT_RDWR)
                    target.sendall(data)
                    return
                target.sendall(data)
            except OSError:
                return
            if not data:
                target.close()
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_attempt(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    database = postgres_url.split("/")[3].partition("?")[0]
    direct = postgres.url(database, tcp=True)
    store = open_store(direct)
    store.abandon("run-0", AT)
    run = publication(tmp_path, "run-1", [customer(1, "Ada")], mode="append", live=True)
    with losing_answers(postgres.port) as port:
        lossy = open_store(direct.replace(f":{postgres.port}/", f":{port}/"))
        with pytest.raises(Unreachable) as raised:
            lossy.publish(run, AT)
    assert raised.value.error_class == "transient"
    marker = store.publish(run, AT)
    assert marker.rows == PublishedRows(inserted=1)
    assert len(contents(postgres_url)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_that_stops_in_the_middle_may_be_tried_again(tmp_path: Path, how: Any) -> None:
    with PostgresServer() as server:
        url = server.new_database()
        store = open_store(url)
        store.publish(publication(tmp_path, "run-1", [customer(1, "Ada")]), AT)
        points: tuple[CrashPoint, ...] = ("publish.head", "publish.before_commit")
        for number, point in enumerate(points):
            run = publication(tmp_path, f"again-{number}", [customer(1, "Bo"), customer(number + 2, "Cy")])
            todo = [point]

            def stop(passed: CrashPoint, todo: list[CrashPoint] = todo) -> None:
                if [passed] == todo:
                    todo.clear()
                    server.stop(how)

            set_hook(stop)
            try:
                with pytest.raises(Unreachable):
                    store.publish(run, AT)
                with pytest.raises(Unreachable):
                    store.marker(run.run_id)
            finally:
                set_hook(None)
            server.start()
            assert store.marker(run.run_id) is None
            assert store.publish(run, AT).rows.inserted == 1
        assert len(contents(url)) == 1 + len(points)
        for leftover in wait_for_leftovers(store):
            assert store.remove_leftover(leftover.name)
