"""The functions of the field mapper, and how each is written in a job file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ecmbatch.processors.field_mapper import casts, number_functions, text_functions
from ecmbatch.processors.field_mapper.date_functions import (
    format_date,
    parse_date,
    read_input_format,
    read_output_format,
)
from ecmbatch.processors.field_mapper.json_function import json_parse, read_json_type
from ecmbatch.processors.field_mapper.values import Values
from ecmbatch.protocol.type_names import parse_type_name

Reader = Callable[[object], tuple[object, ...]]
"""Reads one JSON option into arguments of the function; raises ValueError for what does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFunction:
    """``inputs`` expressions (None: one or more), then options; the last ``optional`` may be left out."""

    usage: str
    compute: Callable[..., Values]
    inputs: int | None = 1
    options: tuple[Reader, ...] = ()
    optional: int = 0
    takes_constants: bool = False


def _text(value: object) -> tuple[str]:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return (value,)


def _text_to_find(value: object) -> tuple[str]:
    if not _text(value)[0]:
        raise ValueError("must not be empty")
    return _text(value)


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def _position(value: object) -> tuple[int]:
    if (position := _whole_number(value)) == 0:
        raise ValueError("must not be 0: 1 is the first character, -1 the last")
    return (position,)


def _length(value: object) -> tuple[int]:
    if (length := _whole_number(value)) < 0:
        raise ValueError("must be a length of 0 or more")
    return (length,)


def _digits(value: object) -> tuple[int]:
    if abs(digits := _whole_number(value)) > 38:
        raise ValueError("must be a number of digits between -38 and 38")
    return (digits,)


def _null_on_error(value: object) -> tuple[bool]:
    if value != {"on_error": "null"}:
        raise ValueError('must be {"on_error": "null"}; left out, a value that does not fit fails the run')
    return (True,)


def _json_options(value: object) -> tuple[tuple[str, ...], bool]:
    expected = 'must be {"path": "a.b"}, {"on_error": "null"} or both'
    if not isinstance(value, Mapping) or not value or not set(value) <= {"path", "on_error"}:
        raise ValueError(expected)
    path = value.get("path")
    if "path" in value and not (isinstance(path, str) and all(path.split("."))):
        raise ValueError(expected)
    if value.get("on_error", "null") != "null":
        raise ValueError(expected)
    return tuple(path.split(".")) if isinstance(path, str) else (), "on_error" in value


_OF_ONE_VALUE = "an expression"

FUNCTIONS: Mapping[str, MappingFunction] = {
    "concat": MappingFunction(
        usage="[expression, ...]", compute=text_functions.concat, inputs=None, takes_constants=True
    ),
    "lower": MappingFunction(usage=_OF_ONE_VALUE, compute=text_functions.lower),
    "upper": MappingFunction(usage=_OF_ONE_VALUE, compute=text_functions.upper),
    "trim": MappingFunction(usage=_OF_ONE_VALUE, compute=text_functions.trim),
    "substring": MappingFunction(
        usage="[expression, start, length (optional)]",
        compute=text_functions.substring,
        options=(_position, _length),
        optional=1,
    ),
    "replace": MappingFunction(
        usage="[expression, text to find, replacement]",
        compute=text_functions.replace,
        options=(_text_to_find, _text),
    ),
    "round": MappingFunction(
        usage="an expression or [expression, digits]",
        compute=number_functions.round_half_away,
        options=(_digits,),
        optional=1,
    ),
    "abs": MappingFunction(usage=_OF_ONE_VALUE, compute=number_functions.absolute),
    "ceil": MappingFunction(usage=_OF_ONE_VALUE, compute=number_functions.ceil),
    "floor": MappingFunction(usage=_OF_ONE_VALUE, compute=number_functions.floor),
    "parse_date": MappingFunction(
        usage='[expression, format, {"on_error": "null"} (optional)]',
        compute=parse_date,
        options=(lambda value: (read_input_format(value),), _null_on_error),
        optional=1,
    ),
    "format_date": MappingFunction(
        usage="[expression, format]",
        compute=format_date,
        options=(lambda value: (read_output_format(value),),),
    ),
    "coalesce": MappingFunction(
        usage="[expression, ...]", compute=casts.coalesce, inputs=None, takes_constants=True
    ),
    "nullif": MappingFunction(
        usage="[expression, expression]", compute=casts.nullif, inputs=2, takes_constants=True
    ),
    "json_parse": MappingFunction(
        usage='[expression, type, {"path": ..., "on_error": "null"} (optional)]',
        compute=json_parse,
        options=(lambda value: (read_json_type(value),), _json_options),
        optional=1,
    ),
    "cast": MappingFunction(
        usage='[expression, type, {"on_error": "null"} (optional)]',
        compute=casts.cast,
        options=(lambda value: (parse_type_name(value),), _null_on_error),
        optional=1,
    ),
}
