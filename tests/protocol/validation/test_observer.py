import json
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.protocol.validation.null_check import NullCheckObservation, NullCounts
from ecmbatch.protocol.validation.observations import Observations, Observer, observation_key
from ecmbatch.protocol.validation.row_count import RowCount
from ecmbatch.protocol.validation.rules import Rule, Validation


def rules(*documents: dict[str, Any]) -> tuple[Rule, ...]:
    return Validation.model_validate({"rules": documents}).rules


def batch(*ids: int | None) -> pa.RecordBatch:
    return pa.record_batch({"id": pa.array(ids, pa.int64())})


def observed(observer: Observer, source: pa.RecordBatch, output: pa.RecordBatch) -> Observations:
    seen = observer.observe(observer.start(), source, "source")
    return observer.observe(seen, output, "output")


NULLS = {"type": "null_check", "fields": ["id"]}


def test_rows_are_counted_even_without_rules() -> None:
    seen = observed(Observer([]), batch(1, 2, 3), batch(1, 2))
    assert (seen.source_rows, seen.output_rows) == (3, 2)


def test_each_rule_sees_the_rows_of_its_stage() -> None:
    output, source = rules(NULLS, {**NULLS, "stage": "source"})
    seen = observed(Observer([output, source]), batch(None, None, 1), batch(None, 1))
    assert seen.state_of(source) == NullCounts(rows=3, nulls=(2,))
    assert seen.state_of(output) == NullCounts(rows=2, nulls=(1,))


def test_a_rule_with_another_threshold_finds_its_counts_again() -> None:
    old, new = (
        rules(NULLS),
        rules({**NULLS, "threshold": "5%", "severity": "warn", "scope": "each_partition"}),
    )
    saved = Observer(old).to_json(observed(Observer(old), batch(), batch(None, 1)))
    seen = Observer(new).from_json(saved)
    assert seen.covers(new[0])
    assert seen.state_of(new[0]) == NullCounts(rows=2, nulls=(1,))


@pytest.mark.parametrize(
    "change",
    [
        {"fields": ["id", "name"]},
        {"stage": "source"},
        {"nan_as_null": False},
        {"where": {"field": "id", "op": ">", "value": 1}},
    ],
)
def test_a_rule_that_counts_something_else_is_not_covered(change: dict[str, Any]) -> None:
    old, new = rules(NULLS), rules({**NULLS, **change})
    saved = Observer(old).to_json(observed(Observer(old), batch(), batch(None, 1)))
    seen = Observer(new).from_json(saved)
    assert not seen.covers(new[0])
    assert seen.state_of(new[0]) is None
    assert seen.output_rows == 2


def test_a_new_row_count_is_always_covered() -> None:
    saved = Observer([]).to_json(observed(Observer([]), batch(1, 2), batch(1)))
    output, source = rules(
        {"type": "row_count", "min": 1}, {"type": "row_count", "min": 1, "stage": "source"}
    )
    seen = Observer([output, source]).from_json(saved)
    assert (seen.state_of(output), seen.state_of(source)) == (RowCount(rows=1), RowCount(rows=2))


def test_a_rule_that_was_added_half_way_is_not_covered() -> None:
    before = Observer([]).to_json(observed(Observer([]), batch(1), batch(1)))
    added = rules(NULLS)
    observer = Observer(added)
    resumed = observer.observe(observer.from_json(before), batch(2), "output")
    assert not resumed.covers(added[0])
    assert resumed.output_rows == 2
    fresh_partition = observed(observer, batch(3), batch(3))
    assert fresh_partition.covers(added[0])
    assert not observer.merge(fresh_partition, resumed).covers(added[0])


def test_what_is_saved_is_json_and_nothing_that_rows_held() -> None:
    declared = rules(NULLS, {"type": "freshness", "field": "name", "max_age": "1 d", "format": "iso8601"})
    observer = Observer(declared)
    rows = pa.record_batch({"id": pa.array([None, 1]), "name": pa.array(["secret", None])})
    text = json.dumps(observer.to_json(observer.observe(observer.start(), rows, "output")))
    assert "secret" not in text
    assert observer.to_json(observer.from_json(json.loads(text))) == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"format": "ecmbatch.observations/2", "states": {}},
        {"format": "ecmbatch.observations/1"},
        {"format": "ecmbatch.observations/1", "states": []},
        {"format": "ecmbatch.observations/1", "states": {}},
    ],
)
def test_what_was_not_saved_by_an_observer_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not saved observations"):
        Observer([]).from_json(value)


def test_keys_are_the_same_in_every_process_and_version() -> None:
    # Literals: checkpoints of before an upgrade are read after it.
    (counted, nulls) = rules({"type": "row_count", "min": 1}, NULLS)
    assert (observation_key(counted), observation_key(nulls)) == ("2d10c1413756cf42", "e06a86f1942a76b5")


def test_an_unexpected_error_ends_in_the_state_without_its_text() -> None:
    class Faulty(NullCheckObservation):
        def _count(self, batch: pa.RecordBatch) -> NullCounts:
            raise KeyError("a value of a row")

    counter = Faulty(stage="output", where=None, fields=["id"], nan_as_null=True)
    state = counter.update(counter.init(), batch(1))
    assert state == NullCounts(error="KeyError while counting the rows")


def test_running_out_of_memory_is_not_blamed_on_the_rows() -> None:
    class Hungry(NullCheckObservation):
        def _count(self, batch: pa.RecordBatch) -> NullCounts:
            raise MemoryError

    counter = Hungry(stage="output", where=None, fields=["id"], nan_as_null=True)
    with pytest.raises(MemoryError):
        counter.update(counter.init(), batch(1))
