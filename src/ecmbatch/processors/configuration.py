"""How the configuration of a user's processor is checked: by a pydantic model, a dataclass, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import ErrorDetails, to_json

from ecmbatch.errors import InvalidDocument, PluginError, Problem

ConfigParser = Callable[[Mapping[str, Any]], Any]


def config_parser(name: str, config_type: Any, plugin: object) -> ConfigParser:
    """A parser for the configuration of the processor *name*. Raise PluginError for an unsuitable type."""
    if config_type is Any or (get_origin(config_type) or config_type) in (dict, Mapping):
        return lambda config: dict(config)
    is_record = isinstance(config_type, type) and (
        issubclass(config_type, BaseModel) or is_dataclass(config_type)
    )
    if not is_record:
        shown = getattr(config_type, "__name__", str(config_type))
        raise PluginError(
            f"processor '{name}' has a configuration of type {shown}; "
            "it must be a pydantic model, a dataclass or dict",
            plugin=plugin,
        )
    try:
        adapter = TypeAdapter(config_type)
        # Else a field of an unknown type is noticed only when a job is loaded.
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise PluginError(
            f"processor '{name}': pydantic cannot check its configuration {config_type.__name__}: {error}",
            plugin=plugin,
        ) from error
    return lambda config: _parse(name, adapter, config_type, config)


def _parse(name: str, adapter: TypeAdapter[Any], config_type: type, config: Mapping[str, Any]) -> Any:
    # A model forbids unknown keys where it says so; a dataclass has no way to say it.
    known = _field_names(config_type)
    problems = [_unknown(key, known) for key in config if key not in known and is_dataclass(config_type)]
    try:
        # JSON rules: text for dates and enums and lists for tuples are accepted by strict models too.
        checked = adapter.validate_json(to_json(config))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        problems += [_problem(detail, known) for detail in details]
    if problems:
        raise InvalidDocument(f"the configuration of processor '{name}' is not valid", problems=problems)
    return checked


def _field_names(config_type: Any) -> list[str]:
    if issubclass(config_type, BaseModel):
        return [field.alias or name for name, field in config_type.model_fields.items()]
    return [field.name for field in fields(config_type)]


def _problem(detail: ErrorDetails, known: Collection[str]) -> Problem:
    location = detail["loc"]
    if detail["type"] == "extra_forbidden" and len(location) == 1:
        return _unknown(str(location[0]), known)
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location)
    return Problem(pointer, detail["msg"])


def _unknown(key: str, known: Collection[str]) -> Problem:
    guess = get_close_matches(key, known, n=1)
    pointer = f"/{key.replace('~', '~0').replace('/', '~1')}"
    message = f"no such option; options are {', '.join(known)}" if known else "takes no options"
    return Problem(pointer, message, f"did you mean '{guess[0]}'?" if guess else None)
