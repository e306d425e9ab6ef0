"""The processor ``lookup``: rows take the columns of the one row of a table that has their key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.errors import InvalidDocument, TransformError
from ecmbatch.processors import lookup as module
from ecmbatch.processors.chain import Chain, Step
from ecmbatch.processors.lookup import LOOKUP
from ecmbatch.processors.processor import Processor, RunFacts, Transformed

TIERS = pa.table({"id": [1, 2, 4], "tier": ["gold", None, "silver"], "since": [2001, 2002, 2004]})
ROWS = pa.RecordBatch.from_pydict({"customer": [4, 1, None, 3, 2, 4], "amount": [1, 2, 3, 4, 5, 6]})
CONFIG = {"connector": "crm", "table": "tiers", "key": {"customer": "id"}, "columns": ["tier"]}


def looked_up(rows: pa.RecordBatch = ROWS, table: pa.Table = TIERS, **config: Any) -> Transformed:
    """Process *rows* as a run does: after an empty table and an empty batch have told the columns."""
    parsed = LOOKUP.parse_config({**CONFIG, **config})
    schema = bound(parsed, table.schema.empty_table()).bind(rows.schema).output_schema
    chain = bound(parsed, table).bind(rows.schema)
    assert chain.output_schema == schema
    return chain.process(rows)


def bound(parsed: Any, table: pa.Table) -> Chain:
    facts = RunFacts(run_id="r", job_id="j", started_at=datetime(2024, 3, 1, tzinfo=UTC), references=[table])
    return Chain([Step("lookup", LOOKUP.build(parsed, facts))])


def keyed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        storage = [None if value is None else value.bytes for value in values]
        return pa.ExtensionArray.from_storage(kind, pa.array(storage, kind.storage_type))
    return pa.array(values, kind)


def test_rows_take_the_columns_of_the_row_that_has_their_key_and_keep_their_order() -> None:
    found = looked_up(columns={"tier": "tier", "customer_since": "since"})
    assert found.batch.to_pydict() == {
        "customer": [4, 1, None, 3, 2, 4],
        "amount": [1, 2, 3, 4, 5, 6],
        "tier": ["silver", "gold", None, None, None, "silver"],
        "customer_since": [2004, 2001, None, None, 2002, 2004],
    }


@pytest.mark.parametrize(("missing", "customers"), [("null", [4, 1, None, 3, 2, 4]), ("drop", [4, 1, 2, 4])])
def test_rows_without_a_row_in_the_table_are_counted_and_kept_or_dropped(
    missing: str, customers: list[int | None]
) -> None:
    found = looked_up(missing=missing)
    assert found.batch.column("customer").to_pylist() == customers
    assert found.counts == {"0/missing": 2}, "NULL is no key, and a row found with NULL in it is not missing"


def test_missing_fail_fails_with_the_count_and_no_value() -> None:
    with pytest.raises(TransformError) as raised:
        looked_up(missing="fail")
    assert "2 of 6 rows have a key that the table to look it up in does not have" in raised.value.message
    assert "--fresh" in str(raised.value.hint)
    whole = looked_up(ROWS.slice(0, 2), missing="fail")
    assert whole.counts == {"0/missing": 0} and whole.batch.num_rows == 2


def test_several_columns_are_one_key() -> None:
    table = pa.table(
        {
            "nation": ["de", "de", "fr", None, "de"],
            "city": ["a", "b", "a", "a", None],
            "rank": [1, 2, 3, 4, 5],
        }
    )
    rows = pa.RecordBatch.from_pydict(
        {"country": ["fr", "de", "de", "fr", None, "de"], "city": ["a", "b", "a", "b", "a", None]}
    )
    found = looked_up(rows, table, key={"country": "nation", "city": "city"}, columns="rank")
    assert found.batch.column("rank").to_pylist() == [3, 2, 1, None, None, None]
    assert found.counts == {"0/missing": 3}


def test_many_key_columns_of_many_values_do_not_overflow() -> None:
    rng = np.random.default_rng(7)
    columns = {f"k{number}": rng.permutation(20_000) for number in range(6)}
    table = pa.table({**columns, "row": np.arange(20_000)})
    rows = pa.RecordBatch.from_pydict({name: values[:500] for name, values in columns.items()})
    found = looked_up(rows, table, key=list(columns), columns="row")
    assert found.batch.column("row").to_pylist() == list(range(500))


INSTANT = datetime(2024, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LOCAL = INSTANT.replace(tzinfo=None)
KEYS: list[tuple[pa.DataType, list[Any]]] = [
    *[(kind, [-128, 0, 127]) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())],
    *[(kind, [0, 1, 255]) for kind in (pa.uint8(), pa.uint16(), pa.uint32())],
    (pa.uint64(), [0, 1, 2**64 - 1]),
    (pa.bool_(), [True, False]),
    (pa.float32(), [0.0, 0.5, math.inf]),
    (pa.float64(), [0.1, -math.inf, 1e300]),
    (pa.decimal128(10, 2), [Decimal("1.50"), Decimal("-99999999.99"), Decimal(0)]),
    (pa.decimal256(60, 2), [Decimal("1.50"), Decimal(0)]),
    *[(kind, ["", "a", "ä", "a\x00"]) for kind in (pa.string(), pa.large_string(), pa.string_view())],
    (pa.dictionary(pa.int8(), pa.string()), ["x", "y"]),
    *[(kind, [b"", b"\x00", b"ab"]) for kind in (pa.binary(), pa.large_binary())],
    (pa.binary(2), [b"ab", b"cd"]),
    (pa.uuid(), [UUID(int=1), UUID(int=2**128 - 1)]),
    (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    (pa.date64(), [date(1970, 1, 1), date(2024, 2, 29)]),
    (pa.time32("s"), [time(0), time(23, 59, 59)]),
    (pa.time64("us"), [time(0), time(23, 59, 59, 999_999)]),
    *[(pa.timestamp(unit), [LOCAL.replace(microsecond=0)]) for unit in ("s", "ms", "us", "ns")],
    (pa.timestamp("us", "UTC"), [INSTANT, datetime(1, 1, 2, tzinfo=UTC)]),
]


@pytest.mark.parametrize(
    ("kind", "values"), KEYS, ids=lambda value: str(value) if isinstance(value, pa.DataType) else ""
)
def test_a_key_may_be_of_any_plain_type(kind: pa.DataType, values: list[Any]) -> None:
    table = pa.table({"key": keyed([None, *values], kind), "row": range(len(values) + 1)})
    wanted = [values[-1], None, *values]
    rows = pa.RecordBatch.from_arrays([keyed(wanted, kind)], names=["key"])
    found = looked_up(rows, table, key="key", columns="row").batch.column("row").to_pylist()
    assert found == [len(values), None, *range(1, len(values) + 1)]


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        (pa.int8(), pa.int64(), 7),
        (pa.uint32(), pa.int16(), 7),
        (pa.float32(), pa.float64(), 0.5),
        (pa.string(), pa.large_string(), "a"),
        (pa.string(), pa.string_view(), "a"),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), "a"),
        (pa.binary(), pa.large_binary(), b"a"),
        (pa.decimal128(5, 2), pa.decimal128(30, 2), Decimal("1.50")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin"), INSTANT),
    ],
)
def test_keys_of_several_widths_meet(ours: pa.DataType, theirs: pa.DataType, value: Any) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        table = pa.table({"key": pa.array([value], one), "row": [1]})
        rows = pa.RecordBatch.from_arrays([pa.array([value], other)], names=["key"])
        assert looked_up(rows, table, key="key", columns="row").batch.column("row").to_pylist() == [1]


def test_zero_is_one_key_and_not_a_number_is_one_key() -> None:
    table = pa.table({"key": [0.0, math.nan], "row": [1, 2]})
    rows = pa.RecordBatch.from_pydict({"key": [-0.0, math.nan, -math.nan, None]})
    assert looked_up(rows, table, key="key", columns="row").batch.column("row").to_pylist() == [1, 2, 2, None]
    with pytest.raises(TransformError, match="1 rows whose key"):
        looked_up(rows, pa.table({"key": [0.0, -0.0], "row": [1, 2]}), key="key", columns="row")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pa.int64(), pa.string()),
        (pa.int64(), pa.uint64()),
        (pa.int64(), pa.float64()),
        (pa.decimal128(5, 2), pa.decimal128(5, 3)),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("ms")),
        (pa.date32(), pa.timestamp("s")),
        (pa.list_(pa.int64()), pa.int64()),
        (pa.null(), pa.int64()),
    ],
)
def test_keys_of_other_types_are_refused_by_name_before_a_row_is_read(
    ours: pa.DataType, theirs: pa.DataType
) -> None:
    table = pa.schema([("id", theirs), ("tier", pa.string())]).empty_table()
    rows = pa.RecordBatch.from_arrays([pa.nulls(0, ours)], names=["customer"])
    with pytest.raises(TransformError) as raised:
        looked_up(rows, table)
    assert f"column 'customer' is {ours}, but 'id'" in raised.value.message
    assert f"is {theirs}" in raised.value.message and "cast" in str(raised.value.hint)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.duration("s"), pa.null()]
)
def test_a_table_cannot_be_looked_up_by_lists_structs_and_the_like(kind: pa.DataType) -> None:
    table = pa.schema([("id", kind), ("tier", pa.string())]).empty_table()
    with pytest.raises(TransformError, match="'id' of the table to look things up in is"):
        looked_up(table=table)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.list_(pa.string()), ["a", None]),
        (pa.struct([("a", pa.int8())]), {"a": 1}),
        (pa.map_(pa.string(), pa.int8()), [("a", 1)]),
        (pa.dictionary(pa.int8(), pa.string()), "x"),
        (pa.decimal128(5, 2), Decimal("1.50")),
        (pa.timestamp("us", "UTC"), INSTANT),
        (pa.uuid(), UUID(int=5)),
    ],
)
def test_what_is_taken_may_be_of_any_type(kind: pa.DataType, value: Any) -> None:
    table = pa.table({"id": [1], "tier": keyed([value], kind)})
    column = looked_up(table=table).batch.column("tier")
    assert column.type == kind
    assert column.to_pylist() == [None, value, None, None, None, None]


def test_an_empty_table_has_no_key() -> None:
    found = looked_up(table=TIERS.schema.empty_table())
    assert found.batch.column("tier").to_pylist() == [None] * 6 and found.counts == {"0/missing": 6}
    assert looked_up(table=TIERS.schema.empty_table(), missing="drop").batch.num_rows == 0


def test_a_key_that_several_rows_have_is_refused_with_their_number() -> None:
    table = pa.table({"id": [7, 8, 7, 7, None, None], "tier": list("abcdef")})
    with pytest.raises(TransformError) as raised:
        looked_up(table=table)
    assert "has 2 rows whose key (id) another row has too" in raised.value.message
    pairs = pa.table({"a": [1, 1, 2], "b": [1, 2, 1], "tier": list("abc")})
    rows = pa.RecordBatch.from_pydict({"a": [1, 2], "b": [2, 2]})
    assert looked_up(rows, pairs, key=["a", "b"]).batch.column("tier").to_pylist() == ["b", None]


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"key": {"custommer": "id"}}, "the rows have no column 'custommer' to look up", "'customer'"),
        ({"key": {"customer": "idd"}}, "has no column 'idd'; it has id, tier, since", "'id'"),
        ({"columns": ["tiers"]}, "has no column 'tiers'", "'tier'"),
        ({"columns": {"amount": "since"}}, "the rows have a column 'amount' already", "new_name"),
    ],
)
def test_columns_that_are_not_there_or_there_already_are_named_before_a_row_is_read(
    config: Mapping[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(TransformError) as raised:
        looked_up(ROWS.slice(0, 0), TIERS.schema.empty_table(), **config)
    assert message in raised.value.message and hint in str(raised.value.hint)


def test_errors_show_no_value() -> None:
    table = pa.table({"id": ["secret-1", "secret-1"], "tier": ["secret-2", "secret-3"]})
    rows = pa.RecordBatch.from_pydict({"customer": ["secret-4"]})
    for given_table, options in ((table, {}), (table.slice(1), {"missing": "fail"})):
        with pytest.raises(TransformError) as raised:
            looked_up(rows, given_table, **options)
        assert "secret" not in f"{raised.value.message} {raised.value.hint} {raised.value.problems}"


def test_a_table_of_a_hundred_thousand_rows_is_looked_up_in_many_small_batches() -> None:
    ids = np.random.default_rng(3).permutation(100_000)
    table = pa.table({"id": [f"customer-{number}" for number in ids], "number": ids})
    chain = bound(LOOKUP.parse_config({**CONFIG, "columns": ["number"]}), table)
    wanted = np.arange(0, 200_000, 400)
    rows = pa.RecordBatch.from_pydict({"customer": [f"customer-{number}" for number in wanted]})
    ready = chain.bind(rows.schema)
    found = [ready.process(rows.slice(start, 1)) for start in range(rows.num_rows)]
    assert [each.batch.column("number")[0].as_py() for each in found] == [
        number if number < 100_000 else None for number in wanted.tolist()
    ]
    assert sum(each.counts["0/missing"] for each in found) == 250


def test_different_keys_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hash_keys", lambda keys: np.arange(len(keys), dtype=np.uint64) * 0 + 5)
    assert looked_up().batch.column("tier").to_pylist() == ["silver", "gold", None, None, None, "silver"]
    with pytest.raises(TransformError, match="1 rows whose key"):
        looked_up(table=pa.table({"id": [1, 2, 3, 1], "tier": list("abcd")}))


texts = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab", "ä", "a\x00"]))


@given(
    table=st.dictionaries(st.tuples(texts, st.integers(-2, 2)), st.integers(), max_size=12),
    rows=st.lists(st.tuples(texts, st.one_of(st.none(), st.integers(-3, 3))), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=4),
    missing=st.sampled_from(["null", "drop"]),
)
def test_it_is_a_dictionary_and_any_split_of_the_rows_gives_the_same(
    table: dict[tuple[str | None, int], int],
    rows: list[tuple[str | None, int | None]],
    cuts: list[int],
    missing: str,
) -> None:
    known = {key: value for key, value in table.items() if None not in key}
    reference = pa.table(
        {
            "text": pa.array([text for text, _ in table], pa.string()),
            "number": pa.array([number for _, number in table], pa.int64()),
            "value": pa.array([str(value) for value in table.values()], pa.string()),
        }
    )
    # NULL keys may repeat; complete ones of a dictionary do not.
    batch = pa.RecordBatch.from_arrays(
        [pa.array([text for text, _ in rows], pa.large_string()), pa.array([n for _, n in rows], pa.int32())],
        names=["text", "number"],
    )
    parsed = LOOKUP.parse_config(
        {**CONFIG, "key": ["text", "number"], "columns": ["value"], "missing": missing}
    )
    chain = bound(parsed, reference).bind(batch.schema)
    bounds = sorted({0, batch.num_rows, *(cut for cut in cuts if cut < batch.num_rows)})
    parts = [chain.process(batch.slice(start, end - start)) for start, end in pairwise(bounds)]
    whole = chain.process(batch)
    wanted = [str(known[row]) if row in known else None for row in rows]
    if missing == "drop":
        wanted = [value for value in wanted if value is not None]
    assert whole.batch.column("value").to_pylist() == wanted
    assert [row for part in parts for row in part.batch.to_pylist()] == whole.batch.to_pylist()
    assert sum(part.counts["0/missing"] for part in parts) == whole.counts["0/missing"]


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({"connector": None}, {"": "needs either connector or store"}),
        ({"store": "context_store"}, {"": "needs either connector or store"}),
        ({"table": None}, {"": "needs one of table, query and path"}),
        ({"path": "tiers/*.csv"}, {"": "needs one of table, query and path"}),
        ({"table": None, "query": "SELECT * FROM t WHERE x = :x"}, {"/query": "takes no values"}),
        ({"key": {}}, {"/key": "at least"}),
        ({"columns": []}, {"/columns": "at least"}),
        ({"key": {"customer": 1}}, {"/key/customer": "must be a string"}),
        ({"missing": "skip"}, {"/missing": "null, drop, fail"}),
        ({"collumns": "tier"}, {"/collumns": "did you mean 'columns'?"}),
    ],
)
def test_a_wrong_configuration_is_refused_in_its_place(
    config: Mapping[str, Any], problems: Mapping[str, str]
) -> None:
    given_config = {name: value for name, value in {**CONFIG, **config}.items() if value is not None}
    with pytest.raises(InvalidDocument) as raised:
        LOOKUP.parse_config(given_config)
    found = {problem.path: str(problem) for problem in raised.value.problems}
    assert found.keys() == problems.keys()
    for place, words in problems.items():
        assert words in found[place]


def test_counts_are_plain_numbers_whatever_a_processor_counted_with() -> None:
    class Counting(Processor):
        def process(self, batch: pa.RecordBatch) -> Transformed:
            return Transformed(batch, {"odd": np.int64(3)})  # type: ignore[dict-item]

    counts = Chain([Step("counting", Counting())]).bind(ROWS.schema).process(ROWS).counts
    assert counts == {"0/odd": 3} and type(counts["0/odd"]) is int


def test_processors_that_ask_for_the_same_rows_share_them() -> None:
    def reference(**config: Any) -> str:
        (asked,) = LOOKUP.references(LOOKUP.parse_config({**CONFIG, **config}))
        return str(asked.digest)

    assert reference() == reference(columns=["since"], missing="drop")
    assert len({reference(), reference(table="others"), reference(connector=None, store="crm")}) == 3
