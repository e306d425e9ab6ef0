"""``@row_processor``: a dict in, a dict or nothing out; columns declared, values never changed on the way."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ecmbatch
from ecmbatch.errors import InvalidDocument, PluginError, TransformError
from ecmbatch.processors.chain import Chain, Step
from ecmbatch.processors.functions import processor, processors_in, row_processor
from ecmbatch.processors.processor import ProcessorType, RunFacts
from ecmbatch.processors.python_values import UnfitValue, as_column, as_python

BATCH = pa.record_batch(
    {"id": [1, 2, 3], "first": ["Ada", None, "Alan"], "last": ["Lovelace", "Hopper", "Turing"]}
)
FACTS = RunFacts(run_id="run-1", job_id="job-1", started_at=datetime(2024, 3, 1, 2, tzinfo=UTC))


@dataclass(frozen=True)
class Greeting:
    word: str = "Hello"


def type_of(target: Any) -> ProcessorType:
    module = ModuleType("processors")
    module.__dict__["target"] = target
    (found,) = processors_in(module)
    return found


def run(
    target: Any,
    batch: pa.RecordBatch = BATCH,
    config: Mapping[str, Any] | None = None,
    facts: RunFacts = FACTS,
) -> pa.RecordBatch:
    kind = type_of(target)
    step = Step(kind.name, kind.build(kind.parse_config(config or {}), facts))
    return Chain([step]).bind(batch.schema).process(batch).batch


def failure(target: Any, batch: pa.RecordBatch = BATCH) -> TransformError:
    with pytest.raises(TransformError) as raised:
        run(target, batch)
    return raised.value


def same(**options: Any) -> Any:
    """Rows as they are."""
    return row_processor("same", **options)(lambda row, config: row)


# -- rows -------------------------------------------------------------------------------------------


def test_a_row_is_a_dict_and_what_is_returned_comes_out():
    @row_processor("named", columns={"full": "string"}, drop=("first", "last"))
    def named(row: dict[str, Any], config: Greeting, run: RunFacts) -> dict[str, Any] | None:
        if row["first"] is None:
            return None
        return {"id": row["id"], "full": f"{config.word} {row['first']} {row['last']} of {run.run_id}"}

    result = run(named, config={"word": "Hi"})
    assert result.to_pylist() == [
        {"id": 1, "full": "Hi Ada Lovelace of run-1"},
        {"id": 3, "full": "Hi Alan Turing of run-1"},
    ]
    assert named({"id": 1, "first": "A", "last": "B"}, Greeting(), FACTS)["full"] == "Hello A B of run-1"


def test_the_columns_are_those_that_go_in_unless_declared():
    assert run(same()).equals(BATCH)
    target = row_processor("typed", columns={"id": "string", "n": pa.int8()}, drop=["first"])
    schema = run(target(lambda row, config: None)).schema
    assert schema == pa.schema([("id", pa.string()), ("last", pa.string()), ("n", pa.int8())])


def test_the_function_is_not_called_to_learn_the_columns():
    def never(row, config):
        raise AssertionError

    assert (
        run(row_processor("never", columns={"x": "date"})(never), BATCH.slice(0, 0)).schema.names[-1] == "x"
    )


def test_a_dropped_column_may_be_returned_all_the_same():
    result = run(same(drop=("first",)))
    assert result.schema.names == ["id", "last"]


def test_rows_without_columns_are_still_rows():
    made = row_processor("made", columns={"x": "int64"}, drop=("id", "first", "last"))
    assert run(made(lambda row, config: {"x": len(row)})).column("x").to_pylist() == [3, 3, 3]


@given(st.lists(st.none() | st.integers(-9, 9), max_size=20), st.sets(st.integers(0, 20), max_size=4))
def test_batches_cut_anywhere_give_the_same_rows(values, places):
    @row_processor("halves", columns={"half": "int64"})
    def halves(row, config):
        if row["n"] is None or row["n"] % 2:
            return None
        return {**row, "half": row["n"] // 2}

    batch = pa.record_batch({"n": pa.array(values, pa.int64())})
    edges = sorted({0, len(values), *(place for place in places if place < len(values))})
    parts = [run(halves, batch.slice(start, stop - start)) for start, stop in pairwise(edges)]
    assert [row for part in parts for row in part.to_pylist()] == run(halves, batch).to_pylist()


# -- what a function must not return ----------------------------------------------------------------

SECRET = pa.record_batch({"id": [1, 2], "name": ["a", "hunter2"]})


def of_second(value):
    return lambda row, config: row if row["id"] == 1 else value(row)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda row: [row], "the function returned list for row 1 of the batch (from 0)"),
        (lambda row: row["name"], "the function returned str for row 1"),
        (lambda row: {"id": 2}, "returned row 1 of the batch (from 0) without 'name'"),
        (lambda row: {**row, "nmae": 1}, "with 'nmae', which no column is called"),
        (lambda row: {**row, 7: 1}, "with a key of type int, which no column is called"),
        (
            lambda row: {**row, "id": row["name"]},
            "column 'id' must be int64, but the function returned a str for row 1",
        ),
        (lambda row: {**row, "id": 2.5}, "column 'id' must be int64, but the function returned a float"),
        (lambda row: {**row, "id": True}, "column 'id' must be int64, but the function returned a bool"),
        (
            lambda row: {**row, "id": 2**70},
            "column 'id' must be int64, but the function returned a value that does not",
        ),
        (lambda row: {**row, "name": 5}, "column 'name' must be string, but the function returned a int"),
        (
            lambda row: {**row, "name": b"hunter2"},
            "column 'name' must be string, but the function returned a bytes",
        ),
        (
            lambda row: {**row, "name": "\ud800"},
            "column 'name' must be string, but the function returned a value",
        ),
    ],
)
def test_what_is_wrong_is_told_by_key_type_and_row_and_never_by_value(value, message):
    error = failure(row_processor("wrong")(of_second(value)), SECRET)
    assert message in error.message
    assert "row 1" in error.message
    assert error.hint is not None
    assert "hunter2" not in f"{error.message} {error.hint}"
    assert error.error_class == "data"


def test_the_row_is_the_one_that_went_in_though_others_were_dropped():
    @row_processor("late")
    def late(row, config):
        return None if row["id"] < 3 else {**row, "id": "x"}

    assert "row 2 of the batch" in failure(late).message


def test_an_exception_of_the_function_is_told_by_type_place_and_row():
    @row_processor("fails")
    def fails(row, config):
        return {**row, "id": int(row["name"])}

    with pytest.raises(TransformError) as raised:
        run(fails, SECRET.slice(1))
    assert re.search(
        r"ValueError at test_row_processors\.py:\d+ in fails, given row 0 of the batch \(from 0\)",
        raised.value.message,
    )
    assert "hunter2" not in raised.value.message


def test_a_function_that_exits_fails_the_run():
    @row_processor("exits")
    def exits(row, config):
        raise SystemExit(0)

    assert "SystemExit" in failure(exits).message


def test_a_column_to_drop_must_be_there():
    error = failure(same(drop=("frist",)))
    assert "the rows have no column 'frist' to drop" in error.message
    assert error.hint == "did you mean 'first'?"


# -- values -----------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.bool_(), [True, None]),
    (pa.int8(), [-128, None]),
    (pa.uint64(), [2**64 - 1, None]),
    (pa.float16(), [1.5, None]),
    (pa.float32(), [1.5, None]),
    (pa.float64(), [0.1, None]),
    (pa.decimal128(9, 2), [Decimal("1.50"), None]),
    (pa.decimal256(50, 2), [Decimal("1.50"), None]),
    (pa.string(), ["ü", None]),
    (pa.large_string(), ["ü", None]),
    (pa.string_view(), ["ü", None]),
    (pa.binary(), [b"\0", None]),
    (pa.binary(2), [b"ab", None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "a"]),
    (pa.date32(), [date(2024, 2, 29), None]),
    (pa.date64(), [date(2024, 2, 29), None]),
    (pa.time32("s"), [time(1, 2, 3), None]),
    (pa.time64("us"), [time(1, 2, 3, 4), None]),
    (pa.time64("ns"), [time(1, 2, 3, 4), None]),
    (pa.duration("ms"), [timedelta(milliseconds=5), None]),
    (pa.duration("ns"), [timedelta(microseconds=5), None]),
    *((pa.timestamp(unit), [datetime(1969, 12, 31, 23), None]) for unit in ("s", "ms", "us", "ns")),
    *(
        (pa.timestamp(unit, "UTC"), [datetime(2024, 1, 1, tzinfo=UTC), None])
        for unit in ("s", "ms", "us", "ns")
    ),
    # The hour that there are two of.
    (pa.timestamp("us", "Europe/Berlin"), [datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN), None]),
    (pa.list_(pa.int8()), [[1, None], None, []]),
    (pa.large_list(pa.string()), [["a"], None, []]),
    (pa.list_(pa.int8(), 2), [[1, None], None]),
    (pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))]), [{"a": 1, "b": ["x"]}, None]),
    (pa.map_(pa.string(), pa.int8()), [[("a", 1)], None, []]),
    (pa.uuid(), [UUID(int=1), None]),
    (pa.json_(), ['{"a": 1}', None]),
    (pa.null(), [None, None]),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=lambda value: str(value)[:40])
def test_every_value_comes_out_as_it_went_in(kind, values):
    column = as_column(values, kind)
    assert as_python(column) == values
    batch = pa.record_batch({"v": column})
    assert run(same(), batch).equals(batch)


@pytest.mark.parametrize(
    ("kind", "value", "described"),
    [
        (pa.int64(), 1.0, "a float"),
        (pa.int64(), "1", "a str"),
        (pa.int8(), 300, "a value that does not fit"),
        (pa.float64(), Decimal(1), "a Decimal"),
        (pa.float64(), True, "a bool"),
        (pa.bool_(), 1, "a int"),
        (pa.string(), b"a", "a bytes"),
        (pa.binary(), "a", "a str"),
        (pa.decimal128(9, 2), 1.5, "a float"),
        (pa.decimal128(9, 2), Decimal("1.234"), "a value that does not fit"),
        (pa.date32(), datetime(2024, 1, 1), "a datetime"),
        (pa.date32(), "2024-01-01", "a str"),
        (pa.timestamp("us"), date(2024, 1, 1), "a date"),
        (pa.timestamp("us"), 1, "a int"),
        (pa.timestamp("us"), datetime(2024, 1, 1, tzinfo=UTC), "a time with a time zone"),
        (pa.timestamp("us", "UTC"), datetime(2024, 1, 1), "a time without a time zone"),
        (pa.timestamp("ms"), datetime(2024, 1, 1, microsecond=1), "a time finer than that"),
        (pa.time32("s"), time(1, 2, 3, 4), "a time finer than that"),
        (pa.time64("us"), time(1, tzinfo=UTC), "a time with a time zone"),
        (pa.duration("s"), timedelta(microseconds=1), "a time finer than that"),
        (pa.list_(pa.int64()), [1, 2.5], "a float"),
        (pa.list_(pa.string()), "abc", "a str"),
        (pa.list_(pa.timestamp("us")), [datetime(2024, 1, 1, tzinfo=UTC)], "a time with a time zone"),
        (pa.struct([("a", pa.int64())]), {"a": 1, "b": 2}, "a dict with keys that the struct does not have"),
        (pa.struct([("a", pa.int64())]), {"a": "x"}, "a str"),
        (pa.map_(pa.string(), pa.int64()), [("a", 1, 2)], "a list of something else than (key, value)"),
        (pa.map_(pa.string(), pa.int64()), [(1, 1)], "a int"),
        (pa.dictionary(pa.int8(), pa.string()), 1, "a int"),
        (pa.uuid(), "x", "a str"),
        (pa.null(), 1, "a int"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused_and_never_changed(kind, value, described):
    with pytest.raises(UnfitValue) as raised:
        as_column([None, value], kind)
    assert str(raised.value) == described


def test_nanoseconds_are_refused_and_never_cut_off():
    batch = pa.record_batch({"seen": pa.array([1_000, 1_001], pa.timestamp("ns"))})
    assert run(same(), batch.slice(0, 1)).equals(batch.slice(0, 1))
    assert "column 'seen' is timestamp[ns]" in failure(same(), batch).message


def test_columns_that_no_python_object_fits_are_told_without_rows():
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(TransformError, match="column 'u' is sparse_union"):
        type_of(same()).build({}, FACTS).process(pa.record_batch({"u": union}))


# -- registration -----------------------------------------------------------------------------------


def test_the_decorator_is_public():
    assert ecmbatch.row_processor is row_processor
    assert "row_processor" in ecmbatch.__all__


def test_the_configuration_is_checked_as_that_of_any_processor():
    kind = type_of(same(config=Greeting))
    with pytest.raises(InvalidDocument) as raised:
        kind.parse_config({"wrod": "Hi"})
    assert raised.value.problems[0].hint == "did you mean 'word'?"


def test_the_source_is_the_version():
    assert type_of(same()).version == sha256(Path(__file__).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: row_processor("Bad name"), "cannot name a processor"),
        (lambda: row_processor("p", columns={"x": "text"}), "column 'x': no type 'text'"),
        (lambda: row_processor("p", columns={"x": 5}), "a type is named by text"),
        (
            lambda: row_processor("p", columns={"x": pa.month_day_nano_interval()}),
            "cannot be made of Python objects",
        ),
        (lambda: row_processor("p", columns={"x": "date"}, drop=("x",)), "both declares and drops x"),
        (lambda: row_processor("p", drop="x"), "drop must be several names"),
        (lambda: row_processor("p")(lambda row: row), r"must take \(row, config\), or \(row, config, run\)"),
        (lambda: row_processor("p")(lambda row, config, other: row), "must take"),
        (lambda: row_processor("p")(Greeting), "must be a function, not type"),
        (lambda: processor("q")(row_processor("p")(lambda row, config: row)), "already registered as 'p'"),
    ],
)
def test_a_wrong_row_processor_is_refused_when_it_is_registered(decorate, message):
    with pytest.raises(PluginError, match=message):
        decorate()


def test_functions_of_other_kinds_are_refused():
    async def later(row, config): ...

    def several(row, config):
        yield row

    def batches(row: pa.RecordBatch, config) -> pa.RecordBatch:
        return row

    for function, message in (
        (later, "must not be async"),
        (several, "must return a dict or None; it must not yield"),
        (batches, "@processor is for batches"),
    ):
        with pytest.raises(PluginError, match=message):
            row_processor("p", config=dict)(function)


def test_another_decorator_above_is_told():
    module = ModuleType("processors")
    decorated = row_processor("p")(lambda row, config: row)

    @functools.wraps(decorated)
    def above(row, config):
        return decorated(row, config)

    module.wrapped = above
    with pytest.raises(PluginError, match="put @row_processor above it"):
        processors_in(module)


# -- the documents ----------------------------------------------------------------------------------


def test_the_documented_row_processor_works_as_printed(tmp_path):
    page = (Path(__file__).parents[2] / "docs/howto/write-a-processor.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python rows\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "phones.py").write_text(code)
    module = ModuleType("phones")
    exec(compile(code, str(tmp_path / "phones.py"), "exec"), vars(module))
    (kind,) = processors_in(module)
    batch = pa.record_batch({"id": [1, 2, 3], "phone": ["0228 123-45", "+49 30 6", None]})
    built = kind.build(kind.parse_config({"country": "49"}), FACTS)
    assert built.process(batch).to_pylist() == [
        {"id": 1, "phone": "+4922812345", "digits": 8},
        {"id": 2, "phone": "+49306", "digits": 3},
    ]
