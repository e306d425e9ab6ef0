"""Expressions: where the values of a target field come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import ValueRefused, Values, WrongInput, as_array, decoded
from ecmbatch.processors.processor import RunFacts

_SHOWN_COLUMNS = 30


@dataclass(frozen=True, slots=True)
class Rows:
    """What an expression is evaluated on."""

    batch: pa.RecordBatch
    facts: RunFacts


class Expression(ABC):
    """A rule that gives one value per row; its type follows from the schema of the rows alone."""

    __slots__ = ()

    @abstractmethod
    def evaluate(self, rows: Rows) -> Values:
        """Raise WrongInput if the schema does not fit, ValueRefused if a value does not."""


@dataclass(frozen=True, slots=True)
class Column(Expression):
    """A source column by its exact name, or else a dotted path into a struct column."""

    name: str

    def evaluate(self, rows: Rows) -> pa.Array:
        path = _find(rows.batch.schema, self.name.split("."))
        if path is None:
            raise WrongInput(_missing(self.name, rows.batch.schema))
        values = rows.batch.column(path[0])
        for index in path[1:]:
            values = pc.struct_field(values, index)
        return values


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    value: pa.Scalar

    def evaluate(self, rows: Rows) -> pa.Scalar:
        return self.value


@dataclass(frozen=True, slots=True)
class Now(Expression):
    """The frozen start of the run, the same in every attempt."""

    def evaluate(self, rows: Rows) -> pa.Scalar:
        return pa.scalar(rows.facts.started_at, pa.timestamp("us", tz="UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Expression):
    """A function of other expressions; ``shown`` is how messages call it."""

    shown: str
    compute: Callable[..., Values]
    inputs: tuple[Expression, ...]
    options: tuple[object, ...] = ()
    takes_constants: bool = False

    def evaluate(self, rows: Rows) -> Values:
        inputs = [self._input(expression, rows) for expression in self.inputs]
        try:
            return self.compute(*inputs, *self.options)
        except WrongInput as wrong:
            raise WrongInput(f"{self.shown} {wrong}") from None
        except pa.ArrowNotImplementedError:
            types = ", ".join(str(values.type) for values in inputs)
            raise WrongInput(f"{self.shown} does not work on {types}") from None
        except ValueError:
            # Arrow's message holds the value.
            raise ValueRefused(self.shown) from None

    def _input(self, expression: Expression, rows: Rows) -> Values:
        values = decoded(expression.evaluate(rows))
        return values if self.takes_constants else as_array(values, rows.batch.num_rows)


def _find(fields: Sequence[pa.Field] | pa.Schema, segments: Sequence[str]) -> list[int] | None:
    """Positions of the column and of the struct members below it; the longest exact name wins."""
    names = [field.name for field in fields]
    for length in range(len(segments), 0, -1):
        name = ".".join(segments[:length])
        if names.count(name) > 1:
            raise WrongInput(
                f"source column '{name}' is there {names.count(name)} times; rename it in the query"
            )
        if name not in names:
            continue
        index = names.index(name)
        if length == len(segments):
            return [index]
        if pat.is_struct(fields[index].type):
            below = _find(list(fields[index].type), segments[length:])
            return None if below is None else [index, *below]
    return None


def _missing(name: str, schema: pa.Schema) -> str:
    if not schema.names:
        return f"no source column '{name}'; the source has no columns"
    guess = get_close_matches(name, schema.names, n=1)
    question = f" Did you mean '{guess[0]}'?" if guess else ""
    shown = ", ".join(schema.names[:_SHOWN_COLUMNS])
    more = len(schema.names) - _SHOWN_COLUMNS
    return f"no source column '{name}'.{question} Columns: {shown}" + (
        f" and {more} more" if more > 0 else ""
    )
