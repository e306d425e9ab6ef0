"""Whole lines of a file, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

import numpy as np
import pyarrow as pa

BLOCK = 4 * 1024 * 1024


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes: ...


class LineTooLong(Exception):
    """A line is longer than a block."""


@dataclass(frozen=True)
class Lines:
    """Some whole lines, each with its end; ``ends[i]`` is where line *i* ends, from the start of the first."""

    values: pa.Array
    ends: np.ndarray[tuple[int], np.dtype[np.int32]]

    @property
    def size(self) -> int:
        """How many bytes the lines have."""
        return int(self.ends[-1])

    def chunks(self, rows: int) -> Iterator[tuple[pa.Array, int]]:
        """Yield at most *rows* lines at a time, with the place where the last of them ends."""
        for start in range(0, len(self.values), rows):
            chunk = self.values.slice(start, rows)
            yield chunk, int(self.ends[start + len(chunk) - 1])


def blocks(stream: Readable, size: int | None, block: int) -> Iterator[Lines]:
    """Yield the lines of the next *size* bytes of *stream*, or of all that is left.

    The last line may lack its end.
    """
    left = size
    rest = b""
    while more := stream.read(block - len(rest) if left is None else min(block - len(rest), left)):
        left = None if left is None else left - len(more)
        data = rest + more
        cut = data.rfind(b"\n") + 1
        if cut:
            yield _lines(data[:cut])
        rest = data[cut:]
        if len(rest) >= block:
            raise LineTooLong
    if rest:
        yield _lines(rest)


def complete_bytes(stream: IO[bytes], size: int, block: int) -> int:
    """Return how many of the first *size* bytes of *stream* are complete lines."""
    start = max(0, size - block)
    stream.seek(start)
    end = stream.read(size - start).rfind(b"\n")
    if end < 0:
        return 0 if start == 0 else size  # a line that is too long is told when it is read
    return start + end + 1


def _lines(data: bytes) -> Lines:
    ends = (np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1).astype(np.int32)
    if not data.endswith(b"\n"):
        ends = np.append(ends, np.int32(len(data)))
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return Lines(pa.Array.from_buffers(pa.binary(), len(ends), buffers), ends)
