from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmbatch.errors import InvalidDocument, TransformError
from ecmbatch.processors.field_mapper import FIELD_MAPPER, FieldMapper, parse_mapping
from ecmbatch.processors.processor import RunFacts

TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]
FACTS = RunFacts(run_id="r", job_id="j", started_at=datetime(2024, 3, 1, tzinfo=UTC))


def column(*values, kind=None):
    return pa.record_batch({"x": pa.array(values, kind)})


@pytest.fixture
def apply(map_fields):
    """Evaluate one expression on the column ``x``."""

    def run(expression, *values, kind=None):
        return map_fields({"y": expression}, column(*values, kind=kind)).column("y")

    return run


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(TransformError) as raised:
        call(*args, **kwargs)
    return str(raised.value)


# --- columns, targets, order ----------------------------------------------------------------------


def test_a_plain_rename_shares_the_memory_of_the_source(map_fields):
    batch = column("a", "b")
    assert (
        map_fields({"y": "x"}, batch).column(0).buffers()[2].address == batch.column(0).buffers()[2].address
    )


@pytest.mark.parametrize(
    "data_type",
    [
        *TEXT_TYPES,
        pa.list_(pa.int8()),
        pa.uuid(),
        pa.binary_view(),
        pa.map_(pa.string(), pa.int8()),
        pa.null(),
    ],
    ids=str,
)
def test_a_plain_rename_keeps_every_type(map_fields, data_type):
    batch = pa.RecordBatch.from_pylist([{"x": None}], schema=pa.schema([("x", data_type)]))
    assert map_fields({"y": "x"}, batch).schema == pa.schema([("y", data_type)])


def test_dotted_targets_build_structs_in_the_order_of_their_first_member(map_fields):
    fields = {"b.c.d": "x", "a": "x", "b.e": "x", "b.c.f": {"value": 1}}
    result = map_fields(fields, column(5, None))
    assert result.schema.names == ["b", "a"]
    assert result.to_pylist() == [
        {"b": {"c": {"d": 5, "f": 1}, "e": 5}, "a": 5},
        {"b": {"c": {"d": None, "f": 1}, "e": None}, "a": None},
    ]


def test_an_exact_column_name_goes_before_a_path(map_fields):
    batch = pa.record_batch({"a.b": pa.array([1]), "a": pa.array([{"b": 2, "c.d": 3}])})
    assert map_fields({"x": "a.b", "y": "a.c.d"}, batch).to_pylist() == [{"x": 1, "y": 3}]


def test_a_path_through_a_null_struct_is_null(map_fields):
    batch = pa.record_batch({"a": pa.array([{"b": {"c": 1}}, {"b": None}, None])})
    assert map_fields({"x": "a.b.c"}, batch).column(0).to_pylist() == [1, None, None]


def test_a_missing_column_is_answered_with_a_guess_and_the_columns(map_fields):
    batch = pa.record_batch({"email": pa.array(["a"]), "name": pa.array(["b"])})
    message = refusal(map_fields, {"data.mail": {"lower": "emial"}}, batch)
    assert "field 'data.mail'" in message
    assert "no source column 'emial'. Did you mean 'email'? Columns: email, name" in message


def test_a_missing_column_is_found_without_rows(map_fields):
    assert "the source has no columns" in refusal(map_fields, {"a": "x"}, pa.RecordBatch.from_pylist([]))


def test_many_columns_are_listed_in_part(map_fields):
    batch = pa.record_batch({f"c{i}": pa.array([1]) for i in range(32)})
    assert refusal(map_fields, {"y": "nothing"}, batch).endswith("c29 and 2 more")


def test_a_column_name_that_is_there_twice_is_refused(map_fields):
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    assert "'x' is there 2 times" in refusal(map_fields, {"y": "x"}, batch)


def test_others_are_kept_unless_replaced_or_renamed(map_fields):
    batch = pa.record_batch({name: pa.array([1]) for name in "abcde"} | {"s": pa.array([{"m": 1}])})
    fields = {"b": {"round": "b"}, "new": "c", "d.x": "a", "f": {"abs": "e"}, "g": "s.m"}
    result = map_fields(fields, batch, keep_others=True)
    assert result.schema.names == ["b", "new", "d", "f", "g", "e", "s"]


def test_constants_and_now_fill_batches_without_columns(map_fields, facts):
    batch = column(1, 2).select([])
    fields = {"a": {"value": "ü"}, "b": {"now": []}, "c": {"concat": [{"value": "x"}, {"value": "y"}]}}
    result = map_fields(fields, batch)
    assert result.to_pylist() == [{"a": "ü", "b": facts.started_at, "c": "xy"}] * 2


@pytest.mark.parametrize(
    ("document", "data_type", "value"),
    [
        ({"value": 1}, pa.int64(), 1),
        ({"value": 1.5}, pa.float64(), 1.5),
        ({"value": True}, pa.bool_(), True),
        ({"value": None, "type": "string"}, pa.string(), None),
        ({"value": "1.10", "type": "decimal(5, 2)"}, pa.decimal128(5, 2), Decimal("1.10")),
        ({"value": 7, "type": "decimal(5, 2)"}, pa.decimal128(5, 2), Decimal("7.00")),
        ({"value": "2024-01-31", "type": "date"}, pa.date32(), date(2024, 1, 31)),
        ({"value": datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},) * 1
        + (pa.timestamp("us", tz="UTC"), datetime(2024, 1, 1, tzinfo=UTC)),
    ],
    ids=str,
)
def test_a_constant_has_the_type_that_its_json_or_its_declaration_says(apply, document, data_type, value):
    result = apply(document, 0)
    assert (result.type, result.to_pylist()) == (data_type, [value])


# --- functions ------------------------------------------------------------------------------------

TEXT_CASES = [
    ({"lower": "x"}, "ÀÉ I", "àé i"),
    ({"upper": "x"}, "straße é", "STRAẞE É"),
    ({"trim": "x"}, "\u2003 a b\t\n", "a b"),
    ({"substring": ["x", 2]}, "añb😀c", "ñb😀c"),
    ({"substring": ["x", 2, 3]}, "añb😀c", "ñb😀"),
    ({"substring": ["x", -2, 1]}, "añb😀c", "😀"),
    ({"substring": ["x", -3]}, "ab", "ab"),
    ({"substring": ["x", 9, 2]}, "ab", ""),
    ({"substring": ["x", 1, 0]}, "ab", ""),
    ({"replace": ["x", ".", "é"]}, "a.b.c", "aébéc"),
    ({"concat": ["x", {"value": "-"}, "x"]}, "é", "é-é"),
    ({"concat": "x"}, "a", "a"),
]


@pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
@pytest.mark.parametrize(("expression", "text", "expected"), TEXT_CASES, ids=lambda value: str(value)[:30])
def test_text_functions_work_on_every_kind_of_text(apply, expression, text, expected, data_type):
    result = apply(expression, text, None, kind=data_type)
    large = "large" in str(data_type)
    assert result.type == (pa.large_string() if large else pa.string())
    assert result.to_pylist() == [expected, None]


def test_text_functions_take_a_column_without_type_as_text(apply):
    assert apply({"lower": "x"}, None, None).type == pa.string()


def test_concat_joins_plain_and_large_text(map_fields):
    batch = pa.record_batch({"a": pa.array(["x"]), "b": pa.array(["y"], pa.large_string())})
    assert map_fields({"y": {"concat": ["a", "b"]}}, batch).column(0) == pa.array(["xy"], pa.large_string())


@pytest.mark.parametrize("function", ["lower", "upper", "trim", "concat"])
def test_a_text_function_on_numbers_asks_for_a_cast(apply, function):
    message = refusal(apply, {function: "x"}, 1)
    assert message == f'field \'y\': {function} takes text, not int64; write {{"cast": [..., "string"]}}'


D = Decimal


@pytest.mark.parametrize(
    ("expression", "data_type", "values", "expected"),
    [
        ({"round": "x"}, pa.decimal128(5, 2), [D("2.50"), D("-2.50"), D("2.49")], [D("3"), D("-3"), D("2")]),
        ({"round": ["x", 1]}, pa.decimal128(5, 2), [D("0.05"), D("-0.05")], [D("0.10"), D("-0.10")]),
        ({"round": ["x", -1]}, pa.int32(), [25, -25, 24], [30, -30, 20]),
        ({"round": "x"}, pa.int64(), [2**63 - 1], [2**63 - 1]),
        ({"round": "x"}, pa.float32(), [0.5, -0.5, 1.25], [1.0, -1.0, 1.0]),
        ({"abs": "x"}, pa.int8(), [-5, 5], [5, 5]),
        ({"abs": "x"}, pa.decimal128(5, 2), [D("-1.25")], [D("1.25")]),
        ({"round": ["x", 2]}, pa.float64(), [1e307, 2.345, -0.125], [1e307, 2.35, -0.13]),
        ({"round": ["x", 38]}, pa.float32(), [3e38, 0.5], [pytest.approx(3e38), 0.5]),
        ({"round": ["x", -1]}, pa.float64(), [15.0, -25.0], [20.0, -30.0]),
        ({"ceil": "x"}, pa.float64(), [1.2, -1.2, 2.0], [2.0, -1.0, 2.0]),
        ({"floor": "x"}, pa.float64(), [1.2, -1.2, 2.0], [1.0, -2.0, 2.0]),
        ({"ceil": "x"}, pa.decimal128(5, 2), [D("1.01"), D("-1.99")], [D("2"), D("-1")]),
        ({"floor": "x"}, pa.uint64(), [2**64 - 1], [2**64 - 1]),
        ({"round": "x"}, pa.null(), [], []),
    ],
    ids=str,
)
def test_number_functions_keep_the_type(apply, expression, data_type, values, expected):
    result = apply(expression, *values, None, kind=data_type)
    assert (result.type, result.to_pylist()) == (data_type, [*expected, None])


@pytest.mark.parametrize(
    ("expression", "value", "data_type"),
    [({"abs": "x"}, -128, pa.int8()), ({"round": "x"}, D("999.9"), pa.decimal128(4, 1))],
    ids=str,
)
def test_a_number_that_does_not_fit_is_refused(apply, expression, value, data_type):
    assert "cannot take the value in row 1" in refusal(apply, expression, None, value, kind=data_type)


@pytest.mark.parametrize("data_type", [pa.bool_(), pa.string()], ids=str)
def test_number_functions_refuse_what_is_no_number(apply, data_type):
    assert f"takes numbers, not {data_type}" in refusal(apply, {"round": "x"}, kind=data_type)


@pytest.mark.parametrize(
    ("text", "date_format", "expected"),
    [
        ("2024-02-29", "%Y-%m-%d", date(2024, 2, 29)),
        ("1/2/69", "%d/%m/%y", date(1969, 2, 1)),
        ("1/2/68", "%d/%m/%y", date(2068, 2, 1)),
        ("29 FEB 2024", "%d %b %Y", date(2024, 2, 29)),
        ("may 1, 0001", "%B %d, %Y", date(1, 5, 1)),
        ("100% 9999.12.31", "100%% %Y.%m.%d", date(9999, 12, 31)),
        ("2024-01-02 03:04:05", "%Y-%m-%d %H:%M:%S", datetime(2024, 1, 2, 3, 4, 5)),
        ("1899-12-31T23:59:59.000001", "%Y-%m-%dT%H:%M:%S.%f", datetime(1899, 12, 31, 23, 59, 59, 1)),
        ("2024-01-02 12:05 am", "%Y-%m-%d %I:%M %p", datetime(2024, 1, 2, 0, 5)),
        ("2024-01-02 12:05 PM", "%Y-%m-%d %I:%M %p", datetime(2024, 1, 2, 12, 5)),
        ("2024-01-01 01:00 +02:30", "%Y-%m-%d %H:%M %z", datetime(2023, 12, 31, 22, 30, tzinfo=UTC)),
        ("2024-01-01 01:00-0130", "%Y-%m-%d %H:%M%z", datetime(2024, 1, 1, 2, 30, tzinfo=UTC)),
        ("2024-01-01 01Z", "%Y-%m-%d %H%z", datetime(2024, 1, 1, 1, tzinfo=UTC)),
    ],
)
def test_parse_date_reads_what_the_format_says(apply, text, date_format, expected):
    result = apply({"parse_date": ["x", date_format]}, text, None, text)
    assert result.to_pylist() == [expected, None, expected]


@pytest.mark.parametrize(
    ("text", "date_format"),
    [
        ("2024-02-30", "%Y-%m-%d"),
        ("2023-02-29", "%Y-%m-%d"),
        ("1900-02-29", "%Y-%m-%d"),
        ("2024-04-31", "%Y-%m-%d"),
        ("2024-13-01", "%Y-%m-%d"),
        ("2024-00-01", "%Y-%m-%d"),
        ("2024-01-00", "%Y-%m-%d"),
        ("0000-01-01", "%Y-%m-%d"),
        ("2024-01-01 ", "%Y-%m-%d"),
        ("2024-01-01\n", "%Y-%m-%d"),
        ("2024/01/01", "%Y-%m-%d"),
        ("", "%Y-%m-%d"),
        ("2024-01-01 24", "%Y-%m-%d %H"),
        ("2024-01-01 00:60", "%Y-%m-%d %H:%M"),
        ("2024-01-01 13 AM", "%Y-%m-%d %I %p"),
        ("2024-01-01 00 +2400", "%Y-%m-%d %H %z"),
        ("٢٠٢٤-01-01", "%Y-%m-%d"),
    ],
)
def test_parse_date_refuses_what_is_no_such_date(apply, text, date_format):
    message = refusal(apply, {"parse_date": ["x", date_format]}, None, text)
    assert f'parse_date(..., "{date_format}") cannot take the value in row 1' in message
    assert not text.strip() or text not in message
    with_nulls = {"parse_date": ["x", date_format, {"on_error": "null"}]}
    assert apply(with_nulls, text, None).to_pylist() == [None, None]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)), max_size=5))
def test_format_date_and_parse_date_are_inverse(moments):
    date_format = "%d.%m.%Y %H:%M:%S,%f"
    fields = {"y": {"parse_date": [{"format_date": ["x", date_format]}, date_format]}}
    batch = column(*moments, kind=pa.timestamp("us"))
    assert FieldMapper(parse_mapping({"fields": fields}), FACTS).process(batch).column(0) == batch.column(0)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_format_date_shows_whole_seconds_before_1970_too(apply, unit):
    moment = datetime(1969, 12, 31, 23, 59, 58, 500_000 if unit != "s" else 0)
    result = apply({"format_date": ["x", "%H:%M:%S %f"]}, moment, None, kind=pa.timestamp(unit))
    assert result.to_pylist() == ["23:59:58 500000" if unit != "s" else "23:59:58 000000", None]


def test_format_date_shows_the_zone_of_the_column(apply):
    zoned = pa.timestamp("us", tz="Europe/Berlin")
    moment = datetime(2024, 7, 1, 22, 30, tzinfo=UTC)
    assert apply({"format_date": ["x", "%d %H:%M %z"]}, moment, kind=zoned).to_pylist() == ["02 00:30 +0200"]
    assert apply({"format_date": ["x", "%Y-%m-%d"]}, moment, kind=zoned).to_pylist() == ["2024-07-02"]


def test_date_functions_refuse_other_types(apply):
    assert "takes dates and timestamps, not int64" in refusal(apply, {"format_date": ["x", "%Y"]}, 1)
    assert "takes text, not date32" in refusal(apply, {"parse_date": ["x", "%Y%m%d"]}, date(2024, 1, 1))
    assert "has no time zone" in refusal(apply, {"format_date": ["x", "%z"]}, date(2024, 1, 1))


def test_coalesce_takes_the_first_value_and_a_type_that_holds_all(map_fields):
    batch = pa.record_batch({"a": pa.array([None, 2], pa.int32()), "b": pa.array([7, None], pa.int64())})
    result = map_fields({"y": {"coalesce": ["a", "b", {"value": 0}]}}, batch)
    assert result.column(0) == pa.array([7, 2], pa.int64())


def test_coalesce_works_on_structs_and_text_of_all_kinds(map_fields):
    text = pa.array([None, "b"]).dictionary_encode()
    batch = pa.record_batch({"s": pa.array([None, {"a": 1}]), "t": pa.array([{"a": 2}] * 2), "d": text})
    result = map_fields({"x": {"coalesce": ["s", "t"]}, "y": {"coalesce": ["d", {"value": "?"}]}}, batch)
    assert result.to_pylist() == [{"x": {"a": 2}, "y": "?"}, {"x": {"a": 1}, "y": "b"}]


def test_nullif_keeps_the_type_and_values_beside_null(map_fields):
    batch = pa.record_batch({"a": pa.array([1, 2, None, 3], pa.int8()), "b": pa.array([1, 5, 5, None])})
    result = map_fields({"y": {"nullif": ["a", "b"]}, "z": {"nullif": ["a", {"value": 3}]}}, batch)
    assert result.column("y") == pa.array([None, 2, None, 3], pa.int8())
    assert result.column("z") == pa.array([1, 2, None, None], pa.int8())


@pytest.mark.parametrize("function", ["coalesce", "nullif"])
def test_values_of_different_kinds_do_not_meet(apply, function):
    assert "takes values of one type, not of int64, string" in refusal(
        apply, {function: ["x", {"cast": ["x", "string"]}]}, 1
    )
    assert "constant that cannot be taken as int64" in refusal(apply, {function: ["x", {"value": "a"}]}, 1)


@pytest.mark.parametrize("value", [1.5, 2**53 + 1])
def test_a_common_type_never_damages_a_number(map_fields, value):
    batch = pa.record_batch({"a": pa.array([value]), "b": pa.array([0.5])})
    if isinstance(value, float):
        assert map_fields({"y": {"coalesce": ["a", "b"]}}, batch).column(0).to_pylist() == [1.5]
    else:
        assert "cannot take the value" in refusal(map_fields, {"y": {"coalesce": ["a", "b"]}}, batch)


# --- cast -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "source", "name", "expected"),
    [
        ("12", pa.string(), "int64", 12),
        ("12", pa.dictionary(pa.int8(), pa.string()), "int16", 12),
        ("12", pa.string_view(), "uint8", 12),
        ("1.25", pa.string(), "decimal(5, 2)", D("1.25")),
        (10, pa.int64(), "decimal(4, 2)", D("10.00")),
        (2**64 - 1, pa.uint64(), "decimal(20, 0)", D(2**64 - 1)),
        (0.1, pa.float64(), "decimal(5, 2)", D("0.10")),
        (D("1.50"), pa.decimal128(5, 2), "float32", 1.5),
        ("2024-01-02", pa.string(), "date", date(2024, 1, 2)),
        ("2024-01-02T03:04:05.5", pa.string(), "timestamp", datetime(2024, 1, 2, 3, 4, 5, 500_000)),
        (
            "2024-01-02 03:04:05+02:00",
            pa.string(),
            "timestamp[us, UTC]",
            datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC),
        ),
        (
            datetime(2024, 1, 2, 23, tzinfo=UTC),
            pa.timestamp("us", tz="Europe/Berlin"),
            "date",
            date(2024, 1, 3),
        ),
        (5, pa.int64(), "timestamp[s]", datetime(1970, 1, 1, 0, 0, 5)),
        ("TRUE", pa.string(), "bool", True),
        ("é", pa.string(), "binary", "é".encode()),
        ("é".encode(), pa.binary(), "string", "é"),
        (True, pa.bool_(), "string", "true"),
        (date(2024, 1, 2), pa.date32(), "string", "2024-01-02"),
    ],
    ids=str,
)
def test_a_cast_converts(apply, value, source, name, expected):
    result = apply({"cast": ["x", name]}, value, None, kind=source)
    assert result.to_pylist() == [expected, None]
    assert apply({"cast": ["x", name]}, kind=source).type == result.type


@pytest.mark.parametrize(
    ("value", "source", "name"),
    [
        ("x", pa.string(), "int64"),
        (" 1", pa.string(), "int64"),
        (300, pa.int64(), "int8"),
        (-1, pa.int64(), "uint64"),
        (1.5, pa.float64(), "int64"),
        (float("nan"), pa.float64(), "int64"),
        (2**53 + 1, pa.int64(), "float64"),
        (1e300, pa.float64(), "float32"),
        ("1.255", pa.string(), "decimal(5, 2)"),
        (1000, pa.int64(), "decimal(5, 2)"),
        ("2024-02-30", pa.string(), "date"),
        ("2024-01-02T00:00:00", pa.string(), "timestamp[us, UTC]"),
        ("2024-01-02T00:00:00Z", pa.string(), "timestamp"),
        (1001, pa.timestamp("ns"), "timestamp[us]"),
        ("yes", pa.string(), "bool"),
        (b"\xff", pa.binary(), "string"),
    ],
    ids=str,
)
def test_a_cast_refuses_rather_than_damages(apply, value, source, name):
    message = refusal(apply, {"cast": ["x", name]}, None, None, value, kind=source)
    assert f"field 'y': cast(..., \"{name}\") cannot take the value in row 2" in message
    assert str(value) not in message
    nulled = apply({"cast": ["x", name, {"on_error": "null"}]}, value, None, kind=source)
    assert (nulled.to_pylist(), nulled.type) == ([None, None], apply({"cast": ["x", name]}, kind=source).type)


def test_only_refused_values_become_null(apply):
    values = ["1", "x", None, "3", "x", "", "6"]
    expected = [1, None, None, 3, None, None, 6]
    assert apply({"cast": ["x", "int64", {"on_error": "null"}]}, *values).to_pylist() == expected


NUMBER_LIKE = st.text(alphabet="0123456789+-.eExXnaifNTZ: ", max_size=10) | st.text(max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        NUMBER_LIKE | st.integers().map(str) | st.floats().map(str) | st.datetimes().map(str), max_size=8
    ),
    st.sampled_from(["int8", "uint64", "float32", "float64", "decimal(6, 2)", "date", "timestamp", "bool"]),
)
def test_null_on_error_keeps_exactly_what_a_cast_takes(texts, name):
    def cast(*values, options=()):
        fields = {"y": {"cast": ["x", name, *options]}}
        mapped = FieldMapper(parse_mapping({"fields": fields}), FACTS).process(
            column(*values, kind=pa.string())
        )
        return mapped.column(0)

    def alone(text):
        try:
            return cast(text)
        except TransformError:
            return pa.nulls(1, cast().type)

    expected = pa.concat_arrays([cast(), *map(alone, texts)])
    # A last text that nothing takes makes sure that values are searched for.
    nulled = cast(*texts, "?", options=[{"on_error": "null"}])
    assert str(nulled.slice(0, len(texts)).to_pylist()) == str(expected.to_pylist())


def test_many_different_refused_texts_are_found_quickly(map_fields):
    batch = pa.record_batch({"x": pa.array([f"bad {number}" for number in range(20_000)] + ["2024-01-02"])})
    null = {"on_error": "null"}
    fields = {
        "date": {"parse_date": ["x", "%Y-%m-%d", null]},
        "json": {"json_parse": ["x", "int64", null]},
        "cast": {"cast": ["x", "date", null]},
        "number": {"cast": ["x", "int64", null]},
    }
    result = map_fields(fields, batch)
    assert [result.column(name).null_count for name in result.schema.names] == [
        20_000,
        20_001,
        20_000,
        20_001,
    ]


def test_a_cast_that_does_not_exist_is_refused_without_rows(apply):
    assert "does not work on struct<a: int64>" in refusal(
        apply, {"cast": ["x", "string"]}, kind=pa.struct([("a", pa.int64())])
    )


# --- json_parse -----------------------------------------------------------------------------------

ITEM = {"a": "int64", "b": "string"}


def test_json_becomes_typed_values(apply):
    texts = ['{"a": 1, "b": "é\\n\\ud83d\\ude00"}', '{\n "c": [1, {}],\r\n "a": 2}', "null", "{}", None]
    expected = [{"a": 1, "b": "é\n😀"}, {"a": 2, "b": None}, None, {"a": None, "b": None}, None]
    result = apply({"json_parse": ["x", ITEM]}, *texts)
    assert result.to_pylist() == expected
    assert apply({"json_parse": ["x", ITEM]}).type == result.type


@pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
def test_json_is_read_from_every_kind_of_text(apply, data_type):
    expression = {"json_parse": ["x", "int64", {"path": "a.b"}]}
    assert apply(expression, '{"a": {"b": 7}}', '{"a": null}', None, kind=data_type).to_pylist() == [
        7,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "declared", "expected"),
    [
        ("[1, null]", ["int8"], [1, None]),
        ('[{"d": "2024-01-02"}]', [{"d": "date"}], [{"d": date(2024, 1, 2)}]),
        ('"2024-01-02T03:00:00+01:00"', "timestamp[us, UTC]", datetime(2024, 1, 2, 2, tzinfo=UTC)),
        ("1.25", "decimal(5, 2)", D("1.25")),
        ('"1.25"', "decimal(5, 2)", D("1.25")),
        ("1e3", "float64", 1000.0),
        ("true", "bool", True),
        ("18446744073709551615", "uint64", 2**64 - 1),
        ('"é"', "binary", "é".encode()),
    ],
)
def test_json_of_each_type_is_read(apply, text, declared, expected):
    assert apply({"json_parse": ["x", declared]}, text).to_pylist() == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"a": 1} {"a": 2}',
        '{"a": 1}, {"a": 2}',
        '{"a": 1}]} {"value":[{"a": 2}',
        '{"a": 1}], "b": "',
        '{"a": 1.5}',
        '{"a": "1"}',
        '{"b": 1}',
        '{"b": "x\ny"}',
        '{"a": 1, "a": 2}',
        "{'a': 1}",
        "[1]",
        "7",
        "NaN",
    ],
)
def test_text_that_is_no_such_json_is_refused(apply, text):
    good = '{"a": 1}'
    message = refusal(apply, {"json_parse": ["x", ITEM]}, good, text, good)
    assert "cannot take the value in row 1 of the batch" in message
    expression = {"json_parse": ["x", ITEM, {"on_error": "null"}]}
    one = {"a": 1, "b": None}
    assert apply(expression, good, text, good).to_pylist() == [one, None, one]


def test_json_that_only_python_refuses_is_kept_beside_refused_text(apply):
    deep = '{"a": 1, "c": ' + "[" * 20_000 + "]" * 20_000 + "}"
    long = '{"a": 1, "c": ' + "9" * 5_000 + "}"
    expression = {"json_parse": ["x", ITEM, {"on_error": "null"}]}
    for text in (long, deep):
        assert apply(expression, text, "{").to_pylist() == [*apply(expression, text).to_pylist(), None]


def test_a_time_in_json_without_the_declared_zone_is_refused(apply):
    assert "row 0" in refusal(apply, {"json_parse": ["x", "timestamp"]}, '"2024-01-02T03:04:05Z"')


# --- the law of processors ------------------------------------------------------------------------

LAW_FIELDS = {
    "id": {"concat": [{"cast": ["n", "string"]}, {"value": "/"}, {"coalesce": ["t", {"value": ""}]}]},
    "text.low": {"lower": {"trim": "t"}},
    "text.part": {"substring": [{"replace": ["t", "a", "bb"]}, 2, 3]},
    "number": {"round": [{"abs": "f"}, 1]},
    "whole": {"cast": ["t", "int16", {"on_error": "null"}]},
    "day": {"parse_date": ["t", "%Y-%m-%d", {"on_error": "null"}]},
    "month": {"format_date": ["m", "%Y-%m %S.%f"]},
    "item": {"json_parse": ["t", {"a": "int64"}, {"on_error": "null"}]},
    "none": {"nullif": ["n", {"value": 1}]},
    "at": {"now": []},
    "inner": "s.x",
}
LAW_SCHEMA = pa.schema(
    {
        "n": pa.int64(),
        "t": pa.string(),
        "f": pa.float64(),
        "m": pa.timestamp("us"),
        "s": pa.struct([("x", pa.dictionary(pa.int8(), pa.string()))]),
    }
)
TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(["12", "2024-02-29", "2024-02-30", '{"a": 1}', '{"a": "x"}'])
)
LAW_ROWS = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "t": st.none() | TEXTS,
        "f": st.none() | st.floats(allow_nan=False),
        "m": st.none() | st.datetimes(datetime(1600, 1, 1), datetime(2200, 1, 1)),
        "s": st.none() | st.fixed_dictionaries({"x": st.none() | st.sampled_from("abc")}),
    }
)


@settings(max_examples=30, deadline=None)
@given(st.lists(LAW_ROWS, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_how_the_rows_are_cut_into_batches_does_not_matter(rows, cuts):
    batch = pa.RecordBatch.from_pylist(rows, schema=LAW_SCHEMA)
    mapper = FieldMapper(parse_mapping({"fields": LAW_FIELDS, "keep_others": True}), FACTS)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [batch.slice(start, stop - start) for start, stop in pairwise(bounds)]
    whole = mapper.process(batch)
    processed = [mapper.process(part) for part in parts]
    assert all(part.schema == mapper.process(batch.slice(0, 0)).schema for part in [whole, *processed])
    assert [row for part in processed for row in part.to_pylist()] == whole.to_pylist()


# --- configuration --------------------------------------------------------------------------------


def problems(config) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as raised:
        FIELD_MAPPER.parse_config(config)
    return {
        problem.path: f"{problem.message} {problem.hint or ''}".strip() for problem in raised.value.problems
    }


def test_all_problems_are_reported_with_their_places():
    found = problems(
        {
            "keep_other": True,
            "keep_others": "yes",
            "fields": {
                "a": {"lowr": "x"},
                "b/c": {"concat": ["x", {"cast": [{"uper": "y"}, "strin"]}, 5]},
                "d": {"substring": ["x", 0, -1]},
            },
        }
    )
    assert list(found) == [
        "/keep_other",
        "/keep_others",
        "/fields/a/lowr",
        "/fields/b~1c/concat/1/cast/0/uper",
        "/fields/b~1c/concat/1/cast/1",
        "/fields/b~1c/concat/2",
        "/fields/d/substring/1",
        "/fields/d/substring/2",
    ]
    assert "did you mean 'keep_others'?" in found["/keep_other"]
    assert "did you mean 'lower'?" in found["/fields/a/lowr"]
    assert "did you mean 'string'?" in found["/fields/b~1c/concat/1/cast/1"]


@pytest.mark.parametrize("config", [{}, {"fields": {}}, {"fields": ["a"]}, {"fields": "a"}], ids=str)
def test_fields_are_required(config):
    assert list(problems(config)) == ["/fields"]


@pytest.mark.parametrize("order", [["data", "data.a"], ["data.a", "data"], ["a.b.c", "a.b"]], ids=str)
def test_a_field_cannot_be_a_value_and_a_struct(order):
    found = problems({"fields": dict.fromkeys(order, "x")})
    assert "cannot be a value and also hold" in found[f"/fields/{order[1]}"]


@pytest.mark.parametrize("name", ["", ".a", "a.", "a..b"])
def test_an_empty_name_in_a_target_is_refused(name):
    assert list(problems({"fields": {name: "x"}})) == [f"/fields/{name}"]


@pytest.mark.parametrize(
    ("expression", "pointer", "message"),
    [
        (5, "", "a constant is written"),
        ("", "", "must be a source column"),
        (None, "", "must be a source column"),
        ({}, "", "one function at a time"),
        ({"lower": "a", "trim": "b"}, "", "one function at a time"),
        ({"value": None}, "", "a NULL constant needs a type"),
        ({"value": [1]}, "/value", "cannot be taken as text"),
        ({"value": 2**70}, "/value", "cannot be taken as"),
        ({"value": "\ud800"}, "/value", "cannot be taken as"),
        ({"value": "secret", "type": "int8"}, "/value", "cannot be taken as int8"),
        ({"value": 1, "typ": "int8"}, "/typ", "did you mean 'type'?"),
        ({"value": 1, "type": "decimal(40, 2)"}, "/type", "1 <= p <= 38"),
        ({"value": 1, "type": 5}, "/type", "named by text"),
        ({"cast": ["x", "timestamp[us, Mars]"]}, "/cast/1", "no time zone 'Mars'"),
        ({"cast": ["x", "varchar"]}, "/cast/1", "types are string"),
        ({"cast": ["x", "int8", {"on_error": "skip"}]}, "/cast/2", '{"on_error": "null"}'),
        ({"cast": ["x"]}, "/cast", "takes [expression, type"),
        ({"cast": "x"}, "/cast", "takes [expression, type"),
        ({"now": None}, "/now", '{"now": []}'),
        ({"now": ["x"]}, "/now", '{"now": []}'),
        ({"lower": []}, "/lower", "takes an expression"),
        ({"lower": ["a", "b"]}, "/lower", "takes an expression"),
        ({"concat": []}, "/concat", "takes [expression, ...]"),
        ({"nullif": ["a"]}, "/nullif", "takes [expression, expression]"),
        ({"lower": {"value": None}}, "/lower", "a NULL constant"),
        ({"replace": ["x", "", "y"]}, "/replace/1", "must not be empty"),
        ({"replace": ["x", "y", 1]}, "/replace/2", "must be text"),
        ({"round": ["x", True]}, "/round/1", "must be a whole number"),
        ({"round": ["x", 99]}, "/round/1", "between -38 and 38"),
        ({"parse_date": ["x", "%Y-%m"]}, "/parse_date/1", "needs the year"),
        ({"parse_date": ["x", "%Y-%m-%d %Y"]}, "/parse_date/1", "once"),
        ({"parse_date": ["x", "%Y-%m-%d %b"]}, "/parse_date/1", "once"),
        ({"parse_date": ["x", "%Y-%m-%d %I"]}, "/parse_date/1", "%I (1 to 12) and %p"),
        ({"parse_date": ["x", "%Y-%m-%q"]}, "/parse_date/1", "no directive '%q'"),
        ({"format_date": ["x", "100%"]}, "/format_date/1", "no directive '%'"),
        ({"format_date": ["x", ""]}, "/format_date/1", "a format is text"),
        ({"json_parse": ["x", {}]}, "/json_parse/1", "at least one member"),
        ({"json_parse": ["x", ["int8", "int8"]]}, "/json_parse/1", "a list type"),
        ({"json_parse": ["x", {"a": "nt8"}]}, "/json_parse/1", "did you mean"),
        ({"json_parse": ["x", "int8", {"path": "a..b"}]}, "/json_parse/2", "must be"),
        ({"json_parse": ["x", "int8", {}]}, "/json_parse/2", "must be"),
        ({"json_parse": ["x", "int8", {"on_error": None}]}, "/json_parse/2", "must be"),
    ],
    ids=str,
)
def test_a_wrong_expression_is_refused_when_the_job_is_loaded(expression, pointer, message):
    found = problems({"fields": {"y": expression}})
    assert list(found) == [f"/fields/y{pointer}"]
    assert message in found[f"/fields/y{pointer}"]
    assert "secret" not in str(found)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "type", "concat", "cast", "now", "parse_date", "json_parse", "x"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["fields", "keep_others", "x"]), JSON_VALUES | st.dictionaries(st.text(), JSON_VALUES)
    )
)
def test_any_json_is_either_accepted_or_refused_as_a_document(config):
    try:
        FIELD_MAPPER.parse_config(config)
    except InvalidDocument as error:
        assert error.problems
