"""Text cut into blocks of whole records.

Where blocks end depends on how much is read at once, so nothing may: a block is only a way to parse many
records in one go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ecmbatch.connectors.file_formats.file_format import Place
from ecmbatch.connectors.file_formats.text_problems import BadText, problem_at_line
from ecmbatch.connectors.file_formats.text_stream import TextStream

BLOCK_BYTES = 1024 * 1024
"""How much text is parsed at once, if no record is longer."""

SAMPLE_BYTES = 1024 * 1024
"""Types are inferred from so much text at the start of each file."""

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A longer record is refused: most likely something is not closed, and the rest of the file would be read."""


_NEWLINE = 10


class Records(ABC):
    """Where the records of a format end."""

    too_long_hint: str

    @abstractmethod
    def complete(self, text: bytes, at_end: bool) -> int:
        """Return the length of the whole records at the start of *text*; all of it where it *at_end* is.

        Raises :class:`BadText` where a record is not as it must be, whatever follows.
        """

    @abstractmethod
    def ends(self, text: bytes) -> Sequence[int]:
        """Return where each record of *text*, whole records, ends."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records: their text, its offset, the line on which they start, counted from 1, and that behind them."""

    text: bytes
    offset: int
    line: int
    line_behind: int

    @classmethod
    def at(cls, text: bytes, offset: int, line: int) -> Block:
        """Return the block of *text* that starts there."""
        return cls(text, offset, line, line + _newlines(text))

    def line_of(self, position: int) -> int:
        """Return the line on which the byte at *position* of the text is."""
        return self.line + self.text.count(b"\n", 0, position)

    def place(self, row: int) -> Place:
        """Return the place behind *row* rows of the block."""
        return {"offset": self.offset, "line": self.line, "row": row}

    def place_behind(self) -> Place:
        """Return the place behind all rows of the block."""
        return {"offset": self.offset + len(self.text), "line": self.line_behind, "row": 0}


class TextBlocks:
    """The text of one file behind a place."""

    def __init__(self, path: str, stream: TextStream, records: Records, encoding_setting: str) -> None:
        self._path = path
        self._stream = stream
        self._records = records
        self._encoding_setting = encoding_setting

    def blocks(self, offset: int, line: int, block_bytes: int | None = None) -> Iterator[Block]:
        """Yield the records from *offset*, on *line*, to the end; the stream must be there."""
        block_bytes = block_bytes or BLOCK_BYTES
        rest = b""
        while True:
            # A record longer than a block is met with twice as much each time, so that its length counts once.
            more = self._stream.read(min(max(block_bytes, len(rest)), MAX_RECORD_BYTES + 1 - len(rest)))
            text = rest + more
            if not text:
                return
            try:
                length = self._records.complete(text, at_end=not more)
                self._check_characters(text, length)
            except BadText as bad:
                raise bad.problem_in(self._path, text, line) from None
            if length:
                block = Block.at(text[:length], offset, line)
                yield block
                offset, line = offset + length, block.line_behind
            elif len(text) > MAX_RECORD_BYTES:
                raise problem_at_line(
                    self._path,
                    line,
                    f"a record that starts here is longer than {MAX_RECORD_BYTES // 1024:,} KiB",
                    self._records.too_long_hint,
                )
            rest = text[length:]

    def sample(self, offset: int, line: int) -> Block:
        """Return the records from there on, the last one too if they are few, as one block."""
        parts: list[bytes] = []
        for block in self.blocks(offset, line, SAMPLE_BYTES):
            parts.append(block.text)
            if sum(map(len, parts)) >= SAMPLE_BYTES // 2:
                break
        return Block.at(b"".join(parts), offset, line)

    def _check_characters(self, text: bytes, length: int) -> None:
        hint = f"declare how the file is encoded in {self._encoding_setting}"
        nul = text.find(b"\0", 0, length)
        if nul >= 0:
            raise BadText(nul, "the text has a NUL byte", hint)
        if _is_utf8(text, length):
            return
        try:
            text[:length].decode()
        except UnicodeDecodeError as error:
            raise BadText(error.start, "the text is not valid UTF-8", hint) from None


def _is_utf8(text: bytes, length: int) -> bool:
    """Tell so, several times as fast as decoding would."""
    offsets = pa.py_buffer(np.array([0, length], np.int32))
    try:
        pa.StringArray.from_buffers(1, offsets, pa.py_buffer(text)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _newlines(text: bytes) -> int:
    """Return how many there are, faster than ``count`` where they are many."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _NEWLINE))
