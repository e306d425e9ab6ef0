"""The files that a glob names, inside one folder and never outside it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any, BinaryIO

from ecmbatch.errors import SourceChanged, SourceError

_FOOTER_BYTES = 64 * 1024
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenFile:
    """A file as a run first saw it: its path below the root, and what tells whether it is still the same.

    ``digest`` is the SHA-256 of its last 64 KiB, where Parquet keeps the statistics of all its rows.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FrozenFile:
        return cls(**document)


def matching_files(root: Path, pattern: str) -> list[str]:
    """Return the paths below *root*, sorted, of the regular files that match the glob *pattern*.

    ``*`` and ``?`` match within a name, ``**`` any number of folders, neither a leading dot. Raises
    :class:`~ecmbatch.errors.SourceError` where the pattern or what it finds lies outside *root*, and where
    it finds nothing.
    """
    segments = _segments(root, pattern)
    found = sorted(set(_walk(root, "", segments, set())))
    if not found:
        hint = "it names a folder; add /*.parquet" if _is_folder(root, segments) else None
        raise SourceError(
            f"no file matches '{pattern[:_SHOWN]}' below {root}", hint=hint or "check path and root"
        )
    for path in found:
        _check_inside(root, path)
    return found


def freeze(root: Path, path: str) -> FrozenFile:
    """Return the file at *path* below *root* as it is now."""
    with open_inside(root, path) as file:
        return _frozen(path, file)


def open_frozen(root: Path, expected: FrozenFile) -> BinaryIO:
    """Open the file that was frozen.

    Raises :class:`~ecmbatch.errors.SourceChanged` when it is gone or no longer the same.
    """
    try:
        file = open_inside(root, expected.path)
    except FileNotFoundError:
        raise _changed(expected, "is gone") from None
    try:
        check_unchanged(file, expected)
    except BaseException:
        file.close()
        raise
    return file


def check_unchanged(file: BinaryIO, expected: FrozenFile) -> None:
    """Raise :class:`~ecmbatch.errors.SourceChanged` when the open *file* is not as it was frozen."""
    if _frozen(expected.path, file) != expected:
        raise _changed(expected, "was changed")


def open_inside(root: Path, path: str) -> BinaryIO:
    """Open a regular file below *root* for reading; raises ``OSError`` as ``open`` does."""
    _check_inside(root, path)
    # A pipe that took the file's place would make a blocking open wait for ever.
    descriptor = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _changed(expected: FrozenFile, what: str) -> SourceChanged:
    return SourceChanged(
        f"the source file {expected.path} {what} since the run was planned",
        hint="put it back, or start a new run with --fresh",
    )


def _frozen(path: str, file: BinaryIO) -> FrozenFile:
    facts = os.fstat(file.fileno())
    file.seek(max(0, facts.st_size - _FOOTER_BYTES))
    digest = hashlib.sha256(file.read(_FOOTER_BYTES)).hexdigest()
    file.seek(0)
    return FrozenFile(path=path, size=facts.st_size, mtime_ns=facts.st_mtime_ns, digest=digest)


def _segments(root: Path, pattern: str) -> list[str]:
    if "\0" in pattern:
        raise SourceError("source.path has a NUL character")
    relative = pattern
    if pattern.startswith("/"):
        prefix = root.as_posix().rstrip("/") + "/"
        if not pattern.startswith(prefix):
            raise SourceError(
                f"source.path '{pattern[:_SHOWN]}' is not below the connector's root {root}",
                hint="write the path relative to the root",
            )
        relative = pattern.removeprefix(prefix)
    segments = [segment for segment in relative.split("/") if segment not in ("", ".")]
    if ".." in segments:
        raise SourceError(f"source.path '{pattern[:_SHOWN]}' has '..'; it may not leave {root}")
    if not segments:
        raise SourceError("source.path names no file", hint="write for example *.parquet")
    if segments[-1] == "**":
        segments.append("*")
    # `**` twice in a row finds what one does.
    return [
        segment for at, segment in enumerate(segments) if segment != "**" or segments[at - 1 : at] != ["**"]
    ]


def _walk(root: Path, folder: str, segments: Sequence[str], seen: set[tuple[str, int]]) -> Iterator[str]:
    """Yield the files below *folder* that match; what was *seen* is not walked twice."""
    if (folder, len(segments)) in seen:
        return
    seen.add((folder, len(segments)))
    first, rest = segments[0], segments[1:]
    if first == "**":
        yield from _walk(root, folder, rest, seen)
    matches = re.compile(translate("*" if first == "**" else first)).match
    for entry in _entries(root / folder):
        if (entry.name.startswith(".") and not first.startswith(".")) or not matches(entry.name):
            continue
        path = f"{folder}{entry.name}"
        if first == "**":
            # A link to a folder could lead round in a circle.
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, f"{path}/", segments, seen)
        elif rest:
            if entry.is_dir():
                yield from _walk(root, f"{path}/", rest, seen)
        elif entry.is_file():
            yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(f"the folder {folder} cannot be listed: {error.strerror}") from error


def _is_folder(root: Path, segments: Sequence[str]) -> bool:
    return (root / "/".join(segments)).is_dir()


def _check_inside(root: Path, path: str) -> None:
    if not path.isprintable() or any("\ud800" <= char <= "\udfff" for char in path):
        raise SourceError(f"the name of the source file {path!a} has characters that cannot be kept")
    if not (root / path).resolve().is_relative_to(root):
        raise SourceError(f"the source file {path} is a link that leads out of {root}")
