from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import TypeAdapter

from ecmbatch.protocol.validation.observation import Unobservable
from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.selection import select

ROWS = pa.record_batch(
    {
        "id": pa.array([0, 1, 2, 3], pa.int16()),
        "big": pa.array([0, 1, 2, 2**64 - 1], pa.uint64()),
        "tier": pa.array(["gold", "silver", None, "gold"]),
        "coded": pa.array(["gold", "silver", None, "gold"]).dictionary_encode(),
        "runs": pc.run_end_encode(pa.array(["gold", "silver", None, "gold"])),
        "view": pa.array(["gold", "silver", None, "gold"], pa.string_view()),
        "score": pa.array([0.5, float("nan"), None, 2.0]),
        "money": pa.array([Decimal("0.10"), Decimal("0.29"), None, Decimal("5.00")], pa.decimal128(10, 2)),
        "vip": pa.array([True, False, None, True]),
        "at": pa.array(
            [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)], pa.timestamp("us", "UTC")
        ),
        "local": pa.array([datetime(2024, 1, day) for day in (1, 2, 3, 4)], pa.timestamp("ns")),
        "day": pa.array([date(2024, 1, day) for day in (1, 2, 3, 4)]),
        "data": pa.array([{"x": 1}, None, {"x": None}, {"x": 4}]),
        "blob": pa.array([b"a", b"b", None, b"d"]),
    }
)


def where(document: dict[str, Any]) -> Any:
    return TypeAdapter(Where).validate_python(document)


def chosen(document: dict[str, Any]) -> list[int]:
    selection = select(ROWS, where(document), "output")
    ids = selection.of(ROWS.column("id")).to_pylist()
    assert selection.rows == len(ids)
    return [int(number) for number in ids]


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("id", "=", 2, [2]),
        ("id", "!=", 2, [0, 1, 3]),
        ("id", "<", 2, [0, 1]),
        ("id", "<=", 2, [0, 1, 2]),
        ("id", ">", 2, [3]),
        ("id", ">=", 2, [2, 3]),
        ("id", "in", [1, 3], [1, 3]),
        ("id", "not_in", [1, 3], [0, 2]),
        ("big", "=", 2**64 - 1, [3]),
        ("tier", "=", "gold", [0, 3]),
        ("tier", "!=", "gold", [1]),
        ("tier", "not_in", ["gold"], [1]),
        ("coded", "in", ["gold"], [0, 3]),
        ("runs", "=", "gold", [0, 3]),
        ("view", "=", "gold", [0, 3]),
        ("score", ">", 0, [0, 3]),
        ("score", "<=", 0.5, [0]),
        ("money", "=", 0.29, [1]),
        ("money", "in", [0.1, 5], [0, 3]),
        ("vip", "=", True, [0, 3]),
        ("at", ">=", "2024-01-03T00:00:00Z", [2, 3]),
        ("at", "<", "2024-01-02T01:00:00+01:00", [0]),
        ("at", "in", ["2024-01-02T00:00:00Z"], [1]),
        ("local", "=", "2024-01-02", [1]),
        ("local", "in", ["2024-01-02T00:00:00.000000000"], [1]),
        ("day", ">", "2024-01-03", [3]),
        ("data.x", "=", 4, [3]),
    ],
)
def test_a_comparison_selects_rows_for_which_it_is_true(
    field: str, op: str, value: Any, expected: list[int]
) -> None:
    assert chosen({"field": field, "op": op, "value": value}) == expected


@pytest.mark.parametrize("field", ["tier", "coded", "runs", "view", "score", "vip", "blob"])
def test_null_is_asked_for_by_its_own_operators(field: str) -> None:
    assert chosen({"field": field, "op": "is_null"}) == [2]
    assert chosen({"field": field, "op": "is_not_null"}) == [0, 1, 3]


def test_a_null_makes_a_comparison_unknown_and_not_true() -> None:
    gold = {"field": "tier", "op": "=", "value": "gold"}
    third = {"field": "id", "op": "=", "value": 2}
    assert chosen({"not": gold}) == [1]
    assert chosen({"or": [gold, third]}) == [0, 2, 3]
    assert chosen({"and": [gold, {"not": third}]}) == [0, 3]
    assert chosen({"not": {"and": [gold, third]}}) == [0, 1, 3]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", "2", "must be a whole number"),
        ("id", 2.0, "must be a whole number"),
        ("id", True, "must be a whole number"),
        ("id", 40_000, "cannot be read as int16"),
        ("big", -1, "cannot be read as uint64"),
        ("tier", 5, "must be a text"),
        ("score", "5", "must be a number"),
        ("money", 0.001, "cannot be read as decimal128"),
        ("vip", 1, "must be true or false"),
        ("at", "2024-01-03T00:00:00", "with a zone"),
        ("local", "2024-01-03T00:00:00Z", "cannot be read as timestamp"),
        ("day", "yesterday", "cannot be read as date32"),
        ("data", "x", "can only ask for null"),
        ("blob", "a", "can only ask for null"),
        ("missing", 1, "there is no column"),
    ],
)
@pytest.mark.parametrize("op", ["=", "in"])
def test_types_are_not_mixed(field: str, value: Any, reason: str, op: str) -> None:
    predicate = where({"field": field, "op": op, "value": [value] if op == "in" else value})
    with pytest.raises(Unobservable, match=reason) as raised:
        select(ROWS, predicate, "output")
    assert "yesterday" not in str(raised.value)


def test_without_a_predicate_all_rows_are_selected() -> None:
    selection = select(ROWS, None, "output")
    assert (selection.rows, selection.mask) == (4, None)
