"""Tables: what ``doctor`` found, what ``gc`` removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecmbatch.cli.screen import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.doctor import Diagnosis
    from ecmbatch.engine.retention import Collection, Removal

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
_STYLES = {"removed": "green", "planned": "cyan", "kept": "yellow", "failed": "red"}


def diagnosis_table(diagnosis: Diagnosis) -> RenderableType:
    """Return one entry for each finding, and what all of them mean."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        mark, style = _MARKS[finding.status]
        message = Text(visible(finding.message))
        if finding.hint:
            message.append(f"\n{visible(finding.hint)}", style="dim")
        table.add_row(Text(mark, style=style), finding.check, message)
    counts = [_count(diagnosis, status) for status in ("problem", "warning")]
    told = ", ".join(count for count in counts if count) or "everything is well"
    return Group(table, Text(told, style="bold"))


def collection_table(collection: Collection) -> RenderableType:
    """Return one line for each stage and each table in a store, one for all histories, and the sum."""
    stages = [each for each in collection.removals if each.what == "stage"]
    staging = [each for each in collection.removals if each.what == "staging"]
    parts: list[RenderableType] = [_stages(stages)] if stages else []
    parts += [_staging(staging)] if staging else []
    parts += [Text(line) for line in _sums(collection)]
    return Group(*parts)


def _count(diagnosis: Diagnosis, status: str) -> str:
    number = sum(finding.status == status for finding in diagnosis.findings)
    return f"{number} {status}{'' if number == 1 else 's'}" if number else ""


def _stages(removals: Sequence[Removal]) -> Table:
    table = _table("stage of run", "job", "why", numbers=("files", "MiB"))
    for removal in removals:
        table.add_row(
            removal.run_id,
            Text(visible(removal.job_id or "–")),
            Text(visible(_reason(removal))),
            f"{removal.files:,}",
            f"{removal.bytes / 2**20:,.1f}",
            Text(removal.outcome, style=_STYLES[removal.outcome]),
        )
    return table


def _staging(removals: Sequence[Removal]) -> Table:
    table = _table("table in store", "run", "why", numbers=("MiB",))
    for removal in removals:
        table.add_row(
            Text(visible(": ".join(filter(None, (removal.store, removal.table))))),
            Text(visible(removal.run_id or "–")),
            Text(visible(_reason(removal))),
            f"{removal.bytes / 2**20:,.1f}",
            Text(removal.outcome, style=_STYLES[removal.outcome]),
        )
    return table


def _table(*headings: str, numbers: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    return table


def _reason(removal: Removal) -> str:
    return removal.reason if removal.error is None else f"{removal.reason}; {removal.error.message}"


def _sums(collection: Collection) -> Iterator[str]:
    document = collection.document()
    verb = "would be removed" if collection.dry_run else "removed"
    histories = [each for each in collection.gone if each.what == "history"]
    if histories:
        yield f"history of {len(histories):,} runs: {document['records']:,} records {verb}"
    if collection.gone:
        yield f"{document['files']:,} files, {document['bytes'] / 2**20:,.1f} MiB {verb}"
    else:
        yield "there is nothing to remove"
