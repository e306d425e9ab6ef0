"""Lines of JSON as Arrow rows with a given schema, and what is wrong with a line that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from ecmbatch.connectors.file_formats.json_shape import BadJson, Number, below, parse_object
from ecmbatch.connectors.file_formats.text_problems import BadText, settle
from ecmbatch.connectors.file_formats.text_rows import Parser
from ecmbatch.connectors.file_formats.text_types import TEXT, check_precision
from ecmbatch.protocol.type_names import type_name

COLUMNS_SETTING = "json.columns"

_BLANK = b" \t\r"
_NEWLINE, _RETURN = 10, 13
# Behind the end of an object: what may follow inside a line is a comma or the end of what it is in.
_SOMETHING_BEHIND = re.compile(rb"\}[ \t\r]*+[^,}\]\s]")


class JsonParser(Parser):
    """Parses lines into rows of *schema*; a field that it does not have is an error."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        as_read = pa.schema([(field.name, _as_read(field.type)) for field in schema])
        self._options = pajson.ParseOptions(explicit_schema=as_read, unexpected_field_behavior="error")

    def parse(self, text: bytes) -> pa.RecordBatch:
        lines = _count_objects(text)
        if not lines:
            return pa.RecordBatch.from_pylist([], self._schema)
        options = pajson.ReadOptions(use_threads=False, block_size=len(text) + 1)
        table = pajson.read_json(pa.BufferReader(text), options, self._options)
        (rows,) = table.combine_chunks().to_batches()
        if rows.num_rows != lines:
            raise ValueError("a line has not one object")
        if any(map(_has_no_number, rows.columns)):
            raise ValueError("a number is not finite")
        check_precision(rows)
        columns = [rows.column(field.name).cast(field.type) for field in self._schema]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def describe(self, record: bytes) -> tuple[str, str | None]:
        try:
            value = parse_object(record)
        except BadJson as bad:
            return str(bad), self.hint_for(record)
        for problem in _misfits(value, pa.struct(list(self._schema)), ""):
            return problem
        return "the line cannot be read with the types of its columns", f"declare them in {COLUMNS_SETTING}"

    @staticmethod
    def hint_for(line: bytes) -> str | None:
        """Return what to do about a line that is no object."""
        if line.lstrip(_BLANK).startswith(b"["):
            return "write one object per line, without brackets around them and commas between"
        return "write one JSON object per line"


def _count_objects(text: bytes) -> int:
    """Return how many lines are not empty.

    Raises :class:`BadText` for lines that are not one object. Arrow must never see them: it takes line ends for
    any other space, and for a lone ``null`` it reads memory that is not there.
    """
    content = np.frombuffer(text, np.uint8)
    newlines = np.flatnonzero(content == _NEWLINE)
    starts = np.append(0, newlines + 1)
    ends = np.append(newlines, len(content))
    starts, ends = starts[starts < len(content)], ends[: len(starts[starts < len(content)])]
    lasts = np.maximum(ends - 1, 0)
    lasts = np.where((content[lasts] == _RETURN) & (lasts > starts), lasts - 1, lasts)
    plain = (ends > starts) & (content[starts] == ord("{")) & (content[lasts] == ord("}"))
    objects = int(np.count_nonzero(plain))
    for start, end in zip(starts[~plain].tolist(), ends[~plain].tolist(), strict=True):
        line = text[start:end].strip(_BLANK)
        if not line:
            continue
        if not (line.startswith(b"{") and line.endswith(b"}")):
            raise BadText(start, _reason(line), JsonParser.hint_for(line))
        objects += 1
    for match in _SOMETHING_BEHIND.finditer(text):
        _check_single(text, match.start())
    return objects


def _reason(line: bytes) -> str:
    try:
        parse_object(line)
    except BadJson as bad:
        return str(bad)
    return "not a JSON object"


def _check_single(text: bytes, position: int) -> None:
    """Raise :class:`BadText` unless the line at *position* is one JSON value."""
    start, end = text.rfind(b"\n", 0, position) + 1, text.find(b"\n", position)
    line = text[start : end if end >= 0 else len(text)]
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        raise BadText(start, _reason(line), JsonParser.hint_for(line)) from None


def _as_read(kind: pa.DataType) -> pa.DataType:
    """Return the type to parse: Arrow's JSON reader is lax with the zones of times and knows no dates."""
    if pa.types.is_temporal(kind):
        return TEXT
    if pa.types.is_struct(kind):
        return pa.struct([(child.name, _as_read(child.type)) for child in kind.fields])
    if pa.types.is_list(kind):
        return pa.list_(_as_read(kind.value_type))
    return kind


def _has_no_number(values: pa.Array) -> bool:
    """Tell whether there is a NaN or an infinity, which Arrow takes for numbers and JSON does not have."""
    if pa.types.is_floating(values.type):
        return not pc.all(pc.is_finite(values)).as_py() if len(values) > values.null_count else False
    if pa.types.is_struct(values.type):
        return any(map(_has_no_number, values.flatten()))
    return pa.types.is_list(values.type) and _has_no_number(values.flatten())


def _misfits(value: Any, kind: pa.DataType, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield what does not fit, and what to do."""
    if value is None:
        return
    if pa.types.is_struct(kind) and isinstance(value, dict):
        types = {child.name: child.type for child in kind.fields}
        for key, inner in value.items():
            if key in types:
                yield from _misfits(inner, types[key], below(name, key))
            else:
                yield (
                    f"field '{below(name, key)}' was not in the start of any file",
                    f"declare it in {COLUMNS_SETTING} and start a new run with --fresh",
                )
    elif pa.types.is_list(kind) and isinstance(value, list):
        for inner in value:
            yield from _misfits(inner, kind.value_type, f"{name}[]")
    elif not _fits(value, kind):
        yield (
            f"the value of field '{name}' is no {type_name(kind)}",
            settle(COLUMNS_SETTING, is_declared=False),
        )


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    if not isinstance(value, str):
        return False
    is_number = isinstance(value, Number)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return not is_number
    if not pa.types.is_decimal(kind) and is_number == pa.types.is_temporal(kind):
        return False
    try:
        pa.array([str(value)], TEXT).cast(kind).validate(full=True)
    except pa.ArrowException:
        return False
    return True
