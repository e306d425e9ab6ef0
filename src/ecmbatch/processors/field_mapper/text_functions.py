"""Functions of text; positions count characters (Unicode code points) from 1, as in SQL."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import Values, as_text


def concat(*inputs: Values) -> Values:
    texts = [as_text(values) for values in inputs]
    large = any(pat.is_large_string(text.type) for text in texts)
    data_type = pa.large_string() if large else pa.string()
    return pc.binary_join_element_wise(*(text.cast(data_type) for text in texts), pa.scalar("", data_type))


def lower(values: pa.Array) -> pa.Array:
    return pc.utf8_lower(as_text(values))


def upper(values: pa.Array) -> pa.Array:
    return pc.utf8_upper(as_text(values))


def trim(values: pa.Array) -> pa.Array:
    return pc.utf8_trim_whitespace(as_text(values))


def substring(values: pa.Array, start: int, length: int | None = None) -> pa.Array:
    """From position *start*; a negative start counts from the end (-1 is the last character)."""
    text = as_text(values)
    from_here = pc.utf8_slice_codeunits(text, start - 1 if start > 0 else start)
    return from_here if length is None else pc.utf8_slice_codeunits(from_here, 0, length)


def replace(values: pa.Array, find: str, replacement: str) -> pa.Array:
    return pc.replace_substring(as_text(values), pattern=find, replacement=replacement)
