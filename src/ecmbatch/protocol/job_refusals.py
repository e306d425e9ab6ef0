"""What is refused in a job document as it is written, before it becomes a job.

Secrets, ``${…}`` where nothing is looked up, and what only other versions or other documents know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecmbatch.errors import InvalidDocument, Problem
from ecmbatch.protocol import parameters as expressions
from ecmbatch.protocol.document import Part, places, pointer, under


def refusals(value: Any) -> Iterator[Problem]:
    """Yield what only the document as written shows."""
    yield from _not_in_this_version(value)
    for place, inner in places(value):
        if place and isinstance(inner, str):
            yield from _literal_secret(place, inner)
            if "${" in inner and not _is_free(place):
                yield from _expression_problems(place, inner)


def _expression_problems(place: tuple[Part, ...], text: str) -> Sequence[Problem]:
    if not _may_look_up(place):
        hint = "it is looked up in parameters, source.path and transform.config only"
        if place[-1] == "query":
            hint = "write :name in the query and give the value in parameters"
        return [Problem(pointer(place), "holds ${, which has no meaning here", hint)]
    try:
        expressions.parse(text)
    except InvalidDocument as error:
        return under(pointer(place), error.problems)
    return []


def _may_look_up(place: tuple[Part, ...]) -> bool:
    match place:
        # SQL of a processor: a value that became part of its text could become part of its meaning.
        case ("transform", "config", "query") | ("transform", int(), "config", "query"):
            return False
        case ("parameters", _) | ("source", "path"):
            return True
        case ("transform", "config", *_) | ("transform", int(), "config", *_):
            return True
    return False


def _is_free(place: tuple[Part, ...]) -> bool:
    """Tell whether *place* is below a key that starts with ``x-``; processors' settings have none."""
    is_config = place[0] == "transform" and _may_look_up(place)
    return not is_config and any(str(part).startswith("x-") for part in place)


_SECRET_KEY = re.compile(
    r"(?:^|[^A-Za-z0-9]|(?<=[a-z])(?=[A-Z]))"
    r"(?:password|passwd|passphrase|pwd|secret|token|(?:api|access|private|secret)[_-]?key|credentials?)$",
    re.IGNORECASE,
)
_URL_WITH_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s/@:]*+:[^\s@/]+@")
_COLUMN_MAPS = frozenset({"fields", "columns", "mapping", "mappings", "rename"})
_SECRETS_BELONG = "put it into the project file as ${env:NAME} or ${file:path}"


def _literal_secret(place: tuple[Part, ...], text: str) -> Iterator[Problem]:
    # The pattern of an URL backtracks where `://` is far away; look for that first.
    if "://" in text and _URL_WITH_PASSWORD.search(text):
        yield Problem(pointer(place), "holds an URL with a password", _SECRETS_BELONG)
    key = next((part for part in reversed(place) if isinstance(part, str)), "")
    if not text or "${" in text or len(key) > 128 or not _SECRET_KEY.search(key):
        return
    # Below these, keys and values are names of columns; one of them may well be called 'token'.
    if place[0] == "transform" and _COLUMN_MAPS.intersection(place[1:-1]):
        return
    yield Problem(pointer(place), "looks like a secret; a job file holds none", _SECRETS_BELONG)


def _not_in_this_version(value: Any) -> Iterator[Problem]:
    """Recognise what the protocol and its next versions know, and say so instead of "unknown"."""
    if not isinstance(value, dict):
        return
    if (mode := object_at(value, "sink").get("mode")) in ("mirror", "scd2"):
        yield Problem("/sink/mode", f"{mode} is not supported in this version yet", "use upsert or replace")
    if _is_checkpoint_record(value.get("checkpoint")):
        yield Problem(
            "/checkpoint",
            "is a checkpoint record of a run; a job only says how often to take one",
            "leave it out, or use every_rows and every_seconds; to continue a run: ecmbatch resume RUN",
        )


def object_at(value: Any[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _is_checkpoint_record(value: Any) -> bool:
    return isinstance(value, dict) and bool({"run_id", "offset", "job_id"} & value.keys())


def is_only_a_checkpoint(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"checkpoint"}
        and _is_checkpoint_record(value["checkpoint"])
    )
