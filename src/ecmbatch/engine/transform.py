"""Building the processors of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.references import empty_tables
from ecmbatch.errors import DefinitionChanged, SourceChanged
from ecmbatch.processors.chain import BoundChain, Chain, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from ecmbatch.engine.plan import ProcessorPlan, RunPlan
    from ecmbatch.engine.references import Tables
    from ecmbatch.engine.resources import Resources
    from ecmbatch.processors.processor import RunFacts


def learned_schema(
    transform: Sequence[ProcessorPlan], resources: Resources, facts: RunFacts, source: pa.Schema
) -> pa.Schema:
    """Return the columns that *transform* makes of rows of *source*; reads no row."""
    return _chain(transform, resources, facts, empty_tables(transform, resources)).output_schema(source)


def bound_chain(plan: RunPlan, resources: Resources, facts: RunFacts, tables: Tables) -> BoundChain:
    """Return the plan's processors, bound to the rows that its source yields.

    *tables* are those that they look things up in. Raises :class:`~ecmbatch.errors.SourceChanged` where
    other columns come out than when the run was planned.
    """
    chain = _chain(plan.transform, resources, facts, tables).bind(plan.source_schema)
    if not chain.output_schema.equals(plan.output_schema):
        raise SourceChanged(
            "the transform yields other columns or types than when the run was planned: a table that it looks "
            "things up in has changed",
            hint=f"start anew with: ecmbatch run {facts.job_id} --fresh",
        )
    return chain


def check_versions(plan: RunPlan, resources: Resources, facts: RunFacts) -> None:
    """Refuse processors of other versions than the plan's: who imports them later may find other ones.

    Raises :class:`~ecmbatch.errors.DefinitionChanged` with the name of the processor.
    """
    if plan.transform:
        resources.load_processors()
    for planned in plan.transform:
        if resources.plugins.processors.get(planned.name).version != planned.version:
            raise DefinitionChanged(
                f"processor {planned.name!r} was changed while run {facts.run_id} was under way",
                hint=f"put it back and go on with: ecmbatch resume {facts.run_id}; or start anew with: "
                f"ecmbatch run {facts.job_id} --fresh; or let it process the rest: "
                f"ecmbatch resume {facts.run_id} --accept-definition-change",
            )


def _chain(
    transform: Sequence[ProcessorPlan], resources: Resources, facts: RunFacts, tables: Tables
) -> Chain:
    """Return the configured processors of *transform*, in order."""
    if transform:
        resources.load_processors()
    steps = []
    for planned in transform:
        plugin = resources.plugins.processors.get(planned.name)
        config: Any = plugin.parse_config(planned.config)
        references = [tables[reference.digest] for reference in plugin.references(config)]
        steps.append(Step(planned.name, plugin.build(config, replace(facts, references=references))))
    return Chain(steps)
