"""Several processors in a row, each held to the contract in :mod:`ecmbatch.processors.processor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.errors import EcmbatchError, TransformError
from ecmbatch.processors.failures import shown_failure
from ecmbatch.processors.processor import Processor, Transformed


@dataclass(frozen=True, slots=True)
class Step:
    """A configured processor under the name by which errors call it."""

    name: str
    processor: Processor


class Chain:
    """The processors of a job's ``transform``, in order; none at all hands batches on as they are."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = tuple(steps)

    def output_schema(self, input_schema: pa.Schema) -> pa.Schema:
        """What comes out for rows of *input_schema*; no row is read for it."""
        return self.bind(input_schema).output_schema

    def bind(self, input_schema: pa.Schema) -> BoundChain:
        """Learn the schema after each step by passing an empty batch through. Raise TransformError."""
        empty = [pa.nulls(0, field.type) for field in input_schema]
        batch = pa.RecordBatch.from_arrays(empty, schema=input_schema)
        schemas = []
        for step in self.steps:
            batch = _apply(step, batch).batch
            _check_names(step, batch.schema)
            schemas.append(batch.schema)
        return BoundChain(self.steps, tuple(schemas), schemas[-1] if schemas else input_schema)


@dataclass(frozen=True, slots=True)
class BoundChain:
    """A chain that knows which schema each of its steps must return. Holds no state; threads may share it."""

    steps: tuple[Step, ...]
    schemas: tuple[pa.Schema, ...]
    output_schema: pa.Schema

    def process(self, batch: pa.RecordBatch) -> Transformed:
        """Pass *batch* through all steps. Raise TransformError, which names the step.

        What step *n* (from 0) counted as ``missing`` is among the counts as ``n/missing``.
        """
        counts: dict[str, int] = {}
        for number, (step, schema) in enumerate(zip(self.steps, self.schemas, strict=True)):
            transformed = _apply(step, batch)
            batch = transformed.batch
            _check_schema(step, batch, schema)
            counts |= {f"{number}/{name}": count for name, count in transformed.counts.items()}
        return Transformed(batch, counts)


def _apply(step: Step, batch: pa.RecordBatch) -> Transformed:
    try:
        result = step.processor.process(batch)
    except (Exception, SystemExit) as error:
        # `sys.exit` must not end the process: to a scheduler, exit 0 would look like a success.
        raise _failed(step, batch, error) from error
    # Plain numbers, whatever they were counted with: they are remembered as JSON.
    counts = (
        {name: int(number) for name, number in result.counts.items()}
        if isinstance(result, Transformed)
        else {}
    )
    result = result.batch if isinstance(result, Transformed) else result
    if not isinstance(result, pa.RecordBatch):
        raise TransformError(
            f"processor '{step.name}' returned {type(result).__name__}, not pyarrow.RecordBatch",
            hint="return one RecordBatch, as of pa.RecordBatch.from_arrays or batch.filter",
        )
    # pandas and others leave notes about the batch in the metadata of its schema.
    return Transformed(result.replace_schema_metadata(None), counts)


def _failed(step: Step, batch: pa.RecordBatch, error: BaseException) -> TransformError:
    known = error if isinstance(error, EcmbatchError) else None
    when = "" if batch.num_rows else " (given an empty batch, as processors are to learn their output schema)"
    return TransformError(
        f"processor '{step.name}' failed{when}: {shown_failure(error)}",
        problems=known.problems if known else (),
        hint=known.hint if known else None,
        error_class=known.error_class if known else None,
    )


def _check_names(step: Step, schema: pa.Schema) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise TransformError(f"processor '{step.name}' returned several columns named {', '.join(twice)}")


def _check_schema(step: Step, batch: pa.RecordBatch, expected: pa.Schema) -> None:
    if batch.schema.equals(expected):
        return
    raise TransformError(
        f"processor '{step.name}' returned another schema than for an empty batch: "
        f"{_difference(batch.schema, expected)}",
        hint="build the result with a schema of its own, so that types do not depend on the rows",
    )


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    """All columns that differ, or else their order."""
    differences = [
        f"column '{name}' is {_shown(found, name)}, was {_shown(expected, name)}"
        for name in dict.fromkeys([*expected.names, *found.names])
        if _shown(found, name) != _shown(expected, name)
    ]
    order = f"the columns stand in the order {', '.join(found.names)}, not {', '.join(expected.names)}"
    return "; ".join(differences) or order


def _shown(schema: pa.Schema, name: str) -> str:
    kinds = [
        str(schema.field(index).type) + ("" if schema.field(index).nullable else " not null")
        for index in schema.get_all_field_indices(name)
    ]
    return " and ".join(kinds) or "absent"
