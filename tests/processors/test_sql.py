"""The processor ``sql``: what it refuses and why, and that batches cut anywhere give the same rows."""

from __future__ import annotations

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ecmbatch
from ecmbatch.errors import InvalidDocument, TransformError
from ecmbatch.processors.chain import Chain, Step
from ecmbatch.processors.sql import SQL, RowQuery, SqlProcessor
from ecmbatch.processors.sql_functions import _functions, refused_function
from ecmbatch.processors.sql_statement import _refusal_of
from ecmbatch.protocol.job import JobDefinition

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("seen", pa.timestamp("us", "UTC")),
    ]
)
BATCH = pa.RecordBatch.from_pylist(
    [
        {"id": 1, "name": "a", "amount": 1.5, "tags": ["x", "y"], "seen": datetime(2024, 1, 31, tzinfo=UTC)},
        {"id": 2, "name": None, "amount": -2.0, "tags": [], "seen": None},
        {"id": 3, "name": "c", "amount": None, "tags": None, "seen": datetime(2024, 2, 29, 12, tzinfo=UTC)},
    ],
    schema=SCHEMA,
)


@lru_cache
def processor(query: str, **parameters: Any) -> SqlProcessor:
    return SqlProcessor(SQL.parse_config({"query": query, "parameters": parameters}))


def select(query: str, batch: pa.RecordBatch = BATCH, **parameters: Any) -> pa.RecordBatch:
    """The result of a whole step, held to the contract of processors."""
    return Chain([Step("sql", processor(query, **parameters))]).bind(batch.schema).process(batch).batch


def value(expression: str, **parameters: Any) -> Any:
    return select(f"SELECT {expression} AS v FROM batch", **parameters).column("v")[0].as_py()


def problems(query: str, **parameters: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as raised:
        processor(query, **parameters)
    assert "/query" in {problem.path for problem in raised.value.problems}
    return [str(problem) for problem in raised.value.problems]


def failure(query: str, batch: pa.RecordBatch = BATCH, **parameters: Any) -> TransformError:
    with pytest.raises(TransformError) as raised:
        processor(query, **parameters).process(batch)
    return raised.value


# -- what a query does ------------------------------------------------------------------------------


def test_columns_are_selected_computed_and_renamed_and_rows_dropped():
    result = select("SELECT id AS key, upper(name) AS name FROM batch WHERE amount > 0")
    assert result.to_pylist() == [{"key": 1, "name": "A"}]


def test_the_result_has_the_same_columns_without_rows():
    query = (
        "SELECT * EXCLUDE (tags), len(tags) AS n, seen::DATE AS day, amount::DECIMAL(9, 2) AS d FROM batch"
    )
    bound = Chain([Step("sql", processor(query))]).bind(SCHEMA)
    assert bound.process(BATCH).batch.schema == bound.output_schema


def test_a_query_may_end_in_a_comment_and_have_line_breaks():
    assert select("SELECT id\nFROM batch -- all").column("id").to_pylist() == [1, 2, 3]
    with_uuid = "SELECT '00000000-0000-0000-0000-000000000001'::UUID AS u FROM batch -- all"
    assert select(with_uuid).schema.field("u").type == pa.uuid()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("CASE WHEN id = 1 THEN 'one' ELSE 'more' END", "one"),
        ("coalesce(name, 'none')", "a"),
        ("nullif(name, 'a')", None),
        ("split_part('a-b', '-', 2)", "b"),
        ("list_transform(tags, lambda tag: tag || '!')", ["x!", "y!"]),
        ("[upper(tag) FOR tag IN tags IF tag <> 'x']", ["Y"]),
        ("list_aggregate([1, 2, 4], 'sum')::BIGINT", 7),
        ("list_sum([1.5, 2.5])", 4.0),
        ("array_to_string(tags, ',')", "x,y"),
        ("name LIKE 'a%' AND name NOT IN ('b', 'c')", True),
        ("extract(month FROM seen)", 1),
        ("last_day(seen::DATE)::VARCHAR", "2024-01-31"),
        ("strftime(seen, '%d.%m.%Y')", "31.01.2024"),
        ("(seen AT TIME ZONE 'Europe/Berlin')::VARCHAR", "2024-01-31 01:00:00"),
        ("date_diff('day', seen, TIMESTAMPTZ '2024-02-29')", 29),
        ("{'first': id, 'second': name}", {"first": 1, "second": "a"}),
        ("('{\"a\": {\"b\": 7}}'::JSON)->'a'->>'b'", "7"),
        ("regexp_replace(name, '[a-c]', 'z')", "z"),
        ("TRY_CAST(name AS INTEGER)", None),
        ("TRY(id // 0)", None),
        ("tags[1]", "x"),
        ("age(seen, seen) = INTERVAL 0 DAY", True),
        ("batch.id + b.id", 2),
    ],
)
def test_whatever_looks_at_one_row_is_allowed(expression, expected):
    alias = " b" if "b." in expression else ""
    table = expression.replace("batch.", "b.") if alias else expression
    result = select(f"SELECT {table} AS v FROM batch{alias}")
    assert result.column("v")[0].as_py() == expected


@pytest.mark.parametrize(
    "select_list",
    ["*", "batch.*", "* EXCLUDE (tags)", "* REPLACE (id + 1 AS id)", "* RENAME (id AS key)", "COLUMNS('^a')"],
)
def test_columns_can_be_selected_by_pattern(select_list):
    assert select(f"SELECT {select_list} FROM batch").num_rows == 3


def test_a_column_called_like_a_function_is_written_with_its_table():
    rows = pa.record_batch({"user": ["zoe"], "current_date": [1]})
    assert select("SELECT batch.user, batch.current_date FROM batch", rows).to_pylist() == rows.to_pylist()


# -- parameters -------------------------------------------------------------------------------------


def test_parameters_are_bound_with_their_types():
    query = (
        "SELECT :n AS n, :text AS text, :f AS f, :yes AS yes, :none::DATE AS none, :n + id AS m FROM batch"
    )
    result = select(query, n=1, text="it's :n", f=0.5, yes=True, none=None)
    assert result.to_pylist()[0] == {"n": 1, "text": "it's :n", "f": 0.5, "yes": True, "none": None, "m": 2}


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63 - 1])
def test_a_whole_number_is_bigint_whatever_its_value(number):
    assert select("SELECT :n AS n FROM batch", n=number).schema.field("n").type == pa.int64()


def test_the_start_of_the_run_can_be_given():
    query = "SELECT :now::TIMESTAMPTZ AS loaded_at FROM batch"
    result = select(query, now="2024-03-01T02:00:00Z")
    assert result.column("loaded_at")[0].as_py() == datetime(2024, 3, 1, 2, tzinfo=UTC)


def test_parameters_and_placeholders_must_match():
    assert problems("SELECT :y AS n FROM batch", x=1) == [
        "/query: uses :y, which is not among the parameters (add 'y' to parameters)",
        "/parameters/x: is not used by the query",
    ]


@pytest.mark.parametrize("placeholder", ["?", "$1", "$name"])
def test_other_placeholders_are_refused(placeholder):
    (problem,) = problems(f"SELECT {placeholder} AS v FROM batch")
    assert "name" in problem


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "/query"),
        ({"query": 1}, "/query"),
        ({"query": ""}, "/query"),
        ({"query": "SELECT 1 FROM batch", "parameter": {}}, "/parameter"),
        ({"query": "SELECT :x AS x FROM batch", "parameters": {"x": [1]}}, "/parameters/x"),
    ],
)
def test_the_configuration_is_strict(config, path):
    with pytest.raises(InvalidDocument) as raised:
        SQL.parse_config(config)
    assert path in {problem.path for problem in raised.value.problems}


def test_a_job_with_a_refused_query_is_not_valid(tmp_path):
    (tmp_path / "ecmbatch.toml").write_text("")
    job = {
        "job_id": "sums",
        "source": {"connector": "files", "path": "*.parquet"},
        "transform": {"processor": "sql", "config": {"query": "SELECT sum(x) FROM batch"}},
        "sink": {"store": "context_store", "mode": "append"},
    }
    with ecmbatch.Project.load(tmp_path, environment={}) as project:
        found = project.validate(JobDefinition.from_value(job)).problems
    assert [problem.path for problem in found if "transform" in problem.path] == ["/transform/config/query"]


# -- what is refused --------------------------------------------------------------------------------

BOUNDARY = "a batch boundary would change the result"
AGAIN = "rows that are read again after a crash would get other values"
NOTHING_BUT = "it may read nothing but batch"
BEYOND = "looks beyond the row"

REFUSED = {
    # several rows at once
    "SELECT sum(amount) FROM batch": BOUNDARY,
    'SELECT "SUM"(amount) AS s FROM batch': BOUNDARY,
    "SELECT count(*) FROM batch": BOUNDARY,
    "SELECT count() FROM batch": BOUNDARY,
    "SELECT first(id) FROM batch": BOUNDARY,
    "SELECT histogram(id) FROM batch": BOUNDARY,
    "SELECT geomean(id) FROM batch": BOUNDARY,
    "SELECT json_group_array(id) FROM batch": BOUNDARY,
    "SELECT list(id ORDER BY name) FROM batch": BOUNDARY,
    "SELECT sum(id) FILTER (WHERE id > 1) FROM batch": BOUNDARY,
    "SELECT upper(name ORDER BY id) FROM batch": "has ORDER BY within a function",
    "SELECT upper(DISTINCT name) FROM batch": BOUNDARY,
    "SELECT upper(name) FILTER (WHERE id > 1) FROM batch": BOUNDARY,
    "SELECT id FROM batch WHERE sum(id) > 1": BOUNDARY,
    "SELECT {'a': [max(id)]} FROM batch": BOUNDARY,
    "SELECT list_transform(tags, lambda tag: count(tag)) FROM batch": BOUNDARY,
    "SELECT [sum(tag) FOR tag IN tags] FROM batch": BOUNDARY,
    "SELECT * REPLACE (sum(id) AS id) FROM batch": BOUNDARY,
    "SELECT sum(COLUMNS(*)) FROM batch": BOUNDARY,
    "SELECT row_number() OVER () FROM batch": "has a window function",
    "SELECT sum(id) OVER (ORDER BY id) FROM batch": "has a window function",
    "SELECT lag(id) FROM batch": BOUNDARY,
    "SELECT DISTINCT name FROM batch": "has DISTINCT",
    "SELECT DISTINCT ON (name) id FROM batch": "has DISTINCT",
    "SELECT name FROM batch GROUP BY name": "has GROUP BY",
    "SELECT name FROM batch GROUP BY ALL": "has GROUP BY",
    "SELECT grouping(name) FROM batch": "has GROUP BY",
    "SELECT id FROM batch HAVING id > 1": "has HAVING",
    "SELECT id FROM batch QUALIFY row_number() OVER () = 1": "has QUALIFY",
    "SELECT id FROM batch ORDER BY id": "has ORDER BY",
    "FROM batch ORDER BY ALL": "has ORDER BY",
    "SELECT id FROM batch LIMIT 1": "has LIMIT",
    "SELECT id FROM batch LIMIT 10%": "has LIMIT",
    "SELECT id FROM batch OFFSET 1": "has LIMIT",
    "(SELECT id FROM batch) LIMIT 1": "has LIMIT",
    "SELECT id FROM batch FETCH FIRST 1 ROWS ONLY": "has LIMIT",
    "SELECT id FROM batch TABLESAMPLE 10%": "draws a sample",
    "SELECT id FROM batch USING SAMPLE 1": "draws a sample",
    "UNPIVOT batch ON id": BOUNDARY,
    "SELECT unnest(tags) FROM batch": "a row must not become several",
    "SELECT generate_subscripts(tags, 1) FROM batch": "a row must not become several",
    "SELECT regexp_split_to_table(name, '-') FROM batch": "a row must not become several",
    # other rows than those of the batch
    "SELECT id FROM batch UNION ALL SELECT id FROM batch": "combines several SELECTs",
    "SELECT id FROM batch EXCEPT SELECT 1": "combines several SELECTs",
    "SELECT * FROM batch, other": "has a join",
    "SELECT * FROM batch JOIN other USING (id)": "has a join",
    "SELECT * FROM batch POSITIONAL JOIN batch AS b": "has a join",
    "SELECT * FROM (SELECT * FROM batch)": NOTHING_BUT,
    "WITH t AS (SELECT 1) SELECT * FROM batch": NOTHING_BUT,
    "VALUES (1)": NOTHING_BUT,
    "SELECT 1": "has no FROM",
    "SELECT * FROM other": "reads another table",
    "SELECT * FROM main.batch": "reads another table",
    "SELECT * FROM duckdb_settings": "reads another table",
    "SELECT * FROM 'secret.csv'": "reads another table",
    "SELECT * FROM range(5)": NOTHING_BUT,
    "SELECT * FROM read_csv('secret.csv')": NOTHING_BUT,
    "SELECT * FROM query('SELECT 1')": NOTHING_BUT,
    "SELECT * FROM batch AT (VERSION => 1)": "not known to be row by row",
    "SELECT (SELECT 1) FROM batch": "has a subquery",
    "SELECT EXISTS (SELECT 1) FROM batch": "has a subquery",
    "SELECT id IN (SELECT 1) FROM batch": "has a subquery",
    "SELECT ARRAY(SELECT 1) FROM batch": "has a subquery",
    "SELECT name = ANY(tags) FROM batch": "has a subquery",
    "SELECT CASE WHEN id = 1 THEN (SELECT 1) END FROM batch": "has a subquery",
    "SELECT #1 FROM batch": "names a column by its position",
    "SELECT DEFAULT FROM batch": "has DEFAULT",
    # another value every time
    "SELECT random() FROM batch": AGAIN,
    "SELECT RANDOM() FROM batch": AGAIN,
    "SELECT uuid() FROM batch": AGAIN,
    "SELECT uuidv7() FROM batch": AGAIN,
    "SELECT nextval('s') FROM batch": AGAIN,
    "SELECT setseed(0.5) FROM batch": AGAIN,
    "SELECT write_log('x') FROM batch": AGAIN,
    "SELECT list_transform(tags, lambda tag: random()) FROM batch": AGAIN,
    "SELECT COLUMNS(lambda c: random() > 0.5) FROM batch": AGAIN,
    "SELECT list_aggregate(tags, 'reservoir_quantile', 0.5) FROM batch": AGAIN,
    "SELECT list_aggregate(tags, 'su' || 'm') FROM batch": "whose name is not written out",
    "SELECT list_aggr(tags, name) FROM batch": "whose name is not written out",
    "SELECT now() FROM batch": "tells the time",
    "SELECT today() FROM batch": "tells the time",
    "SELECT get_current_timestamp() FROM batch": "tells the time",
    "SELECT current_localtimestamp() FROM batch": "tells the time",
    "SELECT transaction_timestamp() FROM batch": "tells the time",
    "SELECT ago(INTERVAL 1 DAY) FROM batch": "tells the time",
    "SELECT age(seen) FROM batch": "counts up to today",
    "SELECT current_timestamp FROM batch": "SQL takes for a function",
    "SELECT Current_Date FROM batch": "SQL takes for a function",
    "SELECT localtime FROM batch": "SQL takes for a function",
    "SELECT id FROM batch WHERE seen > current_timestamp": "SQL takes for a function",
    "SELECT user FROM batch": "SQL takes for a function",
    # beyond the row
    "SELECT getvariable('x') FROM batch": BEYOND,
    "SELECT current_setting('threads') FROM batch": BEYOND,
    "SELECT current_database() FROM batch": BEYOND,
    "SELECT current_schema() FROM batch": BEYOND,
    "SELECT txid_current() FROM batch": BEYOND,
    "SELECT version() FROM batch": BEYOND,
    "SELECT glob('*') FROM batch": BEYOND,
    "SELECT json_serialize_plan('SELECT 1') FROM batch": BEYOND,
    "SELECT __internal_barrier(id) FROM batch": BEYOND,
    "SELECT getenv('HOME') FROM batch": "no function of DuckDB's own",
    "SELECT frobnicate(id) FROM batch": "no function of DuckDB's own",
    "SELECT format_type(1, 2) FROM batch": "has a subquery",
    "SELECT pg_sleep(1) FROM batch": AGAIN,
    "SELECT error(name) FROM batch": "whose message could show values",
    "SELECT assert_true(id = 1, name) FROM batch": "whose message could show values",
    "SELECT name.upper() FROM batch": "with a name before it",
    "SELECT id.sum() FROM batch": "with a name before it",
    "SELECT system.main.random() FROM batch": "with a name before it",
    "SELECT id::main.mood FROM batch": "names a type with a schema",
    # no single SELECT
    "SELECT id FROM batch; SELECT 2": "has a ';'",
    "SELECT id FROM batch;": "has a ';'",
    "INSERT INTO batch VALUES (1)": "is not a SELECT",
    "CREATE TABLE t (a INT)": "is not a SELECT",
    "COPY batch TO 'x'": "is not a SELECT",
    "ATTACH 'x'": "is not a SELECT",
    "SET threads = 1": "is not a SELECT",
    "PRAGMA version": "is not a SELECT",
    "EXPLAIN SELECT id FROM batch": "is not a SELECT",
    "DESCRIBE batch": "is not a SELECT",
    "SUMMARIZE batch": "is not a SELECT",
    "SHOW TABLES": "is not a SELECT",
    "PIVOT batch ON id USING sum(amount)": "is not a SELECT",
    "SELECT FROM batch": "not SQL that DuckDB can read",
    "nonsense": "not SQL that DuckDB can read",
    "SELECT '": "never closes",
    "SELECT " + "(" * 300 + "id" + ")" * 300 + " FROM batch": "nested too deeply",
    "SELECT " + "(SELECT " * 150 + "1" + ")" * 150 + " FROM batch": "",
    "SELECT " + "||".join(["name"] * 400) + " FROM batch": "nested too deeply",
    "-- nothing": "is empty",
}


@pytest.mark.parametrize(("query", "reason"), REFUSED.items(), ids=lambda text: text[:60])
def test_what_is_not_row_by_row_is_refused_with_its_reason(query, reason):
    assert reason in " ".join(problems(query))


def test_all_that_is_wrong_is_told_at_once():
    found = problems("SELECT DISTINCT sum(id), random() FROM batch GROUP BY name LIMIT 1")
    assert len(found) == 5
    assert len(problems("SELECT sum(id) AS a, sum(amount) AS b FROM batch")) == 1


def test_a_refusal_says_what_to_do():
    (problem,) = problems("SELECT now() FROM batch")
    assert '"parameters": {"now": "${run.started_at}"}' in problem
    (problem,) = problems("SELECT batch.id FROM batch WHERE user = 'a'")
    assert "write batch.user" in problem


def test_no_function_whose_name_tells_of_time_chance_or_the_session_is_allowed():
    """Should a later DuckDB add one and call it stable, this test notices."""
    telling = re.compile(
        "random|^uuid|now$|today|current|session|setting|variable|getenv|^read_|glob$|_log|nextval|currval|"
        "txid|transaction|version$|query|sleep|secret|extension|checkpoint|pragma|database$|file_"
    )
    allowed = {name for name in _functions() if refused_function(name, _refusal_of) is None}
    # What a UUID says of itself, and answers to PostgreSQL's clients that are always the same.
    known = {"uuid_extract_timestamp", "uuid_extract_version"}
    assert {name for name in allowed if telling.search(name)} - known == set()
    assert len(allowed) > 500


# -- the fence --------------------------------------------------------------------------------------


def unchecked(sql: str) -> SqlProcessor:
    """As if the check of the statement had let *sql* pass."""
    return SqlProcessor(RowQuery(sql=sql, values=()))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('{file}')",
        "SELECT * FROM other_rows",
        "SELECT getenv('HOME') AS v",
        "COPY (SELECT 1) TO '{file}.copy'",
        "ATTACH '{file}.duckdb'",
        "INSTALL httpfs",
        "SET lock_configuration = false",
        "SET enable_external_access = true",
    ],
)
def test_even_a_query_that_was_not_checked_reaches_nothing(sql, tmp_path):
    other_rows = pa.table({"a": [1]})
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(TransformError):
        unchecked(sql.format(file=secret)).process(BATCH)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert other_rows.num_rows == 1


# -- batches ----------------------------------------------------------------------------------------

rows = st.builds(
    lambda *values: dict(zip(SCHEMA.names, values, strict=True)),
    st.none() | st.integers(-(2**31), 2**31),
    st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
    st.none() | st.floats(allow_nan=False, width=32),
    st.none() | st.lists(st.none() | st.sampled_from(["x", "y", "z"]), max_size=3),
    st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)

QUERIES = [
    "FROM batch",
    "SELECT id, upper(name) AS name FROM batch WHERE amount > 0",
    "SELECT * EXCLUDE (tags), len(tags) AS n FROM batch WHERE id % 2 = 0",
    "SELECT id, list_distinct(tags) AS d, list_sort(tags) AS s, list_mode(tags) AS m FROM batch",
    "SELECT id, date_trunc('month', seen) AS month, extract(dow FROM seen) AS dow FROM batch WHERE id > 0",
    "SELECT md5(name) AS h, hash(id) AS i, coalesce(name, id::VARCHAR) AS c FROM batch",
    "SELECT CASE WHEN amount < 0 THEN 'neg' WHEN amount >= 0 THEN 'pos' END AS sign FROM batch",
    "SELECT list_transform(tags, lambda t, i: t || i) AS t, {'id': id, 'tags': tags} AS s FROM batch",
    "SELECT DATE '2024-01-01' AS d, '00000000-0000-0000-0000-000000000001'::UUID AS u, id FROM batch",
    "SELECT to_json({'id': id}) AS j, TRY_CAST(name AS INTEGER) AS n FROM batch WHERE name NOT LIKE '%a%'",
]


def cut(table: list[dict[str, Any]], places: list[int]) -> list[pa.RecordBatch]:
    edges = sorted({0, len(table), *(place % (len(table) + 1) for place in places)})
    parts = [table[start:stop] for start, stop in pairwise(edges)] or [[]]
    return [pa.RecordBatch.from_pylist(part, schema=SCHEMA) for part in parts]


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=30), st.lists(st.integers(0, 30), max_size=5), st.sampled_from(QUERIES))
def test_batches_cut_anywhere_give_the_same_rows(table, places, query):
    step = processor(query)
    whole = step.process(pa.RecordBatch.from_pylist(table, schema=SCHEMA))
    parts = [step.process(batch) for batch in cut(table, places)]
    assert pa.Table.from_batches(parts).combine_chunks() == pa.Table.from_batches([whole]).combine_chunks()


_WORDS = [
    *[
        "id",
        "name",
        "amount",
        "tags",
        "seen",
        "batch",
        "1",
        "'a'",
        "(",
        ")",
        ",",
        ".",
        "*",
        "+",
        "=",
        "<",
        "->",
    ],
    *["::", "AS", "FROM", "WHERE", "AND", "OR", "NOT", "NULL", "IN", "CASE", "WHEN", "THEN", "ELSE", "END"],
    *[
        "upper",
        "sum",
        "list_sum",
        "random",
        "now",
        "unnest",
        "list_transform",
        "lambda",
        "[",
        "]",
        "{",
        "}",
        ":",
    ],
    *["DISTINCT", "ORDER", "BY", "LIMIT", "OVER", "INTEGER", "BETWEEN", "SELECT", "COLUMNS", "EXCLUDE", "#1"],
]
_expressions = st.recursive(
    st.sampled_from(
        ["id", "name", "amount", "tags", "seen", "1", "'a'", "NULL", "*", "current_date", "#1", "batch"]
    ),
    lambda inner: st.one_of(
        st.builds("{}({})".format, st.sampled_from(sorted(_functions())), inner),
        st.builds("{}({}, {})".format, st.sampled_from(sorted(_functions())), inner, inner),
        st.builds(
            "({} {} {})".format, inner, st.sampled_from(["+", "=", "<", "||", "AND", "->", "IN"]), inner
        ),
        st.builds("CASE WHEN {} THEN {} END".format, inner, inner),
        st.builds("{}::{}".format, inner, st.sampled_from(["VARCHAR", "INTEGER", "DATE", "JSON", "BLOB"])),
        st.builds("list_transform(tags, lambda x: {})".format, inner),
        st.builds("[{}]".format, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(_WORDS), max_size=12).map(lambda words: f"SELECT {' '.join(words)} FROM batch")
    | st.lists(st.sampled_from(_WORDS), max_size=12).map(" ".join)
)
@example("SELECT \0 FROM batch")
@example("SELECT id FROM batch\\")
@example("SELECT '\ud800' FROM batch")
def test_any_text_is_a_processor_or_an_invalid_document(text):
    try:
        SQL.parse_config({"query": text})
    except InvalidDocument as error:
        assert error.problems


@settings(max_examples=80, deadline=None)
@given(_expressions)
def test_any_query_that_is_allowed_is_row_by_row(expression):
    try:
        step = processor(f"SELECT {expression} AS v FROM batch")
        whole = step.process(BATCH)
    except (InvalidDocument, TransformError):
        return
    parts = [step.process(BATCH.slice(place, 1)) for place in range(BATCH.num_rows)]
    assert pa.Table.from_batches(parts).combine_chunks() == pa.Table.from_batches([whole]).combine_chunks()
    assert step.process(BATCH) == whole


def test_large_batches_keep_their_order():
    count = 300_000
    batch = pa.record_batch({"n": pa.array(range(count)), "text": pa.array(map(str, range(count)))})
    result = select("SELECT n, text || '!' AS text FROM batch WHERE n % 3 <> 0", batch)
    assert result.column("n").to_pylist() == [n for n in range(count) if n % 3]
    assert result.column("text").to_pylist() == [f"{n}!" for n in range(count) if n % 3]


def test_threads_share_one_processor():
    step = processor("SELECT n * 2 AS n FROM batch WHERE n % 2 = 0")
    batches = [
        pa.record_batch({"n": pa.array(range(start, start + 1_000))}) for start in range(0, 20_000, 1_000)
    ]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(step.process, batches))
    assert [n for batch in results for n in batch.column("n").to_pylist()] == [
        n * 2 for n in range(20_000) if n % 2 == 0
    ]


# -- types ------------------------------------------------------------------------------------------

KEPT = {
    "bool": pa.array([True, None, False]),
    "int8": pa.array([1, None, 3], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float32": pa.array([1.5, None, 3], pa.float32()),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-3.25")], pa.decimal128(38, 2)),
    "string": pa.array(["a", None, "ü"]),
    "binary": pa.array([b"\0", None, b""]),
    "uuid": pa.array([uuid.UUID(int=1).bytes, None, uuid.UUID(int=2).bytes], pa.uuid()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "[]"])),
    "date": pa.array([1, None, -1], pa.int32()).cast(pa.date32()),
    "time": pa.array([1, None, 3], pa.time64("us")),
    "time_ns": pa.array([1, None, 3], pa.time64("ns")),
    **{f"timestamp_{unit}": pa.array([1, None, -1], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "timestamp_us_utc": pa.array([1, None, -1], pa.timestamp("us", "UTC")),
    "list": pa.array([[True, None], None, []]),
    "fixed_list": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int16(), 2)),
    "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(3),
}


@pytest.mark.parametrize("name", KEPT)
def test_columns_that_are_handed_on_keep_type_and_values(name):
    column = KEPT[name]
    result = select("SELECT v FROM batch", pa.record_batch({"v": column})).column("v")
    assert result.type == column.type
    assert result.equals(column)


CHANGED = {
    "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), pa.string()),
    "large_string": (pa.array(["a", None, "b"], pa.large_string()), pa.string()),
    "string_view": (pa.array(["a", None, "b"], pa.string_view()), pa.string()),
    "large_list": (pa.array([[1], None, []], pa.large_list(pa.int8())), pa.list_(pa.int8())),
    "fixed_binary": (pa.array([b"ab", None, b"cd"], pa.binary(2)), pa.binary()),
    "time_s": (pa.array([1, None, 3], pa.time32("s")), pa.time64("us")),
    "zoned": (pa.array([1, None, 3], pa.timestamp("ms", "Europe/Berlin")), pa.timestamp("us", "UTC")),
    "bool8": (
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
        pa.bool_(),
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_columns_of_types_that_duckdb_does_not_have_come_as_their_nearest(name):
    column, expected = CHANGED[name]
    result = select("SELECT v FROM batch", pa.record_batch({"v": column})).column("v")
    assert result.type == expected
    assert result.to_pylist() == column.to_pylist()


def test_uuids_within_lists_come_as_text():
    uuids = pa.array([uuid.UUID(int=1).bytes], pa.uuid())
    column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), uuids)
    result = processor("SELECT v FROM batch").process(pa.record_batch({"v": column}))
    assert result.to_pylist() == [{"v": [str(uuid.UUID(int=1))]}]


@pytest.mark.parametrize(
    ("expression", "cast"),
    [
        ("id::HUGEINT", "DECIMAL(38, 0)"),
        ("id::UHUGEINT", "DECIMAL(38, 0)"),
        ("INTERVAL 1 DAY", "VARCHAR"),
        ("seen - seen", "VARCHAR"),
        ("'101'::BIT", "VARCHAR"),
        ("'12:00:00+00'::TIMETZ", "VARCHAR"),
        ("1::BIGNUM", "VARCHAR"),
        ("'a'::ENUM ('a', 'b')", "VARCHAR"),
        ("union_value(a := 1)", "VARCHAR"),
        ("row(1, 2)", "JSON"),
        ("[INTERVAL 1 DAY]", "JSON"),
        ("{'a': id::HUGEINT}", "JSON"),
        ("MAP {'a': '1'::BIT}", "JSON"),
    ],
)
def test_results_that_arrow_cannot_carry_are_refused_with_the_cast_to_write(expression, cast):
    error = failure(f"SELECT {expression} AS v FROM batch")
    assert "column 'v'" in error.message
    assert error.hint is not None
    assert f"AS {cast})" in error.hint


@pytest.mark.parametrize("select_list", ["id, name AS ID", "*, 1 AS id", "id AS a, name AS A"])
def test_columns_of_one_name_are_refused(select_list):
    assert "several columns of one name" in failure(f"SELECT {select_list} FROM batch").message


def test_incoming_columns_that_differ_in_case_only_are_refused():
    batch = pa.record_batch({"a": [1], "A": [2]})
    assert "differ in case" in failure("SELECT 1 AS one FROM batch", batch).message


@pytest.mark.parametrize("kind", [pa.float16(), pa.decimal256(50, 2)], ids=str)
def test_incoming_columns_that_duckdb_cannot_read_are_named(kind):
    batch = pa.record_batch({"id": [1], "odd": pa.nulls(1, kind)})
    error = failure("SELECT id FROM batch", batch)
    assert f"column 'odd' is {kind}" in error.message


# -- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("missing", 'DuckDB refuses the query: Binder Error: Referenced column "missing" not found'),
        ("upper(tags, 1)", "No function matches"),
        ("id + name", "No function matches"),
        ("id::nothing", "Type with name nothing does not exist"),
    ],
)
def test_a_query_that_does_not_fit_the_columns_fails_when_the_schema_is_learned(expression, message):
    with pytest.raises(TransformError) as raised:
        Chain([Step("sql", processor(f"SELECT {expression} AS v FROM batch"))]).bind(SCHEMA)
    assert message in raised.value.message
    assert "given an empty batch" in raised.value.message


SECRETS = pa.record_batch({"n": [1, 2, 3], "text": ["1", "2", "hunter2"], "zero": [1, 1, 0]})


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("text::INTEGER", "a value of column 'text' cannot be converted to the type wanted", "TRY_CAST"),
        ("text::DATE", "a value of column 'text' cannot be converted to the type wanted", "TRY_CAST"),
        ("upper(text)::DECIMAL(9, 2)", "a value cannot be converted to the type wanted", "TRY_CAST"),
        ("n // zero", "a number is divided by zero", "TRY(expression)"),
        ("n % zero", "a number is divided by zero", "TRY(expression)"),
        ("n * 3074457345618258603", "a result is out of the range of its type", "wider type"),
        ("(n * 50)::TINYINT", "a value cannot be converted", "TRY_CAST"),
        ("strptime(text, '%d')", "a function cannot work on a value", "TRY(expression)"),
        ("json_extract(text, '$')", "a function cannot work on a value", "TRY(expression)"),
        (
            "regexp_matches('a', replace(text, '2', '('))",
            "a function cannot work on a value",
            "TRY(expression)",
        ),
    ],
)
def test_a_value_that_cannot_be_worked_on_is_told_by_its_row_and_never_shown(expression, message, hint):
    error = failure(f"SELECT {expression} AS v FROM batch", SECRETS)
    told = re.search(r" in row (\d) of the batch \(from 0\)$", error.message)
    assert message in error.message
    assert told is not None
    assert hint in str(error.hint)
    assert "hunter" not in f"{error.message}{error.hint}{error.__cause__}"
    assert error.error_class == "data"
    # The row that is named is one that fails alone, and those before it do not.
    step, place = processor(f"SELECT {expression} AS v FROM batch"), int(told[1])
    step.process(SECRETS.slice(0, place))
    with pytest.raises(TransformError):
        step.process(SECRETS.slice(place, 1))


def test_a_value_that_names_a_column_is_not_taken_for_one():
    batch = pa.record_batch({"text": ["x when casting from source column hunter2"]})
    error = failure("SELECT text::INTEGER AS v FROM batch", batch)
    assert "hunter2" not in error.message


def test_a_processor_works_on_after_an_error():
    step = processor("SELECT text::INTEGER AS v FROM batch")
    with pytest.raises(TransformError):
        step.process(SECRETS)
    assert step.process(SECRETS.slice(0, 2)).column("v").to_pylist() == [1, 2]


def test_bound_values_are_not_shown():
    error = failure("SELECT :password::INTEGER AS v FROM batch", password="hunter2")
    assert "hunter2" not in error.message


def test_a_processor_keeps_no_rows():
    step = processor("SELECT id FROM batch")
    step.process(BATCH)
    with pytest.raises(duckdb.CatalogException):
        step._connection().sql("FROM batch")


def test_the_documented_query_is_allowed():
    page = (Path(__file__).parents[2] / "docs/reference/processors.md").read_text(encoding="utf-8")
    jobs = map(json.loads, re.findall(r"^```json job\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    (transform,) = (job["transform"] for job in jobs if job["transform"]["processor"] == "sql")
    step = SQL.parse_config(transform["config"])
    assert step.values == ("${run.started_at}", "test")


@pytest.mark.parametrize("name", ["grade_up", "list_grade_up", "array_grade_up"])
def test_orders_of_equal_values_are_refused(name: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        SQL.parse_config({"query": f"SELECT {name}([a, a]) AS x FROM batch"})
    assert "equal values" in str(raised.value.problems)
