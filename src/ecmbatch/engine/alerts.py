"""Delivering alerts from the outbox. A failing delivery is logged, stays in the outbox, and changes no run."""

from __future__ import annotations

import logging

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.owner import Owner

log = logging.getLogger("ecmbatch")


def deliver_alerts(resources: Resources) -> None:
    """Deliver what waits in the outbox, oldest first; a crash in between delivers an alert again, never not."""
    try:
        _deliver(resources)
    except EcmbatchError as error:
        log.warning("alerts wait in the outbox: %s", error.message)


def _deliver(resources: Resources) -> None:
    for alert in resources.ledger.alerts.claim(Owner.this_process()):
        recipients = f" [{', '.join(alert.recipients)}]" if alert.recipients else ""
        level = logging.INFO if alert.outcome == "pass" else logging.ERROR
        log.log(level, "alert%s: %s", recipients, alert.message)
        crash_point("alert.delivered")
        resources.ledger.alerts.mark_delivered(alert.id)
