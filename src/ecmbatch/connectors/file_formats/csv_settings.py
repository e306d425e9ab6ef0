"""How CSV files are written: the ``csv`` table of a ``files`` connector."""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, Field, field_validator, model_validator

from ecmbatch.connectors.file_formats.text_settings import Encoding
from ecmbatch.errors import Problem
from ecmbatch.protocol.document import Many, Section, pointer, refusal
from ecmbatch.protocol.type_names import parse_type_name


def _one_ascii_character(text: str) -> str:
    if len(text) != 1 or not text.isascii() or text in "\0\r\n":
        raise ValueError("must be one ASCII character, and no line end")
    return text


def _at_most_one_character(text: str) -> str:
    return _one_ascii_character(text) if text else text


class CsvSettings(Section):
    """``csv`` of a ``files`` connector: how its CSV files are written, and the types of their columns."""

    delimiter: Annotated[str, AfterValidator(_one_ascii_character)] = ","
    quote: Annotated[str, AfterValidator(_at_most_one_character)] = '"'
    escape: Annotated[str, AfterValidator(_at_most_one_character)] = ""
    header: bool = True
    encoding: Encoding = "utf-8"
    null_values: Many[str] = ("",)
    decimal_point: Annotated[str, AfterValidator(_one_ascii_character)] = "."
    true_values: Many[str] = ("true", "True", "TRUE")
    false_values: Many[str] = ("false", "False", "FALSE")
    timestamp_formats: Many[Annotated[str, Field(min_length=1)]] = ()
    skip_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    columns: dict[str, str] = Field(default_factory=dict)

    @field_validator("columns", mode="after")
    @classmethod
    def _types_exist(cls, columns: dict[str, str]) -> dict[str, str]:
        problems = []
        for name, kind in columns.items():
            try:
                parse_type_name(kind)
            except ValueError as error:
                problems.append(Problem(pointer([name]), str(error)))
        if problems:
            raise refusal(*problems)
        return columns

    @model_validator(mode="after")
    def _fits_together(self) -> CsvSettings:
        marks = [mark for mark in (self.delimiter, self.quote, self.escape) if mark]
        if len(set(marks)) < len(marks):
            raise refusal(Problem("", "delimiter, quote and escape must be different characters"))
        if self.decimal_point in marks:
            raise refusal(
                Problem(
                    "/decimal_point",
                    "must not be the delimiter, quote or escape as well",
                    "set csv.delimiter",
                )
            )
        if not self.header and not self.columns:
            raise refusal(
                Problem(
                    "", "files without a header need 'columns': the names in their order, and their types"
                )
            )
        return self

    def types(self) -> dict[str, pa.DataType]:
        """Return the declared types."""
        return {name: parse_type_name(kind) for name, kind in self.columns.items()}
