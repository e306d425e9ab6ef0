"""Upkeep: what ``ecmbatch gc`` does, done now and then by one scheduler for all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from ecmbatch.engine.resources import Resources
from ecmbatch.ledger.ledger import Ledger

log = logging.getLogger("ecmbatch")

_EVERY = timedelta(hours=1)


def look_after(ledger: Ledger, tidy: Callable[[], None]) -> None:
    """Let *tidy* do its work, if nobody has done so for an hour."""
    if ledger.tasks.begin("retention", every=_EVERY):
        tidy()


def tidy_up(resources: Resources) -> None:
    """Remove what the project's ``[retention]`` lets go."""
    # It imports plug-ins, which a scheduler does not need otherwise.
    from ecmbatch.engine.retention import collect_garbage

    before = resources.ledger.clock() - resources.project_file.settings.retention.history
    resources.ledger.retention.forget_events(before)
    collection = collect_garbage(resources)
    if collection.gone:
        log.info(
            "retention: removed %d things of %d runs",
            len(collection.gone),
            len({each.run_id for each in collection.gone}),
            extra={"event": "retention.done"},
        )
    if collection.error is not None:
        log.warning("retention: %s", collection.error.message, extra={"event": "retention.trouble"})
