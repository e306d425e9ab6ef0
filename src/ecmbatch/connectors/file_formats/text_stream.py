"""The text of a file as UTF-8, whatever its compression and encoding.

Offsets count the bytes of that text, without a byte order mark. A plain UTF-8 file seeks to an offset; other
files are decompressed and decoded up to it.
"""

from __future__ import annotations

import codecs
import io
from typing import Any, BinaryIO

import pyarrow as pa

from ecmbatch.connectors.file_formats.file_format import SourceFile
from ecmbatch.connectors.file_formats.text_problems import problem_at_line
from ecmbatch.errors import SourceError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""The compression of text files, by the last suffix of their name."""

_PLAIN = ("utf-8", "utf-8-sig")
_BOM = "\ufeff"
_CHUNK = 1024 * 1024


def compression_of(path: str) -> str | None:
    """Return how the text file at *path* is compressed, as its name says."""
    return next((name for suffix, name in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)


class TextStream:
    """Reads the text of *file* from its start on, wherever the file is; closing the file is left to its owner."""

    def __init__(self, file: SourceFile, encoding: str, setting: str) -> None:
        """*encoding* is any of Python's text encodings; *setting* is where users declare it."""
        compression = compression_of(file.path)
        file.opened.seek(0)
        self._path = file.path
        self._file = file.opened
        self._seekable = compression is None and codecs.lookup(encoding).name in _PLAIN
        self._bytes = _decompressed(file, compression)
        self._decoder = (
            None if codecs.lookup(encoding).name in _PLAIN else codecs.getincrementaldecoder(encoding)()
        )
        self._encoding_hint = f"declare how it is encoded in {setting}"
        self._offset = 0
        self._lines = 0
        self._unread = b""
        self._without_bom()

    def read(self, size: int) -> bytes:
        """Return the next bytes of the text, at most *size*, and none only at its end."""
        # Decoding may give more bytes than it takes.
        text = self._unread or self._decoded(size)
        text, self._unread = text[:size], text[size:]
        self._offset += len(text)
        return text

    def skip_to(self, offset: int) -> None:
        """Go on to *offset*, where a character starts; it may lie before what was read only in plain files.

        Raises :class:`~ecmbatch.errors.SourceError` where the text ends before.
        """
        if self._seekable:
            self._file.seek(self._bom_bytes + offset)
            self._offset, self._unread = offset, b""
            return
        while self._offset < offset:
            if not self.read(min(_CHUNK, offset - self._offset)):
                raise SourceError(f"{self._path} ends before the place up to which it was read")

    def _without_bom(self) -> None:
        mark = _BOM.encode()
        start = self._decoded(len(mark))
        while 0 < len(start) < len(mark) and mark.startswith(start) and (more := self._decoded(1)):
            start += more
        self._bom_bytes = len(mark) if start.startswith(mark) else 0
        self._unread = start[self._bom_bytes :]

    def _decoded(self, size: int) -> bytes:
        if self._decoder is None:
            return self._raw(size)
        while True:
            raw = self._raw(size)
            try:
                text = self._decoder.decode(raw, final=not raw).encode()
            except UnicodeError as error:
                raise self._undecodable(error) from None
            self._lines += text.count(b"\n")
            if text or not raw:
                return text

    def _raw(self, size: int) -> bytes:
        try:
            return bytes(self._bytes.read(size))
        except OSError as error:
            if error.errno is not None:
                raise
            cut_off = "Truncated" in str(error)
            raise SourceError(
                f"{self._path} is {'cut off' if cut_off else 'damaged'}: it cannot be decompressed to its end",
                hint="write it again, or leave it out of source.path",
            ) from None

    def _undecodable(self, error: UnicodeError) -> SourceError:
        # What was decoded of the chunk before the error is unknown to codecs that keep state; count what can be.
        ahead = 0
        if isinstance(error, UnicodeDecodeError):
            with_text = bytes(error.object[: error.start]).decode(error.encoding, "ignore")
            ahead = with_text.count("\n")
        return problem_at_line(
            self._path,
            self._lines + ahead + 1,
            "the text is not in the declared encoding",
            self._encoding_hint,
        )


class _Borrowed(io.RawIOBase):
    """A file for a reader that would close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]


def _decompressed(file: SourceFile, compression: str | None) -> Any:
    if compression is None:
        return file.opened
    if not file.opened.read(1):
        # The decompressor takes no bytes at all for no text at all.
        raise SourceError(
            f"{file.path} is cut off: it has no bytes, not even those of an empty {compression} file"
        )
    file.opened.seek(0)
    return pa.CompressedInputStream(pa.PythonFile(_Borrowed(file.opened), mode="r"), compression)
