"""Which of DuckDB's functions give, for one row, a value of this row alone, and the same one every time.

DuckDB tells what kind a function is and whether it is stable; those it is wrong or silent about are listed
here. The rest is refused, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ecmbatch.processors.sql_database import closed_database

BOUNDARY = "a batch boundary would change the result"
AGAIN = "rows that are read again after a crash would get other values"

LIST_AGGREGATES = frozenset({"aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate"})
"""They apply the aggregate function that their second argument names to the list of one row."""

_SAMPLING = frozenset({"reservoir_quantile"})

_CLOCKS = frozenset(
    {
        # DuckDB calls the first two stable.
        "current_localtime",
        "current_localtimestamp",
        "current_date",
        "current_time",
        "current_timestamp",
        "get_current_time",
        "get_current_timestamp",
        "localtime",
        "localtimestamp",
        "now",
        "today",
        "transaction_timestamp",
        "ago",
    }
)
_BEYOND_THE_ROW = frozenset(
    {
        # DuckDB calls these stable, too.
        "current_role",
        "current_user",
        "index_key",
        "json_deserialize_sql",
        "json_serialize_plan",
        "json_serialize_sql",
        "parse_duckdb_log_message",
        "session_user",
        "user",
        "version",
    }
)

_RUN_START = (
    'give the run\'s start as a parameter, "parameters": {"now": "${run.started_at}"}, '
    "and write :now::TIMESTAMPTZ"
)

# What SQL takes for a function without parentheses where no column has the name.
_WORDS = frozenset(
    {
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something of a query is not allowed, and what to do instead."""

    message: str
    hint: str | None = None


_OF_THEIR_OWN: Mapping[str, Refusal] = {
    "unnest": Refusal(
        "uses unnest(): a row must not become several, as rows are counted one by one",
        "unnest in the source's query",
    ),
    "error": Refusal(
        "uses error(), whose message could show values of rows",
        "use a validation rule to stop a run because of its rows",
    ),
    **{
        # DuckDB's sort is not stable: which of equal values comes first depends on the other rows of a batch.
        name: Refusal(
            f"uses {name}(), which orders equal values differently in other batches: {AGAIN}", "list_sort"
        )
        for name in ("grade_up", "list_grade_up", "array_grade_up")
    },
}


@dataclass(frozen=True, slots=True)
class _Known:
    """What DuckDB says of the functions that have one name."""

    kinds: frozenset[str]
    stabilities: frozenset[str]
    definitions: tuple[str, ...]
    """The expressions that the macros of this name stand for."""


def refused_function(name: str, refusal_of: Callable[[str], Refusal | None]) -> Refusal | None:
    """Return why queries may not call *name*, ``None`` if they may.

    Macros of DuckDB are judged by what *refusal_of* says of the expressions that they stand for.
    """
    name = name.lower()
    if name in _OF_THEIR_OWN:
        return _OF_THEIR_OWN[name]
    if name in _CLOCKS:
        return Refusal(f"uses {name}(), which tells the time: {AGAIN}", _RUN_START)
    known = _functions().get(name)
    if known is None:
        return Refusal(f"calls {name}(), which is no function of DuckDB's own")
    if known.kinds & {"aggregate", "window"}:
        return Refusal(
            f"uses {name.removesuffix('_star')}(), which looks at several rows: {BOUNDARY}",
            "aggregate in the source's query; list_aggregate(l, 'sum') works on a list of one row",
        )
    if "VOLATILE" in known.stabilities:
        return Refusal(
            f"uses {name}(), which may give another value every time: {AGAIN}",
            "derive the value from the row, as md5(id) does",
        )
    if name in _BEYOND_THE_ROW or _looks_elsewhere(name, known):
        return Refusal(
            f"uses {name}(), which looks beyond the row: a query sees the columns of batch and its parameters",
            "give what it needs in parameters, or read it in the source's query",
        )
    within = next(filter(None, map(refusal_of, known.definitions)), None)
    return within and Refusal(
        f"uses {name}(), which stands for an expression that {within.message}", within.hint
    )


def _looks_elsewhere(name: str, known: _Known) -> bool:
    """Table functions and the like; what is stable within one query only; what is for DuckDB itself."""
    is_expression = known.kinds & {"scalar", "macro"}
    return not is_expression or known.stabilities != {"CONSISTENT"} or name.startswith("__internal")


def refused_word(name: str) -> Refusal | None:
    """Return why a column may not be called *name* alone, ``None`` if it may."""
    if name.lower() not in _WORDS:
        return None
    hint = f"if it is a column, write batch.{name}"
    return Refusal(
        f"uses {name}, which SQL takes for a function where there is no such column",
        f"{hint}; else {_RUN_START}" if name.lower() in _CLOCKS else hint,
    )


def refused_list_aggregate(aggregate: str | None) -> Refusal | None:
    """Return why a list of one row may not be aggregated by the function *aggregate*.

    ``None`` stands for a name that is not written out.
    """
    if aggregate is None:
        return Refusal(
            "aggregates a list by a function whose name is not written out",
            "write the name as text, as in list_aggregate(l, 'sum')",
        )
    if aggregate.lower() in _SAMPLING:
        return Refusal(f"aggregates a list by {aggregate}, which draws at random: {AGAIN}")
    return None


@lru_cache(maxsize=1)
def _functions() -> Mapping[str, _Known]:
    connection = closed_database()
    try:
        rows = connection.execute(
            """
            SELECT lower(function_name), list(DISTINCT function_type),
                list(DISTINCT coalesce(stability, 'CONSISTENT')), list(DISTINCT macro_definition)
            FROM duckdb_functions()
            GROUP BY ALL
            """
        ).fetchall()
    finally:
        connection.close()
    return {
        name: _Known(frozenset(kinds), frozenset(stabilities), tuple(filter(None, definitions or ())))
        for name, kinds, stabilities, definitions in rows
    }
