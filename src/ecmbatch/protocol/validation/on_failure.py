"""What happens when a rule fails (protocol: Quality Validation, ``on_failure``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ecmbatch.protocol.validation.declaration import Declaration, JsonList, suggestion

ACTIONS: Sequence[str] = ("abort_and_alert", "abort", "warn", "warn_and_alert")
Action = Literal["abort_and_alert", "abort", "warn", "warn_and_alert"]


def _known_action(value: Any) -> Any:
    if value in ACTIONS:
        return value
    raise ValueError(f"unknown action{suggestion(value, ACTIONS)}; this version knows {', '.join(ACTIONS)}")


class OnFailure(Declaration):
    """What follows when a rule fails: ``action``, and the names of the alerts to send.

    Without names the alerts of the job are meant.
    """

    action: Annotated[Action, BeforeValidator(_known_action)] = "abort_and_alert"
    alert: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], JsonList] = ()

    @model_validator(mode="after")
    def _alerts_are_sent(self) -> OnFailure:
        if "alert" not in self.model_fields_set:
            return self
        if not self.alerts:
            raise ValueError(
                f"'{self.action}' sends no alert; use '{self.action}_and_alert' or leave 'alert' out"
            )
        if not self.alert:
            raise ValueError("'alert' names at least one alert; use 'abort' or 'warn' to send none")
        return self

    @property
    def aborts(self) -> bool:
        """Whether the store stays untouched."""
        return self.action.startswith("abort")

    @property
    def alerts(self) -> bool:
        """Whether somebody is told."""
        return self.action.endswith("_and_alert")


def _spelled_out(value: Any) -> Any:
    if isinstance(value, str):
        return {"action": _known_action(value)}
    if isinstance(value, dict | OnFailure):
        return value
    raise ValueError(f"'on_failure' is one of {', '.join(ACTIONS)}, or an object with 'action' and 'alert'")


OnFailureValue = Annotated[
    OnFailure,
    BeforeValidator(_spelled_out, json_schema_input_type=Action | OnFailure),
]
