"""Telling the story of ``ecmbatch demo`` as it happens, or with ``--json`` when it is over."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.screen import print_document, print_text, visible
from ecmbatch.cli.summary import run_summary
from ecmbatch.demo.demo import Comparison, Contents, Kill, Step, Told
from ecmbatch.engine.history import RunView


class StoryTeller:
    """Prints what a story yields."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._document: dict[str, Any] = {"runs": []}

    def tell(self, told: Told) -> None:
        """Print one thing, or remember it for the document."""
        self._remember(told)
        if not self._invocation.json and not self._invocation.quiet:
            print_text(_shown(told))

    def end(self, keep: Path | None) -> None:
        """Say where the project is, or could be."""
        if self._invocation.json:
            print_document({**self._document, "project": str(keep.resolve()) if keep else None})
        elif keep is not None:
            self._invocation.note(f"\nThe project is in {keep}.")
        else:
            self._invocation.note("\nThe temporary project is gone; with --keep DIR it stays in DIR.")

    def _remember(self, told: Told) -> None:
        match told:
            case RunView():
                self._document["runs"].append(told.document())
            case Contents():
                self._document["contents"] = {"table": told.table, "rows": told.rows}
            case Kill():
                self._document["kill"] = asdict(told)
            case Comparison():
                self._document["comparison"] = asdict(told)
            case Step():
                pass


def _shown(told: Told) -> RenderableType:
    match told:
        case Step():
            return Text(f"\n▶ {visible(told.text)}", style="bold cyan")
        case RunView():
            return run_summary(told)
        case Contents():
            return Group(Text(f"{told.table} has {told.rows:,} rows, among them:"), _sample(told))
        case Kill():
            return Text(
                f"killed after {told.rows_read:,} rows: {told.complete} partitions were complete, "
                f"{told.partial} partial, {told.untouched} untouched; nothing was published",
                style="yellow",
            )
        case Comparison():
            return _proof(told)


def _sample(contents: Contents) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    for name in contents.sample[0]:
        table.add_column(name, overflow="fold")
    for row in contents.sample:
        table.add_row(*(str(value) for value in row.values()))
    return table


def _proof(comparison: Comparison) -> Text:
    only = comparison.only_after_the_kill, comparison.only_in_the_other
    text = (
        f"{comparison.rows:,} rows; {only[0]:,} are only in the store of the killed run, "
        f"{only[1]:,} only in the other"
    )
    if any(only):
        return Text(f"✗ {text}", style="bold red")
    return Text(f"✓ {text}: they are equal, every row once", style="bold green")
