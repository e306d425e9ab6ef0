"""Snapshots, the source's clock, and up to when a read sees everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.errors import Unreachable
from ecmbatch.protocol.partitioning.partitions import RangePartitions
from ecmbatch.testing.connector_contract import read_all
from postgres_server import PostgresServer
from postgres_source import connected, execute, ids

TABLE = ReadRequest(table="t")
SAFE, UNSAFE = timedelta(seconds=10), timedelta(minutes=5)


@pytest.fixture
def connector(postgres_url: str) -> Iterator[Connector]:
    execute(
        postgres_url,
        "CREATE TABLE t AS SELECT g AS id, now() AS updated_at FROM generate_series(1, 1000) AS g",
        "CREATE INDEX ON t (id)",
    )
    with connected(postgres_url) as made:
        yield made


# --- snapshots ---------------------------------------------------------------------------------------------


def test_all_scans_of_an_attempt_read_one_state_under_concurrent_writes(
    connector: Connector, postgres_url: str
) -> None:
    ranges = RangePartitions(key="id", bounds=(501,), shown=("501",))
    request = replace(TABLE, partitioning=ranges)
    with connector.snapshot() as snapshot:
        request = replace(request, snapshot=snapshot)
        first, second = connector.plan(request).scans
        before = ids(read_all(connector, request, first))
        # Rows move between the partitions, come and go: without a snapshot they would be read twice or never.
        execute(
            postgres_url,
            "UPDATE t SET id = 1001 - id",
            "DELETE FROM t WHERE id % 3 = 0",
            "INSERT INTO t VALUES (2000, now())",
        )
        after = ids(read_all(connector, request, second))
        assert sorted(before + after) == list(range(1, 1001))
        assert ids(read_all(connector, request, first)) == before
    without = replace(request, snapshot=None)
    assert 2000 in ids(read_all(connector, without, second))


def test_another_process_reads_the_same_state(connector: Connector, postgres_url: str) -> None:
    with connector.snapshot() as snapshot, connected(postgres_url) as other:
        execute(postgres_url, "DELETE FROM t")
        request = replace(TABLE, snapshot=snapshot)
        (scan,) = other.plan(request).scans
        assert len(ids(read_all(other, request, scan))) == 1000


def test_a_snapshot_that_is_gone_may_be_taken_again(connector: Connector) -> None:
    with connector.snapshot() as snapshot:
        request = replace(TABLE, snapshot=snapshot)
        (scan,) = connector.plan(request).scans
    for work in (lambda: connector.plan(request), lambda: read_all(connector, request, scan)):
        with pytest.raises(Unreachable, match="no longer has the snapshot") as raised:
            work()
        assert raised.value.error_class == "transient"


def test_a_snapshot_is_not_ended_by_a_time_limit_for_idle_sessions(
    postgres_url: str, connector: Connector
) -> None:
    url = postgres_url + "&options=-c%20idle_in_transaction_session_timeout%3D50ms"
    with connected(url) as limited, limited.snapshot() as snapshot:
        execute(postgres_url, "SELECT pg_sleep(0.2)")
        request = replace(TABLE, snapshot=snapshot)
        (scan,) = limited.plan(request).scans
        assert len(ids(read_all(limited, request, scan))) == 1000


def test_a_snapshot_and_its_reads_are_not_ended_by_a_time_limit_for_transactions(
    postgres_url: str, connector: Connector
) -> None:
    url = postgres_url + "&options=-c%20transaction_timeout%3D200ms"
    slowly = ReadRequest(query="SELECT id FROM t WHERE id > 999 AND pg_sleep(0.3) IS NOT NULL")
    with connected(url) as limited, limited.snapshot() as snapshot:
        execute(postgres_url, "SELECT pg_sleep(0.3)")
        request = replace(slowly, snapshot=snapshot)
        (scan,) = limited.plan(request).scans
        assert ids(read_all(limited, request, scan)) == [1000]


def test_an_error_while_a_snapshot_is_held_passes_through(connector: Connector) -> None:
    for error in (OSError("stage is full"), psycopg.OperationalError("the ledger is gone")):
        with pytest.raises(type(error), match=str(error)), connector.snapshot():
            raise error


def test_what_is_no_snapshot_is_not_sent_to_the_server(connector: Connector) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        connector.plan(replace(TABLE, snapshot="x'; DROP TABLE t; --"))


# --- the clock and the bound -------------------------------------------------------------------------------


@contextmanager
def transaction(url: str, *statements: str) -> Iterator[datetime]:
    """Keep a transaction open that has executed *statements*; gives its ``now()``."""
    with psycopg.connect(url) as connection:
        began = connection.execute("SELECT now()").fetchone()
        assert began is not None
        for statement in statements:
            connection.execute(statement.encode())
        yield began[0].astimezone(UTC)


def test_the_clock_is_that_of_the_database(connector: Connector, postgres_url: str) -> None:
    ((before,),) = execute(postgres_url, "SELECT clock_timestamp()")
    at = connector.clock()
    ((after,),) = execute(postgres_url, "SELECT clock_timestamp()")
    assert before <= at <= after and at.utcoffset() == timedelta(0)


def test_without_others_the_bound_is_the_clock(connector: Connector, postgres_url: str) -> None:
    ((before,),) = execute(postgres_url, "SELECT clock_timestamp()")
    bound = connector.window_bound()
    assert before <= bound.at and bound.lag == SAFE


@pytest.mark.parametrize("statements", [(), ("UPDATE t SET id = id WHERE id = 1",)])
def test_an_open_transaction_holds_the_bound_back_even_if_it_has_written_nothing_yet(
    connector: Connector, postgres_url: str, statements: tuple[str, ...]
) -> None:
    with transaction(postgres_url, *statements) as began:
        # It is idle in its transaction, and others come and go meanwhile.
        execute(postgres_url, "INSERT INTO t VALUES (5000, now())")
        bound = connector.window_bound()
        assert (bound.at, bound.lag) == (began, SAFE)
    assert connector.window_bound().at > began


def test_a_transaction_of_another_database_does_not_matter(
    connector: Connector, postgres: PostgresServer
) -> None:
    with transaction(postgres.new_database()) as began:
        assert connector.window_bound().at > began


def test_our_own_long_reads_hold_the_bound_back(connector: Connector) -> None:
    with connector.snapshot():
        first = connector.window_bound()
        assert connector.window_bound().at == first.at < connector.clock()


def test_a_prepared_transaction_makes_the_bound_unsafe_for_it_began_nobody_knows_when(
    connector: Connector, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (6000, now())")
        connection.execute("PREPARE TRANSACTION 'waiting'")
    try:
        ((prepared,),) = execute(
            postgres_url, "SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()"
        )
        bound = connector.window_bound()
        assert (bound.at, bound.lag) == (prepared.astimezone(UTC), UNSAFE)
    finally:
        execute(postgres_url, "ROLLBACK PREPARED 'waiting'")
    assert connector.window_bound().lag == SAFE


def test_sessions_that_are_hidden_from_the_user_make_the_bound_unsafe(
    connector: Connector, postgres: PostgresServer, postgres_url: str
) -> None:
    ((name,),) = execute(postgres_url, "SELECT current_database()")
    for role in ("unprivileged", "watcher"):
        execute(
            postgres_url,
            f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        )
    execute(postgres_url, "GRANT pg_read_all_stats TO watcher")
    with (
        transaction(postgres_url) as began,
        connected(postgres.url(name, user="unprivileged")) as blind,
        connected(postgres.url(name, user="watcher")) as seeing,
    ):
        assert blind.window_bound().lag == UNSAFE
        bound = seeing.window_bound()
        assert (bound.at, bound.lag) == (began, SAFE)
    with (
        transaction(postgres.url(name, user="unprivileged")) as began,
        connected(postgres.url(name, user="unprivileged")) as own,
    ):
        # It sees the sessions of its own user.
        bound = own.window_bound()
        assert (bound.at, bound.lag) == (began, SAFE)


def test_sessions_that_show_nothing_make_the_bound_unsafe(connector: Connector, postgres_url: str) -> None:
    with transaction(postgres_url + "&options=-c%20track_activities%3Doff"):
        assert connector.window_bound().lag == UNSAFE


def test_nothing_that_was_stamped_before_the_bound_can_appear_after_it(
    connector: Connector, postgres_url: str
) -> None:
    """Rows that a reader up to the bound would never see, were they committed after its read."""
    with psycopg.connect(postgres_url) as writer:
        writer.execute("SELECT 1")
        bound = connector.window_bound()
        (scan,) = connector.plan(TABLE).scans
        seen = ids(read_all(connector, TABLE, scan))
        writer.execute("INSERT INTO t VALUES (7000, now())")
        writer.commit()
    assert 7000 not in seen
    ((stamp,),) = execute(postgres_url, "SELECT updated_at FROM t WHERE id = 7000")
    assert stamp >= bound.at
