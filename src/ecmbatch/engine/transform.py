"""Building the processors of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecmbatch.processors.chain import BoundChain, Chain, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from ecmbatch.engine.plan import ProcessorPlan, RunPlan
    from ecmbatch.engine.resources import Resources
    from ecmbatch.processors.processor import RunFacts


def chain_of(transform: tuple[ProcessorPlan, ...], resources: Resources, facts: RunFacts) -> Chain:
    """Return the configured processors of *transform*, in order."""
    if transform:
        resources.load_processors()
    steps = []
    for planned in transform:
        plugin = resources.plugins.processors.get(planned.name)
        config: Any = plugin.parse_config(planned.config)
        steps.append(Step(planned.name, plugin.build(config, facts)))
    return Chain(steps)


def bound_chain(plan: RunPlan, resources: Resources, facts: RunFacts) -> BoundChain:
    """Return the plan's processors, bound to the rows that its source yields."""
    source_schema: pa.Schema = plan.source_schema
    return chain_of(plan.transform, resources, facts).bind(source_schema)
