"""What the values of JSON fields look like, and the Arrow type that holds them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.file_formats.json_settings import Declared
from ecmbatch.connectors.file_formats.text_types import (
    ANYTHING,
    FLOAT,
    INTEGER,
    TEXT,
    Candidates,
    is_exact_float,
    time_types,
)
from ecmbatch.protocol.type_names import parse_type_name, type_name

_LARGE = pa.decimal128(38, 0)
_DIGITS = 38


class Number(str):
    """A number as it is written."""

    __slots__ = ()


class Unlike(Exception):
    """Values of the field *name* are of two kinds that no type holds."""

    def __init__(self, name: str, one: str, other: str) -> None:
        super().__init__(name)
        self.name = name
        self.one = one
        self.other = other


class BadJson(Exception):
    """What is wrong with a line."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value without parts."""

    types: Candidates


@dataclass(frozen=True, slots=True)
class Fields:
    """An object."""

    shapes: Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Items:
    """An array."""

    shape: Shape


Shape = Leaf | Fields | Items

UNKNOWN = Leaf(ANYTHING)
"""What only NULL was seen of."""


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the object on *line*, its numbers as :class:`Number`; raises :class:`BadJson` for anything else."""
    try:
        value = json.loads(
            line.decode(),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_distinct,
        )
    except json.JSONDecodeError as error:
        raise BadJson(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise BadJson("nested too deep") from None
    if not isinstance(value, dict):
        raise BadJson("not a JSON object")
    if b"\\u" in line and not _is_unicode(value):
        raise BadJson("text with half a surrogate pair")
    return value


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise BadJson(f"{name} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadJson(
            f"field '{shown(next(name for name in names if names.count(name) > 1))}' is given twice"
        )
    return found


def shown(name: str) -> str:
    """Return a field's name as it may be printed."""
    text = "".join(char if char.isprintable() else "?" for char in name[:100])
    return text if len(name) <= 100 else text + "…"


def below(name: str, key: str) -> str:
    """Return what the field *key* of the object *name* is called in errors."""
    return f"{name}.{shown(key)}" if name else shown(key)


@dataclass(slots=True)
class Seen:
    """What was seen of one field."""

    kind: str | None = None
    values: set[str] = field(default_factory=set)
    fields: dict[str, Seen] = field(default_factory=dict)
    items: Seen | None = None

    def add(self, value: Any, declared: Declared | None, name: str = "") -> None:
        """Take one more value; what is *declared* is not looked at. Raises :class:`Unlike`."""
        if value is None or isinstance(declared, str):
            return
        kind = _kind(value)
        if self.kind not in (None, kind):
            raise Unlike(name, str(self.kind), kind)
        self.kind = kind
        if isinstance(value, dict):
            for key, inner in value.items():
                inside = declared.get(key) if isinstance(declared, Mapping) else None
                self.fields.setdefault(key, Seen()).add(inner, inside, below(name, key))
        elif isinstance(value, list):
            self.items = self.items or Seen()
            for inner in value:
                self.items.add(inner, declared[0] if isinstance(declared, list) else None, f"{name}[]")
        elif isinstance(value, str):
            self.values.add(value)

    def shape(self, name: str = "") -> Shape:
        """Return what all values have in common. Raises :class:`Unlike`."""
        if self.kind == "an object":
            return Fields({key: seen.shape(below(name, key)) for key, seen in self.fields.items()})
        if self.items is not None:
            return Items(self.items.shape(f"{name}[]"))
        if self.kind is None:
            return UNKNOWN
        types = _LEAVES[self.kind](self.values)
        if not types:
            raise Unlike(
                name, "numbers with a fraction, or of many digits", "whole numbers that float64 rounds"
            )
        return Leaf(types)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Number):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list) else "text"


def _number_types(numbers: set[str]) -> Candidates:
    whole = [number for number in numbers if number.lstrip("-").isdigit()]
    longest = max((len(number.lstrip("-")) for number in whole), default=0)
    are_whole = len(whole) == len(numbers)
    found: list[pa.DataType] = []
    if are_whole and longest < _DIGITS and all(-(2**63) <= int(number) < 2**63 for number in whole):
        found.append(INTEGER)
    if all(map(is_exact_float, whole)):
        found.append(FLOAT)
    if are_whole and longest <= _DIGITS:
        found.append(_LARGE)
    return tuple(found)


def _text_types(texts: set[str]) -> Candidates:
    return (*time_types(pa.array(sorted(texts), TEXT)), TEXT)


_LEAVES: Mapping[str, Callable[[set[str]], Candidates]] = {
    "text": _text_types,
    "a number": _number_types,
    "true or false": lambda _: (pa.bool_(),),
}


def merged(one: Shape, other: Shape, name: str = "") -> Shape:
    """Return the shape that holds the values of both. Raises :class:`Unlike`."""
    if one in (UNKNOWN, other):
        return other
    if other == UNKNOWN:
        return one
    if isinstance(one, Fields) and isinstance(other, Fields):
        shapes = dict(one.shapes)
        for key, shape in other.shapes.items():
            shapes[key] = merged(shapes.get(key, UNKNOWN), shape, below(name, key))
        return Fields(shapes)
    if isinstance(one, Items) and isinstance(other, Items):
        return Items(merged(one.shape, other.shape, f"{name}[]"))
    if isinstance(one, Leaf) and isinstance(other, Leaf):
        common = tuple(kind for kind in one.types if kind in other.types)
        only_text = common == (TEXT,) and (one.types, other.types) != (common, common)
        if common and not only_text:
            return Leaf(common)
    raise Unlike(name, _word(one), _word(other))


def _word(shape: Shape) -> str:
    if isinstance(shape, Leaf):
        return type_name(shape.types[0])
    return "an object" if isinstance(shape, Fields) else "an array"


class EmptyObject(Exception):
    """Only objects without fields were seen of the field *name*."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def arrow_type(shape: Shape, declared: Declared | None, name: str) -> pa.DataType:
    """Return the type of a field: what is *declared* goes first. Raises :class:`EmptyObject`."""
    if isinstance(declared, str):
        return parse_type_name(declared)
    if isinstance(declared, list) or isinstance(shape, Items):
        items = shape.shape if isinstance(shape, Items) else UNKNOWN
        return pa.list_(arrow_type(items, declared[0] if isinstance(declared, list) else None, f"{name}[]"))
    if isinstance(declared, Mapping) or isinstance(shape, Fields):
        shapes = shape.shapes if isinstance(shape, Fields) else {}
        types = arrow_fields(shapes, declared if isinstance(declared, Mapping) else {}, name)
        if not types:
            raise EmptyObject(name)
        return pa.struct(types)
    return TEXT if shape == UNKNOWN else shape.types[0]


def arrow_fields(
    shapes: Mapping[str, Shape], declared: Mapping[str, Declared], name: str = ""
) -> list[pa.Field]:
    """Return the fields of an object: those that were seen, then those that are only declared."""
    return [
        pa.field(key, arrow_type(shapes.get(key, UNKNOWN), declared.get(key), below(name, key)))
        for key in dict.fromkeys([*shapes, *declared])
    ]
