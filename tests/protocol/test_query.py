"""Placeholders in SQL, and what merely looks like one."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmbatch.errors import InvalidDocument
from ecmbatch.protocol.query import bind, check_binding, placeholders


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT * FROM t WHERE updated_at >= :last_sync", ["last_sync"]),
        ("SELECT :a, :b, :a", ["a", "b"]),
        ("SELECT ':a', \":b\", 'it''s :c', \"q\"\":d\"", []),
        (r"SELECT E'\':a', e'\\', :b", ["b"]),
        (r"SELECT 'back\', :b", ["b"]),
        ("SELECT name':a'", []),
        ("SELECT 1 -- :a ; ' \"\n, :b", ["b"]),
        ("SELECT /* :a /* nested :b */ ; ' */ :c", ["c"]),
        ("SELECT x::text, :a::date, '1'::int", ["a"]),
        ("SELECT $$ :a ; ' $$, $tag$ :b $$ :c $tag$, :d", ["d"]),
        ("SELECT a$b$c, :d, e$f$g", ["d"]),
        ("SELECT a[1:2], a[x:y], a[f(x):n], a[b[1]:n]", []),
        ("SELECT {'key':value, \"k\":v, 'p': :p}", ["p"]),
        ("SELECT f(a := 1, b:=:c)", ["c"]),
        ("SELECT '12:30', TIME '01:02', :_x1", ["_x1"]),
        ("SELECT a: 42", []),
        ("SELECT (:a)+:b", ["a", "b"]),
        ("SELECT :größe", ["größe"]),
        ("SELECT data ->> ':a' FROM t WHERE j ? 'k'", []),
        ("FROM t WHERE a=:a AND b IN (:b,:c)", ["a", "b", "c"]),
        ("SELECT 1 -- the end", []),
    ],
)
def test_placeholders_are_told_from_what_looks_like_them(sql: str, names: list[str]) -> None:
    assert list(placeholders(sql)) == names


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "is empty"),
        (" \n-- only a comment\n/* and another */", "is empty"),
        ("SELECT 1;", "has a ';' at line 1, column 9"),
        ("SELECT 1\n; SELECT 2", "has a ';' at line 2, column 1"),
        ("SELECT 'a", "opens a quote and never closes it at line 1, column 8"),
        ('SELECT "a', "opens a quote"),
        (r"SELECT E'a\'", "opens a quote"),
        ("SELECT $x$ a $$", "opens a dollar quote"),
        ("SELECT /* /* */", "opens a comment"),
        ("SELECT (1", "opens a parenthesis"),
        ("SELECT 1) AS a, (SELECT 2", "closes a parenthesis"),
        ("SELECT $1", "has the parameter $1"),
        ("SELECT $name", "has the parameter $name"),
        ("SELECT \0", "has a NUL"),
        ("SELECT " + "x" * 100_000, "at most 100,000"),
        ("SELECT " + ", ".join(f":p{number}" for number in range(257)), "more than 256"),
    ],
)
def test_what_is_not_one_complete_statement_is_refused(sql: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        placeholders(sql)
    assert message in raised.value.problems[0].message


def test_binding_writes_numbers_once_per_name_and_question_marks_once_per_use() -> None:
    sql = "SELECT :b, ':x', :a::int, :b -- :c"
    numbered = bind(sql, "numbered")
    assert (numbered.sql, numbered.names) == ("SELECT $1, ':x', $2::int, $1 -- :c", ("b", "a"))
    question = bind(sql, "question")
    assert (question.sql, question.names) == ("SELECT ?, ':x', ?::int, ? -- :c", ("b", "a", "b"))


def test_a_bare_question_mark_is_refused_only_where_the_driver_would_bind_it() -> None:
    assert bind("SELECT j ? 'k'", "numbered").sql == "SELECT j ? 'k'"
    with pytest.raises(InvalidDocument, match="bare"):
        bind("SELECT j ? 'k'", "question")


def test_missing_and_surplus_parameters_are_problems_with_hints() -> None:
    problems = [str(problem) for problem in check_binding("SELECT :last_sync, :x", ["last_sinc"])]
    assert problems == [
        "/source/query: uses :last_sync, which is not among the parameters (did you mean 'last_sinc'?)",
        "/source/query: uses :x, which is not among the parameters (add 'x' to parameters)",
        "/parameters/last_sinc: is not used by the query (did you mean 'last_sync'?)",
    ]


def test_the_window_is_bound_without_parameters_and_never_by_them() -> None:
    query = "SELECT :window_start, :window_end"
    assert check_binding(query, []) == []
    assert [problem.path for problem in check_binding(query, ["window_end"])] == ["/parameters/window_end"]


def test_parameters_need_a_query() -> None:
    assert check_binding(None, []) == []
    assert "there is none" in check_binding(None, ["a"])[0].message


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        (
            r"SELECT :a, ':x', $$ :y ; $$, $t$ :z $$ $t$, E'\':q', /* /* :n */ :m */ :a::int",
            [1, ":x", " :y ; ", " :z $$ ", "':q", 1],
        ),
        ("SELECT 1 -- x\r, :a", [1, 1]),
        ("SELECT k['p'], v FROM (SELECT {'k':v, 'p': :a} AS k, v FROM (SELECT 3 AS v))", [1, 3]),
        (
            "SELECT x[1:2], x[n:m], x[ : n] FROM (SELECT [1, 2, 3] AS x, 1 AS n, 2 AS m)",
            [[1, 2], [1, 2], [1]],
        ),
        ('SELECT "a"":b" FROM (SELECT 1 AS "a"":b")', [1]),
        ("SELECT a$b FROM (SELECT :a AS a$b)", [1]),
        ("SELECT 'a'\n':x'", ["a:x"]),
        ("SELECT struct_pack(a := 1, b:=:a)", [{"a": 1, "b": 1}]),
    ],
)
def test_the_database_reads_a_bound_query_as_the_lexer_does(sql: str, rows: list[object]) -> None:
    bound = bind(sql, "numbered")
    values = [{"a": 1}[name] for name in bound.names]
    assert duckdb.execute(f"SELECT * FROM ({bound.sql}\n)", values).fetchall() == [tuple(rows)]


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:;'\"$-/*\\()[]{}=?1_ \nEé\0")) | st.text())
def test_any_text_is_lexed_or_refused(sql: str) -> None:
    try:
        names = placeholders(sql)
    except InvalidDocument as error:
        assert error.problems
    else:
        assert set(bind(sql, "numbered").names) == set(names)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
QUOTED = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(
        lambda text: "'" + text.replace("'", "''") + "'"
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(
        lambda text: '"' + text.replace('"', '""') + '"'
    ),
    st.text().map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    st.text().map(lambda text: "--" + text.replace("\n", "").replace("\r", "") + "\n"),
    st.text().map(lambda text: "/*" + text.replace("*", "").replace("/", "") + "/* :x */*/"),
    st.text(st.characters(exclude_characters="$")).map(lambda text: f"$q$ {text} $ $x $q$"),
    st.sampled_from(["a::b", "a[1:2]", "a := 1", "x", "1.5e3", "(", ")", ",", "="]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), NAMES, QUOTED), min_size=1))
def test_placeholders_among_quoted_text_are_found_exactly(pieces: list[tuple[bool, str, str]]) -> None:
    sql, expected, depth = "SELECT", [], 0
    for is_placeholder, name, quoted in pieces:
        if is_placeholder:
            sql += f" :{name}"
            expected.append(name)
        elif quoted != ")" or depth:
            sql += f" {quoted}"
            depth += {"(": 1, ")": -1}.get(quoted, 0)
    sql += ")" * depth
    assert list(placeholders(sql)) == list(dict.fromkeys(expected))
    rewritten = bind(sql, "numbered")
    assert sorted(rewritten.names) == sorted(set(expected))
    assert bind(sql, "question").names == tuple(expected) if "?" not in sql else True
