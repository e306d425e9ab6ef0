from __future__ import annotations

import decimal
import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.errors import InvalidDocument, Problem, TransformError
from ecmbatch.processors.chain import Chain, Step
from ecmbatch.processors.field_mapper import FIELD_MAPPER
from ecmbatch.processors.processor import Processor

SCHEMA = pa.schema([("x", pa.int64()), ("t", pa.string())])
BATCH = pa.record_batch({"x": pa.array([1, 2, 3]), "t": pa.array(["a", "b", "c"])}, schema=SCHEMA)


class Calling(Processor):
    def __init__(self, function):
        self.process = function

    def process(self, batch): ...


def chain(*functions) -> Chain:
    return Chain(Step(f"step{number}", Calling(function)) for number, function in enumerate(functions, 1))


def refusal(*functions, batch=BATCH) -> TransformError:
    with pytest.raises(TransformError) as raised:
        chain(*functions).bind(SCHEMA).process(batch)
    return raised.value


def only_with_rows(function):
    return lambda batch: function(batch) if batch.num_rows else batch


def test_processors_are_applied_in_order():
    bound = chain(lambda b: b.rename_columns(["y", "t"]), lambda b: b.select(["t", "y"])).bind(SCHEMA)
    assert bound.process(BATCH).batch.to_pylist()[0] == {"t": "a", "y": 1}
    assert bound.output_schema.names == ["t", "y"]


def test_an_empty_chain_hands_batches_on():
    bound = chain().bind(SCHEMA)
    assert bound.process(BATCH).batch is BATCH
    assert bound.output_schema is SCHEMA


@pytest.mark.parametrize(
    "data_type",
    [
        pa.dictionary(pa.int8(), pa.string()),
        pa.uuid(),
        pa.string_view(),
        pa.list_(pa.struct([("a", pa.int8())])),
    ],
    ids=str,
)
def test_the_output_schema_is_known_without_rows(data_type):
    schema = pa.schema([("x", data_type)])
    assert chain(lambda batch: batch).output_schema(schema) == schema


def test_rows_may_be_dropped():
    assert chain(lambda batch: batch.slice(1)).bind(SCHEMA).process(BATCH).batch.num_rows == 2


def test_metadata_of_a_schema_is_left_out():
    noted = chain(lambda batch: batch.replace_schema_metadata({"rows": str(batch.num_rows)})).bind(SCHEMA)
    assert noted.output_schema.metadata is None
    assert noted.process(BATCH).batch.schema.metadata is None


@pytest.mark.parametrize("result", [None, [1], pa.table({"x": [1]})], ids=lambda value: type(value).__name__)
def test_anything_but_a_record_batch_is_refused(result):
    error = refusal(lambda batch: batch, only_with_rows(lambda batch: result))
    assert str(error) == f"processor 'step2' returned {type(result).__name__}, not pyarrow.RecordBatch"


def test_duplicate_columns_are_refused():
    error = refusal(lambda batch: batch.rename_columns(["x", "x"]))
    assert str(error) == "processor 'step1' returned several columns named x"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda batch: batch.set_column(0, "x", batch["x"].cast(pa.int8())), "column 'x' is int8, was int64"),
        (lambda batch: batch.select(["x"]), "column 't' is absent, was string"),
        (lambda batch: batch.append_column("n", batch["x"]), "column 'n' is int64, was absent"),
        (lambda batch: batch.select(["t", "x"]), "in the order t, x, not x, t"),
        (
            lambda batch: batch.cast(
                pa.schema([pa.field("x", pa.int64(), nullable=False), SCHEMA.field("t")])
            ),
            "column 'x' is int64 not null, was int64",
        ),
        (lambda batch: batch.append_column("x", batch["x"]), "column 'x' is int64 and int64, was int64"),
    ],
    ids=["type", "less", "more", "order", "null", "twice"],
)
def test_a_schema_that_depends_on_the_rows_is_refused(change, difference):
    message = str(refusal(only_with_rows(change)))
    assert message.startswith("processor 'step1' returned another schema than for an empty batch: ")
    assert message.endswith(difference)


def test_an_exception_is_shown_by_its_type_and_place_without_its_message():
    def parse_price(text):
        return decimal.Decimal(text)

    def prices(batch):
        return [parse_price(text) for text in batch["t"].to_pylist()]

    error = refusal(only_with_rows(prices))
    line = parse_price.__code__.co_firstlineno + 1
    assert str(error) == f"processor 'step1' failed: InvalidOperation at test_chain.py:{line} in parse_price"
    assert isinstance(error.__cause__, decimal.InvalidOperation)


def test_a_failure_inside_a_library_is_placed_in_the_users_code():
    def join(batch):
        return batch["t"].cast(pa.int64())

    error = refusal(only_with_rows(join))
    line = join.__code__.co_firstlineno + 1
    assert str(error) == f"processor 'step1' failed: ArrowInvalid at test_chain.py:{line} in join"


def test_an_error_of_ours_keeps_its_message_hint_problems_and_class():
    problem = Problem("/a", "wrong")

    def refuse(batch):
        raise InvalidDocument("not like this", problems=[problem], hint="do that", error_class="transient")

    error = refusal(only_with_rows(refuse))
    assert str(error) == "processor 'step1' failed: not like this"
    assert (error.hint, list(error.problems), error.error_class) == ("do that", [problem], "transient")


def test_an_exception_for_an_empty_batch_says_why_there_was_one():
    error = refusal(lambda batch: batch["x"][0].as_py())
    assert str(error).startswith("processor 'step1' failed (given an empty batch, as processors are to learn")


def test_an_interrupt_is_not_an_error_of_the_processor():
    def interrupt(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain(interrupt).bind(SCHEMA)


def test_a_failing_field_mapper_names_processor_field_and_row(facts):
    config = FIELD_MAPPER.parse_config({"fields": {"n": {"cast": ["t", "int8"]}}})
    bound = Chain([Step("field_mapper", FIELD_MAPPER.build(config, facts))]).bind(SCHEMA)
    with pytest.raises(TransformError) as raised:
        bound.process(BATCH)
    assert str(raised.value) == (
        "processor 'field_mapper' failed: "
        "field 'n': cast(..., \"int8\") cannot take the value in row 0 of the batch (from 0)"
    )


@given(st.lists(st.integers(0, 3), max_size=3))
def test_a_chain_of_row_local_processors_does_not_see_how_rows_are_cut(cuts):
    bound = chain(
        lambda batch: batch.filter(pa.compute.greater(batch["x"], 1)),
        lambda batch: batch.rename_columns(["y", "t"]),
    ).bind(SCHEMA)
    bounds = [0, *sorted(cuts), 3]
    parts = [bound.process(BATCH.slice(a, b - a)).batch for a, b in itertools.pairwise(bounds)]
    assert pa.Table.from_batches(parts) == pa.Table.from_batches([bound.process(BATCH).batch])
