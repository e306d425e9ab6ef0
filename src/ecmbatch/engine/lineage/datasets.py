"""Names of what is read and written, by the naming rules of OpenLineage.

Other tools name the same tables in the same way; that is what connects their jobs with ours. A name never holds
a user or a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmbatch.postgres_url import libpq_url
from ecmbatch.project_file import ProjectFile

_WILDCARD = re.compile(r"[*?\[]")
_PORTS: Mapping[str, int] = {
    "postgresql": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "mssql": 1433,
    "oracle": 1521,
}
_SCHEMES: Mapping[str, str] = {"postgresql": "postgres", "mariadb": "mysql"}


@dataclass(frozen=True, slots=True)
class DatasetName:
    """What OpenLineage knows a table or a folder by: the *namespace* is the database, or ``file``."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database or a folder. *before* stands before every name; *schema* is that of tables with a plain name."""

    namespace: str
    before: str = ""
    schema: str | None = None

    def table(self, table: str) -> DatasetName:
        """Return the name of *table*, which may be ``schema.table``."""
        plain = "." not in table and self.schema is not None
        return DatasetName(self.namespace, f"{self.before}{f'{self.schema}.' if plain else ''}{table}")

    def path(self, path: str) -> DatasetName:
        """Return the name of a file, or of the folder below which a pattern looks for files."""
        parts = Path(path).parts
        fixed = next((number for number, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
        return DatasetName(self.namespace, f"{self.before}{'/'.join(parts[:fixed])}".rstrip("/"))


def place_of(name: str, settings: Mapping[str, Any], file: ProjectFile) -> Place:
    """Return the place that the connector or store *name* with these *settings* of the project *file* is."""
    match settings:
        case {"type": "postgres", "url": str(url)}:
            return _postgres(url, str(settings.get("schema", "public")))
        case {"type": "duckdb", "path": str(path)}:
            found = file.path(path).resolve()
            return Place(namespace=f"duckdb://{found}", before=f"{found.stem}.", schema="main")
        case {"type": "sqlite", "path": str(path)}:
            return Place(namespace=f"sqlite://{file.path(path).resolve()}", schema="main")
        case {"type": "sqlalchemy", "url": str(url)}:
            return _sqlalchemy(url)
        case {"type": "files"}:
            return Place(
                namespace="file", before=f"{file.path(str(settings.get('root', 'data'))).resolve()}/"
            )
    return Place(namespace=f"{settings['type']}://{name}")


def _postgres(url: str, schema: str) -> Place:
    from psycopg.conninfo import conninfo_to_dict

    given = {name: str(value) for name, value in conninfo_to_dict(libpq_url(url) or "").items()}
    host = given.get("host", "").partition(",")[0]
    port = given.get("port", "").partition(",")[0]
    # A folder is that of a socket on this machine.
    authority = f"{host if host and not host.startswith('/') else 'localhost'}:{port or 5432}"
    database = given.get("dbname") or given.get("user", "")
    return Place(
        namespace=f"postgres://{authority}", before=f"{database}." if database else "", schema=schema
    )


def _sqlalchemy(text: str) -> Place:
    from ecmbatch.connectors.sqlalchemy_database import read_url

    url = read_url(text)
    backend = url.get_backend_name()
    if backend == "sqlite":
        return Place(namespace=f"sqlite://{Path(url.database or '').resolve()}", schema="main")
    port = url.port or _PORTS.get(backend)
    authority = f"{url.host or 'localhost'}{f':{port}' if port else ''}"
    return Place(
        namespace=f"{_SCHEMES.get(backend, backend)}://{authority}",
        before=f"{url.database}." if url.database else "",
        schema="public" if backend == "postgresql" else None,
    )
