"""Where a ledger is: a SQLite file, or a schema of a PostgreSQL database."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_SCHEMA = "ecmbatch"
_URL = re.compile(
    r"postgres(?:ql)?(?:\+psycopg)?://"
    r"(?P<rest>(?:[^:@/?#]*(?::[^:@/?#]*)?@)?(?P<hosts>[^@/?#]*)(?:/[^@/?#]*)?(?:\?[^@#]*)?)"
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]*)?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPlace:
    """A schema of the database at *url*, a libpq URL. The text form says where, without the password."""

    url: str = field(repr=False)
    schema: str = DEFAULT_SCHEMA

    def __str__(self) -> str:
        return f"{_without_password(self.url)} (schema {self.schema})"


LedgerPlace = Path | PostgresPlace
"""A path is that of a SQLite file."""


def libpq_url(text: str) -> str | None:
    """Return *text* as a URL that libpq reads, ``None`` where it is none.

    A password with a character that ends a part of a URL makes it none: part of it would be taken for a host.
    """
    found = _URL.fullmatch(text)
    if found is None or _BAD_ESCAPE.search(text):
        return None
    if not all(_HOST.fullmatch(host) for host in found["hosts"].split(",")):
        return None
    return f"postgresql://{found['rest']}"


def _without_password(url: str) -> str:
    """Return user, host, port and database of a URL, wherever in it they stand."""
    parts = urlsplit(url)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    account, _, address = parts.netloc.rpartition("@")
    user = unquote(account.partition(":")[0]) or given.get("user", "")
    port = f":{given['port']}" if "port" in given and not address else ""
    host = f"{address or given.get('host', '')}{port}"
    database = unquote(parts.path.removeprefix("/")) or given.get("dbname", "")
    return f"postgresql://{user}{'@' if user else ''}{host}/{database}"
