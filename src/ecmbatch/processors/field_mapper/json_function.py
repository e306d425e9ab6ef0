"""``json_parse``: JSON text as typed values, read by Arrow's own JSON reader."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import as_text, convert_or_null
from ecmbatch.protocol.type_names import parse_type_name


def read_json_type(declared: object) -> pa.DataType:
    """``"int64"``, ``{"a": "int64"}`` (an object) or ``["int64"]`` (a list); else raise ValueError."""
    if isinstance(declared, Mapping):
        if not declared:
            raise ValueError("an object type names at least one member")
        return pa.struct([(name, read_json_type(member)) for name, member in declared.items()])
    if isinstance(declared, list):
        if len(declared) != 1:
            raise ValueError('a list type names the type of its items, as in ["int64"]')
        return pa.list_(read_json_type(declared[0]))
    return parse_type_name(declared)


def json_parse(
    values: pa.Array, data_type: pa.DataType, path: Sequence[str] = (), null_on_error: bool = False
) -> pa.Array:
    text = as_text(values)
    whole_type = data_type
    for name in reversed(path):
        whole_type = pa.struct([(name, whole_type)])
    if null_on_error:
        values = convert_or_null(
            text, lambda part: _read(part, whole_type), lambda part: _plausible(part, whole_type)
        )
    else:
        values = _read(text, whole_type)
    for _ in path:
        values = pc.struct_field(values, 0)
    return values


def _plausible(text: pa.Array, data_type: pa.DataType) -> pa.Array:
    """False for text that is no JSON or has values of another kind; one by one, as it is rarely asked."""
    return pa.array([_is_plausible(each, data_type) for each in text.to_pylist()], pa.bool_())


def _is_plausible(text: str | None, data_type: pa.DataType) -> bool:
    try:
        # Python refuses to convert very long numbers, which may stand in members nobody asks for.
        return text is None or _fits(json.loads(text, parse_int=lambda digits: 0), data_type)
    except ValueError:
        return False
    except RecursionError:
        return True


def _fits(value: object, data_type: pa.DataType) -> bool:
    if value is None:
        return True
    if pat.is_struct(data_type):
        return isinstance(value, dict) and all(
            _fits(value.get(field.name), field.type) for field in data_type
        )
    if pat.is_list(data_type):
        return isinstance(value, list) and all(_fits(item, data_type.value_type) for item in value)
    if pat.is_boolean(data_type):
        return isinstance(value, bool)
    if pat.is_integer(data_type):
        return isinstance(value, int) and not isinstance(value, bool)
    if pat.is_floating(data_type):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if pat.is_decimal(data_type):
        return isinstance(value, (int, float, str)) and not isinstance(value, bool)
    return isinstance(value, str)


def _read(text: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Read one JSON value per row; raise ValueError where a row is not exactly one value of the type."""
    if not len(text):
        return pa.nulls(0, data_type)
    table = _read_lines(_lines(text), _reading_type(data_type))
    lists = table["value"].combine_chunks()
    if table.num_rows != len(text) or pc.any(pc.not_equal(pc.list_value_length(lists), 1)).as_py():
        raise ValueError("text that is not one JSON value")
    return lists.flatten().cast(data_type)


def _lines(text: pa.Array) -> pa.Array:
    """One line of JSON for each row.

    The list around each value shows empty text (no item) and several values in one text. Line breaks become
    tabs: white space between JSON tokens, and as forbidden as a line break inside a JSON string.
    """
    for line_break in ("\n", "\r"):
        text = pc.replace_substring(text, pattern=line_break, replacement="\t")
    text = pc.fill_null(text, "null")
    start, end, nothing = (pa.scalar(part, text.type) for part in ('{"value":[', "]}\n", ""))
    return pc.binary_join_element_wise(start, text, end, nothing)


def _read_lines(lines: pa.Array, data_type: pa.DataType) -> pa.Table:
    content = lines.buffers()[2].slice(0, pc.sum(pc.binary_length(lines)).as_py())
    return pj.read_json(
        pa.BufferReader(content),
        # One block: a value is never cut, and the result has one chunk.
        read_options=pj.ReadOptions(use_threads=False, block_size=min(content.size + 1, 2**31 - 1)),
        parse_options=pj.ParseOptions(
            explicit_schema=pa.schema([("value", pa.list_(data_type))]), unexpected_field_behavior="ignore"
        ),
    )


def _reading_type(data_type: pa.DataType) -> pa.DataType:
    """Dates and times are read as text: the reader knows no dates and drops the zone of a time."""
    if pat.is_struct(data_type):
        return pa.struct([(field.name, _reading_type(field.type)) for field in data_type])
    if pat.is_list(data_type):
        return pa.list_(_reading_type(data_type.value_type))
    return pa.string() if pat.is_temporal(data_type) else data_type
