"""What a project's names stand for, opened when first used and closed together."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ecmbatch.errors import InvalidDocument, PluginError, Problem, UsageError
from ecmbatch.plugins import Plugins, did_you_mean
from ecmbatch.project_file import ProjectFile
from ecmbatch.protocol.document import invalid, pointer, under

if TYPE_CHECKING:
    from ecmbatch.connectors.connector import Connector
    from ecmbatch.ledger.ledger import Ledger
    from ecmbatch.protocol.job import SourceName
    from ecmbatch.stage.stage import Stage
    from ecmbatch.stores.store import Store

log = logging.getLogger("ecmbatch")


class Asked(Protocol):
    """What a source is asked for, by a job or by a processor: one of these is set."""

    @property
    def query(self) -> str | None: ...
    @property
    def table(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...


def machine_clock() -> datetime:
    """Return the time of this machine, aware and in UTC."""
    return datetime.now(UTC)


class Resources:
    """The ledger, stage, connectors, stores and processors of one project in this process.

    *clock* takes the place of the ledger's time. Raises :class:`~ecmbatch.errors.InvalidDocument` when the
    settings of a connector or store are wrong, with pointers into the project file.
    """

    def __init__(
        self,
        project_file: ProjectFile,
        *,
        plugins: Plugins | None = None,
        clock: Callable[[], datetime] = machine_clock,
    ) -> None:
        self.project_file = project_file
        self.plugins = plugins or Plugins()
        self.clock = clock
        self._lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._connectors: dict[str, Connector] = {}
        self._readers: dict[str, Connector] = {}
        self._stores: dict[str, Store] = {}
        self._modules_loaded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ledger(self) -> Ledger:
        """The project's ledger, created when it does not exist yet."""
        from ecmbatch.ledger.ledger import Ledger

        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger(self.project_file.ledger, clock=self.clock_by_hand)
            return self._ledger

    @property
    def clock_by_hand(self) -> Callable[[], datetime] | None:
        """The clock that was given, ``None`` where the ledger's own tells the time."""
        return None if self.clock is machine_clock else self.clock

    @property
    def stage(self) -> Stage:
        """The project's stage."""
        from ecmbatch.stage.stage import Stage

        return Stage(self.project_file.stage_path)

    def connector(self, name: str) -> Connector:
        """Return the connector *name* of the project."""
        with self._lock:
            if name not in self._connectors:
                plugin = self.plugins.connectors.get(self._type_of("connectors", name))
                config = self._checked("connectors", name, plugin.parse_config)
                self._connectors[name] = plugin.build(config, self.project_file.root)
            return self._connectors[name]

    def source(self, named: SourceName) -> Connector:
        """Return what reads from a connector, or from a store, of the project."""
        return self.connector(named.name) if named.kind == "connector" else self._reader_of(named.name)

    @contextmanager
    def reading(self, named: SourceName) -> Iterator[Connector]:
        """Lend what reads from a source and close it afterwards, whatever happens: a store may be in the same
        file, which cannot be open in two ways at once."""
        source = self.source(named)
        try:
            yield source
        finally:
            source.close()

    def source_fields(self, named: SourceName) -> frozenset[str]:
        """Return which of ``query``, ``table`` and ``path`` a source of the project reads."""
        if named.kind == "connector":
            return self.plugins.connectors.get(self._type_of("connectors", named.name)).fields
        connector_type, _ = self._source_settings(named.name)
        return self.plugins.connectors.get(connector_type).fields

    def unread_fields(self, named: SourceName, asked: Asked) -> list[Problem]:
        """Return a problem for what is *asked* of a source that it cannot be asked for."""
        fields = self.source_fields(named)
        return [
            Problem(
                f"/{field}", f"{named.kind} {named.name!r} reads {' or '.join(sorted(fields))}, not a {field}"
            )
            for field in ("query", "table", "path")
            if getattr(asked, field) is not None and field not in fields
        ]

    def store(self, name: str) -> Store:
        """Return the store *name* of the project."""
        with self._lock:
            if name not in self._stores:
                plugin = self.plugins.stores.get(self._type_of("stores", name))
                config = self._checked("stores", name, plugin.parse_config)
                self._stores[name] = plugin.build(config, self.project_file.root, log.warning)
            return self._stores[name]

    def _reader_of(self, store: str) -> Connector:
        """Return the connector that reads what *store* keeps."""
        with self._lock:
            if store not in self._readers:
                connector_type, settings = self._source_settings(store)
                plugin = self.plugins.connectors.get(connector_type)
                config = plugin.parse_config(settings)
                self._readers[store] = plugin.build(config, self.project_file.root)
            return self._readers[store]

    def _source_settings(self, store: str) -> tuple[str, Mapping[str, Any]]:
        plugin = self.plugins.stores.get(self._type_of("stores", store))
        if plugin.source is None:
            raise PluginError(
                f"the store {store!r} cannot be read by jobs: its type {plugin.name!r} has no reader",
                hint="read it through a connector to the same database",
            )
        return plugin.source(self._checked("stores", store, plugin.parse_config))

    def load_processors(self) -> None:
        """Register the processors of the project's own modules; done before a job's names are looked up."""
        with self._lock:
            if self._modules_loaded:
                return
            from ecmbatch.processors.functions import processors_in

            names = self.project_file.settings.processors.modules
            found = [processor for name in names for processor in processors_in(self._module(name))]
            self._modules_loaded = True
            for processor in found:
                self.plugins.processors.add(processor)

    def close(self) -> None:
        """Close whatever was opened."""
        for connector in (*self._connectors.values(), *self._readers.values()):
            connector.close()
        for store in self._stores.values():
            store.close()
        if self._ledger is not None:
            self._ledger.close()

    def _type_of(self, section: str, name: str) -> str:
        settings = getattr(self.project_file.settings, section)
        if name not in settings:
            kind = section.removesuffix("s")
            raise PluginError(
                f"the project has no {kind} named {name!r}{did_you_mean(name, settings)}",
                hint=f"declare it in ecmbatch.toml under [{section}.{name}]",
            )
        return str(settings[name]["type"])

    def _checked(self, section: str, name: str, parse: Callable[[dict[str, Any]], Any]) -> Any:
        settings = dict(getattr(self.project_file.settings, section)[name])
        del settings["type"]
        try:
            return parse(settings)
        except InvalidDocument as error:
            raise invalid("project file", under(pointer((section, name)), error.problems)) from None

    def _module(self, name: str) -> ModuleType:
        root = self.project_file.root
        file = next(
            (path for path in (root / f"{name}.py", root / name / "__init__.py") if path.is_file()), None
        )
        if file is None:
            raise UsageError(
                f"the project file names the processor module {name!r}, but {root} has no {name}.py"
            )
        # A name of its own per folder: two projects in one process may both have a module `processors`.
        unique = f"ecmbatch_project_{sha256(str(root).encode()).hexdigest()[:12]}_{name}"
        return sys.modules.get(unique) or _load_module(unique, file)


def _load_module(name: str, file: Path) -> ModuleType:
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(
            f"the processor module {file} cannot be imported: {type(error).__name__}: {error}", plugin=file
        ) from error
    return module
