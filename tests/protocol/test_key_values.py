"""Keys as JSON and back, without loss."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmbatch.protocol.key_values import decode_key, encode_key, plain_keys, read_key, shown_key

unhurried = settings(deadline=None)

WHOLE = st.integers(-(2**63), 2**63 - 1)
WHOLE32 = st.integers(-(2**31), 2**31 - 1)

RAW_TIMES = [
    *((pa.timestamp(unit), WHOLE, pa.int64()) for unit in ("s", "ms", "us", "ns")),
    *((pa.timestamp(unit, "UTC"), WHOLE, pa.int64()) for unit in ("s", "us", "ns")),
    (pa.date32(), WHOLE32, pa.int32()),
    (pa.time32("ms"), st.integers(0, 86_399_999), pa.int32()),
    (pa.time64("us"), st.integers(0, 86_399_999_999), pa.int64()),
    (pa.time64("ns"), st.integers(0, 86_399_999_999_999), pa.int64()),
]

PLAIN = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), WHOLE),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.string(), st.text(st.characters(codec="utf-8"))),
    (pa.large_string(), st.text(st.characters(codec="utf-8"))),
    (pa.binary(), st.binary()),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (pa.decimal128(38, 10), st.decimals(-(10**20), 10**20, places=10)),
    (pa.uuid(), st.uuids()),
]


def there_and_back(key: pa.Scalar) -> pa.Scalar:
    stored = json.loads(json.dumps(encode_key(key), allow_nan=False))
    return decode_key(stored, key.type)[0]


def same(one: pa.Scalar, other: pa.Scalar) -> bool:
    """Return whether two scalars hold the same bits; Arrow's equality does not know NaN as itself."""
    if pa.types.is_floating(one.type):
        return repr(one.as_py()) == repr(other.as_py())
    return bool(one.equals(other))


@pytest.mark.parametrize(("kind", "values", "integer"), RAW_TIMES, ids=str)
@unhurried
@given(data=st.data())
def test_times_of_every_unit_come_back_to_the_last_digit(
    kind: pa.DataType, values: st.SearchStrategy[int], integer: pa.DataType, data: st.DataObject
) -> None:
    key = pa.array([data.draw(values)], integer).view(kind)[0]
    assert same(there_and_back(key), key)


@pytest.mark.parametrize(("kind", "values"), PLAIN, ids=str)
@unhurried
@given(data=st.data())
def test_keys_come_back_as_they_were(
    kind: pa.DataType, values: st.SearchStrategy[object], data: st.DataObject
) -> None:
    value = data.draw(values)
    if isinstance(value, UUID):
        key = pa.ExtensionArray.from_storage(kind, pa.array([value.bytes], pa.binary(16)))[0]
    else:
        key = pa.array([value], kind)[0]
    assert same(there_and_back(key), key)


@pytest.mark.parametrize("kind", [*(kind for kind, *_ in RAW_TIMES), *(kind for kind, _ in PLAIN)], ids=str)
def test_null_of_every_type_is_null(kind: pa.DataType) -> None:
    key = pa.nulls(1, kind)[0]
    assert encode_key(key) is None
    assert not there_and_back(key).is_valid


def test_what_stands_in_a_ledger() -> None:
    assert encode_key(pa.scalar(7)) == 7
    assert encode_key(pa.scalar("x")) == "x"
    assert encode_key(pa.scalar(float("nan"))) == {"float": "nan"}
    assert encode_key(pa.scalar(Decimal("1.50"))) == {"decimal": "1.50"}
    assert encode_key(pa.scalar(b"\0\xff")) == {"bytes": "00ff"}
    assert encode_key(pa.scalar(date(1970, 1, 2))) == 1


@pytest.mark.parametrize(
    ("value", "kind"), [("x", pa.int64()), (1.5, pa.timestamp("us")), ({"pickle": "x"}, pa.string())], ids=str
)
def test_what_is_no_key_of_the_type_is_refused(value: object, kind: pa.DataType) -> None:
    with pytest.raises((ValueError, TypeError, pa.ArrowException)):
        decode_key(value, kind)


# --- as people write them ---------------------------------------------------------------------------------

NAIVE, ZONED = pa.timestamp("us"), pa.timestamp("us", "UTC")
DAYS = st.dates()
MOMENTS = st.datetimes()

WRITTEN: list[tuple[Any, pa.DataType, Any]] = [
    ("x", pa.string(), "x"),
    ("", pa.large_string(), ""),
    ("x", pa.string_view(), "x"),
    ("x", pa.dictionary(pa.int8(), pa.string()), "x"),
    ("00FF", pa.binary(), b"\0\xff"),
    ("00ff", pa.binary(2), b"\0\xff"),
    ("00000000-0000-0000-0000-000000000007", pa.uuid(), UUID(int=7).bytes),
    (True, pa.bool_(), True),
    (-128, pa.int8(), -128),
    (2**64 - 1, pa.uint64(), 2**64 - 1),
    (7, pa.dictionary(pa.int8(), pa.int64()), 7),
    (1, pa.float64(), 1.0),
    (2**53, pa.float64(), 2.0**53),
    (0.5, pa.float32(), 0.5),
    (1.5, pa.decimal128(5, 2), Decimal("1.50")),
    (7, pa.decimal128(5, 2), Decimal(7)),
    ("1.05", pa.decimal128(5, 2), Decimal("1.05")),
    ("-1.05", pa.decimal32(5, 2), Decimal("-1.05")),
    (
        "12345678901234567890123456789012345678",
        pa.decimal128(38, 0),
        Decimal(10**37 * 1 + 2345678901234567890123456789012345678),
    ),
    ("2013-01-31", pa.date32(), date(2013, 1, 31)),
    ("2013-01-31", pa.date64(), date(2013, 1, 31)),
    ("23:59:59.000001", pa.time64("us"), time(23, 59, 59, 1)),
    ("23:59", pa.time32("s"), time(23, 59)),
    ("2013-01-31", NAIVE, datetime(2013, 1, 31)),
    ("2013-01-31T12:30", NAIVE, datetime(2013, 1, 31, 12, 30)),
    ("2013-01-31 12:30:00.000001", NAIVE, datetime(2013, 1, 31, 12, 30, 0, 1)),
    ("2013-01-31", ZONED, datetime(2013, 1, 31, tzinfo=UTC)),
    ("2013-01-31T00:00:00Z", ZONED, datetime(2013, 1, 31, tzinfo=UTC)),
    ("2013-01-31T00:00:00+02:00", ZONED, datetime(2013, 1, 30, 22, tzinfo=UTC)),
]


@pytest.mark.parametrize(("value", "kind", "key"), WRITTEN, ids=str)
def test_what_a_job_writes_is_read_as_the_type_of_the_column(value: Any, kind: pa.DataType, key: Any) -> None:
    read = read_key(value, kind)
    assert read.to_pylist() == [key]
    # It is in the form by which keys are compared, whatever form the column has.
    assert read.type == plain_keys(pa.nulls(0, kind)).type


def test_nanoseconds_are_read_to_the_last_digit() -> None:
    read = read_key("2013-01-31T00:00:00.123456789", pa.timestamp("ns"))
    assert encode_key(read[0]) == 1359590400123456789
    assert shown_key(read[0]) == "2013-01-31T00:00:00.123456789"


REFUSED: list[tuple[Any, pa.DataType, str]] = [
    (1, pa.string(), "a text"),
    (True, pa.string(), "a text"),
    ("xyz", pa.binary(), "hexadecimal"),
    ("00", pa.binary(2), "hexadecimal"),
    ("no-uuid", pa.uuid(), "a UUID"),
    (7, pa.uuid(), "a UUID"),
    (1, pa.bool_(), "true or false"),
    ("true", pa.bool_(), "true or false"),
    (True, pa.int64(), "a whole number"),
    (1.0, pa.int64(), "a whole number"),
    (1.5, pa.int64(), "a whole number"),
    ("1", pa.int64(), "a whole number"),
    (128, pa.int8(), "a whole number that fits"),
    (-1, pa.uint64(), "a whole number that fits"),
    (10**30, pa.int64(), "a whole number that fits"),
    (True, pa.float64(), "a number"),
    ("1.5", pa.float64(), "a number"),
    (2**53 + 1, pa.float64(), "a number that fits"),
    (2**24 + 1, pa.float32(), "a number that fits"),
    (1e300, pa.float32(), "a number that fits"),
    (10**400, pa.float64(), "a number that fits"),
    (True, pa.decimal128(5, 2), "a number"),
    ("1.005", pa.decimal128(5, 2), "no more digits than fit"),
    (1.005, pa.decimal128(5, 2), "no more digits than fit"),
    (1000, pa.decimal128(5, 2), "no more digits than fit"),
    ("x", pa.decimal128(5, 2), "a text that is one"),
    ("NaN", pa.decimal128(5, 2), "a number"),
    ("Infinity", pa.decimal128(5, 2), "a number"),
    ("2013-02-30", pa.date32(), "2013-01-31"),
    ("2013-01-31T00:00:00", pa.date32(), "2013-01-31"),
    ("20130131", pa.date32(), "2013-01-31"),
    ("infinity", pa.date32(), "2013-01-31"),
    (20130131, pa.date32(), "2013-01-31"),
    ("25:00", pa.time64("us"), "23:59:59"),
    ("12:00:00.1234567", pa.time64("us"), "23:59:59"),
    ("12:00:00.5", pa.time32("s"), "23:59:59"),
    ("12:00:00+01:00", pa.time64("us"), "23:59:59"),
    ("2013-01-31T00:00:00Z", NAIVE, "without an offset"),
    ("2013-01-31T00:00:00.0000001", NAIVE, "without an offset"),
    ("2013-01-31T00:00:00.5", pa.timestamp("s"), "without an offset"),
    (0, NAIVE, "a text"),
    ("2013-01-31T00:00:00", ZONED, "with an offset"),
    ("2300-01-01T00:00:00Z", pa.timestamp("ns", "UTC"), "with an offset"),
    ("x", ZONED, "with an offset"),
    ("x", pa.null(), "of another type"),
    (1, pa.duration("s"), "of another type"),
    (1, pa.list_(pa.int64()), "of another type"),
]


@pytest.mark.parametrize(("value", "kind", "meaning"), REFUSED, ids=str)
def test_what_a_type_cannot_hold_exactly_is_refused_and_not_shown(
    value: Any, kind: pa.DataType, meaning: str
) -> None:
    with pytest.raises(ValueError, match=meaning) as raised:
        read_key(value, kind)
    assert str(kind) in str(raised.value)
    if isinstance(value, str) and len(value) > 1 and value != "true":
        assert value not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        *(each for each in PLAIN if not pa.types.is_floating(each[0])),
        (pa.date32(), DAYS),
        (pa.time64("us"), st.times()),
        (pa.timestamp("s"), MOMENTS.map(lambda value: value.replace(microsecond=0))),
        (NAIVE, MOMENTS),
        (ZONED, MOMENTS.map(lambda value: value.replace(tzinfo=UTC))),
        (pa.timestamp("us", "Asia/Kolkata"), MOMENTS.map(lambda value: value.replace(tzinfo=UTC))),
    ],
    ids=str,
)
@unhurried
@given(data=st.data())
def test_a_job_may_write_a_key_as_it_is_shown(
    kind: pa.DataType, values: st.SearchStrategy[object], data: st.DataObject
) -> None:
    value = data.draw(values)
    if isinstance(value, UUID):
        key = pa.ExtensionArray.from_storage(kind, pa.array([value.bytes], pa.binary(16)))[0]
    else:
        key = pa.array([value], kind)[0]
    text = shown_key(key)
    written = json.loads(text) if pa.types.is_boolean(kind) or pa.types.is_integer(kind) else text
    assert encode_key(read_key(written, kind)[0]) == encode_key(key)


def test_keys_that_no_job_can_write_are_shown_all_the_same() -> None:
    def shown(number: int, kind: pa.DataType) -> str:
        return shown_key(pa.array([number], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)[0])

    assert shown(2**63 - 1, NAIVE) == "infinity"
    assert shown(-(2**63 - 1), ZONED) == "-infinity"
    assert shown(2**31 - 1, pa.date32()) == "infinity"
    assert shown(86_400_000_000, pa.time64("us")) == "24:00:00"
    assert shown(86_400, pa.time32("s")) == "24:00:00"
    # Arrow would write the year 50000 as another one.
    assert shown(1515680380800000000, ZONED) == "the timestamp[us, tz=UTC] of 1515680380800000000"
    assert shown(2**30, pa.date32()) == "the date32[day] of 1073741824"
    assert shown_key(pa.scalar(float("nan"))) == "nan"
    assert shown_key(pa.scalar(True)) == "true"
    assert shown_key(pa.scalar(Decimal("0E-10"), pa.decimal128(38, 10))) == "0.0000000000"
