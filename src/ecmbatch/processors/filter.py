"""``filter``: the rows for which a predicate is true, the same small one as the ``where`` of a validation rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch import __version__
from ecmbatch.errors import TransformError
from ecmbatch.processors.processor import Processor, ProcessorType, RunFacts
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.protocol.validation.observation import Unobservable
from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.selection import select


class FilterConfig(Section):
    """``transform.config`` of the processor."""

    where: Where


@dataclass(frozen=True, slots=True)
class Filter(Processor):
    """Keeps the rows for which ``where`` is true; where it is unknown because of a NULL, it is not true.

    Raises :class:`~ecmbatch.errors.TransformError` where the rows have no such column, or one of a type that
    its value cannot be compared with. An empty batch tells that as well as any other.
    """

    where: Where

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        try:
            selection = select(batch, self.where)
        except Unobservable as reason:
            raise TransformError(
                str(reason), hint=f"the rows have {_shown(batch.schema)}", error_class="permanent"
            ) from None
        try:
            return batch.filter(selection.mask)
        except pa.ArrowNotImplementedError as reason:
            # It names a type, never a value.
            raise TransformError(
                f"Arrow cannot leave out rows of one of the columns: {reason}",
                hint=f"cast it in a step before; the rows have {_shown(batch.schema)}",
                error_class="permanent",
            ) from None


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _parse(config: Mapping[str, Any]) -> FilterConfig:
    return parse_model(FilterConfig, dict(config), what="configuration of processor 'filter'")


def _build(config: FilterConfig, run: RunFacts) -> Filter:
    return Filter(config.where)


FILTER = ProcessorType(name="filter", version=__version__, parse_config=_parse, build=_build)
