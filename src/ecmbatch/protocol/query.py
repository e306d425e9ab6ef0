"""The ``:name`` placeholders of a query (protocol: Job Specification, ``source.query``).

The lexer knows just enough SQL to tell a placeholder from text that merely looks like one: quoted text,
``E'…'`` escapes, ``$tag$…$tag$``, comments (nested, as PostgreSQL and DuckDB do), ``::casts``, ``:=``,
slices such as ``a[1:2]`` and ``{'key':value}``. A placeholder never directly follows an operand; write a
space behind the colon where a slice or a struct begins with a column (``a[ : n]``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ecmbatch.errors import InvalidDocument, Problem
from ecmbatch.protocol.document import did_you_mean, invalid, pointer

MAX_LENGTH = 100_000
MAX_PARAMETERS = 256

Style = Literal["numbered", "question"]
"""How a driver writes placeholders: ``$1``, used again for the same name, or ``?``, one per use."""

WINDOW_NAMES = ("window_start", "window_end")
"""Bound by every run from its window; a job never declares them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundQuery:
    """A query as a driver takes it; ``names`` says which value stands at each position."""

    sql: str
    names: tuple[str, ...]


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


# A word is read before a quote so that E'…' is told from E followed by text; `$` is part of a word as in
# PostgreSQL, which keeps a$b$c from opening a dollar quote.
_TOKEN = re.compile(
    r"""
      (?P<blank>\s+)
    | (?P<comment>--[^\n\r]*+)
    | (?P<nested>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.)*+(?P<escaped_end>')?)
    | (?P<word>[^\W\d][\w$]*+)
    | (?P<number>\d[\w.]*+)
    | (?P<text>'[^']*+(?P<text_end>')?)
    | (?P<identifier>"[^"]*+(?P<identifier_end>")?)
    | (?P<dollar>\$(?:[^\W\d]\w*+)?\$)
    | (?P<positional>\$\w++)
    | (?P<cast>::|:=)
    | (?P<placeholder>:[^\W\d]\w*+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_OPERANDS = frozenset({"escaped", "word", "number", "text", "identifier", "dollar"})


def placeholders(sql: str) -> tuple[str, ...]:
    """Return the distinct names of *sql*'s placeholders in order of appearance.

    Raises :class:`~ecmbatch.errors.InvalidDocument` where *sql* is not one complete statement: empty, a
    ``;`` outside quotes, an open quote, comment or parenthesis, or placeholders of another style.
    """
    return tuple(dict.fromkeys(token.text[1:] for token in _checked(sql) if token.kind == "placeholder"))


def bind(sql: str, style: Style) -> BoundQuery:
    """Return *sql* with its placeholders as the driver writes them; everything else stays as it is.

    Raises :class:`~ecmbatch.errors.InvalidDocument` as :func:`placeholders` does. *sql* may end in a line
    comment: who wraps it must begin a new line behind it.
    """
    names: list[str] = []
    number_of: dict[str, int] = {}
    pieces: list[str] = []
    for token in _checked(sql):
        if token.kind != "placeholder":
            if style == "question" and token.text == "?":
                raise _refused(sql, token.start, "has a bare '?'", "name the parameter: ':name'")
            pieces.append(token.text)
            continue
        name = token.text[1:]
        if style == "question" or name not in number_of:
            names.append(name)
            number_of[name] = len(names)
        pieces.append("?" if style == "question" else f"${number_of[name]}")
    return BoundQuery(sql="".join(pieces), names=tuple(names))


def check_binding(query: str | None, parameters: Collection[str]) -> list[Problem]:
    """Return what does not fit between a job's *query* and the names of its *parameters*.

    ``:window_start`` and ``:window_end`` are bound by the run; they need no parameter and may not be one.
    Raises :class:`~ecmbatch.errors.InvalidDocument` where the query itself is broken.
    """
    used = placeholders(query) if query is not None else ()
    bound = {*parameters, *WINDOW_NAMES}
    problems = [_missing(name, bound) for name in used if name not in bound]
    for name in parameters:
        if name in WINDOW_NAMES:
            problems.append(
                Problem(
                    pointer(["parameters", name]),
                    "is bound by the run itself",
                    f"leave it out and use :{name} in the query",
                )
            )
        elif name not in used:
            problems.append(_surplus(name, query, [use for use in used if use not in parameters]))
    return problems


def _missing(name: str, bound: Collection[str]) -> Problem:
    hint = did_you_mean(name, bound) or f"add '{name}' to parameters"
    return Problem("/source/query", f"uses :{name}, which is not among the parameters", hint)


def _surplus(name: str, query: str | None, unbound: Collection[str]) -> Problem:
    path = pointer(["parameters", name])
    if query is None:
        return Problem(path, "has no use: parameters are bound to source.query, and there is none")
    hint = did_you_mean(name, unbound) or f"use :{name} in the query or leave the parameter out"
    return Problem(path, "is not used by the query", hint)


def _checked(sql: str) -> list[_Token]:
    """Return the tokens of one complete statement."""
    if len(sql) > MAX_LENGTH:
        raise invalid("query", [Problem("", f"has {len(sql):,} characters; at most {MAX_LENGTH:,} are read")])
    tokens = list(_tokens(sql))
    if all(token.kind in ("blank", "comment") for token in tokens):
        raise invalid("query", [Problem("", "is empty")])
    open_parentheses: list[int] = []
    for token in tokens:
        if token.kind == "positional":
            raise _refused(sql, token.start, f"has the parameter {token.text[:32]}", "write it as :name")
        if token.kind != "other":
            continue
        if token.text == ";":
            raise _refused(sql, token.start, "has a ';'", "give one statement, without a ';' at its end")
        if token.text == "\0":
            raise _refused(sql, token.start, "has a NUL character")
        if token.text == "(":
            open_parentheses.append(token.start)
        # The query is wrapped in parentheses; closing one more than it opens would leave the wrapping.
        if token.text == ")":
            if not open_parentheses:
                raise _refused(sql, token.start, "closes a parenthesis that it did not open")
            open_parentheses.pop()
    if open_parentheses:
        raise _refused(sql, open_parentheses[-1], "opens a parenthesis and never closes it")
    if len({token.text for token in tokens if token.kind == "placeholder"}) > MAX_PARAMETERS:
        raise invalid("query", [Problem("", f"has more than {MAX_PARAMETERS} parameters")])
    return tokens


def _tokens(sql: str) -> Iterator[_Token]:
    place, before = 0, ""
    while place < len(sql):
        found = _TOKEN.match(sql, place)
        assert found is not None and found.lastgroup is not None  # `other` matches anything
        kind = found.lastgroup
        end = _end(sql, kind, found)
        if kind == "placeholder" and before in _OPERANDS:
            # A slice's or a struct's colon; what follows it is an operand of its own.
            kind, end = "other", place + 1
        yield _Token("comment" if kind == "nested" else kind, sql[place:end], place)
        before = "word" if sql[place:end] in (")", "]", ":", "::") else kind
        place = end


def _end(sql: str, kind: str, found: re.Match[str]) -> int:
    """Return where the token that *found* begins is over."""
    if kind in ("escaped", "text", "identifier") and found[f"{kind}_end"] is None:
        raise _refused(sql, found.start(), "opens a quote and never closes it")
    if kind == "dollar":
        closing = sql.find(found[0], found.end())
        if closing < 0:
            raise _refused(sql, found.start(), "opens a dollar quote and never closes it")
        return closing + len(found[0])
    if kind == "nested":
        return _end_of_comment(sql, found.start())
    return found.end()


def _end_of_comment(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise _refused(sql, start, "opens a comment and never closes it")


def _refused(sql: str, place: int, message: str, hint: str | None = None) -> InvalidDocument:
    line = sql.count("\n", 0, place) + 1
    column = place - (sql.rfind("\n", 0, place) + 1) + 1
    return invalid("query", [Problem("", f"{message} at line {line}, column {column}", hint)])
