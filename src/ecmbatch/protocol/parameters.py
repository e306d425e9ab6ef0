"""``${…}``: looking up what a run knows (protocol: Job Specification, ``parameters``).

A fixed grammar and a fixed list of names; nothing is computed, nothing is read from outside::

    ${path}   ${path | default("…")}   ${path | minus("5 minutes")}   ${path | plus("1 day")}   $${ for ${

One pass: what a look-up gives is never looked at again. A text that is one expression takes the type of what
it finds; inside other text, times are RFC 3339 in UTC.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ecmbatch.errors import InvalidDocument, Problem, UsageError
from ecmbatch.protocol.document import did_you_mean, invalid, pointer, under
from ecmbatch.protocol.duration import parse_duration
from ecmbatch.protocol.scalars import Scalar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TIMES = frozenset(
    {
        "previous_job.end_time",
        "previous_job.start_time",
        "previous_job.scheduled_for",
        "previous_job.finished_at",
        "run.scheduled_for",
        "run.started_at",
        "window.start",
        "window.end",
    }
)
NAMES = TIMES | {
    "previous_job.run_id",
    "previous_job.rows",
    "run.id",
    "run.trigger",
    "job.id",
    "trigger.events",
}
"""Every path but ``upstream.<job>.{run_id,as_of}`` and ``param.<name>``."""

# The protocol's own example has no default, and must read everything the first time.
_SINCE_EVER = frozenset({"previous_job.end_time", "previous_job.start_time"})

Facts = Mapping[str, Scalar]
"""What a run knows, by path: ``{"previous_job.end_time": …, "param.region": "EU"}``. Times are aware.

A path that is missing has no value, as ``None``; a missing ``param.…`` is an error unless it has a default.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done with a value that was looked up: ``default``, ``minus`` or ``plus``."""

    name: str
    argument: Scalar | timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One ``${path | …}``."""

    path: str
    steps: tuple[Step, ...] = ()

    @property
    def has_default(self) -> bool:
        return any(step.name == "default" for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with its expressions taken apart."""

    parts: tuple[str | Expression, ...]

    @property
    def references(self) -> frozenset[str]:
        """The paths that are looked up."""
        return frozenset(part.path for part in self.parts if isinstance(part, Expression))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Parameters ready to be bound, and what a person should know about them, one sentence each."""

    values: Mapping[str, Scalar]
    notes: tuple[str, ...] = ()


def parse(text: str) -> Template:
    """Return *text* taken apart.

    Raises :class:`~ecmbatch.errors.InvalidDocument` (its path is the text itself) for expressions that do not
    follow the grammar and for names that do not exist.
    """
    parts: list[str | Expression] = []
    place = 0
    while (opening := text.find("${", place)) >= 0:
        if opening > place and text[opening - 1] == "$":
            parts.append(text[place : opening - 1] + "${")
            place = opening + 2
            continue
        if opening > place:
            parts.append(text[place:opening])
        expression, place = _expression(text, opening + 2)
        parts.append(expression)
    if place < len(text):
        parts.append(text[place:])
    return Template(parts=tuple(parts))


def resolve(template: Template, facts: Facts) -> Scalar:
    """Return the value of *template*: typed if it is one expression and nothing else, else text.

    Raises :class:`~ecmbatch.errors.InvalidDocument` for a ``param`` that was not given, for a value that is
    missing inside text, and for times that cannot be computed.
    """
    if len(template.parts) == 1 and isinstance(template.parts[0], Expression):
        return _value(template.parts[0], facts)
    return _text(template, facts)


def resolve_parameters(parameters: Mapping[str, Scalar], facts: Facts) -> Resolved:
    """Return the values of a job's *parameters*, and a note for each that starts at the epoch.

    Raises :class:`~ecmbatch.errors.InvalidDocument` with pointers below ``/parameters``.
    """
    values: dict[str, Scalar] = {}
    notes: list[str] = []
    for name, given in parameters.items():
        if not isinstance(given, str):
            values[name] = given
            continue
        with _problems_at(pointer(["parameters", name])):
            template = parse(given)
            values[name] = resolve(template, facts)
        notes += [
            f"no earlier run: {part.path} in parameter '{name}' is 1970-01-01T00:00:00Z"
            for part in template.parts
            if isinstance(part, Expression) and _starts_at_epoch(part, facts)
        ]
    return Resolved(values=values, notes=tuple(notes))


def resolve_text(text: str, facts: Facts) -> str:
    """Return *text*, such as ``source.path``, with its expressions as text; raises as :func:`resolve`."""
    return _text(parse(text), facts)


def resolve_tree(tree: Any, facts: Facts) -> Any:
    """Return the JSON value *tree*, such as ``transform.config``, with the expressions in its texts resolved.

    The result is JSON again, so times become RFC 3339 text. Raises as :func:`resolve`, with pointers into
    *tree*.
    """
    return _resolve_tree(tree, facts, "")


def unknown_params(references: Iterable[str], given: Collection[str]) -> list[Problem]:
    """Return a problem for every ``--param`` in *given* that no ``${param.…}`` among *references* uses."""
    used = sorted(path.removeprefix("param.") for path in references if path.startswith("param."))
    known = f"used are {', '.join(used)}" if used else "the job uses none"
    return [
        Problem("", f"the job does not use --param {name}", did_you_mean(name, used) or known)
        for name in given
        if name not in used
    ]


def parse_param_option(option: str) -> tuple[str, Scalar]:
    """Return name and value of a ``--param name=value``: JSON numbers, booleans and null as such, else text.

    Raises :class:`~ecmbatch.errors.UsageError` where the option is not of that form.
    """
    name, equals, text = option.partition("=")
    if not equals or not re.fullmatch(_PARAM_NAME, name):
        raise UsageError(
            "--param takes name=value; a name has letters, digits, '_' and '-' and begins with no digit",
            hint="for example --param region=EU",
        )
    if not re.fullmatch(rf"{_NUMBER}|true|false|null", text):
        return name, text
    value: Scalar = json.loads(text) if len(text) < 400 else math.inf
    is_usable = not isinstance(value, int | float) or -(2**63) <= value < 2**63
    return name, value if is_usable else text


def parse_time(text: str) -> datetime | None:
    """Return the UTC time that the RFC 3339 *text* says, or ``None`` if it says none."""
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def format_time(time: datetime) -> str:
    """Return the aware *time* as RFC 3339 text in UTC: ``2026-11-22T02:00:00Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


_PARAM_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_OUTSIDE = re.compile(r"\s*(?:env|file)\s*[.:]")
_PATH = re.compile(r"\s*([A-Za-z_][A-Za-z0-9._-]*+)\s*")
_STEP = re.compile(rf'\|\s*([a-z_]+)\s*\(\s*("(?:[^"\\]|\\.)*+"|{_NUMBER}|true|false|null)\s*\)\s*')
_STEP_NAME = re.compile(r"\|\s*([A-Za-z_]{1,32})")
_FUNCTIONS = ("default", "minus", "plus")
_GRAMMAR = (
    'written as ${path}, ${path | default("…")} or ${path | minus("5 minutes")}; a literal ${ is written $${'
)


def _expression(text: str, place: int) -> tuple[Expression, int]:
    """Read the expression whose path begins at *place*; return it and where the text goes on."""
    if _OUTSIDE.match(text, place):
        raise _refused(
            "looks into the environment or a file",
            "a job cannot; secrets and settings belong into the project file",
        )
    path = _PATH.match(text, place)
    if path is None:
        raise _refused("has an expression without a name", _GRAMMAR)
    _check_path(path[1])
    steps: list[Step] = []
    place = path.end()
    while (step := _STEP.match(text, place)) is not None:
        steps.append(_step(path[1], step[1], step[2]))
        place = step.end()
    if not text.startswith("}", place):
        raise _unfinished(text, place)
    return Expression(path=path[1], steps=tuple(steps)), place + 1


def _check_path(path: str) -> None:
    if path in NAMES or _upstream_job(path) or re.fullmatch(rf"param\.{_PARAM_NAME}", path):
        return
    known = [*sorted(NAMES), "param.<name>", "upstream.<job>.run_id", "upstream.<job>.as_of"]
    near = None if path.startswith(("param.", "upstream.")) else did_you_mean(path, known)
    raise _refused(f"has the unknown name {path[:80]}", near or f"known are {', '.join(known)}")


def upstream_jobs(references: Iterable[str]) -> frozenset[str]:
    """Return the ids of the jobs that ``${upstream.<job>.…}`` names among *references*."""
    return frozenset(job for path in references if (job := _upstream_job(path)))


def _upstream_job(path: str) -> str | None:
    # A job id may hold dots; what is asked of it is the last word.
    found = re.fullmatch(r"upstream\.([A-Za-z0-9][A-Za-z0-9._-]{0,127})\.(?:run_id|as_of)", path)
    return found[1] if found else None


def _is_time(path: str) -> bool:
    return path in TIMES or (path.startswith("upstream.") and path.endswith(".as_of"))


def _step(path: str, name: str, argument: str) -> Step:
    if name not in _FUNCTIONS:
        raise _refused(f"has the unknown function {name[:32]}", did_you_mean(name, _FUNCTIONS) or _GRAMMAR)
    value = _argument(argument)
    if name == "default":
        time = parse_time(value) if isinstance(value, str) and _is_time(path) else None
        return Step(name=name, argument=time or value)
    if not isinstance(value, str):
        raise _refused(f"has {name}() without a duration", f'write {name}("5 minutes")')
    if not _is_time(path) and not path.startswith("param."):
        raise _refused(f"has {name}() on {path}, which is not a time")
    try:
        return Step(name=name, argument=parse_duration(value))
    except ValueError as error:
        raise _refused(f"has {name}() without a usable duration", str(error)) from None


def _argument(text: str) -> Scalar:
    try:
        value: Scalar = json.loads(text) if len(text) < 400 or text.startswith('"') else math.inf
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise _refused("has an argument that is not a JSON string, number, true, false or null") from None
    return value


def _unfinished(text: str, place: int) -> Exception:
    if place >= len(text):
        return _refused("has an expression that is never closed", "it ends with }")
    named = _STEP_NAME.match(text, place)
    if named and named[1] not in _FUNCTIONS:
        hint = did_you_mean(named[1], _FUNCTIONS) or f"known are {', '.join(_FUNCTIONS)}"
        return _refused(f"has the unknown function {named[1]}", hint)
    return _refused("has an expression that cannot be read", _GRAMMAR)


def _starts_at_epoch(expression: Expression, facts: Facts) -> bool:
    is_bound = expression.path in _SINCE_EVER and not expression.has_default
    return is_bound and facts.get(expression.path) is None


def _value(expression: Expression, facts: Facts) -> Scalar:
    if _starts_at_epoch(expression, facts):
        value: Scalar = EPOCH
    elif expression.path.startswith("param.") and expression.path not in facts and not expression.has_default:
        name = expression.path.removeprefix("param.")
        given = [path.removeprefix("param.") for path in facts if path.startswith("param.")]
        raise _refused(
            f"needs --param {name}, which was not given", did_you_mean(name, given) or f"add --param {name}=…"
        )
    else:
        value = facts.get(expression.path)
    for step in expression.steps:
        value = _apply(step, value)
    return value


def _apply(step: Step, value: Scalar) -> Scalar:
    argument = step.argument
    if not isinstance(argument, timedelta):
        return argument if value is None else value
    if value is None:
        return None
    time = parse_time(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise _refused(f"has {step.name}() on a value that is not a time", "2026-11-22T02:00:00Z is a time")
    try:
        return time - argument if step.name == "minus" else time + argument
    except OverflowError:
        raise _refused(f"leaves the calendar with its {step.name}()", "use a shorter duration") from None


def _text(template: Template, facts: Facts) -> str:
    return "".join(part if isinstance(part, str) else _embedded(part, facts) for part in template.parts)


def _embedded(expression: Expression, facts: Facts) -> str:
    value = _value(expression, facts)
    if value is None:
        raise _refused(f"has no value for {expression.path} to put into the text", 'add | default("…")')
    plain = _json_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _json_value(value: Scalar) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _resolve_tree(tree: Any, facts: Facts, at: str) -> Any:
    if isinstance(tree, Mapping):
        return {key: _resolve_tree(inner, facts, at + pointer([key])) for key, inner in tree.items()}
    if isinstance(tree, list | tuple):
        return [_resolve_tree(inner, facts, at + pointer([place])) for place, inner in enumerate(tree)]
    if not isinstance(tree, str):
        return tree
    with _problems_at(at):
        return _json_value(resolve(parse(tree), facts))


@contextmanager
def _problems_at(prefix: str) -> Iterator[None]:
    try:
        yield
    except InvalidDocument as error:
        raise invalid("job file", under(prefix, error.problems)) from None


def _refused(message: str, hint: str | None = None) -> InvalidDocument:
    return invalid("text", [Problem("", message, hint)])
