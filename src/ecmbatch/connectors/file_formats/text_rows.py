"""The rows of a text file: blocks parsed in one go, and one by one only to find what is wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.connectors.file_formats.file_format import Place, readable
from ecmbatch.connectors.file_formats.text_blocks import Block, Records, TextBlocks
from ecmbatch.connectors.file_formats.text_problems import BadText, problem_at_line
from ecmbatch.connectors.file_formats.united_schema import fitted
from ecmbatch.errors import SourceError


class Parser(ABC):
    """Makes rows of whole records."""

    @abstractmethod
    def parse(self, text: bytes) -> pa.RecordBatch:
        """Return the rows of *text*; raises :class:`BadText`, or anything else, where it breaks the format."""

    @abstractmethod
    def describe(self, record: bytes) -> tuple[str, str | None]:
        """Return what is wrong with a record that :meth:`parse` raises for, and a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRows:
    """The rows of one file, *what* it is called in errors."""

    path: str
    what: str
    blocks: TextBlocks
    records: Records
    parser: Parser

    def batches(
        self, schema: pa.Schema, place: Place, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yield the rows behind *place*, where the stream must be, and the place behind each batch."""
        row = place["row"]
        blocks = self.blocks.blocks(place["offset"], place["line"])
        while True:
            with readable(self.path, self.what):
                block = next(blocks, None)
                if block is None:
                    return
                rows = fitted(self.parsed(block), schema)
            for start in range(row, rows.num_rows, batch_rows):
                part = rows.slice(start, batch_rows)
                end = start + part.num_rows
                yield part, block.place(end) if end < rows.num_rows else block.place_behind()
            row = max(0, row - rows.num_rows)

    def parsed(self, block: Block) -> pa.RecordBatch:
        """Return the rows of *block*; raises :class:`~ecmbatch.errors.SourceError` with file and line."""
        try:
            return self.parser.parse(block.text)
        except BadText as bad:
            raise bad.problem_in(self.path, block.text, block.line) from None
        except Exception:
            # The parser's own words repeat values of rows, so they are neither shown nor kept.
            raise self._problem(block) from None

    def _problem(self, block: Block) -> SourceError:
        start, end = _first_unparsed(block.text, self.records.ends(block.text), self.parser.parse)
        message, hint = self.parser.describe(block.text[start:end])
        return problem_at_line(self.path, block.line_of(start), message, hint)


def _first_unparsed(text: bytes, ends: Sequence[int], parse: Callable[[bytes], object]) -> tuple[int, int]:
    """Return start and end of the first record of *text* that *parse* raises for, given that it does for all."""
    bounds = [0, *ends]
    low, high = 0, len(ends)
    while high - low > 1:
        middle = (low + high) // 2
        if _parses(parse, text[bounds[low] : bounds[middle]]):
            low = middle
        else:
            high = middle
    return bounds[low], bounds[high]


def _parses(parse: Callable[[bytes], object], text: bytes) -> bool:
    try:
        parse(text)
    except Exception:
        return False
    return True
