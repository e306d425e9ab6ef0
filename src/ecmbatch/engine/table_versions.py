"""Keeping rows apart that were read before and after another run was published to a table of a store.

Resumed scans read later than others, so the tables must be then what they were: as often published to.
"""

from __future__ import annotations

from ecmbatch.engine.plan import RunPlan, TablesRead
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import SourceChanged


def tables_to_read(plan: RunPlan, attempt: int, resources: Resources) -> TablesRead | None:
    """Return the tables as they must stay while *attempt* reads them, ``None`` where the source is no store.

    A first attempt has read no rows yet, so it takes them as they are; others as they were planned, or raise
    :class:`~ecmbatch.errors.SourceChanged`.
    """
    if plan.tables_read is None:
        return None
    if attempt == 1:
        return plan.tables_read.at(resources.store(plan.source.name).versions())
    check_tables(plan, plan.tables_read, resources)
    return plan.tables_read


def check_tables(plan: RunPlan, tables: TablesRead | None, resources: Resources) -> None:
    """Raise :class:`~ecmbatch.errors.SourceChanged` if another run was published to one of *tables*."""
    if tables is None:
        return
    changed = tables.changed(resources.store(plan.source.name).versions())
    if changed:
        raise SourceChanged(
            f"another run was published to {plan.source.name}.{changed[0]} after this one began to read it",
            hint="start a new run with --fresh",
        )
