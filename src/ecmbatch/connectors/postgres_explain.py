"""What the server's plan of a query tells, before the query is run: views and SQL functions are unfolded in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from ecmbatch.connectors.postgres_columns import described
from ecmbatch.connectors.postgres_session import Rows
from ecmbatch.connectors.query_scans import VOLATILE

_OF_ONE_TABLE = frozenset(
    {
        "Seq Scan",
        "Index Scan",
        "Index Only Scan",
        "Bitmap Heap Scan",
        "Bitmap Index Scan",
        "BitmapAnd",
        "BitmapOr",
        "Tid Scan",
        "Tid Range Scan",
        "Append",
        "Merge Append",
        "Gather",
        "Gather Merge",
        "Sort",
        "Incremental Sort",
        "Result",
        "Subquery Scan",
    }
)

# Possessive, and only from the beginning of a word: a long word must not be tried from each of its letters.
_CALLED = re.compile(r'("(?:[^"]|"")++"|(?<![\w$])[^\W\d][\w$]*+)\s*+\(')
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]+")
_TELLS_THE_TIME = re.compile(
    r"\b(?:now|transaction_timestamp|statement_timestamp)\s*\(|"
    r"\b(?:current_timestamp|current_date|current_time|localtimestamp|localtime)\b|"
    r"'\s*(?:now|today|tomorrow|yesterday)\s*'",
    re.IGNORECASE,
)

_FUNCTIONS = """
SELECT proname, bool_or(provolatile = 'v'), bool_or(pronamespace <> 'pg_catalog'::regnamespace)
FROM pg_proc WHERE proname = ANY(%s) GROUP BY proname ORDER BY proname
"""

_VOLATILE_OPERATORS = """
SELECT DISTINCT o.oprname FROM pg_operator AS o JOIN pg_proc AS p ON p.oid = o.oprcode
WHERE o.oprname = ANY(%s) AND p.provolatile = 'v' ORDER BY 1
"""

_ROOTS = """
SELECT DISTINCT n.nspname, r.relname
FROM unnest(%s::text[], %s::text[]) AS read(schema, name)
JOIN pg_namespace AS s ON s.nspname = read.schema
JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relname = read.name
JOIN pg_class AS r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)
JOIN pg_namespace AS n ON n.oid = r.relnamespace
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFacts:
    """What is known of a query.

    ``changing`` says why it may give other rows when it is asked again, ``None`` where it does not. ``tables``
    are those it reads, as ``schema.table``, ``None`` where that cannot be told. ``selects_rows`` is true where
    it does no more than to select and filter the rows of one table, each by itself.
    """

    limited: bool
    changing: str | None
    tables: tuple[str, ...] | None
    selects_rows: bool


def facts_of(connection: Rows, sql: str) -> QueryFacts:
    """Return what is known of the query *sql*, which was parsed as one SELECT before."""
    row = connection.execute(f"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON)\n{sql}".encode()).fetchone()
    assert row is not None
    plan: Mapping[str, Any] = row[0][0]["Plan"]  # type: ignore[index]
    nodes = list(_nodes(plan))
    # The rows of VALUES are not in the plan, so the query's own words count as well.
    texts = [sql, *_texts(plan)]
    functions = _functions(connection, texts)
    tables = _tables(connection, nodes)
    opaque = any(
        is_foreign or name.endswith(("_to_xml", "_to_xmlschema")) for name, _, is_foreign in functions
    )
    return QueryFacts(
        limited=any(node["Node Type"] == "Sample Scan" for node in nodes)
        or (plan["Node Type"] == "Limit" and _ends_in_limit(connection, sql)),
        changing=_changing(connection, functions, texts),
        tables=None if opaque or tables is None else _named(tables),
        selects_rows=tables is not None and len(tables) == 1 and _selects_rows(nodes),
    )


def _ends_in_limit(connection: Rows, sql: str) -> bool:
    """Return whether *sql* has a LIMIT or OFFSET of its own, not only a query within it: it takes no second one."""
    for second in ("LIMIT ALL", "OFFSET 0"):
        connection.execute("SAVEPOINT parsing")
        try:
            described(connection, f"{sql}\n{second}")
        except psycopg.errors.SyntaxError:
            connection.execute("ROLLBACK TO SAVEPOINT parsing")
            return True
    return False


def _changing(
    connection: Rows, functions: Sequence[tuple[str, bool, bool]], texts: Sequence[str]
) -> str | None:
    volatile = [f"{name}()" for name, is_volatile, _ in functions if is_volatile]
    if not volatile:
        symbols = sorted({symbol for text in texts for symbol in _OPERATOR.findall(text)})
        volatile = [str(name) for (name,) in connection.execute(_VOLATILE_OPERATORS, [symbols]).fetchall()]
    if volatile:
        return f"{VOLATILE}, {volatile[0]}"
    if any(_TELLS_THE_TIME.search(text) for text in texts):
        return "the query asks for the time, which gives other values each time"
    return None


def _functions(connection: Rows, texts: Iterable[str]) -> list[tuple[str, bool, bool]]:
    """Return the functions that *texts* seem to call, by name: whether one is volatile, and not PostgreSQL's."""
    called = {_name(found[1]) for text in texts for found in _CALLED.finditer(text)}
    rows = connection.execute(_FUNCTIONS, [sorted(called)]).fetchall()
    return [(str(name), bool(is_volatile), bool(is_foreign)) for name, is_volatile, is_foreign in rows]


def _name(written: str) -> str:
    if written.startswith('"'):
        return written[1:-1].replace('""', '"')
    return written.lower()


def _tables(connection: Rows, nodes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]] | None:
    """Return schema and name of the tables that are read, the whole table for each of its partitions."""
    if any(node["Node Type"] == "Foreign Scan" for node in nodes):
        return None
    read = sorted({(node["Schema"], node["Relation Name"]) for node in nodes if "Relation Name" in node})
    rows = connection.execute(_ROOTS, [[schema for schema, _ in read], [name for _, name in read]]).fetchall()
    return [(str(schema), str(name)) for schema, name in rows]


def _named(tables: Sequence[tuple[str, str]]) -> tuple[str, ...] | None:
    """Return the tables as ``schema.table``; with a dot in a name that would be read as another one."""
    if any("." in schema + name for schema, name in tables):
        return None
    return tuple(f"{schema}.{name}" for schema, name in tables)


def _selects_rows(nodes: Sequence[Mapping[str, Any]]) -> bool:
    """What joins, groups or numbers rows would be done anew for every scan."""
    if any(node["Node Type"] not in _OF_ONE_TABLE for node in nodes):
        return False
    if any(node.get("Parent Relationship") in ("InitPlan", "SubPlan") for node in nodes):
        return False
    read = [(node["Schema"], node["Relation Name"]) for node in nodes if "Relation Name" in node]
    return len(read) == len(set(read))


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for inner in tree.values():
            yield from _texts(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _texts(inner)
