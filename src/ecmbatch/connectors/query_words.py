"""What a query's words tell where the database has no parser that could be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ecmbatch.connectors.columns import check_names
from ecmbatch.errors import SourceError
from ecmbatch.protocol.query import bind

_NAME = re.compile(r":([^\W\d]\w*+)")
_NUMBER = re.compile(r"\$\d++")
_WORD = re.compile(
    r"""
      '[^']*+' | "[^"]*+" | `[^`]*+` | \[[^\]]*+\] | --[^\n\r]*+ | /\*.*?\*/
    | (?P<word>[^\W\d][\w$]*+) | (?P<open>\() | (?P<close>\))
    """,
    re.VERBOSE | re.DOTALL,
)
_CHANGING = frozenset(
    {
        "CLOCK_TIMESTAMP",
        "CURDATE",
        "CURRENT_DATE",
        "CURRENT_TIME",
        "CURRENT_TIMESTAMP",
        "CURTIME",
        "GEN_RANDOM_UUID",
        "GETDATE",
        "GETUTCDATE",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "NEWID",
        "NEXTVAL",
        "NOW",
        "RAND",
        "RANDOM",
        "RANDOMBLOB",
        "STATEMENT_TIMESTAMP",
        "SYSDATE",
        "SYSDATETIME",
        "SYSTIMESTAMP",
        "SYS_GUID",
        "TODAY",
        "TRANSACTION_TIMESTAMP",
        "UTC_DATE",
        "UTC_TIME",
        "UTC_TIMESTAMP",
        "UUID",
        "UUID_SHORT",
    }
)
TIME_FUNCTIONS = frozenset({"date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"})
"""Functions of SQLite that give the time of the query where they are asked for ``'now'``, or for nothing."""

OF_NOW = re.compile(
    r"\b(?:date|time|datetime|julianday|unixepoch|unix_timestamp)\s*\(\s*\)|\bstrftime\s*\([^,()]*\)",
    re.IGNORECASE,
)
"""Calls that give the time of the query because they are asked for nothing; ``unix_timestamp`` is MySQL's."""

_RENAMED = re.compile(r"(.+):\d+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParts:
    """A query cut at its placeholders: between its ``texts``, one more than ``names``, stand the parameters."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def joined(self, places: Sequence[str]) -> str:
        """Return the query with *places* where the placeholders were."""
        pieces = [self.texts[0]]
        for place, text in zip(places, self.texts[1:], strict=True):
            pieces += (place, text)
        return "".join(pieces)


def query_parts(query: str) -> QueryParts:
    """Return *query* cut at its placeholders.

    Raises :class:`~ecmbatch.errors.InvalidDocument` as :func:`~ecmbatch.protocol.query.bind` does.
    """
    bound = bind(query, "numbered").sql
    texts: list[str] = []
    names: list[str] = []
    start = place = in_bound = 0
    while place < len(query):
        if query[place] == bound[in_bound]:
            place, in_bound = place + 1, in_bound + 1
            continue
        # They differ only where one has :name and the other $1.
        name, number = _NAME.match(query, place), _NUMBER.match(bound, in_bound)
        assert name is not None and number is not None
        texts.append(query[start:place])
        names.append(name[1])
        start = place = name.end()
        in_bound = number.end()
    return QueryParts(texts=(*texts, query[start:]), names=tuple(names))


def takes_some_rows(query: str) -> bool:
    """Return whether *query* seems to take some of its rows only: LIMIT, OFFSET, FETCH FIRST or TOP at its own
    level, or a sample anywhere. A column of such a name has to be quoted."""
    words = [(depth, word.upper()) for depth, word in _words(query)]
    own = [word for depth, word in words if depth == min(words)[0]]
    if {"LIMIT", "OFFSET", "TOP"}.intersection(own) or any(word == "TABLESAMPLE" for _, word in words):
        return True
    return any(pair in {("FETCH", "FIRST"), ("FETCH", "NEXT")} for pair in pairwise(own))


def may_change(query: str) -> bool:
    """Return whether *query* seems to call a function that gives other values each time, by its name. Such a name
    stands before a parenthesis, or is one of SQL's own words without."""
    words = {word.upper() for _, word in _words(query)}
    named = words & _CHANGING
    if any(word.startswith(("CURRENT_", "LOCAL", "SYS", "UTC_")) for word in named):
        return True
    if any(re.search(rf"\b{word}\s*\(", query, re.IGNORECASE) for word in named) or OF_NOW.search(query):
        return True
    texts = {found[0].lower() for found in _WORD.finditer(query)}
    return "'now'" in texts and not TIME_FUNCTIONS.isdisjoint(word.lower() for word in words)


def check_names_of_subquery(names: Sequence[str]) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` as :func:`~ecmbatch.connectors.columns.check_names` does,
    for a database that calls the second column ``id`` of a subquery ``id:1``."""
    known = {name.lower() for name in names}
    for name in names:
        found = _RENAMED.fullmatch(name)
        if found and found[1].lower() in known:
            raise SourceError(
                f"the source has several columns named '{found[1]}'",
                hint="give every column a name of its own, in a query with AS",
            )
    check_names(names, fold_case=True)


def _words(query: str) -> list[tuple[int, str]]:
    """Return the words of *query* outside of quotes and comments, and how many parentheses they are in."""
    depth, words = 0, []
    for found in _WORD.finditer(query):
        if found["word"]:
            words.append((depth, found["word"]))
        depth += bool(found["open"]) - bool(found["close"])
    return words
