"""The project file ``ecmbatch.toml``: what the names in portable job files mean on this machine.

Secrets come in only here, as ``${env:NAME}`` or ``${file:path}``. Every value can be overridden by an
environment variable ``ECMBATCH_<SECTION>__<KEY>`` (deeper keys: another ``__``).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, Field

from ecmbatch.errors import Problem, UsageError
from ecmbatch.ledger.place import DEFAULT_SCHEMA, LedgerPlace, PostgresPlace
from ecmbatch.postgres_url import PERCENT_ENCODED, libpq_url
from ecmbatch.protocol.document import Many, Section, check_model, invalid, pointer, refusal
from ecmbatch.protocol.duration import Duration

FILE_NAME = "ecmbatch.toml"
STATE_FOLDER = ".ecmbatch"
_SQLITE = "sqlite:///"
_OVERRIDE = "ECMBATCH_"
_REFERENCE = re.compile(r"\$\{(env|file):([^}]*)\}")

_PASSWORD_PARAMETER = re.compile(r"[?&](?:ssl)?password=([^&#]*)")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _ledger_url(url: str) -> str:
    if not url.startswith(_SQLITE) and libpq_url(url) is None:
        raise refusal(
            Problem(
                "",
                "must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
                PERCENT_ENCODED,
            )
        )
    return url


class LedgerSettings(Section):
    """``[ledger]``: where runs are remembered: a SQLite file, or a schema of a PostgreSQL database."""

    url: Annotated[str, AfterValidator(_ledger_url)] = f"{_SQLITE}{STATE_FOLDER}/ledger.db"
    schema_name: Annotated[str, Field(alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = DEFAULT_SCHEMA


class StageSettings(Section):
    """``[stage]``: where rows wait for their verdict; a folder on a local disk."""

    url: Annotated[str, Field(min_length=1)] = f"{STATE_FOLDER}/stage"


class RunSettings(Section):
    """``[run]``: how runs are executed."""

    workers: Annotated[int, Field(ge=1, le=256)] = 2
    executor: Literal["threads", "processes"] = "threads"


class AlertSettings(Section):
    """``[alerts.NAME]``: who hears of failed validations. ``log`` writes to the log of the run."""

    type: Literal["log"]


class ProcessorSettings(Section):
    """``[processors]``: modules beside the project file whose processors jobs may name."""

    modules: Many[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = ()


class RetentionSettings(Section):
    """``[retention]``: what ``ecmbatch gc`` and every scheduler remove, and not before."""

    stages: Duration = timedelta(days=30)
    history: Duration = timedelta(days=90)
    runs: Duration | None = None


class ServeSettings(Section):
    """``[serve]``: how ``serve``, ``scheduler`` and ``worker`` run."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8600
    slots: Annotated[int, Field(ge=1, le=256)] = 2
    grace: Duration = timedelta(seconds=30)


def _with_type(transport: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(transport.get("type"), str):
        raise ValueError('needs a type, for example type = "http"')
    return transport


class OpenLineageSettings(Section):
    """``[openlineage]``: who is told of runs; ``transport`` is a configuration of OpenLineage's own client."""

    namespace: Annotated[str, Field(min_length=1, max_length=1_000)] = "ecmbatch"
    transport: Annotated[dict[str, Any], AfterValidator(_with_type)]


class ProjectSettings(Section):
    """The whole file. What stands under a connector or a store besides ``type`` is checked by that type."""

    ledger: LedgerSettings = LedgerSettings()
    stage: StageSettings = StageSettings()
    run: RunSettings = RunSettings()
    retention: RetentionSettings = RetentionSettings()
    connectors: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    stores: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    alerts: dict[Name, AlertSettings] = Field(default_factory=dict)
    processors: ProcessorSettings = ProcessorSettings()
    openlineage: OpenLineageSettings | None = None
    serve: ServeSettings = ServeSettings()


_IMPLIED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "connectors": {"files": {"type": "files"}},
    "stores": {"context_store": {"type": "duckdb", "path": "context.duckdb"}},
}
"""What an empty project file offers all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """A loaded project file: the folder it is in, its settings, and the secrets that must never be shown.

    ``file``, its ``digest`` (SHA-256 of its text) and ``environment`` are what it was loaded from; ``None`` and
    nothing for one made in code.
    """

    root: Path
    settings: ProjectSettings
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    file: Path | None = None
    digest: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def redact(self, text: str) -> str:
        """Return *text* with every secret of the project replaced by ``***``."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def with_implied_names(self) -> ProjectFile:
        """Return the file with the connectors and stores that exist without being declared."""
        declared = {
            section: {**names, **getattr(self.settings, section)} for section, names in _IMPLIED.items()
        }
        return replace(
            self,
            settings=self.settings.model_copy(update=declared),
            secrets=self.secrets | frozenset(_passwords(self.settings.model_dump())),
        )

    def is_implied_connector(self, name: str) -> bool:
        """Tell whether a connector is there only because every project has it."""
        return self.settings.connectors[name] == _IMPLIED["connectors"].get(name)

    def environment_for_children(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return *environment*, that of this process, for one that is to load the same file to the same effect."""
        kept = {name: value for name, value in environment.items() if not _is_override(name)}
        return {**kept, **self.environment}

    @property
    def ledger(self) -> LedgerPlace:
        """Where the ledger is, or will be."""
        settings = self.settings.ledger
        url = libpq_url(settings.url)
        if url is None:
            return self.path(settings.url.removeprefix(_SQLITE))
        return PostgresPlace(url=url, schema=settings.schema_name)

    @property
    def stage_path(self) -> Path:
        """Where the stage is, or will be."""
        return self.path(self.settings.stage.url)

    def path(self, text: str) -> Path:
        """Resolve a path of the file against the project's folder."""
        return self.root / Path(text).expanduser()


def find_project_file(start: Path) -> Path:
    """Return the project file in *start* or the nearest folder above it.

    Raises :class:`~ecmbatch.errors.UsageError` where there is none.
    """
    for folder in (start, *start.parents):
        candidate = folder / FILE_NAME
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"there is no {FILE_NAME} in {start} or any folder above it",
        hint="make a project with: ecmbatch init my-project",
    )


def open_project_file(path: Path | None, environment: Mapping[str, str]) -> ProjectFile:
    """Load the project file *path*, or that of a folder; by default the nearest one above the current folder."""
    given = path if path is not None else find_project_file(Path.cwd())
    return load_project_file(given / FILE_NAME if given.is_dir() else given, environment)


def load_project_file(path: Path, environment: Mapping[str, str]) -> ProjectFile:
    """Read *path*, apply overrides and secrets from *environment*, and check the result.

    Raises :class:`~ecmbatch.errors.InvalidDocument` with all problems, never showing a value.
    """
    text = _read(path)
    document = _parsed(path, text)
    document = _with_overrides(document, environment)
    substitution = _Substitution(path.parent, environment)
    document = substitution.apply(document, ())
    settings, problems = check_model(ProjectSettings, document)
    problems = [*substitution.problems, *problems, *_without_type(document)]
    if settings is None or problems:
        raise invalid(f"project file {path}", problems)
    implied = {section: {**names, **getattr(settings, section)} for section, names in _IMPLIED.items()}
    return ProjectFile(
        root=path.parent.resolve(),
        settings=settings.model_copy(update=implied),
        secrets=frozenset([*substitution.secrets, *_passwords(document)]),
        file=path.parent.resolve() / path.name,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        environment=dict(environment),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the project file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise invalid(f"project file {path}", [Problem("", "is not UTF-8 text")]) from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The parser's message tells the place; it repeats at most one character of the file.
        raise invalid(f"project file {path}", [Problem("", f"is not TOML: {error}")]) from error


def _with_overrides(document: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    document = json.loads(json.dumps(document, default=str))
    for variable, text in sorted(environment.items()):
        if not _is_override(variable):
            continue
        *parents, last = variable.removeprefix(_OVERRIDE).split("__")
        place = document
        for part in parents:
            place = place.setdefault(_existing(place, part), {})
            if not isinstance(place, dict):
                raise UsageError(
                    f"the environment variable {variable} does not name a setting of the project file"
                )
        place[_existing(place, last)] = _override_value(text)
    return document


def _is_override(variable: str) -> bool:
    return variable.startswith(_OVERRIDE) and "__" in variable.removeprefix(_OVERRIDE)


def _existing(table: Mapping[str, Any], part: str) -> str:
    """Environment variables know neither lower case nor dashes; an existing key of that spelling is meant."""
    for key in table:
        if key.upper().replace("-", "_").replace(".", "_") == part.upper():
            return key
    return part.lower()


def _override_value(text: str) -> Any:
    """Numbers, booleans and lists are written as JSON; everything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if value is None or isinstance(value, dict) else value


class _Substitution:
    """Replaces ``${env:…}`` and ``${file:…}`` in all texts, remembering what they stood for."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root = root
        self._environment = environment
        self.problems: list[Problem] = []
        self.secrets: set[str] = set()

    def apply(self, value: Any, place: tuple[str | int, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self.apply(each, (*place, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.apply(each, (*place, number)) for number, each in enumerate(value)]
        if isinstance(value, str):
            return _REFERENCE.sub(lambda found: self._resolve(found[1], found[2], place), value)
        return value

    def _resolve(self, kind: str, name: str, place: tuple[str | int, ...]) -> str:
        secret = self._environment.get(name) if kind == "env" else self._content(name)
        if secret is None:
            missing = (
                f"the environment variable {name} is not set" if kind == "env" else f"cannot read {name}"
            )
            self.problems.append(Problem(pointer(place), missing))
            return ""
        if secret:
            self.secrets.add(secret)
        return secret

    def _content(self, name: str) -> str | None:
        try:
            return (self._root / Path(name).expanduser()).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return None


def _passwords(value: Any, key: str = "") -> Iterator[str]:
    """Yield the passwords that stand in a document, by themselves or in URLs, as written and as meant."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _passwords(each, name)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _passwords(each)
    elif isinstance(value, str):
        found = [value] if key == "password" else _passwords_of_url(value)
        for password in found:
            yield from {password, unquote(password)} - {""}


def _passwords_of_url(text: str) -> list[str]:
    _, is_url, rest = text.partition("://")
    if not is_url:
        return []
    _, _, account = rest.rpartition("@")[0].partition(":")
    return [account, *_PASSWORD_PARAMETER.findall(rest)]


def _without_type(document: Mapping[str, Any]) -> Iterator[Problem]:
    for section in ("connectors", "stores"):
        entries = document.get(section)
        for name, settings in entries.items() if isinstance(entries, dict) else ():
            if isinstance(settings, dict) and not isinstance(settings.get("type"), str):
                yield Problem(pointer((section, name)), 'needs a type, for example type = "duckdb"')
