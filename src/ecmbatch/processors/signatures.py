"""What a user's function or class takes, read once at registration and checked there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import pyarrow as pa

from ecmbatch.errors import PluginError
from ecmbatch.processors.processor import RunFacts

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """The type of the configuration, and whether the facts of the run are wanted beside it."""

    config_type: Any
    takes_run: bool

    def arguments(self, config: Any, run: RunFacts) -> tuple[Any, ...]:
        return (config, run) if self.takes_run else (config,)


def read_function_signature(name: str, function: Callable[..., Any], config: type | None) -> Signature:
    """Raise PluginError unless *function* takes ``(batch, config)``, or these and ``run``."""
    subject = _Subject(name, "function", function)
    parameters = subject.parameters(function)
    subject.check_count(parameters, ("batch", "config"))
    hints = subject.hints(function, config)
    subject.check_plain(function, hints, parameters[0])
    return Signature(config or hints.get(parameters[1].name, Any), len(parameters) > 2)


def read_row_function_signature(name: str, function: Callable[..., Any], config: type | None) -> Signature:
    """Raise PluginError unless *function* takes ``(row, config)``, or these and ``run``."""
    subject = _Subject(name, "function", function)
    parameters = subject.parameters(function)
    subject.check_count(parameters, ("row", "config"))
    hints = subject.hints(function, config)
    subject.check_returns(function, "a dict or None")
    if pa.RecordBatch in (hints.get(parameters[0].name), hints.get("return")):
        raise subject.refused("must take and return a row, not a RecordBatch; @processor is for batches")
    return Signature(config or hints.get(parameters[1].name, Any), len(parameters) > 2)


def read_class_signature(name: str, target: type, config: type | None) -> Signature:
    """Raise PluginError unless *target* is built with ``(config)``, or ``(config, run)``, and can process."""
    subject = _Subject(name, "class", target)
    process = getattr(target, "process", None)
    if not inspect.isfunction(process):
        raise subject.refused("has no method process(batch)")
    method = _Subject(name, "method 'process' of class", process)
    batch = method.parameters(process)[1:]
    method.check_count(batch, ("batch",), optional=())
    method.check_plain(process, method.hints(process, config), batch[0])
    parameters = subject.parameters(target)
    subject.check_count(parameters, ("config",))
    hints = subject.hints(target.__init__, config)  # type: ignore[misc]
    return Signature(config or hints.get(parameters[0].name, Any), len(parameters) > 1)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom the errors speak of."""

    name: str
    kind: str
    plugin: Any

    def refused(self, message: str) -> PluginError:
        called = getattr(self.plugin, "__qualname__", "")
        return PluginError(f"processor '{self.name}': {self.kind} {called} {message}", plugin=self.plugin)

    def parameters(self, function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
        return list(inspect.signature(function).parameters.values())

    def check_count(
        self,
        parameters: Sequence[inspect.Parameter],
        wanted: tuple[str, ...],
        optional: tuple[str, ...] = ("run",),
    ) -> None:
        names = [str(parameter) for parameter in parameters]
        extra = tuple(parameter.name for parameter in parameters[len(wanted) :])
        positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
        if not positional or len(parameters) < len(wanted) or extra not in ((), optional):
            also = f", or ({', '.join((*wanted, *optional))})" if optional else ""
            message = f"must take ({', '.join(wanted)}){also}, but takes ({', '.join(names)})"
            raise self.refused(message)

    def hints(self, function: Callable[..., Any], config: type | None) -> dict[str, Any]:
        """Annotations as types; where they cannot be read, *config* must be given instead."""
        try:
            return get_type_hints(function)
        except Exception as error:
            if config is not None:
                return {}
            raise self.refused(
                f"has annotations that cannot be read ({error}); "
                "import their types, or name the type: @processor(..., config=...)"
            ) from error

    def check_plain(
        self, function: Callable[..., Any], hints: dict[str, Any], batch: inspect.Parameter
    ) -> None:
        self.check_returns(function, "one RecordBatch")
        for place, found in (
            (f"take as '{batch.name}'", hints.get(batch.name)),
            ("return", hints.get("return")),
        ):
            if found not in (None, Any, pa.RecordBatch):
                shown = getattr(found, "__name__", str(found))
                raise self.refused(f"must {place} a pyarrow.RecordBatch, not {shown}")

    def check_returns(self, function: Callable[..., Any], what: str) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise self.refused("must not be async")
        if inspect.isgeneratorfunction(function):
            raise self.refused(f"must return {what}; it must not yield")
