"""URLs of PostgreSQL databases, as libpq reads them: what is one, what may be shown of it, and its driver."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qs, unquote

from pydantic import AfterValidator, Field

from ecmbatch.errors import PluginError, Problem
from ecmbatch.protocol.document import invalid, refusal

_URL = re.compile(
    r"postgres(?:ql)?(?:\+psycopg)?://"
    r"(?P<rest>(?:[^][:@/?#\s]*(?::[^][:@/?#\s]*)?@)?(?P<hosts>[^@/?#\s]*)(?:/[^@/?#\s]*)?(?:\?[^@#\s]*)?)"
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]*)?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

PERCENT_ENCODED = "in a user or password, characters such as @ : / ? # [ ] % are percent-encoded"


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


def without_password(url: str) -> str:
    """Return user, host, port and database of what :func:`libpq_url` returned, wherever in it they stand."""
    account, _, address = url.removeprefix("postgresql://").rpartition("@")
    address, _, query = address.partition("?")
    address, _, database = address.partition("/")
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    user = unquote(account.partition(":")[0]) or given.get("user", "")
    port = f":{given['port']}" if "port" in given and not address else ""
    host = f"{address or given.get('host', '')}{port}"
    return f"postgresql://{user}{'@' if user else ''}{host}/{unquote(database) or given.get('dbname', '')}"


def _checked(text: str) -> str:
    url = libpq_url(text)
    if url is None:
        raise refusal(Problem("", "must be postgresql://USER:PASSWORD@HOST:5432/DATABASE", PERCENT_ENCODED))
    return url


PostgresUrl = Annotated[str, AfterValidator(_checked), Field(repr=False)]
"""A setting that is such a URL. It holds a password as a rule: it is shown nowhere."""


def check_with_driver(url: str, *, plugin: str, what: str) -> None:
    """See whether the driver is there and knows the parameters of *url*, for the settings *what* of *plugin*.

    Raises :class:`~ecmbatch.errors.PluginError` and :class:`~ecmbatch.errors.InvalidDocument`.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise drivers_missing(plugin) from error
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        # Its message repeats a part of the URL.
        reason = "has a parameter that libpq does not know"
        raise invalid(
            what, [Problem("/url", reason, "see 'Connection URIs' in PostgreSQL's manual")]
        ) from None


def drivers_missing(plugin: str) -> PluginError:
    """Return what to tell where the extra is not installed."""
    return PluginError(
        f"{plugin} needs packages that are not installed", hint="pip install 'ecmbatch[postgres]'"
    )
