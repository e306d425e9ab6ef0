"""The connector ``postgres``: its settings, and how it is built where its drivers are installed.

A job partitioned by **hash** is read by one scan and split locally: sixteen predicates would cost the server
four scans, a split of a million rows a tenth of a second here. **Ranges and lists** of one table's rows have
a scan each, up to 16, with exact predicates that an index can serve; any other query is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ecmbatch.connectors.connector import Connector, ConnectorType
from ecmbatch.postgres_url import PostgresUrl, check_with_driver, drivers_missing
from ecmbatch.protocol.document import Section, parse_model

_PLUGIN = "the connector 'postgres'"
_WHAT = "connector"


class PostgresSource(Section):
    """Settings of a ``postgres`` connector.

    ``url`` holds a password as a rule: it is shown nowhere. ``max_connections`` is how many connections read
    at once; while a run reads, one more holds its snapshot. ``scans`` is how many scans serve a partitioned
    job, at most.
    """

    url: PostgresUrl
    max_connections: Annotated[int, Field(ge=1, le=256)] = 4
    scans: Annotated[int, Field(ge=1, le=256)] | None = None


def _parsed(settings: Mapping[str, Any]) -> PostgresSource:
    source = parse_model(PostgresSource, dict(settings), what=_WHAT)
    check_with_driver(source.url, plugin=_PLUGIN, what=_WHAT)
    return source


def _built(settings: PostgresSource, folder: Path) -> Connector:
    try:
        from ecmbatch.connectors.postgres_connector import PostgresConnector
    except ImportError as error:
        raise drivers_missing(_PLUGIN) from error
    return PostgresConnector(settings)


POSTGRES = ConnectorType(
    name="postgres",
    fields=frozenset({"query", "table"}),
    parse_config=_parsed,
    build=_built,
)
