"""Reading documents that people write: strict JSON, then a model, and every problem with its place.

A document is data from somebody else. Nothing in it may crash the reader, and no value from it is repeated
in a problem: it could be a secret in the wrong place. Names of keys, and short words where only certain
words are allowed, are the exception.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from ecmbatch.errors import InvalidDocument, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_ENTRIES = 1_000
MAX_PROBLEMS = 100
"""A hostile document may hold a hundred thousand; nobody reads on after this many."""

Part = str | int
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Section(BaseModel):
    """Base of every object in a document: strict, never changed, unknown keys refused.

    Keys that start with ``x-`` are free and left out. Lists are declared as :data:`Many` or
    :data:`OneOrMany`: behind a validator in Python, a plain strict tuple would refuse a JSON list.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @model_validator(mode="before")
    @classmethod
    def _without_free_keys(cls, value: Any) -> Any:
        return without_free_keys(value)


@dataclass(frozen=True, slots=True)
class _ListOf:
    """Accept a list, or one entry without the brackets where *single* allows it; count before looking inside."""

    single: bool

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]} if self.single else many

    def _check(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return (value,) if self.single else value
        if len(value) > MAX_ENTRIES:
            raise ValueError(f"must have at most {MAX_ENTRIES:,} entries")
        return value


Many = Annotated[tuple[T, ...], Strict(False), _ListOf(single=False)]
"""A JSON list, kept as a tuple."""
OneOrMany = Annotated[tuple[T, ...], Strict(False), _ListOf(single=True)]
"""A JSON list, or a single entry without the brackets; kept as a tuple."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Annotation of a string that must match *pattern* as a whole; *meaning* completes "must be …"."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.meaning}")
        return text


def read_document(text: str | bytes, *, what: str = "job file") -> Any:
    """Return the JSON value that *text* holds.

    Raises :class:`~ecmbatch.errors.InvalidDocument` for anything but UTF-8 JSON of at most 1 MiB and 32
    levels, for repeated keys, for NaN, infinities and numbers beyond 64 bits, and for broken Unicode.
    """
    decoded = _decode(text, what)
    _refuse_deep_nesting(decoded, what)
    repeated: list[tuple[dict[str, Any], str]] = []

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                repeated.append((found, key))
            found[key] = value
        return found

    try:
        value = json.loads(
            decoded, object_pairs_hook=object_of, parse_int=_whole_number, parse_constant=float
        )
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise invalid(what, [Problem("", f"is not valid JSON: {error.msg} at {at}")]) from None
    repeated_in: dict[int, list[str]] = {}
    for owner, key in repeated:
        repeated_in.setdefault(id(owner), []).append(key)
    problems = list(_unusable_values(value, (), repeated_in))
    if problems:
        raise invalid(what, problems)
    return value


def parse_model(model: type[M], value: Any, *, what: str = "job file") -> M:
    """Return the *model* that *value* describes, a JSON value as :func:`read_document` gives it.

    A TOML table will do as well; its dates become text.
    Raises :class:`~ecmbatch.errors.InvalidDocument` with all problems.
    """
    parsed, problems = check_model(model, value)
    if parsed is None:
        raise invalid(what, problems)
    return parsed


def check_model(model: type[M], value: Any) -> tuple[M | None, list[Problem]]:
    """Do as :func:`parse_model`, but return the problems instead of raising them."""
    try:
        return model.model_validate_json(json.dumps(value, default=_toml_text)), []
    except ValidationError as error:
        return None, _problems(model, value, error.errors(include_url=False, include_input=False))


def invalid(what: str, problems: Iterable[Problem]) -> InvalidDocument:
    """Return the error that says *what* has *problems*: at least one, and at most a hundred are kept."""
    distinct = list(dict.fromkeys(problems))
    kept = distinct[:MAX_PROBLEMS]
    count = f"{len(kept)} problems, the first" if len(kept) > 1 else "a problem"
    if len(distinct) > MAX_PROBLEMS:
        count = f"more than {count}"
        kept.append(Problem("", f"only the first {MAX_PROBLEMS} problems are shown"))
    return InvalidDocument(f"the {what} has {count}: {distinct[0]}", problems=kept)


def refusal(*problems: Problem) -> PydanticCustomError:
    """Return what a model's validator raises to report *problems*, their paths relative to its object."""
    return PydanticCustomError("problems", "is refused", {"problems": problems})


def under(prefix: str, problems: Iterable[Problem]) -> list[Problem]:
    """Return *problems* of a part as problems of the whole: *prefix* is the pointer to the part."""
    return [Problem(prefix + problem.path, problem.message, problem.hint) for problem in problems]


def pointer(parts: Iterable[Part]) -> str:
    """Return the JSON pointer (RFC 6901) to *parts*; what a terminal would act on is spelt out."""
    return "".join("/" + _printable(str(part)).replace("~", "~0").replace("/", "~1") for part in parts)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return "did you mean 'x'?" for the known name closest to *name*, if one is close."""
    candidates = list(known)
    # Closeness takes time in the square of the length, and among hundreds of names it tells little.
    is_small = len(name) <= 128 and len(candidates) <= 64
    close = difflib.get_close_matches(name, candidates, n=1) if is_small else []
    return f"did you mean '{close[0]}'?" if close else None


def without_free_keys(value: Any) -> Any:
    """Return *value* without the keys that start with ``x-``, if it is an object."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if not key.startswith("x-")}


def places(value: Any, parts: tuple[Part, ...] = ()) -> Iterator[tuple[tuple[Part, ...], Any]]:
    """Yield every value inside *value*, itself included, with the way to it."""
    yield parts, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(inner, (*parts, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from places(inner, (*parts, number))


def _decode(text: str | bytes, what: str) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise invalid(what, [Problem("", f"has {len(raw):,} bytes; at most {MAX_BYTES:,} are read")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("", f"is not UTF-8 text: byte {error.start:,}", "save it as UTF-8")
        raise invalid(what, [problem]) from None


# An unterminated string swallows the rest; trying again at each of its quotes would take quadratic time.
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def _refuse_deep_nesting(text: str, what: str) -> None:
    """Look before parsing: the parser's own recursion must never meet a bottomless document."""
    depth = 0
    for token in _NESTING.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, token.start()) + 1
            message = f"is nested more than {MAX_DEPTH} levels deep at line {line}"
            raise invalid(what, [Problem("", message)])


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= len("-9223372036854775808") else math.inf


def _unusable_values(
    value: Any, parts: tuple[Part, ...], repeated_in: Mapping[int, list[str]]
) -> Iterator[Problem]:
    for place, inner in places(value, parts):
        if isinstance(inner, dict):
            for key in repeated_in.get(id(inner), ()):
                yield Problem(pointer((*place, key)), "is given more than once")
            for key in inner:
                if not _is_unicode(key):
                    yield Problem(
                        pointer((*place, key)), "is a key of broken Unicode (half a surrogate pair)"
                    )
        elif isinstance(inner, str) and not _is_unicode(inner):
            yield Problem(pointer(place), "holds broken Unicode (half a surrogate pair)")
        elif _is_unusable_number(inner):
            yield Problem(
                pointer(place),
                "is NaN, infinite or beyond 64 bits",
                "write a larger number as a string",
            )


def _is_unusable_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _is_unicode(text: str) -> bool:
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _printable(text: str) -> str:
    spelt = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text[:200])
    return spelt if len(text) <= 200 else spelt + "…"


def _toml_text(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} has no place in a document")


_NOTHING = object()


def _locate(value: Any, error: ErrorDetails) -> tuple[list[Part], Any]:
    """Return the way to the value at fault, and the value; it is ``_NOTHING`` where a key is missing.

    pydantic's own location also names the variants it tried, which are no places of the document.
    """
    parts: list[Part] = []
    for number, part in enumerate(error["loc"], 1):
        is_key = isinstance(value, dict) and part in value
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_key or is_index:
            parts.append(part)
            value = value[part]
        elif number == len(error["loc"]) and error["type"] == "missing":
            parts.append(part)
            value = _NOTHING
    return parts, value


def _problems(model: type[BaseModel], value: Any, errors: Sequence[ErrorDetails]) -> list[Problem]:
    found: list[Problem] = []
    for error in errors[: MAX_PROBLEMS + 1]:
        parts, at_fault = _locate(value, error)
        if error["type"] == "problems":
            found += under(pointer(parts), error["ctx"]["problems"])
        else:
            message, hint = _describe(model, error, at_fault)
            found.append(Problem(pointer(parts), message, hint))
    return found


_SHAPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

_LIMITS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_pattern_mismatch": "must match {pattern}",
    "finite_number": "must be a finite number",
}


def _describe(model: type[BaseModel], error: ErrorDetails, at_fault: Any) -> tuple[str, str | None]:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _SHAPES:
        return f"must be {_SHAPES[kind]}, not {_kind_of(at_fault)}", None
    if kind in _LIMITS:
        return _LIMITS[kind].format_map(context), None
    if kind == "missing":
        return "is required", None
    if kind == "extra_forbidden":
        return "is not a key known here", _known_here(model, error["loc"])
    if kind == "literal_error":
        return _not_allowed(re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]], at_fault)
    if kind == "union_tag_invalid":
        allowed = re.findall(r"'([^']*)'", context["expected_tags"])
        message, hint = _not_allowed(allowed, context["tag"])
        return f"{context['discriminator']} {message}", hint
    if kind == "union_tag_not_found":
        return f"needs {context['discriminator']}", None
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]), None
    return error["msg"][:1].lower() + error["msg"][1:], None


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


def _not_allowed(allowed: Sequence[str], found: Any) -> tuple[str, str | None]:
    """Say which words are allowed, and repeat the one found where it can hardly be a secret."""
    one_of = f"must be one of {', '.join(allowed)}" if len(allowed) > 1 else f"must be {allowed[0]}"
    if not isinstance(found, str):
        return f"{one_of}, not {_kind_of(found)}", None
    if not re.fullmatch(r"[A-Za-z][A-Za-z_ -]{0,23}", found):
        return one_of, None
    return f"{one_of}, not '{found}'", did_you_mean(found, allowed)


def _known_here(model: type[BaseModel], place: Sequence[Part]) -> str | None:
    known = sorted(_keys_at(_schema_of(model), place[:-1]))
    return did_you_mean(str(place[-1]), known) or (f"known are {', '.join(known)}" if known else None)


@lru_cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _keys_at(schema: dict[str, Any], place: Sequence[Part]) -> set[str]:
    """Return the keys that *schema* knows at *place*, a location as pydantic gives it."""
    nodes = _variants(schema, schema)
    for part in place:
        nodes = [variant for node in _inside(nodes, part) for variant in _variants(schema, node)]
    return {key for node in nodes for key in node.get("properties", {})}


def _variants(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _variants(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    inner = [variant for choice in choices for variant in _variants(schema, choice)]
    return [node, *inner] if "properties" in node else inner or [node]


def _inside(nodes: Sequence[dict[str, Any]], part: Part) -> list[dict[str, Any]]:
    if isinstance(part, int):
        return [node["items"] for node in nodes if "items" in node]
    stepped = [node["properties"][part] for node in nodes if part in node.get("properties", {})]
    if stepped:
        return stepped
    # The name of a variant: keep the nodes that carry it as a constant, if any.
    tagged = [
        node for node in nodes if any(_is_tag(key, part) for key in node.get("properties", {}).values())
    ]
    return tagged or list(nodes)


def _is_tag(schema: dict[str, Any], tag: str) -> bool:
    return schema.get("const") == tag
