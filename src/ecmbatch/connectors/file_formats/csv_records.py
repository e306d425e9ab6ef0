"""Where the records and fields of CSV text are: newlines and delimiters outside quotes (RFC 4180).

A quote where none may be would silently shift all that follows, so that every quote is checked: an opening one
comes after a delimiter or a line end, a closing one before one of these, and two in a row stand for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecmbatch.connectors.file_formats.text_blocks import Records
from ecmbatch.connectors.file_formats.text_problems import BadText

Positions = NDArray[np.intp]

_NONE: Positions = np.zeros(0, np.intp)
_NEWLINE, _RETURN = 10, 13
_NO_QUOTING = 'if the file has no quoting, set csv.quote = ""'


class CsvRecords(Records):
    """Records of one dialect; *quote* and *escape* may be empty."""

    too_long_hint = f"look for a quote that is never closed; {_NO_QUOTING}"

    def __init__(self, *, delimiter: str, quote: str, escape: str) -> None:
        self._delimiter = ord(delimiter)
        self._quote = quote.encode()
        self._escape = escape.encode()
        # Of two quotes in a row the second opens again what the first closed.
        self._may_precede = np.zeros(256, np.bool_)
        self._may_precede[[self._delimiter, _NEWLINE, *self._quote]] = True
        self._may_follow = self._may_precede.copy()
        self._may_follow[_RETURN] = True

    def complete(self, text: bytes, at_end: bool) -> int:
        if not self.has_marks(text):
            length = len(text) if at_end else text.rfind(b"\n") + 1
            self._check_line_ends(text, length, _NONE, _NONE)
            return length
        quotes, escaped = self._marks(text)
        self._check_quotes(text, quotes, escaped)
        if at_end:
            self._check_closed(text, quotes)
            length = len(text)
        else:
            length = _last_end(text, quotes, escaped)
        self._check_line_ends(text, length, quotes, escaped)
        return length

    def ends(self, text: bytes) -> Sequence[int]:
        ends: list[int] = (self._newlines(text) + 1).tolist()
        return ends if text.endswith(b"\n") else [*ends, len(text)]

    def columns_of(self, text: bytes, positions: Positions, columns: int) -> Positions:
        """Return the number of the column in which each position is, all records of *text* having so many."""
        quotes, escaped = self._marks(text) if self.has_marks(text) else (_NONE, _NONE)
        content = _bytes(text)
        delimiters = _plain(np.flatnonzero(content == self._delimiter), quotes, escaped)
        newlines = _plain(np.flatnonzero(content == _NEWLINE), quotes, escaped)
        if not len(delimiters):
            return np.zeros(len(positions), np.intp)
        before = np.searchsorted(delimiters, positions)
        # A record has one delimiter less than columns, so their number alone does not tell the first from the last.
        last_delimiters = np.where(before > 0, delimiters[before - 1], -1)
        ended = np.searchsorted(newlines, positions)
        is_first = (before == 0) | (ended > np.searchsorted(newlines, last_delimiters))
        numbers = (before - 1) % (columns - 1) + 1
        numbers[is_first] = 0
        return numbers

    def _newlines(self, text: bytes) -> Positions:
        """Return where the newlines are that end records."""
        found = np.flatnonzero(_bytes(text) == _NEWLINE)
        return _plain(found, *self._marks(text)) if self.has_marks(text) else found

    def has_marks(self, text: bytes) -> bool:
        """Tell whether there is a quote or an escape."""
        return bool((self._quote and self._quote in text) or (self._escape and self._escape in text))

    def _marks(self, text: bytes) -> tuple[Positions, Positions]:
        """Return where quotes are that mean something, and which bytes are escaped."""
        content = _bytes(text)
        escaped = self._escaped(content)
        quotes = np.flatnonzero(content == ord(self._quote)) if self._quote else _NONE
        return (quotes[~np.isin(quotes, escaped)] if len(escaped) else quotes), escaped

    def _escaped(self, content: NDArray[np.uint8]) -> Positions:
        escapes = np.flatnonzero(content == ord(self._escape)) if self._escape else _NONE
        if not len(escapes):
            return _NONE
        # In a run of escapes they escape each other; only an odd one is left for what follows.
        breaks = np.flatnonzero(np.diff(escapes) != 1)
        firsts = escapes[np.append(0, breaks + 1)]
        lasts = escapes[np.append(breaks, len(escapes) - 1)]
        are_odd = (lasts - firsts) % 2 == 0
        behind: Positions = lasts[are_odd] + 1
        return behind

    def _check_quotes(self, text: bytes, quotes: Positions, escaped: Positions) -> None:
        content = _bytes(text)
        opening, closing = quotes[0::2], quotes[1::2]
        # The byte before the first is none; what follows the last byte may be any.
        behind = content[np.minimum(closing + 1, len(content) - 1)]
        may_follow = self._may_follow[behind] | (closing + 1 == len(content))
        may_precede = self._may_precede[content[opening - 1]] | (opening == 0)
        if len(escaped):
            may_precede &= ~np.isin(opening - 1, escaped)
        if may_precede.all() and may_follow.all():
            return
        misplaced, unended = opening[~may_precede][:1].tolist(), closing[~may_follow][:1].tolist()
        if not unended or (misplaced and misplaced < unended):
            raise BadText(misplaced[0], "there is a quote inside an unquoted field", _NO_QUOTING)
        raise BadText(unended[0], "a quoted field goes on behind its closing quote", _NO_QUOTING)

    def _check_closed(self, text: bytes, quotes: Positions) -> None:
        if len(quotes) % 2:
            opening, closing = quotes[0::2], quotes[1::2]
            # Go back over doubled quotes to where the field really starts.
            starts = opening[np.append(True, opening[1:] - 1 != closing)]
            raise BadText(int(starts[-1]), "a quoted field that starts here is never closed", _NO_QUOTING)
        if self._escape and len(text) in self._escaped(_bytes(text)):
            raise BadText(len(text), "the file ends behind an escape character")

    def _check_line_ends(self, text: bytes, length: int, quotes: Positions, escaped: Positions) -> None:
        if b"\r" not in text or text.count(b"\r", 0, length) == text.count(b"\r\n", 0, length):
            return
        content = _bytes(text)[:length]
        returns = np.flatnonzero(content == _RETURN)
        followed = np.append(content[1:] == _NEWLINE, False)[returns]
        alone = _plain(returns[~followed], quotes, escaped)
        if len(alone):
            raise BadText(
                int(alone[0]),
                "a carriage return without a newline ends no record",
                r"write line ends as \n or \r\n, or quote fields that hold a carriage return",
            )


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, np.uint8)


def _plain(positions: Positions, quotes: Positions, escaped: Positions) -> Positions:
    """Return those of *positions* that are outside quotes and not escaped."""
    outside = positions[np.searchsorted(quotes, positions) % 2 == 0] if len(quotes) else positions
    return outside[~np.isin(outside, escaped)] if len(escaped) else outside


def _last_end(text: bytes, quotes: Positions, escaped: Positions) -> int:
    """Return the end of the last record, 0 where none ends."""
    end = len(text)
    while (newline := text.rfind(b"\n", 0, end)) >= 0:
        before = int(np.searchsorted(quotes, newline))
        if before % 2:
            end = int(quotes[before - 1])
        elif len(escaped) and newline in escaped:
            end = newline
        else:
            return newline + 1
    return 0
