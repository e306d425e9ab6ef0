"""The log files of a folder, and the state in which a run found them."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ecmbatch.errors import SourceChanged, SourceError, Unreachable

from ecmbatch_access_log.blocks import Lines, blocks, complete_bytes

HEAD = 4096

_FRESH = "put it back, or start anew with: ecmbatch run JOB --fresh"


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A file as it was when the run was planned. What a server appends later is for a later run."""

    path: str
    size: int
    """How many bytes are read: all of a compressed file, of others those of complete lines."""
    head: str
    """A digest of the first bytes, to know the file again."""

    @property
    def compressed(self) -> bool:
        return self.path.endswith(".gz")

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LogFile:
        return cls(**document)


class LogFolder:
    """A folder that nothing is read outside of, links included."""

    def __init__(self, root: Path, block: int) -> None:
        self._root = root
        self._block = block

    def check(self) -> None:
        if not self._root.is_dir():
            raise Unreachable(
                f"{self._root} is not a folder", hint="the connector's 'root' is relative to the project"
            )

    def find(self, pattern: str) -> list[LogFile]:
        """Return the files that *pattern* means, in the order of their paths."""
        self.check()
        if not Path(pattern).parts or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise SourceError("source.path must be a file or a glob below the connector's root")
        try:
            with _refusals(pattern):
                paths = sorted(path for path in self._root.glob(pattern) if path.is_file())
        except ValueError:
            raise SourceError(f"source.path {pattern!r} is neither a file nor a glob") from None
        if not paths:
            raise SourceError(f"no file of the connector's root is {pattern!r}")
        return [self._frozen(path.relative_to(self._root).as_posix()) for path in paths]

    def lines(self, file: LogFile, byte: int) -> Generator[Lines]:
        """Yield the lines of *file* from *byte* on, of its text if it is compressed."""
        with self._opened(file.path) as raw:
            with _refusals(file.path):
                _check_same(raw, file)
                raw.seek(0)
            with gzip.GzipFile(fileobj=raw, mode="rb") if file.compressed else nullcontext(raw) as stream:
                with _refusals(file.path):
                    stream.seek(byte)
                found = blocks(stream, None if file.compressed else file.size - byte, self._block)
                while True:
                    with _refusals(file.path):
                        lines = next(found, None)
                    if lines is None:
                        return
                    yield lines

    def _frozen(self, path: str) -> LogFile:
        with self._opened(path) as raw, _refusals(path):
            size = _size(raw)
            if not path.endswith(".gz"):
                size = complete_bytes(raw, size, self._block)
            return LogFile(path=path, size=size, head=_head(raw, size))

    @contextmanager
    def _opened(self, path: str) -> Iterator[IO[bytes]]:
        with _refusals(path):
            real = (self._root / path).resolve()
            if not real.is_relative_to(self._root.resolve()):
                raise SourceError(f"{path} leads out of the connector's root")
            raw = real.open("rb")
        with raw:
            yield raw


def _check_same(raw: IO[bytes], file: LogFile) -> None:
    size = _size(raw)
    fits = size == file.size if file.compressed else size >= file.size
    if not fits or _head(raw, file.size) != file.head:
        raise SourceChanged(f"{file.path} is not the file that the run began with", hint=_FRESH)


def _size(raw: IO[bytes]) -> int:
    return raw.seek(0, 2)


def _head(raw: IO[bytes], size: int) -> str:
    raw.seek(0)
    return hashlib.sha256(raw.read(min(size, HEAD))).hexdigest()


@contextmanager
def _refusals(path: str) -> Iterator[None]:
    """Turn errors of files into those that people can act on."""
    try:
        yield
    except FileNotFoundError:
        raise SourceChanged(f"{path} is gone", hint=_FRESH) from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise SourceError(f"{path} is not a whole gzip file") from None
    except OSError as error:
        raise Unreachable(f"{path} cannot be read: {error.strerror}") from error
