"""A run's plan: what is frozen when the first attempt starts, as plain values.

It is stored with the run, shown by ``ecmbatch plan``, and could be sent to another process or machine.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.connector import ReadRequest, Scan
from ecmbatch.protocol.job import SourceName
from ecmbatch.protocol.partitioning.partitions import partitions_from_json, partitions_to_json
from ecmbatch.protocol.scalars import Scalar, decode_scalars, encode_scalars
from ecmbatch.stage.stage import SealedFile
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
class TablesRead:
    """The tables of a store that a run reads, as they were when it was planned.

    ``versions`` says how many runs had been published to each. Where it is not ``known`` which tables are read
    (views, functions), they are those of all tables, and every table of the store counts as read.
    """

    versions: Mapping[str, int]
    known: bool

    def version_of(self, table: str) -> int | None:
        """Return the version of *table*, by its name in the store; ``None`` if the run does not read it."""
        return self.versions.get(table, None if self.known else 0)

    def at(self, now: Mapping[str, int]) -> TablesRead:
        """Return the same tables as they are with the versions of *now*."""
        read = {table: now.get(table, 0) for table in self.versions} if self.known else dict(now)
        return replace(self, versions=read)

    def changed(self, now: Mapping[str, int]) -> list[str]:
        """Return the tables to which another run was published since, given the versions of *now*."""
        read = self.versions if self.known else {**self.versions, **now}
        return [table for table in read if now.get(table, 0) != self.versions.get(table, 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything the attempts of a run share.

    ``tables_read`` is ``None`` where the source is a connector. ``references`` are the tables that processors
    look things up in, by the digest of what they ask for, once they were read and staged.
    ``source_tables`` are those that the source is asked for, ``None`` where that is not known.
    """

    source: SourceName
    request: ReadRequest
    scans: tuple[Scan, ...]
    source_schema: pa.Schema
    transform: tuple[ProcessorPlan, ...]
    output_schema: pa.Schema
    sink: SinkPlan
    tables_read: TablesRead | None
    references: Mapping[str, SealedFile]
    parameters: Mapping[str, Scalar]
    notes: tuple[str, ...]
    """What people should know of how parameters were resolved, one sentence each."""
    source_tables: tuple[str, ...] | None = None

    @property
    def partitions(self) -> int:
        """How many partitions the run has."""
        return sum(len(scan.partitions) for scan in self.scans)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        request = asdict(self.request)
        request["parameters"] = encode_scalars(self.request.parameters)
        request["partitioning"] = partitions_to_json(self.request.partitioning)
        return {
            "source": asdict(self.source),
            "request": request,
            "scans": [asdict(scan) for scan in self.scans],
            "source_schema": _schema_text(self.source_schema),
            "transform": [asdict(processor) for processor in self.transform],
            "output_schema": _schema_text(self.output_schema),
            "sink": asdict(self.sink),
            "tables_read": asdict(self.tables_read) if self.tables_read else None,
            "references": {digest: asdict(sealed) for digest, sealed in self.references.items()},
            "parameters": encode_scalars(self.parameters),
            "notes": list(self.notes),
            "source_tables": list(self.source_tables) if self.source_tables is not None else None,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RunPlan:
        """Return the plan whose JSON form is *document*."""
        request = dict(document["request"])
        request["parameters"] = decode_scalars(request["parameters"])
        request["partitioning"] = partitions_from_json(request["partitioning"])
        sink = dict(document["sink"])
        sink["key"] = tuple(sink["key"])
        # Runs of an earlier version have none.
        source_tables = document.get("source_tables")
        return cls(
            source=SourceName(**document["source"]),
            request=ReadRequest(**request),
            scans=tuple(
                Scan(**{**scan, "partitions": tuple(scan["partitions"])}) for scan in document["scans"]
            ),
            source_schema=_schema(document["source_schema"]),
            transform=tuple(ProcessorPlan(**processor) for processor in document["transform"]),
            output_schema=_schema(document["output_schema"]),
            sink=SinkPlan(**sink),
            tables_read=TablesRead(**document["tables_read"]) if document["tables_read"] else None,
            references={digest: SealedFile(**sealed) for digest, sealed in document["references"].items()},
            parameters=decode_scalars(document["parameters"]),
            notes=tuple(document["notes"]),
            source_tables=tuple(source_tables) if source_tables is not None else None,
        )


def _schema_text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
