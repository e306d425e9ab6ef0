"""Identity, associativity, and one pass equals any cut: for every observation."""

import json
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.validation.observation import Observation
from ecmbatch.protocol.validation.observations import Observer, observation_of
from ecmbatch.protocol.validation.rules import Validation

RULES: dict[str, dict[str, Any]] = {
    "rows": {"type": "row_count", "min": 1},
    "some rows": {"type": "row_count", "min": 1, "where": {"field": "n", "op": ">", "value": 2}},
    "nulls": {"type": "null_check", "fields": ["n", "f", "s.t"]},
    "some nulls": {"type": "null_check", "fields": ["n"], "where": {"field": "f", "op": "<=", "value": 1}},
    "missing column": {"type": "null_check", "fields": ["n", "gone"]},
    "wrong where": {"type": "row_count", "min": 1, "where": {"field": "n", "op": "=", "value": "x"}},
    "newest": {"type": "freshness", "field": "at", "max_age": "1 d", "timezone": "Europe/Berlin"},
    "newest inside": {"type": "freshness", "field": "s.t", "max_age": "1 d"},
    "newest number": {"type": "freshness", "field": "n", "max_age": "1 d", "unit": "ms"},
    "newest text": {"type": "freshness", "field": "iso", "max_age": "1 d", "format": "iso8601"},
    "newest pattern": {"type": "freshness", "field": "dmy", "max_age": "1 d", "format": "%d.%m.%Y"},
    "wrong type": {"type": "freshness", "field": "f", "max_age": "1 d"},
}
SCHEMA = pa.schema(
    {
        "n": pa.int32(),
        "f": pa.float64(),
        "at": pa.timestamp("ns"),
        "s": pa.struct({"t": pa.timestamp("us", "UTC")}),
        "iso": pa.string(),
        "dmy": pa.string(),
    }
)
NUMBERS = st.none() | st.integers(0, 5)
FLOATS = st.none() | st.sampled_from([0.5, 1.5, float("nan")])
TIMES = st.none() | st.integers(-(2**62), 2**62)
# Texts that cannot be read are rare, so that both states with and without an error are seen.
ISO = st.sampled_from(
    [None, "2024-01-01", "2024-01-02T03:04:05.000000006", "2024-01-02T03:04Z"] * 5 + ["soon"]
)
DAYS = st.sampled_from([None, "01.02.2024", "31.12.2023"] * 5 + ["soon"])
INNER = st.none() | st.fixed_dictionaries({"t": TIMES})
ROWS = st.lists(
    st.fixed_dictionaries({"n": NUMBERS, "f": FLOATS, "at": TIMES, "s": INNER, "iso": ISO, "dmy": DAYS}),
    max_size=10,
)


COUNTERS = {
    name: observation_of(Validation.model_validate({"rules": [rule]}).rules[0])
    for name, rule in RULES.items()
}


def batch_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def one_pass(counter: Observation[Any], batch: pa.RecordBatch) -> Any:
    return counter.update(counter.init(), batch)


# Rows are drawn once for all observations, because drawing them takes longer than counting them.


@given(rows=ROWS)
def test_the_state_of_no_rows_changes_nothing(rows: list[dict[str, Any]]) -> None:
    batch = batch_of(rows)
    for name, counter in COUNTERS.items():
        state = one_pass(counter, batch)
        assert counter.merge(counter.init(), state) == state == counter.merge(state, counter.init()), name


@given(parts=st.tuples(ROWS, ROWS, ROWS))
def test_it_does_not_matter_which_states_are_merged_first(parts: tuple[list[dict[str, Any]], ...]) -> None:
    batches = [batch_of(rows) for rows in parts]
    for name, counter in COUNTERS.items():
        a, b, c = (one_pass(counter, batch) for batch in batches)
        assert counter.merge(counter.merge(a, b), c) == counter.merge(a, counter.merge(b, c)), name


@given(rows=ROWS, data=st.data())
def test_any_cut_of_the_rows_gives_the_state_of_one_pass(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = batch_of(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    parts = [whole.slice(low, high - low) for low, high in pairwise([0, *cuts, len(rows)])]
    resumed_at = data.draw(st.integers(0, len(parts)))
    for name, counter in COUNTERS.items():
        state = counter.init()
        merged = counter.init()
        for number, part in enumerate(parts):
            if number == resumed_at:
                state = counter.decode(json.loads(json.dumps(counter.encode(state))))
            state = counter.update(state, part)
            merged = counter.merge(merged, one_pass(counter, part))
        assert state == merged == one_pass(counter, whole), name


@given(rows=ROWS)
def test_a_state_survives_json(rows: list[dict[str, Any]]) -> None:
    batch = batch_of(rows)
    for name, counter in COUNTERS.items():
        state = one_pass(counter, batch)
        text = json.dumps(counter.encode(state), allow_nan=False)
        assert counter.decode(json.loads(text)) == state, name


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    "value", [{}, {"rows": None}, {"rows": [1]}, {"nulls": "x", "rows": "x", "newest": 0}]
)
def test_what_is_no_state_is_refused(name: str, value: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        COUNTERS[name].decode(value)


@given(rows=ROWS, data=st.data())
def test_all_rules_together_obey_the_same_laws(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    observer = Observer(Validation.model_validate({"rules": list(RULES.values())}).rules)
    cut = data.draw(st.integers(0, len(rows)))
    whole = observer.observe(observer.start(), batch_of(rows), "output")
    first = observer.observe(observer.start(), batch_of(rows[:cut]), "output")
    second = observer.observe(observer.start(), batch_of(rows[cut:]), "output")
    assert observer.merge(first, second) == whole
    assert observer.merge(observer.merge(observer.start(), first), second) == whole
    resumed = observer.from_json(json.loads(json.dumps(observer.to_json(first))))
    assert observer.observe(resumed, batch_of(rows[cut:]), "output") == whole
    assert observer.merge(observer.start(), whole) == whole
