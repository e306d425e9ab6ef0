"""How JSON lines files are written: the ``json`` table of a ``files`` connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, field_validator

from ecmbatch.connectors.file_formats.text_settings import Encoding
from ecmbatch.errors import Problem
from ecmbatch.protocol.document import Section, pointer, refusal
from ecmbatch.protocol.type_names import parse_type_name

Declared = str | Mapping[str, "Declared"] | list["Declared"]
"""The name of a type, the fields of an object, or in brackets the one type of an array's items."""


class JsonSettings(Section):
    """``json`` of a ``files`` connector. ``columns`` declares types, each a :data:`Declared`."""

    encoding: Encoding = "utf-8"
    columns: dict[str, Any] = Field(default_factory=dict)

    @field_validator("columns", mode="after")
    @classmethod
    def _types_exist(cls, columns: dict[str, Any]) -> dict[str, Any]:
        problems = list(_problems(columns, ()))
        if problems:
            raise refusal(*problems)
        return columns


def _problems(declared: Mapping[str, Any], way: tuple[str, ...]) -> Iterator[Problem]:
    for name, kind in declared.items():
        yield from _problems_of(kind, (*way, name))


def _problems_of(kind: Any, way: tuple[str, ...]) -> Iterator[Problem]:
    if isinstance(kind, list) and len(kind) == 1:
        yield from _problems_of(kind[0], (*way, "0"))
    elif isinstance(kind, dict) and kind:
        yield from _problems(kind, way)
    else:
        try:
            parse_type_name(kind)
        except ValueError as error:
            hint = 'an object is a table of its fields, an array its one type in brackets, such as ["int64"]'
            yield Problem(pointer(way), str(error), hint)
