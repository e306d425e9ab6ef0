"""What the words of a query tell, before it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from ecmbatch.errors import SourceError

_MACROS = "(function_type LIKE '%macro' AND NOT internal)"
"""Macros that come with DuckDB are built of functions and read nothing."""


def check_is_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` unless *sql* is one SELECT."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the query must be one SELECT; sources are only read")


def is_limited(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Return whether the query takes some of its rows only: LIMIT or OFFSET at its end, or a sample anywhere."""
    parsed = _parsed(connection, sql)
    has_limit = any(modifier["type"] == "LIMIT_MODIFIER" for modifier in parsed["modifiers"])
    return has_limit or any(node["sample"] is not None for node in _nodes(parsed, "sample"))


def is_volatile(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Return whether the query may give other rows each time it is asked: it calls ``random()`` or its like, or a
    macro of the file, which may."""
    return _calls(connection, _parsed(connection, sql), f"stability = 'VOLATILE' OR {_MACROS}")


def selects_rows(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Return whether *sql* does no more than to select and filter the rows of one table, each by itself.

    Then a predicate on a column reaches the table. Anything else DuckDB would do anew for every scan.
    """
    node = _parsed(connection, sql)
    if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
        return False
    if tables_read(connection, sql) is None or node["cte_map"]["map"] or node["modifiers"]:
        return False
    if any(node[part] for part in ("group_expressions", "group_sets", "having", "qualify")):
        return False
    others = {each["class"] for each in _nodes(node, "class")} & {"WINDOW", "SUBQUERY"}
    return not others and not _calls(connection, node, "function_type = 'aggregate'")


def tables_read(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, ...] | None:
    """Return the tables that the query reads, as ``schema.table``.

    ``None`` where that cannot be told from its words: views, macros and table functions read others behind it.
    """
    parsed, tables = _parsed(connection, sql), _tables(connection)
    if _calls(connection, parsed, _MACROS) or any(True for _ in _nodes(parsed, "type", "TABLE_FUNCTION")):
        return None
    views = _views(connection)
    inner = {entry["key"].lower() for node in _nodes(parsed, "cte_map") for entry in node["cte_map"]["map"]}
    read = set()
    for node in _nodes(parsed, "table_name"):
        schema, name = node["schema_name"].lower(), node["table_name"].lower()
        table = None if node["catalog_name"] else tables.get((schema or "main", name))
        if table is not None:
            read.add(table)
        # A query that is named like a view may read that view, or stand beside a place where the view is read.
        elif schema or name not in inner or name in views:
            return None
    return tuple(sorted(read))


def _tables(connection: duckdb.DuckDBPyConnection) -> Mapping[tuple[str, str], str]:
    """Return the tables of the file by schema and name in lower case, without those with a dot in their name:
    such a name would read as a schema and a table."""
    rows = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal")
    return {
        (schema.lower(), name.lower()): f"{schema}.{name}"
        for schema, name in rows.fetchall()
        if "." not in schema + name
    }


def _views(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Return the names of the file's views, in lower case."""
    rows = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
    return frozenset(name.lower() for (name,) in rows.fetchall())


def _calls(connection: duckdb.DuckDBPyConnection, parsed: Any, functions: str) -> bool:
    """Return whether one of the *functions* is called, which a condition on ``duckdb_functions()`` tells."""
    called = {node["function_name"].lower() for node in _nodes(parsed, "function_name")}
    if not called:
        # The list of all functions is long, and most queries call none.
        return False
    names = connection.execute(f"SELECT function_name FROM duckdb_functions() WHERE {functions}")
    return not called.isdisjoint(name.lower() for (name,) in names.fetchall())


def _nodes(tree: Any, field: str, value: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a syntax tree that have *field*, with *value* if there is one."""
    if isinstance(tree, dict):
        if field in tree and value in (None, tree[field]):
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for inner in tree:
            yield from _nodes(inner, field, value)


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """Return the syntax tree of a SELECT."""
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        raise SourceError("the query must be one SELECT; sources are only read")
    return parsed["statements"][0]["node"]
