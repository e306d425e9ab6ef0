"""Reading documents strictly."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from ecmbatch.errors import InvalidDocument, Problem
from ecmbatch.protocol.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_PROBLEMS,
    Many,
    OneOrMany,
    Section,
    parse_model,
    pointer,
    read_document,
    refusal,
)


class Wheel(Section):
    size: int = Field(ge=10, le=29)
    brand: str | None = None


class Bike(Section):
    name: str
    kind: Literal["road", "mountain", "city"] = "city"
    wheels: Many[Wheel] = ()
    colours: OneOrMany[str] = ()
    weight: float = 10.0

    @model_validator(mode="after")
    def _two_checks(self) -> Bike:
        problems = [Problem("/name", "is taken"), Problem("/weight", "is too much")]
        if self.weight > 100:
            raise refusal(*problems)
        return self


class Garage(Section):
    bikes: Annotated[Many[Bike], Field(max_length=3)]


def problems_of(text: str | bytes) -> list[Problem]:
    with pytest.raises(InvalidDocument) as raised:
        read_document(text)
    return list(raised.value.problems)


def bike_problems(value: Any) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as raised:
        parse_model(Bike, value)
    return {
        problem.path: problem.message + (f" ({problem.hint})" if problem.hint else "")
        for problem in raised.value.problems
    }


def test_json_is_read_as_it_stands() -> None:
    assert read_document('{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert read_document(b"\xef\xbb\xbf[1]") == [1]
    assert read_document("\ufeff[1]") == [1]


def test_a_syntax_error_has_line_and_column() -> None:
    (problem,) = problems_of('{\n  "a": 1,\n  b: 2\n}')
    assert "line 3, column 3" in problem.message


def test_every_repeated_key_has_its_place() -> None:
    problems = problems_of('{"a": {"x": 1, "x": 2}, "b": [{"y~/z": 1, "y~/z": 1}], "b2": 1}')
    assert [problem.path for problem in problems] == ["/a/x", "/b/0/y~0~1z"]


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 20, "9" * 5000, "-9223372036854775809"],
)
def test_numbers_without_a_plain_value_are_refused(number: str) -> None:
    assert [problem.path for problem in problems_of(f'{{"a": [{number}]}}')] == ["/a/0"]


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_64_bits_are_enough(number: int) -> None:
    assert read_document(str(number)) == number


@pytest.mark.parametrize(
    "text", ['["\\ud800"]', '["\\udc00\\ud800"]', '{"\\ud800": 1}', b'["\xed\xa0\x80"]', '["\ud800"]']
)
def test_half_a_surrogate_pair_is_refused(text: str | bytes) -> None:
    assert problems_of(text)


def test_what_is_not_utf_8_is_refused_with_the_byte() -> None:
    assert "byte 2" in problems_of(b'["\xe9"]')[0].message


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_thirty_two_levels_are_read_and_no_more(brackets: str) -> None:
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    inner = "1"
    assert read_document(opening * MAX_DEPTH + inner + closing * MAX_DEPTH)
    assert "levels deep" in problems_of(opening * 33 + inner + closing * 33)[0].message


@pytest.mark.parametrize(
    "hostile", ["[" * 500_000, '{"a":' * 150_000, '[{"a":' * 100_000, "[" * 33 + '"' * 9]
)
def test_bottomless_nesting_is_refused_before_it_is_parsed(hostile: str) -> None:
    assert "levels deep" in problems_of(hostile)[0].message


def test_brackets_inside_strings_do_not_nest() -> None:
    assert read_document(json.dumps(["[" * 100, '\\"[' * 100])) == ["[" * 100, '\\"[' * 100]


@pytest.mark.parametrize("hostile", ['\\"' * 400_000, '"' + "\\" * 900_000, '"a' * 400_000])
def test_quotes_that_never_close_take_linear_time(hostile: str) -> None:
    assert "not valid JSON" in problems_of(hostile)[0].message


def test_more_than_a_mebibyte_is_refused_unread() -> None:
    assert read_document('"' + "a" * (MAX_BYTES - 2) + '"')
    for text in ('"' + "a" * (2 * MAX_BYTES) + '"', b"[" * (MAX_BYTES + 1), "é" * (MAX_BYTES - 1)):
        assert "bytes" in problems_of(text)[0].message


@settings(deadline=None)
@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        read_document(text)
    except InvalidDocument as error:
        assert error.problems


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert read_document(json.dumps(value)) == value
    assert read_document(json.dumps(value, ensure_ascii=False).encode()) == value


def test_a_model_is_read_with_lists_as_tuples() -> None:
    bike = parse_model(Bike, {"name": "a", "wheels": [{"size": 20}], "colours": "red", "weight": 9})
    assert bike == Bike(name="a", wheels=(Wheel(size=20),), colours=("red",), weight=9.0)


def test_free_keys_are_left_out_at_every_level() -> None:
    garage = {"x-a": 1, "bikes": [{"name": "a", "x-b": {}, "wheels": [{"size": 20, "x-c": None}]}]}
    assert parse_model(Garage, garage).bikes[0].wheels == (Wheel(size=20),)


def test_all_problems_are_reported_at_once_with_their_places() -> None:
    assert bike_problems(
        {
            "nam": "a",
            "kind": "rode",
            "wheels": [{"size": True}, {"size": 99, "colour": 1}, 5],
            "colours": ["x", 3],
            "weight": "9",
        }
    ) == {
        "/name": "is required",
        "/nam": "is not a key known here (did you mean 'name'?)",
        "/kind": "must be one of road, mountain, city, not 'rode' (did you mean 'road'?)",
        "/wheels/0/size": "must be a whole number, not true or false",
        "/wheels/1/size": "must be at most 29",
        "/wheels/1/colour": "is not a key known here (known are brand, size)",
        "/wheels/2": "must be an object, not a whole number",
        "/colours/1": "must be a string, not a whole number",
        "/weight": "must be a number, not a string",
    }


def test_what_a_model_refuses_by_itself_has_places_below_it() -> None:
    with pytest.raises(InvalidDocument) as raised:
        parse_model(Garage, {"bikes": [{"name": "a"}, {"name": "b", "weight": 101}]})
    assert [str(problem) for problem in raised.value.problems] == [
        "/bikes/1/name: is taken",
        "/bikes/1/weight: is too much",
    ]


@pytest.mark.parametrize("secret", ["hunter2", "correct horse battery staple", "s3cr3t-k3y", "\x1b[31mred"])
def test_values_that_could_be_secrets_are_not_repeated(secret: str) -> None:
    problems = bike_problems({"name": "a", "kind": secret, "wheels": secret, "weight": secret})
    assert len(problems) == 3
    assert secret not in str(problems)


def test_thousands_of_problems_are_not_all_reported() -> None:
    value = {f"key{number}": 1 for number in range(20_000)}
    with pytest.raises(InvalidDocument) as raised:
        parse_model(Bike, value)
    assert len(raised.value.problems) == MAX_PROBLEMS + 1
    assert "only the first 100" in raised.value.problems[-1].message


def test_a_list_of_thousands_is_refused_unread() -> None:
    assert bike_problems({"name": "a", "wheels": [{}] * 5_000, "colours": [1] * 5_000}) == {
        "/wheels": "must have at most 1,000 entries",
        "/colours": "must have at most 1,000 entries",
    }


def test_the_message_counts_the_problems_and_shows_the_first() -> None:
    with pytest.raises(InvalidDocument, match=r"^the project file has a problem: /name: is required$"):
        parse_model(Bike, {}, what="project file")
    with pytest.raises(
        InvalidDocument, match=r"^the job file has 2 problems, the first: /name: is required$"
    ):
        parse_model(Bike, {"kind": None})


def test_a_pointer_escapes_and_never_moves_the_cursor_of_a_terminal() -> None:
    assert pointer([]) == ""
    assert pointer(["a/b", 0, "c~d", "e\x1bf"]) == "/a~1b/0/c~0d/e\\u001bf"
    assert len(pointer(["k" * 10_000])) < 300


@settings(deadline=None)
@given(JSON)
def test_any_value_is_a_model_or_has_problems(value: Any) -> None:
    try:
        parse_model(Garage, value)
    except InvalidDocument as error:
        assert error.problems
