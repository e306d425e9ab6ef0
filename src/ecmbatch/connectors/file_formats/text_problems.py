"""Problems of text files: told with file and line, never with a value."""

from __future__ import annotations

from ecmbatch.errors import SourceError


class BadText(Exception):
    """The text breaks its format at *position*, counted from where its reader was given it."""

    def __init__(self, position: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.position = position
        self.message = message
        self.hint = hint

    def problem_in(self, path: str, text: bytes, line: int) -> SourceError:
        """Return the error that tells it of *text*, which starts on *line* of the file at *path*."""
        return problem_at_line(path, line + text.count(b"\n", 0, self.position), self.message, self.hint)


def problem_at_line(path: str, line: int, message: str, hint: str | None = None) -> SourceError:
    """Return the error that tells where in which file something is wrong."""
    return SourceError(f"{path}, line {line}: {message}", hint=hint, error_class="data")


def settle(setting: str, *, is_declared: bool) -> str:
    """Return what to do about a value that is not of its column's type."""
    if is_declared:
        return f"correct the file, or declare another type in {setting} and start a new run with --fresh"
    return (
        "its type was inferred from the start of each file; "
        f"declare it in {setting} and start a new run with --fresh"
    )
