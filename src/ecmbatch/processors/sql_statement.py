"""What a row-local ``SELECT`` may consist of, told from the statement as DuckDB parses it.

Batches are cut anywhere and rows are replayed after a crash, so the result for a row may depend on this row,
the query and its parameters alone. Every node of the parsed tree must be of a kind that is listed here; what
is not listed is refused, also when a later DuckDB adds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import duckdb

from ecmbatch.errors import Problem
from ecmbatch.processors.sql_database import closed_database
from ecmbatch.processors.sql_functions import (
    AGAIN,
    BOUNDARY,
    LIST_AGGREGATES,
    Refusal,
    refused_function,
    refused_list_aggregate,
    refused_word,
)

_Node = Mapping[str, Any]

_IN_THE_SOURCE = "do it in the source's query"
_ONE_SELECT = "write one SELECT … FROM batch, with WHERE if rows are to be dropped"

# Keys that every expression has, and that say nothing of what it computes.
_COMMON = frozenset({"class", "type", "alias", "query_location", "query_location_length"})

_COMPARISONS = frozenset(
    {
        "COMPARE_EQUAL",
        "COMPARE_NOTEQUAL",
        "COMPARE_LESSTHAN",
        "COMPARE_LESSTHANOREQUALTO",
        "COMPARE_GREATERTHAN",
        "COMPARE_GREATERTHANOREQUALTO",
        "COMPARE_DISTINCT_FROM",
        "COMPARE_NOT_DISTINCT_FROM",
    }
)
_OPERATORS = frozenset(
    {
        "ARRAY_CONSTRUCTOR",
        "ARRAY_EXTRACT",
        "ARRAY_SLICE",
        "COMPARE_IN",
        "COMPARE_NOT_IN",
        "OPERATOR_COALESCE",
        "OPERATOR_IS_NOT_NULL",
        "OPERATOR_IS_NULL",
        "OPERATOR_NOT",
        "OPERATOR_TRY",
        "OPERATOR_UNPACK",
        "STRUCT_EXTRACT",
    }
)
_STAR = frozenset(
    {
        "relation_name",
        "exclude_list",
        "qualified_exclude_list",
        "replace_list",
        "rename_list",
        "expr",
        "columns",
    }
)
_FUNCTION = frozenset({"function_name", "arguments", "is_operator", "order_bys", "qualified_name"})

_EXPRESSIONS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "BETWEEN": (
        frozenset({"COMPARE_BETWEEN", "COMPARE_NOT_BETWEEN"}),
        frozenset({"input", "lower", "upper"}),
    ),
    "CASE": (frozenset({"CASE_EXPR"}), frozenset({"case_checks", "else_expr"})),
    "CAST": (frozenset({"OPERATOR_CAST"}), frozenset({"child", "try_cast", "type_expr"})),
    "COLLATE": (frozenset({"COLLATE"}), frozenset({"child", "collation"})),
    "COLUMN_REF": (frozenset({"COLUMN_REF"}), frozenset({"column_names"})),
    "COMPARISON": (_COMPARISONS, frozenset({"left", "right"})),
    "CONJUNCTION": (frozenset({"CONJUNCTION_AND", "CONJUNCTION_OR"}), frozenset({"children"})),
    "CONSTANT": (frozenset({"VALUE_CONSTANT"}), frozenset({"literal"})),
    "FUNCTION": (frozenset({"FUNCTION"}), _FUNCTION),
    "LAMBDA": (frozenset({"LAMBDA"}), frozenset({"lhs", "expr", "syntax_type"})),
    "OPERATOR": (_OPERATORS, frozenset({"children"})),
    "PARAMETER": (frozenset({"VALUE_PARAMETER"}), frozenset({"identifier"})),
    "STAR": (frozenset({"STAR"}), _STAR),
    "TYPE": (
        frozenset({"TYPE"}),
        frozenset({"type_name", "children", "qualified_name", "catalog", "schema"}),
    ),
}
"""For each class of expressions: the types it may have, and the keys beside the common ones."""

_NODE = frozenset({"type", "select_list", "from_table", "where_clause", "aggregate_handling"})
_TABLE = frozenset(
    {
        "type",
        "alias",
        "query_location",
        "query_location_length",
        "catalog_name",
        "schema_name",
        "table_name",
        "column_name_alias",
        "qualified_name",
    }
)

# Objects inside expressions that are no expressions themselves: what they consist of.
_PARTS = (
    frozenset({"when_expr", "then_expr"}),
    frozenset({"name", "expression"}),
    frozenset({"key", "value"}),
    frozenset({"kind", "text"}),
    frozenset({"path"}),
    frozenset({"catalog", "schema", "table", "column"}),
    frozenset({"catalog", "schema", "table", "column", "qualified_name"}),
)

_CLAUSES: Mapping[str, Refusal] = {
    "cte_map": Refusal("has a WITH clause; it may read nothing but batch", _ONE_SELECT),
    "group_expressions": Refusal(f"has GROUP BY: {BOUNDARY}", _IN_THE_SOURCE),
    "group_sets": Refusal(f"has GROUP BY: {BOUNDARY}", _IN_THE_SOURCE),
    "having": Refusal(f"has HAVING: {BOUNDARY}", _IN_THE_SOURCE),
    "qualify": Refusal(f"has QUALIFY: {BOUNDARY}", _IN_THE_SOURCE),
    "sample": Refusal(f"draws a sample: {BOUNDARY}", "select rows by a property of theirs, in WHERE"),
}
_MODIFIERS: Mapping[str, Refusal] = {
    "DISTINCT_MODIFIER": Refusal(
        f"has DISTINCT: {BOUNDARY}", 'do it in the source\'s query, or let the sink "upsert" by a key'
    ),
    "ORDER_MODIFIER": Refusal(f"has ORDER BY: {BOUNDARY}", "leave it out: rows keep the source's order"),
    "LIMIT_MODIFIER": Refusal(f"has LIMIT or OFFSET: {BOUNDARY}", _IN_THE_SOURCE),
    "LIMIT_PERCENT_MODIFIER": Refusal(f"has LIMIT or OFFSET: {BOUNDARY}", _IN_THE_SOURCE),
}
_TABLES: Mapping[str, Refusal] = {
    "EMPTY": Refusal(
        "has no FROM: it would give one row for each batch, however many rows it has", _ONE_SELECT
    ),
    "JOIN": Refusal(
        "has a join; it may read nothing but batch",
        "use the processor lookup, or join in the source's query",
    ),
    "SUBQUERY": Refusal("has a subquery in FROM; it may read nothing but batch", _ONE_SELECT),
    "TABLE_FUNCTION": Refusal("reads a table function; it may read nothing but batch", _ONE_SELECT),
    "EXPRESSION_LIST": Refusal("has VALUES; it may read nothing but batch", _ONE_SELECT),
    "SHOW_REF": Refusal("is not a SELECT", _ONE_SELECT),
    "PIVOT": Refusal(f"has PIVOT or UNPIVOT: {BOUNDARY}", _IN_THE_SOURCE),
}
_CLASSES: Mapping[str, Refusal] = {
    "SUBQUERY": Refusal(
        "has a subquery (= ANY and > ALL are subqueries, too); it may look at nothing but the row",
        "use list_contains(l, x) for = ANY (l), and the processor lookup for other tables",
    ),
    "WINDOW": Refusal(f"has a window function: {BOUNDARY}", _IN_THE_SOURCE),
    "POSITIONAL_REFERENCE": Refusal("names a column by its position", "write the column's name"),
    "DEFAULT": Refusal("has DEFAULT, but batch has no defaults", "write the value"),
}


def statement_problems(sql: str) -> list[Problem]:
    """Return why *sql*, with ``?`` for its parameters, is not one row-local ``SELECT``; none if it is."""
    refusals = dict.fromkeys(_refusals(sql))
    return [Problem("", refusal.message, refusal.hint) for refusal in refusals]


def _refusals(sql: str) -> Iterator[Refusal]:
    parsed = _parsed(sql)
    if isinstance(parsed, Refusal):
        yield parsed
        return
    if len(parsed) != 1:
        yield Refusal("has several statements", _ONE_SELECT)
        return
    node = parsed[0]["node"]
    if node["type"] != "SELECT_NODE":
        yield Refusal("combines several SELECTs (UNION and the like)", _ONE_SELECT)
        return
    yield from _refused_clauses(node)
    yield from _refused_table(node["from_table"])
    yield from _refused_expressions([node["select_list"], node["where_clause"]])


def _parsed(sql: str) -> Sequence[_Node] | Refusal:
    try:
        with _parser().cursor() as connection:
            row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        answer: _Node = json.loads(row[0]) if row else {"error": True}
    except RecursionError:
        return Refusal("is nested too deeply")
    if not answer["error"]:
        statements: Sequence[_Node] = answer["statements"]
        return statements
    if answer.get("error_type") == "not implemented":
        return Refusal("is not a SELECT", _ONE_SELECT)
    message = " ".join(str(answer.get("error_message", "")).split())
    if "expression depth" in message:
        return Refusal("is nested too deeply")
    return Refusal(f"is not SQL that DuckDB can read: {message}")


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    return closed_database()


def _refused_clauses(node: _Node) -> Iterator[Refusal]:
    for modifier in node["modifiers"]:
        yield _MODIFIERS.get(modifier["type"], _unknown(modifier["type"]))
    if node["aggregate_handling"] != "STANDARD_HANDLING":
        yield _CLAUSES["group_expressions"]
    for key in sorted(node.keys() - _NODE - {"modifiers"}):
        if _says_something(node[key]):
            yield _CLAUSES.get(key, _unknown(key))


def _refused_table(table: _Node) -> Iterator[Refusal]:
    kind = table["type"]
    if kind != "BASE_TABLE":
        yield _TABLES.get(kind, _unknown(kind))
        return
    path = table["qualified_name"]["path"]
    if len(path) != 1 or path[0].lower() != "batch":
        yield Refusal("reads another table than batch; the rows that come in are called batch", _ONE_SELECT)
    for key in sorted(table.keys() - _TABLE):
        if _says_something(table[key]):
            yield _CLAUSES.get(key, _unknown(key))


def _refused_expressions(root: object) -> Iterator[Refusal]:
    """Walk the tree without recursion: the depth of a query is its author's choice."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            refused = list(_refused_expression(value) if "class" in value else _refused_part(value))
            yield from refused
            # What stands inside something refused would only be refused again.
            waiting += [] if refused else value.values()


def _refused_part(part: _Node) -> Iterator[Refusal]:
    if part.get("type") == "ORDER_MODIFIER" and part.keys() == {"type", "orders"}:
        if part["orders"]:
            yield Refusal(
                f"has ORDER BY within a function: {BOUNDARY}", "for a list of one row use list_sort(l)"
            )
    elif not any(part.keys() <= known for known in _PARTS):
        yield _unknown(", ".join(part))


def _refused_expression(node: _Node) -> Iterator[Refusal]:
    kind = node["class"]
    if kind not in _EXPRESSIONS:
        yield _CLASSES.get(kind, _unknown(kind))
        return
    types, keys = _EXPRESSIONS[kind]
    if node["type"] == "GROUPING_FUNCTION":
        yield _CLAUSES["group_expressions"]
    elif node["type"] not in types:
        yield _unknown(node["type"])
    elif kind == "FUNCTION":
        yield from _refused_call(node)
    elif kind == "TYPE" and len(node["qualified_name"]["path"]) != 1:
        yield Refusal("names a type with a schema", "write the type's name alone")
    elif kind == "COLUMN_REF" and (refusal := _refused_name(node["column_names"])):
        yield refusal
    for key in sorted(node.keys() - _COMMON - keys):
        if kind != "FUNCTION" and _says_something(node[key]):
            yield _unknown(key)


def _refused_name(parts: Sequence[str]) -> Refusal | None:
    return refused_word(parts[0]) if len(parts) == 1 else None


def _refused_call(node: _Node) -> Iterator[Refusal]:
    name = node["function_name"].lower()
    if refusal := _call_refusal(name, node):
        yield refusal
        return
    for key in sorted(node.keys() - _COMMON - _FUNCTION):
        if _says_something(node[key]):
            yield Refusal(f"calls {name}() with {key.upper()}, which is for aggregate functions: {BOUNDARY}")


def _call_refusal(name: str, node: _Node) -> Refusal | None:
    arguments = [argument["expression"] for argument in node["arguments"]]
    if len(node["qualified_name"]["path"]) != 1:
        return Refusal(
            f"calls {name}() with a name before it", f"write {name}(x), neither x.{name}() nor a schema"
        )
    if name == "age" and len(arguments) == 1:
        return Refusal(
            f"uses age() of one time, which counts up to today: {AGAIN}", "give both times: age(:now, x)"
        )
    if name in LIST_AGGREGATES:
        return refused_list_aggregate(_text(arguments[1]) if len(arguments) > 1 else None)
    return refused_function(name, _refusal_of)


@lru_cache(maxsize=256)
def _refusal_of(expression: str) -> Refusal | None:
    """Return why what a macro of DuckDB stands for is refused, if it is."""
    return next(_refusals(f"SELECT {expression} FROM batch"), None)


def _text(expression: _Node) -> str | None:
    literal = expression.get("literal")
    return str(literal["text"]) if literal and literal.get("kind") == "STRING" else None


def _says_something(value: object) -> bool:
    """False for what a parsed statement holds where nothing was written."""
    if isinstance(value, Mapping):
        return any(_says_something(inner) for inner in value.values())
    return value not in (None, "", False, [])


def _unknown(what: str) -> Refusal:
    return Refusal(f"has something that is not known to be row by row: {what}", _ONE_SELECT)
