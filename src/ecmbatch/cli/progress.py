"""Showing how far a run is, while it runs: bars on a terminal, otherwise a line every 10 seconds.

A thread looks at the ledger and only reads. Whatever goes wrong here changes nothing about the run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ecmbatch.cli.screen import is_terminal, print_note
from ecmbatch.errors import EcmbatchError
from ecmbatch.protocol.checkpoint import PartitionStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from ecmbatch.engine.history import RunView

_SECONDS_BETWEEN_BARS = 0.5
_SECONDS_BETWEEN_LINES = 10.0
_SHOWN_PARTITIONS = 64
_BAR_WIDTH = 40
_JOIN_SECONDS = 2.0

_MARKS = {
    PartitionStatus.COMPLETED: ("■", "green"),
    PartitionStatus.IN_PROGRESS: ("▪", "yellow"),
    PartitionStatus.FAILED: ("▪", "red"),
    PartitionStatus.PENDING: ("·", "dim"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast an attempt reads, measured since *seconds* ago when the run had *rows_before* rows."""

    view: RunView
    rows_before: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows that were read and checkpointed in this attempt, per second."""
        return (self.view.rows_read - self.rows_before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def fraction(self) -> float | None:
        """How much of the source is read; unknown until one partition is complete."""
        expected = self._expected_rows
        return min(self.view.rows_read / expected, 1.0) if expected else None

    @property
    def seconds_left(self) -> float | None:
        """When reading will be done at this pace; unknown until one partition is complete."""
        expected, pace = self._expected_rows, self.rows_per_second
        return max(expected - self.view.rows_read, 0) / pace if expected and pace > 0 else None

    @property
    def _expected_rows(self) -> float | None:
        """A hash spreads rows evenly: the partitions that are complete tell how large the others will be."""
        view = self.view
        complete = [each.offset for each in view.partitions if each.status is PartitionStatus.COMPLETED]
        if not complete:
            return None
        mean = sum(complete) / len(complete)
        return sum(
            each.offset if each.status is PartitionStatus.COMPLETED else max(mean, each.offset)
            for each in view.partitions
        )


class RunProgress:
    """Shows the run that :meth:`start` is called with until it is left; *look* reads it from the ledger."""

    def __init__(self, look: Callable[[str], RunView], *, enabled: bool) -> None:
        self._look = look
        self._enabled = enabled
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def start(self, run_id: str) -> None:
        """Begin to show the run *run_id*."""
        if not self._enabled:
            return
        self._thread = threading.Thread(
            target=self._show, args=(run_id,), name="ecmbatch-progress", daemon=True
        )
        self._thread.start()

    def _show(self, run_id: str) -> None:
        try:
            if is_terminal(sys.stderr):
                self._show_bars(run_id)
            else:
                self._follow(run_id, _SECONDS_BETWEEN_LINES, lambda pace: print_note(line(pace)))
        except Exception:
            return  # a display that fails must not disturb the run; the summary follows all the same

    def _show_bars(self, run_id: str) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        with Live(console=console, transient=True, refresh_per_second=4) as live:
            self._follow(run_id, _SECONDS_BETWEEN_BARS, lambda pace: live.update(bars(pace)))

    def _follow(self, run_id: str, interval: float, show: Callable[[Pace], None]) -> None:
        before, began = self._look(run_id).rows_read, time.monotonic()
        while not self._over.wait(interval):
            # A ledger that is busy now can be asked again next time.
            with suppress(EcmbatchError):
                view = self._look(run_id)
                show(Pace(view=view, rows_before=before, seconds=time.monotonic() - began))


def line(pace: Pace) -> str:
    """Return the progress as one plain line."""
    return f"{pace.view.run.job_id}: {_phase(pace.view)}; {_numbers(pace)}"


def bars(pace: Pace) -> RenderableType:
    """Return the progress for a terminal: a bar, one mark for each partition, and the numbers."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    fraction = pace.fraction
    top = Table.grid(padding=(0, 2))
    top.add_row(
        Text(pace.view.run.job_id, style="bold"),
        ProgressBar(total=1, completed=fraction or 0, width=_BAR_WIDTH, pulse=fraction is None),
        Text(_phase(pace.view)),
    )
    numbers = Text(_numbers(pace), style="dim")
    if 1 < len(pace.view.partitions) <= _SHOWN_PARTITIONS:
        return Group(top, _partition_marks(pace.view), numbers)
    return Group(top, numbers)


def _partition_marks(view: RunView) -> Text:
    from rich.text import Text

    return Text.assemble(*(_MARKS[each.status] for each in view.partitions))


def _phase(view: RunView) -> str:
    if not view.partitions:
        return "planning"
    if view.completed == len(view.partitions):
        return "publishing" if view.verdict is not None and view.verdict.publish else "checking what was read"
    return f"{view.completed} of {len(view.partitions)} partitions complete"


def _numbers(pace: Pace) -> str:
    view = pace.view
    numbers = [f"{view.rows_read:,} rows read"]
    # Once everything is read there is no pace any more.
    if view.completed < len(view.partitions):
        numbers.append(f"{pace.rows_per_second:,.0f} rows/s")
        if pace.seconds_left is not None:
            numbers.append(f"about {duration(pace.seconds_left)} left")
    return ", ".join(numbers)


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
