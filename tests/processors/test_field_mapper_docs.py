"""Every example of docs/reference/field-mapper.md runs as printed."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.processors.field_mapper.mapping_functions import FUNCTIONS
from ecmbatch.protocol.type_names import parse_type_name

PAGE = (Path(__file__).parents[2] / "docs/reference/field-mapper.md").read_text(encoding="utf-8")
CONFIGS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
ROW = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (?:`([^`]*)`|NULL) \|$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"^\| `(\{.*\})` \| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def row() -> pa.RecordBatch:
    columns = {name: pa.array([text or None]).cast(parse_type_name(kind)) for name, kind, text in ROW}
    return pa.record_batch(columns)


def as_json(value: Any) -> Any:
    """A Python value as the page writes it."""
    if isinstance(value, dict):
        return {name: as_json(member) for name, member in value.items()}
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def shown_type(data_type: pa.DataType) -> str | pa.DataType:
    """Nested types are only called struct and list in the tables."""
    if pa.types.is_struct(data_type):
        return "struct"
    return "list" if pa.types.is_list(data_type) else data_type


def test_the_page_has_a_row_and_examples():
    assert (len(ROW), len(CONFIGS)) == (13, 2)
    assert len(EXAMPLES) > 35


@pytest.mark.parametrize(("expression", "result", "kind"), EXAMPLES, ids=[each[0] for each in EXAMPLES])
def test_a_documented_expression_gives_the_documented_result(expression, result, kind, row, map_fields):
    values = map_fields({"result": json.loads(expression)}, row).column(0)
    assert as_json(values[0].as_py()) == json.loads(result)
    assert shown_type(values.type) == (kind if kind in ("struct", "list") else parse_type_name(kind))


def test_the_first_example_builds_the_documented_columns(map_fields):
    columns = ("carrier", "email", "customer", "updated_at")
    batch = pa.record_batch({name: pa.array([" Ab "]) for name in columns} | {"flight": pa.array([1])})
    result = map_fields(CONFIGS[0]["fields"], batch, keep_others=CONFIGS[0]["keep_others"])
    assert result.to_pylist() == [
        {
            "context_id": " Ab -1",
            "data": {"email": "ab", "name": " Ab "},
            "kind": "customer",
            "updated_at": " Ab ",
        }
    ]


def test_the_columns_kept_are_the_documented_ones(map_fields):
    batch = pa.record_batch({name: pa.array(["x"]) for name in ("carrier", "customer", "email", "flight")})
    result = map_fields(CONFIGS[1]["fields"], batch, keep_others=CONFIGS[1]["keep_others"])
    assert ", ".join(f"`{name}`" for name in result.schema.names) in PAGE


@pytest.mark.parametrize("function", ["now", *FUNCTIONS])
def test_every_function_is_documented_by_an_example(function):
    assert any(f'"{function}":' in expression for expression, _, _ in EXAMPLES)
