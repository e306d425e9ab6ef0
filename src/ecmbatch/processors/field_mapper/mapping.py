"""The configuration of the field mapper, read strictly and with all its problems at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from ecmbatch.errors import InvalidDocument, Problem
from ecmbatch.processors.field_mapper.casts import safe_cast
from ecmbatch.processors.field_mapper.expressions import Call, Column, Constant, Expression, Now
from ecmbatch.processors.field_mapper.mapping_functions import FUNCTIONS, MappingFunction
from ecmbatch.protocol.type_names import parse_type_name

_OPTIONS = ("fields", "keep_others")
_EXPRESSION_KEYS = ("value", "now", *FUNCTIONS)
_EXPRESSION_FORMS = 'a source column ("name"), a constant ({"value": ...}) or a function ({"lower": ...})'


@dataclass(frozen=True, slots=True)
class Target:
    """A target field: its segments (``data.email`` has two), and the expression that fills it."""

    segments: tuple[str, ...]
    expression: Expression

    @property
    def name(self) -> str:
        return ".".join(self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMapping:
    """The checked configuration; targets stand in the order of the job file."""

    targets: tuple[Target, ...]
    keep_others: bool = False


def parse_mapping(config: Mapping[str, Any]) -> FieldMapping:
    """Raise InvalidDocument with a problem for each thing that is wrong."""
    reader = _Reader([])
    mapping = reader.mapping(config)
    if reader.problems:
        raise InvalidDocument("the field_mapper configuration is not valid", problems=reader.problems)
    return mapping


class _Refused(Exception):
    """A part of the document could not be read; its problem has been noted."""


@dataclass(frozen=True, slots=True)
class _Reader:
    problems: list[Problem]

    def mapping(self, config: Mapping[str, Any]) -> FieldMapping:
        for key in config:
            if key not in _OPTIONS:
                self._note(
                    _below("", key), f"no such option; options are {', '.join(_OPTIONS)}", key, _OPTIONS
                )
        keep_others = config.get("keep_others", False)
        if not isinstance(keep_others, bool):
            self._note("/keep_others", "must be true or false")
        targets = self._targets(config.get("fields"))
        return FieldMapping(targets=targets, keep_others=keep_others is True)

    def _targets(self, fields: object) -> tuple[Target, ...]:
        if not isinstance(fields, Mapping) or not fields:
            self._note("/fields", "must be an object that gives each target field its expression")
            return ()
        targets: list[Target] = []
        names: list[tuple[str, ...]] = []
        for name, document in fields.items():
            pointer = _below("/fields", name)
            segments = tuple(name.split("."))
            self._check_target(pointer, segments, names)
            names.append(segments)
            try:
                targets.append(Target(segments, self._expression(pointer, document)))
            except _Refused:
                continue
        return tuple(targets)

    def _check_target(self, pointer: str, segments: tuple[str, ...], earlier: list[tuple[str, ...]]) -> None:
        if not all(segments):
            self._note(pointer, "has an empty name in its path; write it as in 'data.email'")
        for other in earlier:
            shorter, longer = sorted((segments, other), key=len)
            if longer[: len(shorter)] == shorter:
                whole, member = ".".join(shorter), ".".join(longer)
                self._note(
                    pointer, f"'{whole}' cannot be a value and also hold '{member}'; rename one of them"
                )

    def _expression(self, pointer: str, document: object) -> Expression:
        if isinstance(document, str) and document:
            return Column(document)
        if not isinstance(document, Mapping):
            raise self._refuse(
                pointer, f"must be {_EXPRESSION_FORMS}", hint='a constant is written {"value": ...}'
            )
        if "value" in document:
            return self._constant(pointer, document)
        if len(document) != 1:
            raise self._refuse(pointer, f"must be {_EXPRESSION_FORMS}, with one function at a time")
        ((name, arguments),) = document.items()
        below = _below(pointer, name)
        if name == "now":
            return self._now(below, arguments)
        if name not in FUNCTIONS:
            message = f"no function '{name}'; functions are now, {', '.join(FUNCTIONS)}"
            raise self._refuse(below, message, name, _EXPRESSION_KEYS)
        return self._call(below, name, FUNCTIONS[name], arguments)

    def _now(self, pointer: str, arguments: object) -> Now:
        if arguments != []:
            raise self._refuse(pointer, 'takes no arguments: {"now": []}')
        return Now()

    def _constant(self, pointer: str, document: Mapping[str, Any]) -> Constant:
        others = [key for key in document if key not in ("value", "type")]
        if others:
            raise self._refuse(
                _below(pointer, others[0]), "a constant has a value and a type only", others[0], ("type",)
            )
        data_type = self._constant_type(pointer, document)
        try:
            scalar = _scalar(document["value"])
            return Constant(safe_cast(pa.array([scalar]), data_type)[0] if data_type else scalar)
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            wanted = data_type or "text, true, false or a number of at most 64 bits"
            raise self._refuse(_below(pointer, "value"), f"cannot be taken as {wanted}") from None

    def _constant_type(self, pointer: str, document: Mapping[str, Any]) -> pa.DataType | None:
        if "type" not in document:
            if document["value"] is None:
                message = "a NULL constant needs a type"
                raise self._refuse(pointer, message, hint='as in {"value": null, "type": "string"}')
            return None
        try:
            return parse_type_name(document["type"])
        except ValueError as error:
            raise self._refuse(_below(pointer, "type"), str(error)) from None

    def _call(self, pointer: str, name: str, function: MappingFunction, document: object) -> Call:
        arguments = document if isinstance(document, list) else [document]
        inputs = len(arguments) if function.inputs is None else function.inputs
        most = inputs + len(function.options)
        if not max(inputs, 1) <= len(arguments) <= most or len(arguments) < most - function.optional:
            raise self._refuse(pointer, f"{name} takes {function.usage}, not {len(arguments)} arguments")
        places = (
            [_below(pointer, str(i)) for i in range(len(arguments))] if document is arguments else [pointer]
        )
        placed = list(zip(places, arguments, strict=True))
        before = len(self.problems)
        expressions = [self._try_expression(*each) for each in placed[:inputs]]
        options = [
            option
            for read, (place, value) in zip(function.options, placed[inputs:], strict=False)
            for option in self._option(place, read, value)
        ]
        if len(self.problems) > before:
            raise _Refused
        shown = ", ".join(["...", *(json.dumps(value, ensure_ascii=False) for value in arguments[inputs:])])
        return Call(
            shown=f"{name}({shown})" if arguments[inputs:] else name,
            compute=function.compute,
            inputs=tuple(expression for expression in expressions if expression),
            options=tuple(options),
            takes_constants=function.takes_constants,
        )

    def _try_expression(self, pointer: str, document: object) -> Expression | None:
        try:
            return self._expression(pointer, document)
        except _Refused:
            return None

    def _option(self, pointer: str, read: Any, value: object) -> tuple[object, ...]:
        try:
            options: tuple[object, ...] = read(value)
        except ValueError as error:
            self._note(pointer, str(error))
            return ()
        return options

    def _note(
        self,
        pointer: str,
        message: str,
        found: str = "",
        known: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        guess = get_close_matches(found, known, n=1)
        self.problems.append(Problem(pointer, message, f"did you mean '{guess[0]}'?" if guess else hint))

    def _refuse(
        self,
        pointer: str,
        message: str,
        found: str = "",
        known: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> _Refused:
        self._note(pointer, message, found, known, hint)
        return _Refused()


def _scalar(value: object) -> pa.Scalar:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return pa.scalar(value.astimezone(UTC), pa.timestamp("us", tz="UTC"))
    if value is None or isinstance(value, (str, bool, int, float, datetime)):
        return pa.scalar(value)
    raise TypeError(type(value).__name__)


def _below(pointer: str, key: str) -> str:
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
