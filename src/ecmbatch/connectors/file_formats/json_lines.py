"""JSON lines: one object per line, its types inferred when a run is planned and fixed from then on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ecmbatch.connectors.file_formats.file_format import FileFormat, Place, SourceFile, readable
from ecmbatch.connectors.file_formats.json_parser import COLUMNS_SETTING, JsonParser
from ecmbatch.connectors.file_formats.json_settings import JsonSettings
from ecmbatch.connectors.file_formats.json_shape import (
    BadJson,
    EmptyObject,
    Fields,
    Seen,
    Unlike,
    arrow_fields,
    merged,
    parse_object,
)
from ecmbatch.connectors.file_formats.text_blocks import Records, TextBlocks
from ecmbatch.connectors.file_formats.text_problems import problem_at_line
from ecmbatch.connectors.file_formats.text_rows import TextRows
from ecmbatch.connectors.file_formats.text_stream import TextStream
from ecmbatch.errors import SourceError

_WHAT = "JSON lines file"
_ENCODING_SETTING = "json.encoding"
_START = {"offset": 0, "line": 1, "row": 0}


class JsonLinesFormat(FileFormat[Fields]):
    """Files of one JSON object per line; empty lines are nothing."""

    def __init__(self, settings: JsonSettings) -> None:
        self._settings = settings
        self._records = _Lines()

    def learn(self, file: SourceFile) -> Fields:
        seen = Seen(kind="an object")
        with readable(file.path, _WHAT):
            for number, line in enumerate(self._blocks(file).sample(0, 1).text.split(b"\n"), 1):
                if line.strip(b" \t\r"):
                    self._look_at(file.path, number, line, seen)
            return self._shape(file.path, seen)

    def unite(self, learnt: Iterable[tuple[str, Fields]]) -> pa.Schema:
        united, before = Fields({}), list[tuple[str, Fields]]()
        for path, shape in learnt:
            try:
                united = _merged(united, shape)
            except Unlike as unlike:
                raise _differing(unlike, path, shape, before) from None
            before.append((path, shape))
        try:
            return pa.schema(arrow_fields(united.shapes, self._settings.columns))
        except EmptyObject as empty:
            raise SourceError(
                f"only objects without fields were found of the field '{empty.name}'",
                hint=f"declare its fields in {COLUMNS_SETTING}",
            ) from None

    def batches(
        self, file: SourceFile, schema: pa.Schema, after: Place | None, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        place = after or _START
        with readable(file.path, _WHAT):
            rows = TextRows(
                path=file.path,
                what=_WHAT,
                blocks=self._blocks(file, place["offset"]),
                records=self._records,
                parser=JsonParser(schema),
            )
        yield from rows.batches(schema, place, batch_rows)

    def _blocks(self, file: SourceFile, offset: int = 0) -> TextBlocks:
        stream = TextStream(file, self._settings.encoding, _ENCODING_SETTING)
        stream.skip_to(offset)
        return TextBlocks(file.path, stream, self._records, _ENCODING_SETTING)

    def _shape(self, path: str, seen: Seen) -> Fields:
        try:
            shape = seen.shape()
        except Unlike as unlike:
            raise SourceError(
                f"{path}: field '{unlike.name}' has {unlike.one}, and {unlike.other}",
                hint=f"declare it in {COLUMNS_SETTING}, as a decimal for example",
            ) from None
        assert isinstance(shape, Fields)  # it began as one
        return shape

    def _look_at(self, path: str, number: int, line: bytes, seen: Seen) -> None:
        try:
            seen.add(parse_object(line), self._settings.columns)
        except BadJson as bad:
            raise problem_at_line(path, number, str(bad), JsonParser.hint_for(line)) from None
        except Unlike as unlike:
            raise problem_at_line(
                path,
                number,
                f"field '{unlike.name}' is {unlike.other}, but {unlike.one} on a line before",
                "write one kind of value per field",
            ) from None


def _merged(one: Fields, other: Fields) -> Fields:
    whole = merged(one, other)
    assert isinstance(whole, Fields)  # both are
    return whole


def _differing(unlike: Unlike, path: str, shape: Fields, before: Sequence[tuple[str, Fields]]) -> SourceError:
    """Return the error that names the two files which differ."""
    others = "the files before it"
    for other_path, other in before:
        try:
            _merged(other, shape)
        except Unlike as found:
            unlike, others = found, other_path
            break
    return SourceError(
        f"field '{unlike.name}' looks like {unlike.other} in {path}, but like {unlike.one} in {others}",
        hint=f"declare its type in {COLUMNS_SETTING}",
    )


class _Lines(Records):
    too_long_hint = "write one object per line"

    def complete(self, text: bytes, at_end: bool) -> int:
        return len(text) if at_end else text.rfind(b"\n") + 1

    def ends(self, text: bytes) -> Sequence[int]:
        ends: list[int] = (np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1).tolist()
        return ends if text.endswith(b"\n") else [*ends, len(text)]
