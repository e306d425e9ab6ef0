"""The store in a PostgreSQL database: several jobs publish at once, and nobody who reads waits for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import Field

from ecmbatch.postgres_url import PostgresUrl, check_with_driver, drivers_missing
from ecmbatch.protocol.document import Matching, Section, parse_model
from ecmbatch.protocol.duration import Duration
from ecmbatch.stores.store import Store, StoreType

_DEFAULT_SCHEMA = "public"
_PLUGIN = "the store 'postgres'"
_WHAT = "settings of the postgres store"


class PostgresStoreSettings(Section):
    """Settings of ``type = "postgres"`` under ``[stores.<name>]``."""

    url: PostgresUrl
    """The database. It holds a password as a rule: it is shown nowhere."""
    schema_: Annotated[
        str,
        Matching(r"[^.\x00]{1,63}", "the name of a schema: up to 63 characters without dots"),
        Field(alias="schema"),
    ] = _DEFAULT_SCHEMA
    """Where tables with a plain name are, and the store's own; made when something is published."""
    busy_timeout: Duration = timedelta(seconds=60)
    """How long to wait for a lock that another session holds."""


def _parse(settings: Mapping[str, Any]) -> PostgresStoreSettings:
    parsed = parse_model(PostgresStoreSettings, dict(settings), what=_WHAT)
    check_with_driver(parsed.url, plugin=_PLUGIN, what=_WHAT)
    return parsed


def _build(settings: PostgresStoreSettings, folder: Path, tell: Callable[[str], None]) -> Store:
    try:
        from ecmbatch.stores.postgres_store import PostgresStore
    except ImportError as error:
        raise drivers_missing(_PLUGIN) from error
    return PostgresStore(settings, tell)


def _source(settings: PostgresStoreSettings) -> tuple[str, Mapping[str, Any]]:
    """Return the connector that reads this store; to it, too, plain names mean tables of the store's schema."""
    if settings.schema_ == _DEFAULT_SCHEMA:
        return "postgres", {"url": settings.url}
    parts = urlsplit(settings.url)
    # PostgreSQL takes a plus sign in a URL for itself, not for a space.
    parameters = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    name = settings.schema_.replace('"', '""')
    option = f'-csearch_path="{name}",{_DEFAULT_SCHEMA}'.replace("\\", r"\\").replace(" ", r"\ ")
    parameters["options"] = " ".join(filter(None, (parameters.get("options"), option)))
    return "postgres", {"url": urlunsplit(parts._replace(query=urlencode(parameters, quote_via=quote)))}


POSTGRES = StoreType(name="postgres", parse_config=_parse, build=_build, source=_source)
