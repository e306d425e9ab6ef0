"""What the words of a query tell, before it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb

from ecmbatch.errors import SourceError


def check_is_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` unless *sql* is one SELECT."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the query must be one SELECT; sources are only read")


class Select:
    """A SELECT over the tables of a DuckDB file, as DuckDB parses it.

    Raises :class:`~ecmbatch.errors.SourceError` where *sql* is anything else.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        self._connection = connection
        self._parsed = _parsed(connection, sql)

    @property
    def is_limited(self) -> bool:
        """Whether it takes some of its rows only: LIMIT or OFFSET at its end, or a sample anywhere."""
        has_limit = any(modifier["type"] == "LIMIT_MODIFIER" for modifier in self._parsed["modifiers"])
        return has_limit or any(node["sample"] is not None for node in _nodes(self._parsed, "sample"))

    @property
    def is_volatile(self) -> bool:
        """Whether it may give other rows each time it is asked: it calls ``random()`` or its like, or a macro of
        the file, which may."""
        return any(each.is_volatile or each.is_macro_of_file for each in self._functions)

    @property
    def selects_rows(self) -> bool:
        """Whether it does no more than to select and filter the rows of one table, each by itself.

        Then a predicate on a column reaches the table. Anything else DuckDB would do anew for every scan.
        """
        node = self._parsed
        if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
            return False
        if self.tables is None or node["cte_map"]["map"] or node["modifiers"]:
            return False
        if any(node[part] for part in ("group_expressions", "group_sets", "having", "qualify")):
            return False
        others = {each["class"] for each in _nodes(node, "class")} & {"WINDOW", "SUBQUERY"}
        return not others and not any(each.is_aggregate for each in self._functions)

    @cached_property
    def tables(self) -> tuple[str, ...] | None:
        """The tables that it reads, as ``schema.table``.

        ``None`` where that cannot be told from its words: views, macros and table functions read others behind it.
        """
        if any(True for _ in _nodes(self._parsed, "type", "TABLE_FUNCTION")):
            return None
        if any(each.is_macro_of_file for each in self._functions):
            return None
        tables, views = _tables(self._connection), _views(self._connection)
        ctes = (node["cte_map"]["map"] for node in _nodes(self._parsed, "cte_map"))
        inner = {entry["key"].lower() for entries in ctes for entry in entries}
        read = set()
        for node in _nodes(self._parsed, "table_name"):
            schema, name = node["schema_name"].lower(), node["table_name"].lower()
            table = None if node["catalog_name"] else tables.get((schema or "main", name))
            if table is not None:
                read.add(table)
            # A query that is named like a view may read that view, or stand beside a place where the view is read.
            elif schema or name not in inner or name in views:
                return None
        return tuple(sorted(read))

    @cached_property
    def _functions(self) -> Sequence[_Function]:
        """The functions that it calls; those of one name are all there, since only DuckDB knows which is meant."""
        called = {node["function_name"].lower() for node in _nodes(self._parsed, "function_name")}
        if not called:
            # DuckDB's list is long, and most queries call none.
            return ()
        rows = self._connection.execute(
            "SELECT function_type, stability, internal FROM duckdb_functions() "
            "WHERE list_contains(?, lower(function_name))",
            [sorted(called)],
        )
        return [_Function(*row) for row in rows.fetchall()]


@dataclass(frozen=True, slots=True)
class _Function:
    """A function as ``duckdb_functions()`` shows it."""

    kind: str
    stability: str | None
    internal: bool

    @property
    def is_volatile(self) -> bool:
        return self.stability == "VOLATILE"

    @property
    def is_aggregate(self) -> bool:
        return self.kind == "aggregate"

    @property
    def is_macro_of_file(self) -> bool:
        """Macros that come with DuckDB are built of functions and read nothing."""
        return self.kind in ("macro", "table_macro") and not self.internal


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
