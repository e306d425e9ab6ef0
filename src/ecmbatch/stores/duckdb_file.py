"""Opening a DuckDB file: one process may write it or several may read it, so everybody keeps it short."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import duckdb

from ecmbatch.errors import StoreBusy, StoreError
from ecmbatch.protocol.duration import format_duration

_MOST_THREADS = 4
"""More threads need more memory than the default limit gives, and publishing gains little from them."""

READING: Mapping[str, str] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
"""How every reader of this package opens a file. Connections of one process to one file share a database, if
they ask for the very same settings; memory and all else can only be set afterwards, by whoever needs it."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_HELD_BY_PROCESS = re.compile(r"Conflicting lock is held in (.+?) \(PID (\d+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDBFile:
    """A DuckDB file and how it is opened. ``tell`` gets a sentence when somebody else has to be waited for."""

    path: Path
    memory_limit: str
    threads: int | None
    busy_timeout: timedelta
    tell: Callable[[str], None]

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file, which must exist, to read; several threads and processes may do that at once.

        It may be a database that somebody else in this process has open with its configuration locked, so
        nothing is set here, and what is read must not depend on settings.
        """
        with closing(self._connect_when_free(read_only=True)) as connection:
            yield connection

    @contextmanager
    def writing(self, stage_folders: Sequence[Path] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file alone, made anew if it is missing. Of all other files, only those in *stage_folders*
        can be reached; spilled rows go to the folder ``<file>.tmp`` beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect_when_free(read_only=False)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            folders = [str(folder) for folder in stage_folders]
            # No placeholders in SET; quotes are doubled as in any literal.
            literals = ", ".join("'" + folder.replace("'", "''") + "'" for folder in folders)
            connection.execute(f"SET allowed_directories = [{literals}]")
            connection.execute("SET enable_external_access = false")
            yield connection

    def _connect_when_free(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self.busy_timeout.total_seconds()
        pause = _FIRST_PAUSE
        told = False
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=read_only, config=self._config(read_only))
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise _unusable(self.path, error) from error
                if time.monotonic() >= deadline:
                    raise self._busy(holder) from error
            if not told:
                told = True
                self.tell(
                    f"{self.path} is open in {holder}; waiting up to {format_duration(self.busy_timeout)} for it"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _config(self, read_only: bool) -> dict[str, str | bool | int | float | list[str]]:
        if read_only:
            return dict(READING)
        return {
            **READING,
            "memory_limit": self.memory_limit,
            "threads": self.threads or min(os.cpu_count() or 1, _MOST_THREADS),
            # A writer must be alone in its database, since what it may access is a setting of the database
            # (see writing()); an agent of its own makes its settings equal to nobody's.
            "custom_user_agent": f"ecmbatch-{token_hex(8)}",
            # Rows of a table have no order to keep, and without one threads insert independently.
            "preserve_insertion_order": False,
        }

    def _busy(self, holder: str) -> StoreBusy:
        waited = format_duration(self.busy_timeout)
        return StoreBusy(
            f"{self.path} is open in {holder} and was not closed within {waited}; what is staged is kept",
            hint="close it there and resume the run; busy_timeout in the project file sets how long is waited",
        )


def _holder(error: duckdb.Error) -> str | None:
    """Return who holds the file, if that is what the error says."""
    message = str(error)
    if held := _HELD_BY_PROCESS.search(message):
        return f"process {held[2]} ({held[1]})"
    if "Could not set lock on file" in message or "being used by another process" in message:
        return "another process"
    if "different configuration than existing connections" in message:
        return "this process itself, through another connection"
    return None


def _unusable(path: Path, error: duckdb.Error) -> StoreError:
    detail = str(error).splitlines()[0]
    return StoreError(f"{path} cannot be opened as a DuckDB database: {detail}", error_class="permanent")
