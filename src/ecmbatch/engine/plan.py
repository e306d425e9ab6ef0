"""A run's plan: what is frozen when the first attempt starts, as plain values.

It is stored with the run, shown by ``ecmbatch plan``, and could be sent to another process or machine.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.connector import ReadRequest, Scan
from ecmbatch.protocol.scalars import Scalar, decode_scalar, encode_scalar
from ecmbatch.stores.store import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorPlan:
    """A processor by name, with its configuration after ``${…}`` was resolved."""

    name: str
    version: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkPlan:
    """Where the rows go. ``expected_head`` is the head of the store when the run started."""

    store: str
    table: str
    mode: Mode
    key: tuple[str, ...]
    order_by: str | None
    provenance: bool
    evolve: bool
    allow_empty: bool
    expected_head: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything the attempts of a run share."""

    connector: str
    request: ReadRequest
    scans: tuple[Scan, ...]
    source_schema: pa.Schema
    transform: tuple[ProcessorPlan, ...]
    output_schema: pa.Schema
    sink: SinkPlan
    parameters: Mapping[str, Scalar]
    notes: tuple[str, ...]
    """What people should know of how parameters were resolved, one sentence each."""

    @property
    def partitions(self) -> int:
        """How many partitions the run has."""
        return sum(len(scan.partitions) for scan in self.scans)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        request = asdict(self.request)
        request["parameters"] = encoded(self.request.parameters)
        return {
            "connector": self.connector,
            "request": request,
            "scans": [asdict(scan) for scan in self.scans],
            "source_schema": _schema_text(self.source_schema),
            "transform": [asdict(processor) for processor in self.transform],
            "output_schema": _schema_text(self.output_schema),
            "sink": asdict(self.sink),
            "parameters": encoded(self.parameters),
            "notes": list(self.notes),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RunPlan:
        """Return the plan whose JSON form is *document*."""
        request = dict(document["request"])
        request["parameters"] = decoded(request["parameters"])
        sink = dict(document["sink"])
        sink["key"] = tuple(sink["key"])
        return cls(
            connector=document["connector"],
            request=ReadRequest(**request),
            scans=tuple(
                Scan(**{**scan, "partitions": tuple(scan["partitions"])}) for scan in document["scans"]
            ),
            source_schema=_schema(document["source_schema"]),
            transform=tuple(ProcessorPlan(**processor) for processor in document["transform"]),
            output_schema=_schema(document["output_schema"]),
            sink=SinkPlan(**sink),
            parameters=decoded(document["parameters"]),
            notes=tuple(document["notes"]),
        )


def encoded(values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return *values* in their JSON form."""
    return {name: encode_scalar(value) for name, value in values.items()}


def decoded(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the values whose JSON form is *values*."""
    return {name: decode_scalar(value) for name, value in values.items()}


def _schema_text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
