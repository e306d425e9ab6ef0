"""One scheduler for a ledger in SQLite: its passes write, and SQLite has one writer."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecmbatch.errors import ConflictError, Unreachable
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.place import LedgerPlace

_LONGEST = 10_000


@contextmanager
def only_scheduler(place: LedgerPlace) -> Iterator[None]:
    """Be the only scheduler of the ledger at *place*, if that is a file; the system ends it with the process.

    Raises :class:`~ecmbatch.errors.ConflictError` where there is one.
    """
    if not isinstance(place, Path):
        yield
        return
    path = place.with_name(f"{place.name}.scheduler")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise Unreachable(f"the file {path} cannot be used: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _refusal(place, file.read(_LONGEST)) from None
        file.truncate(0)
        file.write(json.dumps(Owner.this_process().document()))
        file.flush()
        os.fsync(file.fileno())
        yield


def _refusal(place: Path, holder: str) -> ConflictError:
    who = "another process"
    with suppress(ValueError, TypeError):
        who = str(Owner.from_document(json.loads(holder)))
    return ConflictError(
        f"the ledger {place} already has a scheduler: {who}",
        hint="a ledger in SQLite has one scheduler, any number of workers of its machine (ecmbatch worker) and is "
        'never shared by hosts; a ledger in PostgreSQL may have several: [ledger] url = "postgresql://…"',
    )
