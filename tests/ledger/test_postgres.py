"""What only a ledger on PostgreSQL promises: the server's time, locks that end with their holder, no secrets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from ecmbatch.errors import EcmbatchError, Unreachable, UsageError
from ecmbatch.ledger import postgres as postgres_ledger
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.place import PostgresPlace
from ecmbatch.postgres_url import libpq_url
from postgres_server import PostgresServer

CANARY = "canary-7f3a"


@pytest.fixture
def place(postgres_url: str) -> PostgresPlace:
    return PostgresPlace(url=postgres_url)


@pytest.fixture
def ledger(place: PostgresPlace) -> Iterator[Ledger]:
    ledger = Ledger(place)
    yield ledger
    ledger.close()


def test_its_time_is_the_servers(ledger: Ledger, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    assert abs(ledger.clock() - row[0]) < timedelta(seconds=30)
    assert ledger.clock().tzinfo is UTC


def test_a_clock_given_by_hand_wins(place: PostgresPlace) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    ledger = Ledger(place, clock=lambda: moment)
    ledger.watermarks.set("job", "default", None, "reset")
    assert ledger.clock() == ledger.watermarks.history("job", "default")[0].at == moment
    ledger.close()


def test_two_ledgers_of_one_database_know_nothing_of_each_other(place: PostgresPlace) -> None:
    first, second = Ledger(place), Ledger(PostgresPlace(url=place.url, schema="another_project"))
    first.watermarks.set("job", "default", None, "reset")
    assert second.watermarks.history("job", "default") == []
    first.close()
    second.close()


def test_a_connection_that_died_unused_fails_nothing(ledger: Ledger, postgres_url: str) -> None:
    ledger.watermarks.set("job", "default", None, "before")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'ecmbatch ledger' AND datname = current_database()"
        )
    ledger.watermarks.set("job", "default", None, "after")
    assert [mark.reason for mark in ledger.watermarks.history("job", "default")] == ["after", "before"]


@pytest.mark.slow
def test_who_sleeps_inside_a_transaction_loses_it_and_the_others_go_on(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_ledger, "_LONGEST_SLEEP_SECONDS", 1)
    sleeper, other = Ledger(place), Ledger(place)
    holds, awake = threading.Event(), threading.Event()
    outcome: list[EcmbatchError] = []

    def sleep_with_the_lock() -> None:
        try:
            with sleeper._database.write() as connection:
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'broken'")
                holds.set()
                awake.wait()
        except EcmbatchError as error:
            outcome.append(error)

    thread = threading.Thread(target=sleep_with_the_lock)
    thread.start()
    holds.wait()
    other.watermarks.set("job", "default", None, "went on")
    awake.set()
    thread.join()
    assert [type(error) for error in outcome] == [Unreachable]
    assert other._database.version() != "broken"
    sleeper.watermarks.set("job", "default", None, "awake")
    assert len(other.watermarks.history("job", "default")) == 2
    sleeper.close()
    other.close()


@pytest.mark.slow
def test_a_server_that_restarts_is_told_and_then_used_again() -> None:
    with PostgresServer() as server:
        ledger = Ledger(PostgresPlace(url=server.new_database()))
        ledger.watermarks.set("job", "default", None, "before")
        server.stop("immediate")
        with pytest.raises(Unreachable) as raised:
            ledger.watermarks.set("job", "default", None, "lost")
        assert raised.value.error_class == "transient" and raised.value.hint
        server.start()
        ledger.watermarks.set("job", "default", None, "after")
        assert [mark.reason for mark in ledger.watermarks.history("job", "default")] == ["after", "before"]
        ledger.close()


def refused(url: str) -> EcmbatchError:
    with pytest.raises(EcmbatchError) as raised:
        Ledger(PostgresPlace(url=url))
    return raised.value


def test_a_wrong_password_is_not_shown_and_not_tried_again(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE with_password LOGIN PASSWORD 'right';"
            " EXCEPTION WHEN duplicate_object THEN END $$"
        )
    url = postgres.url(user=f"with_password:{CANARY}", tcp=True)
    error = refused(url)
    assert (type(error), error.error_class) == (Unreachable, "permanent")
    assert "authentication failed" in error.message and CANARY not in error.message + (error.hint or "")
    assert CANARY not in f"{PostgresPlace(url=url)} {PostgresPlace(url=url)!r}"


def test_a_missing_database_and_a_server_that_is_not_there_are_told_apart(postgres: PostgresServer) -> None:
    missing = refused(postgres.url("no_such_database"))
    assert (type(missing), missing.error_class) == (Unreachable, "permanent")
    nobody = refused("postgresql://postgres@127.0.0.1:1/ledger")
    assert (type(nobody), nobody.error_class) == (Unreachable, "transient")
    assert "postgresql://postgres@127.0.0.1:1/ledger (schema ecmbatch)" in nobody.message


def test_a_role_without_rights_is_told_which_it_needs(postgres: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE weak LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        error = refused(postgres_url.replace("postgres@", "weak@"))
        assert isinstance(error, UsageError) and "CREATE" in (error.hint or "")
        connection.execute("CREATE SCHEMA ecmbatch AUTHORIZATION weak")
    Ledger(PostgresPlace(url=postgres_url.replace("postgres@", "weak@"))).close()


def test_tables_of_somebody_else_are_left_alone(place: PostgresPlace) -> None:
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ecmbatch")
        connection.execute("CREATE TABLE ecmbatch.runs (mine text)")
    with pytest.raises(UsageError, match="is not a ledger of this version"):
        Ledger(place)
    with psycopg.connect(place.url) as connection:
        assert connection.execute("SELECT * FROM ecmbatch.runs").fetchall() == []


def test_an_unknown_parameter_of_the_url_is_told_without_showing_it() -> None:
    error = refused(f"postgresql://u:{CANARY}@h/d?no_such={CANARY}")
    assert isinstance(error, UsageError) and CANARY not in error.message + (error.hint or "")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql+psycopg:///d?host=/run/pg", "postgresql:///d?host=/run/pg"),
        ("postgresql://u:p%40%2F@[::1]:5432,h2/d", "postgresql://u:p%40%2F@[::1]:5432,h2/d"),
        ("postgresql://u:p@ss@h/d", None),
        ("postgresql://u:p/ss@h/d", None),
        ("postgresql://u:p#ss@h/d", None),
        ("postgresql://u:p?ss@h/d", None),
        ("postgresql://u:p%zz@h/d", None),
        ("postgresql://u:[p@h/d", None),
        ("postgresql://u:12/3@h/d", None),
        ("mysql://u:p@h/d", None),
    ],
)
def test_only_what_libpq_reads_as_it_was_meant_is_a_url(given: str, url: str | None) -> None:
    assert libpq_url(given) == url


def test_the_name_of_a_ledger_tells_where_it_is() -> None:
    named: Any = {
        "postgresql://u:p@h:5432/d": "postgresql://u@h:5432/d (schema ecmbatch)",
        "postgresql:///d?host=/run/pg&port=6&user=u&password=p": "postgresql://u@/run/pg:6/d (schema ecmbatch)",
    }
    assert {url: str(PostgresPlace(url=url)) for url in named} == named


def test_a_role_that_may_not_use_the_schema_is_told_so(postgres_url: str) -> None:
    Ledger(PostgresPlace(url=postgres_url)).close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE no_usage LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
        )
    with pytest.raises(UsageError, match="lacks USAGE on the schema"):
        Ledger(PostgresPlace(url=postgres_url.replace("postgres@", "no_usage@")))
