"""The processor ``filter``: rows for which a predicate is true, in their order, in batches of any size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ecmbatch
from ecmbatch.errors import InvalidDocument, TransformError
from ecmbatch.processors.chain import Chain, Step
from ecmbatch.processors.filter import FILTER
from ecmbatch.processors.processor import Processor, RunFacts

SCHEMA = pa.schema([("id", pa.int64()), ("tier", pa.string()), ("who", pa.struct([("city", pa.string())]))])
ROWS: list[dict[str, Any]] = [
    {"id": 1, "tier": "gold", "who": {"city": "Bonn"}},
    {"id": 2, "tier": None, "who": None},
    {"id": None, "tier": "silver", "who": {"city": None}},
    {"id": 4, "tier": "gold", "who": {"city": "Köln"}},
]
BATCH = pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)
FACTS: RunFacts = None  # type: ignore[assignment]  # a filter looks at no facts


def processor(where: Mapping[str, Any]) -> Processor:
    return FILTER.build(FILTER.parse_config({"where": where}), FACTS)


def kept(where: Mapping[str, Any], batch: pa.RecordBatch = BATCH) -> list[int]:
    result = Chain([Step("filter", processor(where))]).bind(batch.schema).process(batch).batch
    assert result.schema == batch.schema
    return [batch.to_pylist().index(row) + 1 for row in result.to_pylist()]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"field": "tier", "op": "=", "value": "gold"}, [1, 4]),
        ({"field": "tier", "op": "!=", "value": "gold"}, [3]),
        ({"not": {"field": "tier", "op": "=", "value": "gold"}}, [3]),
        ({"field": "id", "op": ">=", "value": 2}, [2, 4]),
        ({"field": "id", "op": "in", "value": [1, 2, 3]}, [1, 2]),
        ({"field": "id", "op": "is_null"}, [3]),
        ({"field": "who.city", "op": "is_not_null"}, [1, 4]),
        ({"field": "who.city", "op": "=", "value": "Köln"}, [4]),
        (
            {"or": [{"field": "id", "op": "=", "value": 2}, {"field": "tier", "op": "=", "value": "silver"}]},
            [2, 3],
        ),
        (
            {"and": [{"field": "id", "op": ">", "value": 1}, {"field": "tier", "op": "=", "value": "gold"}]},
            [4],
        ),
    ],
)
def test_rows_are_kept_where_the_predicate_is_true(where, expected):
    assert kept(where) == expected


rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(-3, 3),
        "tier": st.none() | st.sampled_from(["gold", "silver"]),
        "who": st.none() | st.fixed_dictionaries({"city": st.none() | st.sampled_from(["a", "b"])}),
    }
)
comparisons = st.one_of(
    st.builds(
        lambda op, value: {"field": "id", "op": op, "value": value},
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.integers(-3, 3),
    ),
    st.builds(lambda op: {"field": "who.city", "op": op}, st.sampled_from(["is_null", "is_not_null"])),
    st.builds(
        lambda op, values: {"field": "tier", "op": op, "value": values},
        st.sampled_from(["in", "not_in"]),
        st.lists(st.sampled_from(["gold", "silver", "x"]), min_size=1, max_size=2),
    ),
)
predicates = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(
            lambda key, parts: {key: parts},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=2),
        ),
    ),
    max_leaves=4,
)


@given(st.lists(rows, max_size=20), st.sets(st.integers(0, 20), max_size=4), predicates)
def test_batches_cut_anywhere_give_the_same_rows(table, places, where):
    step = processor(where)
    whole = step.process(pa.RecordBatch.from_pylist(table, schema=SCHEMA))
    edges = sorted({0, len(table), *(place for place in places if place < len(table))})
    batch = pa.RecordBatch.from_pylist(table, schema=SCHEMA)
    parts = [step.process(batch.slice(start, stop - start)) for start, stop in pairwise(edges)]
    assert [row for part in parts for row in part.to_pylist()] == whole.to_pylist()


KEPT_TYPES = [
    pa.array(["a", None, "b"]).dictionary_encode(),
    pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
    pa.array([1, None, 3], pa.timestamp("ns", "Europe/Berlin")),
    pa.array([[1], None, []]),
    pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    pa.array(["a", None, "b"], pa.large_string()),
]


@pytest.mark.parametrize("column", KEPT_TYPES, ids=lambda column: str(column.type))
def test_columns_keep_their_types(column):
    batch = pa.record_batch({"n": [1, 2, 3], "v": column})
    result = processor({"field": "n", "op": ">", "value": 1}).process(batch)
    assert result.schema == batch.schema
    assert result.column("v").equals(column.slice(1))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"field": "tire", "op": "=", "value": "gold"}, "there is no column 'tire' in the rows"),
        ({"field": "who.town", "op": "is_null"}, "there is no column 'who.town' in the rows"),
        (
            {"field": "id", "op": "=", "value": "1"},
            "column 'id' is int64; its value in 'where' must be a whole number",
        ),
        ({"field": "who", "op": "=", "value": "x"}, "column 'who' is struct"),
    ],
)
def test_what_does_not_fit_the_columns_is_found_without_rows(where, message):
    with pytest.raises(TransformError) as raised:
        Chain([Step("filter", processor(where))]).bind(SCHEMA)
    assert message in raised.value.message
    assert raised.value.error_class == "permanent"
    assert "tier (string)" in str(raised.value.hint)


def test_columns_that_arrow_cannot_filter_are_told_without_rows():
    with pytest.raises(TransformError, match="string_view"):
        processor({"field": "id", "op": "is_null"}).process(
            pa.record_batch([pa.nulls(0, pa.int64()), pa.nulls(0, pa.string_view())], names=["id", "v"])
        )


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "/where"),
        ({"where": "id > 1"}, "/where"),
        ({"where": {"field": "id", "op": "~", "value": 1}}, "/where/op"),
        ({"where": {"and": [{"field": "id", "op": "="}]}}, "/where/and/0"),
        ({"where": {"field": "id", "op": "is_null"}, "were": {}}, "/were"),
    ],
)
def test_the_configuration_is_strict(config, path):
    with pytest.raises(InvalidDocument) as raised:
        FILTER.parse_config(config)
    assert path in {problem.path for problem in raised.value.problems}


def test_the_built_in_processors_are_known_by_name():
    known = ecmbatch.Plugins().processors
    assert {"filter", "sql"} <= set(known.names())
    assert known.get("filter") is FILTER


def test_the_documented_predicate_is_allowed():
    page = (Path(__file__).parents[2] / "docs/reference/processors.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"^```json\n(\{\"where\".*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert FILTER.parse_config(json.loads(config))
