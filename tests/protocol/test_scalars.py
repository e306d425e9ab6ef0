"""Scalars as JSON and back."""

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.scalars import Scalar, decode_scalar, encode_scalar

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-3))])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.uuids(),
)


@given(value=SCALARS)
def test_every_scalar_comes_back_as_it_was(value: Scalar) -> None:
    back = decode_scalar(json.loads(json.dumps(encode_scalar(value), allow_nan=False)))
    assert type(back) is type(value)
    # repr tells NaN from others, 1.50 from 1.5 and zones from each other.
    assert repr(back) == repr(value) or back == value
    if isinstance(value, datetime):
        assert isinstance(back, datetime) and back.utcoffset() == value.utcoffset()
    if isinstance(value, Decimal | float):
        assert str(back) == str(value)


def test_what_stands_in_a_record() -> None:
    assert encode_scalar("x") == "x"
    assert encode_scalar(1.5) == 1.5
    assert encode_scalar(float("-inf")) == {"float": "-inf"}
    assert encode_scalar(datetime(2024, 1, 2, tzinfo=UTC)) == {"datetime": "2024-01-02T00:00:00+00:00"}
    assert encode_scalar(date(2024, 1, 2)) == {"date": "2024-01-02"}
    assert encode_scalar(time(1, 2, 3)) == {"time": "01:02:03"}
    assert encode_scalar(Decimal("1.50")) == {"decimal": "1.50"}
    assert encode_scalar(b"\0\xff") == {"bytes": "00ff"}
    assert encode_scalar(UUID(int=1)) == {"uuid": "00000000-0000-0000-0000-000000000001"}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"datetime": 5},
        {"pickle": "x"},
        {"date": "2024-01-02", "time": "00:00"},
        {"date": "yesterday"},
        {"bytes": "xyz"},
        {"uuid": "1"},
        {"float": "one"},
    ],
)
def test_what_no_scalar_encodes_to_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        decode_scalar(value)


def test_other_values_cannot_be_remembered() -> None:
    with pytest.raises(TypeError, match="list"):
        encode_scalar([])  # type: ignore[arg-type]
