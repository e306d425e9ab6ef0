"""Keys as JSON and back, without loss."""

import json
from datetime import date
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.connectors.key_cursor import decode_key, encode_key

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
@given(data=st.data())
def test_times_of_every_unit_come_back_to_the_last_digit(
    kind: pa.DataType, values: st.SearchStrategy[int], integer: pa.DataType, data: st.DataObject
) -> None:
    key = pa.array([data.draw(values)], integer).view(kind)[0]
    assert same(there_and_back(key), key)


@pytest.mark.parametrize(("kind", "values"), PLAIN, ids=str)
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
