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
from ecmbatch.errors import PluginError, Problem
from ecmbatch.protocol.document import Matching, Section, invalid, parse_model


class PostgresSource(Section):
    """Settings of a ``postgres`` connector.

    ``url`` holds a password as a rule: it is shown nowhere. ``max_connections`` is how many connections read
    at once; while a run reads, one more holds its snapshot. ``scans`` is how many scans serve a partitioned
    job, at most.
    """

    url: Annotated[
        str,
        Matching(r"postgres(ql)?://\S+", "a URL such as postgresql://user@host/database"),
        Field(repr=False),
    ]
    max_connections: Annotated[int, Field(ge=1, le=256)] = 4
    scans: Annotated[int, Field(ge=1, le=256)] | None = None


def _parsed(settings: Mapping[str, Any]) -> PostgresSource:
    source = parse_model(PostgresSource, dict(settings), what="connector")
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise _not_installed() from error
    try:
        conninfo_to_dict(source.url)
    except ProgrammingError:
        # Its message repeats a part of the URL, which may be the password.
        raise invalid(
            "connector",
            [
                Problem(
                    "/url",
                    "cannot be read as a PostgreSQL URL",
                    "write special characters of user and password as %40 (@), %2F (/), %3A (:)",
                )
            ],
        ) from None
    return source


def _built(settings: PostgresSource, folder: Path) -> Connector:
    try:
        from ecmbatch.connectors.postgres_connector import PostgresConnector
    except ImportError as error:
        raise _not_installed() from error
    return PostgresConnector(settings)


def _not_installed() -> PluginError:
    return PluginError(
        "the connector 'postgres' needs packages that are not installed",
        hint="pip install 'ecmbatch[postgres]'",
    )


POSTGRES = ConnectorType(
    name="postgres",
    fields=frozenset({"query", "table"}),
    parse_config=_parsed,
    build=_built,
)
