"""``field_mapper``: target fields from source columns, constants and functions, without code.

The reference for job authors is ``docs/reference/field-mapper.md``.
"""

from __future__ import annotations

from ecmbatch import __version__
from ecmbatch.processors.field_mapper.mapper import FieldMapper
from ecmbatch.processors.field_mapper.mapping import FieldMapping, parse_mapping
from ecmbatch.processors.processor import ProcessorType

FIELD_MAPPER = ProcessorType(
    name="field_mapper", version=__version__, parse_config=parse_mapping, build=FieldMapper
)

__all__ = ["FIELD_MAPPER", "FieldMapper", "FieldMapping", "parse_mapping"]
