"""The names that jobs and project files use, and the connectors, processors and stores behind them.

Other packages register theirs through the entry points ``ecmbatch.connectors``, ``ecmbatch.processors`` and
``ecmbatch.stores``. A wrong plug-in is refused when it is registered, by name; not at two in the morning in
partition 11. Modules are imported when a name is first asked for, so that commands start fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from ecmbatch.errors import PluginError
from ecmbatch.protocol import document

if TYPE_CHECKING:
    from ecmbatch.connectors.connector import ConnectorType
    from ecmbatch.processors.processor import ProcessorType
    from ecmbatch.stores.store import StoreType

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")

_CONNECTORS = {
    "duckdb": "ecmbatch.connectors.duckdb:DUCKDB",
    "files": "ecmbatch.connectors.files:FILES",
    "postgres": "ecmbatch.connectors.postgres:POSTGRES",
    "sqlalchemy": "ecmbatch.connectors.sqlalchemy_connector:SQLALCHEMY",
    "sqlite": "ecmbatch.connectors.sqlite:SQLITE",
}
_PROCESSORS = {
    "field_mapper": "ecmbatch.processors.field_mapper:FIELD_MAPPER",
    "filter": "ecmbatch.processors.filter:FILTER",
    "lookup": "ecmbatch.processors.lookup:LOOKUP",
    "sql": "ecmbatch.processors.sql:SQL",
}
_STORES = {"duckdb": "ecmbatch.stores.duckdb:DUCKDB", "postgres": "ecmbatch.stores.postgres:POSTGRES"}

PluginType = TypeVar("PluginType")


class Registry(Generic[PluginType]):
    """Plug-ins of one kind by name: those added in code, the built-in ones, those of other packages."""

    def __init__(self, kind: str, expected: str, built_in: Mapping[str, str]) -> None:
        self._kind = kind
        self._expected = expected
        self._group = f"ecmbatch.{kind}s"
        self._entry_points = {
            name: EntryPoint(name, target, self._group) for name, target in built_in.items()
        }
        self._looked_outside = False
        self._loaded: dict[str, PluginType] = {}

    def add(self, plugin: PluginType) -> None:
        """Register *plugin* under its own name; raises :class:`~ecmbatch.errors.PluginError` if it is wrong."""
        name = self._checked_name(plugin, origin="")
        if name in self._loaded or name in self._entry_points:
            raise PluginError(f"there is already a {self._kind} named {name!r}", plugin=plugin)
        self._loaded[name] = plugin

    def get(self, name: str) -> PluginType:
        """Return the plug-in *name*; raises :class:`~ecmbatch.errors.PluginError` with a did-you-mean."""
        if name not in self._loaded:
            self._load(name)
        return self._loaded[name]

    def names(self) -> list[str]:
        """Return all names there are, sorted."""
        self._look_outside()
        return sorted({*self._loaded, *self._entry_points})

    def _load(self, name: str) -> None:
        if name not in self._entry_points:
            self._look_outside()
        if name not in self._entry_points:
            raise PluginError(f"there is no {self._kind} named {name!r}{did_you_mean(name, self.names())}")
        entry_point = self._entry_points[name]
        try:
            plugin = entry_point.load()
        except Exception as error:
            raise PluginError(
                f"the {self._kind} {name!r} cannot be loaded from {entry_point.value}: {type(error).__name__}",
                hint="see whether the package that provides it, and what it needs, is installed",
            ) from error
        found = self._checked_name(plugin, origin=f" ({entry_point.value})")
        if found != name:
            raise PluginError(
                f"{entry_point.value} registers as {name!r} but calls itself {found!r}", plugin=plugin
            )
        self._loaded[name] = plugin

    def _look_outside(self) -> None:
        if self._looked_outside:
            return
        self._looked_outside = True
        for entry_point in entry_points(group=self._group):
            if entry_point.name in self._entry_points:
                raise PluginError(
                    f"two packages provide a {self._kind} named {entry_point.name!r}: "
                    f"{self._entry_points[entry_point.name].value} and {entry_point.value}",
                    hint="uninstall one of them",
                )
            self._entry_points[entry_point.name] = entry_point

    def _checked_name(self, plugin: PluginType, *, origin: str) -> str:
        if type(plugin).__name__ != self._expected:
            raise PluginError(
                f"a {self._kind}{origin} must be given as a {self._expected}, not {type(plugin).__name__}",
                plugin=plugin,
            )
        name: object = getattr(plugin, "name", None)
        if not isinstance(name, str) or not _NAME.match(name):
            raise PluginError(
                f"{name!r} cannot name a {self._kind}{origin}: use lower-case letters, digits and _",
                plugin=plugin,
            )
        for part in ("parse_config", "build"):
            if not callable(getattr(plugin, part, None)):
                raise PluginError(f"{self._kind} {name!r} has no {part}", plugin=plugin)
        return name


class Plugins:
    """All plug-ins that one project can name. Two projects in one process do not share theirs."""

    def __init__(self) -> None:
        self.connectors: Registry[ConnectorType] = Registry("connector", "ConnectorType", _CONNECTORS)
        self.processors: Registry[ProcessorType] = Registry("processor", "ProcessorType", _PROCESSORS)
        self.stores: Registry[StoreType] = Registry("store", "StoreType", _STORES)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, else what names there are."""
    names = sorted(known)
    near = document.did_you_mean(name, names)
    if near:
        return f"; {near}"
    return f"; there are: {', '.join(names)}" if names else "; there are none"
