"""What people and scripts read: standard output for data, standard error for everything else.

A reader that goes away (``ecmbatch runs | head -1``) ends the printing, never the command: what a run did does
not depend on who reads about it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ecmbatch.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDTH_OF_PIPES = 160


def tolerate_any_text() -> None:
    """Print what the terminal's encoding lacks as an escape: a name in a job must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_document(document: Any) -> None:
    """Print *document* as JSON on standard output."""
    readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    _print_out(json.dumps(document, indent=2, ensure_ascii=not readable))


def print_text(renderable: RenderableType) -> None:
    """Print *renderable* on standard output, in colours where it is a terminal."""
    with io.StringIO() as text:
        console = _console(text)
        console.print(renderable)
        _print_out("\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n")))


def print_note(text: str) -> None:
    """Print *text* on standard error."""
    # Nobody is left to be told that nobody listens.
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except (BrokenPipeError, ValueError):
        return


def visible(text: str) -> str:
    """Return *text* with control characters as escapes: a column's name must not move a terminal's cursor."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def is_terminal(stream: Any) -> bool:
    """Tell whether a person watches *stream*."""
    return stream is not None and bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _console(text: io.StringIO) -> Console:
    from rich.console import Console

    terminal = is_terminal(sys.stdout)
    return Console(
        file=text,
        force_terminal=terminal,
        width=None if terminal else _WIDTH_OF_PIPES,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _print_out(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter flushes once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"standard output cannot be written: {error.strerror}") from error
