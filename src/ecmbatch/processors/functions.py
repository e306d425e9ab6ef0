"""Processors of users: a decorated function of batches or of rows, or a class where something is set up first.

    @processor("customer_transformer")
    def customer_transformer(batch: pa.RecordBatch, config: CustomerConfig) -> pa.RecordBatch: ...

    @row_processor("full_name", columns={"full_name": "string"})
    def full_name(row: dict, config: dict) -> dict | None: ...

Nothing is registered globally: the decorator marks its object, and :func:`processors_in` collects what a
loaded module holds, so that two projects in one process do not see each other's processors.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import pyarrow as pa

from ecmbatch.errors import PluginError, TransformError
from ecmbatch.processors.configuration import config_parser
from ecmbatch.processors.failures import shown_failure
from ecmbatch.processors.processor import Processor, ProcessorType, RunFacts
from ecmbatch.processors.python_values import can_hold_python
from ecmbatch.processors.rows import RowProcessor, RowShape
from ecmbatch.processors.signatures import (
    Signature,
    read_class_signature,
    read_function_signature,
    read_row_function_signature,
)
from ecmbatch.protocol.type_names import parse_type_name

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MARK = "__ecmbatch_processor__"
_T = TypeVar("_T", bound=Callable[..., Any])
_F = TypeVar("_F", bound=Callable[..., "dict[str, Any] | None"])


def processor(name: str, *, config: type | None = None) -> Callable[[_T], _T]:
    """Register the function or class below as the processor *name*; it stays usable as it is.

    A function takes ``(batch, config)`` and returns a :class:`pyarrow.RecordBatch`. A class is built with
    ``(config)`` and has a method ``process(batch)``, which threads call at the same time. The function and
    the class's ``__init__`` may take the :class:`RunFacts` as one more parameter, last, named ``run``.

    The configuration type is *config*, or else the annotation of the parameter: a pydantic model, a
    dataclass, or ``dict`` (also meant by no annotation), which is not checked. Keys that a dataclass does not
    have are refused; a pydantic model decides for itself (``extra="forbid"`` is good advice).

    Raises:
        PluginError: bad name, wrong parameters, or a configuration type of another kind.
    """
    _check_name(name)

    def mark(target: _T) -> _T:
        if not isinstance(target, (FunctionType, type)):
            kind = type(target).__name__
            raise PluginError(f"processor '{name}' must be a function or a class, not {kind}", plugin=target)
        return _marked(target, "processor", name, lambda: _processor_type(name, target, config))

    return mark


def row_processor(
    name: str,
    *,
    columns: Mapping[str, str | pa.DataType] | None = None,
    drop: Collection[str] = (),
    config: type | None = None,
) -> Callable[[_F], _F]:
    """Register the function below as the processor *name*, which is given one row after another.

    It takes ``(row, config)``, and may take the :class:`RunFacts` as one more parameter named ``run``. A row
    is a dict of Python objects. It returns the row that comes out, as a dict with a value for every column,
    or None to drop it. This costs a hundred times what Arrow takes: it is for little data, and for what Arrow
    cannot do.

    The columns that come out are those that go in, without those of *drop*, with those of *columns* added or
    of another type: a name as in a ``field_mapper`` (``"string"``, ``"decimal(10, 2)"``) or an Arrow type.
    *config* is as in :func:`processor`.

    Raises:
        PluginError: bad name, wrong parameters, or a type that is unknown or that Python objects do not fit.
    """
    _check_name(name)
    shape = _row_shape(name, columns or {}, drop)

    def mark(target: _F) -> _F:
        if not isinstance(target, FunctionType):
            kind = type(target).__name__
            raise PluginError(f"row processor '{name}' must be a function, not {kind}", plugin=target)
        return _marked(
            target, "row_processor", name, lambda: _row_processor_type(name, target, shape, config)
        )

    return mark


def processors_in(module: ModuleType) -> list[ProcessorType]:
    """The processors a loaded module holds, its own and imported ones, in their order there.

    Raises:
        PluginError: two processors of one name, or a decorated function that was decorated once more.
    """
    found: dict[str, _Mark] = {}
    for value in vars(module).values():
        mark = _mark_of(value)
        if mark is None:
            continue
        name = mark.type.name
        if mark.target is not value:
            message = f"processor '{name}' is wrapped by another decorator; put @{mark.decorator} above it"
            raise PluginError(message, plugin=value)
        if found.setdefault(name, mark) is not mark:
            message = f"module '{module.__name__}' registers the processor '{name}' twice; rename one of them"
            raise PluginError(message, plugin=value)
    return [mark.type for mark in found.values()]


@dataclass(frozen=True, slots=True)
class _Mark:
    target: object
    decorator: str
    type: ProcessorType


@dataclass(frozen=True, slots=True)
class _UserProcessor(Processor):
    """A function that has its configuration, or the ``process`` of a user's object."""

    transform: Callable[[pa.RecordBatch], pa.RecordBatch]

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.transform(batch)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{name!r} cannot name a processor: a name starts with a lower-case letter, "
            "followed by at most 63 lower-case letters, digits and underscores"
        )


def _marked(target: _T, decorator: str, name: str, make_type: Callable[[], ProcessorType]) -> _T:
    if earlier := _mark_of(target):
        message = f"processor '{name}' is already registered as '{earlier.type.name}'"
        raise PluginError(message, plugin=target)
    setattr(target, _MARK, _Mark(target, decorator, make_type()))
    return target


def _mark_of(value: object) -> _Mark | None:
    # vars() and not getattr(): a subclass of a registered class is not registered.
    mark = vars(value).get(_MARK) if isinstance(value, (FunctionType, type)) else None
    return mark if isinstance(mark, _Mark) else None


def _processor_type(name: str, target: FunctionType | type, config: type | None) -> ProcessorType:
    if isinstance(target, type):
        signature = read_class_signature(name, target, config)
        build = _class_builder(name, target, signature)
        functions = [value for value in vars(target).values() if isinstance(value, FunctionType)]
    else:
        signature = read_function_signature(name, target, config)
        build = _function_builder(target, signature)
        functions = [target]
    return ProcessorType(
        name=name,
        version=_source_digest(name, functions),
        parse_config=config_parser(name, signature.config_type, target),
        build=build,
    )


def _row_processor_type(
    name: str, function: FunctionType, shape: RowShape, config: type | None
) -> ProcessorType:
    signature = read_row_function_signature(name, function, config)

    def build(config: Any, run: RunFacts) -> Processor:
        arguments = signature.arguments(config, run)
        return RowProcessor(lambda row: function(row, *arguments), shape)

    return ProcessorType(
        name=name,
        version=_source_digest(name, [function]),
        parse_config=config_parser(name, signature.config_type, function),
        build=build,
    )


def _row_shape(name: str, columns: Mapping[str, str | pa.DataType], drop: Collection[str]) -> RowShape:
    if isinstance(drop, str):
        raise PluginError(f"row processor '{name}': drop must be several names, as in drop=(\"{drop}\",)")
    if both := sorted(set(drop) & set(columns)):
        raise PluginError(f"row processor '{name}' both declares and drops {', '.join(both)}")
    types = {column: _column_type(name, column, kind) for column, kind in columns.items()}
    return RowShape(types, frozenset(drop))


def _column_type(name: str, column: str, kind: str | pa.DataType) -> pa.DataType:
    try:
        found = kind if isinstance(kind, pa.DataType) else parse_type_name(kind)
    except ValueError as error:
        raise PluginError(f"row processor '{name}': column '{column}': {error}") from None
    if not can_hold_python(found):
        raise PluginError(
            f"row processor '{name}': column '{column}' is {found}, which cannot be made of Python objects"
        )
    return found


def _function_builder(
    function: Callable[..., pa.RecordBatch], signature: Signature
) -> Callable[[Any, RunFacts], Processor]:
    def build(config: Any, run: RunFacts) -> Processor:
        arguments = signature.arguments(config, run)
        return _UserProcessor(lambda batch: function(batch, *arguments))

    return build


def _class_builder(name: str, target: type, signature: Signature) -> Callable[[Any, RunFacts], Processor]:
    def build(config: Any, run: RunFacts) -> Processor:
        try:
            made = target(*signature.arguments(config, run))
        except Exception as error:
            message = f"processor '{name}' could not be set up: {shown_failure(error)}"
            raise TransformError(message) from error
        return _UserProcessor(made.process)

    return build


def _source_digest(name: str, functions: list[FunctionType]) -> str:
    """The SHA-256 of the module's source, as of now: another source is another version of the processor."""
    for function in functions:
        file = function.__code__.co_filename
        linecache.checkcache(file)
        if source := linecache.getlines(file, function.__globals__):
            return sha256("".join(source).encode()).hexdigest()
    raise PluginError(
        f"processor '{name}' has no source file, so a change of it could not be noticed; put it into a module"
    )
