import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.validation.threshold import Threshold, parse_threshold


def read(text: str) -> Threshold:
    return parse_threshold(json.loads(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Threshold(count=0)),
        ("0.0", Threshold(count=0)),
        ("0.05", Threshold(fraction=Decimal("0.05"))),
        ("0.29", Threshold(fraction=Decimal("0.29"))),
        ("1e-3", Threshold(fraction=Decimal("0.001"))),
        ("2", Threshold(count=2)),
        ("100000", Threshold(count=100_000)),
        ('"5%"', Threshold(fraction=Decimal("0.05"))),
        ('"0.5%"', Threshold(fraction=Decimal("0.005"))),
        ('"0%"', Threshold(fraction=Decimal(0))),
        ('"100%"', Threshold(fraction=Decimal(1))),
        ('{"count": 0}', Threshold(count=0)),
        ('{"count": 1}', Threshold(count=1)),
        ('{"fraction": 1}', Threshold(fraction=Decimal(1))),
        ('{"fraction": 0.29}', Threshold(fraction=Decimal("0.29"))),
        ('{"count": 3, "x-why": "known gaps"}', Threshold(count=3)),
    ],
)
def test_a_threshold_is_a_count_or_a_fraction(text: str, expected: Threshold) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1", "ambiguous"),
        ("1.0", "ambiguous"),
        ("-1", "negative"),
        ("-0.5", "negative"),
        ("1.5", "whole number"),
        ("2.0", "whole number"),
        ('"150%"', "at most 100%"),
        ('"100.1%"', "at most 100%"),
        ('"-5%"', "percentage"),
        ('"5"', "percentage"),
        ('"5 %"', "percentage"),
        ('"٥%"', "percentage"),
        ('"%"', "percentage"),
        ('""', "percentage"),
        ("true", "true or false"),
        ("false", "true or false"),
        ("NaN", "whole number"),
        ("Infinity", "whole number"),
        ("null", "not a threshold"),
        ("[5]", "not a threshold"),
        ("{}", "one key"),
        ('{"count": 1, "fraction": 0.5}', "one key"),
        ('{"count": true}', "one key"),
        ('{"count": 1.5}', "one key"),
        ('{"count": "1"}', "one key"),
        ('{"count": -1}', "from 0"),
        ('{"fraction": 1.5}', "between 0 and 1"),
        ('{"fraction": -0.1}', "between 0 and 1"),
        ('{"fraction": true}', "one key"),
        ('{"fraction": NaN}', "finite"),
        ('{"percent": 5}', "one key"),
        ("9223372036854775808", "whole number"),
    ],
)
def test_what_is_ambiguous_or_impossible_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(text)


def test_comparisons_are_exact_where_floats_are_not() -> None:
    assert not 29 <= 0.29 * 100
    assert read("0.29").accepts(29, 100)
    assert not read("0.29").accepts(30, 100)
    assert read('"0.1%"').accepts(3, 3000)
    assert not read('"0.1%"').accepts(3, 2999)


@given(st.integers(1, 10**15), st.data())
def test_a_fraction_accepts_exactly_its_share_of_the_rows(rows: int, data: st.DataObject) -> None:
    violations = data.draw(st.integers(0, rows))
    digits = data.draw(st.integers(1, 10**6 - 1))
    threshold = parse_threshold(digits / 10**6)
    assert threshold.accepts(violations, rows) == (violations <= Fraction(digits, 10**6) * rows)


@given(
    st.one_of(
        st.integers(0, 2**63 - 1).map(lambda count: {"count": count}),
        st.floats(0, 1).map(lambda fraction: {"fraction": fraction}),
    )
)
def test_the_canonical_spelling_means_the_same(value: dict[str, Any]) -> None:
    threshold = parse_threshold(value)
    canonical = threshold.as_json()
    assert json.loads(json.dumps(canonical)) == canonical
    if isinstance(canonical, str) and len(canonical) > 18:
        return  # more digits than a percentage may be written with
    assert parse_threshold(canonical) == threshold


def test_a_count_and_a_fraction_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        Threshold()
    with pytest.raises(ValueError, match="one of the two"):
        Threshold(count=1, fraction=Decimal("0.5"))
