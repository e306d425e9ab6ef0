"""Which format files are in, by their names or by what the connector declares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ecmbatch.connectors.file_formats.csv import CsvFormat
from ecmbatch.connectors.file_formats.csv_settings import CsvSettings
from ecmbatch.connectors.file_formats.file_format import FileFormat
from ecmbatch.connectors.file_formats.json_lines import JsonLinesFormat
from ecmbatch.connectors.file_formats.json_settings import JsonSettings
from ecmbatch.connectors.file_formats.parquet import ParquetFormat
from ecmbatch.connectors.file_formats.text_stream import COMPRESSIONS, compression_of
from ecmbatch.errors import SourceError

FormatName = Literal["parquet", "csv", "tsv", "json"]

_BY_SUFFIX: Mapping[str, FormatName] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatChoice:
    """A format and its settings; part of a plan, so that a later attempt reads as the first one did."""

    name: Literal["parquet", "csv", "json"]
    settings: Mapping[str, Any]

    def reader(self) -> FileFormat[Any]:
        """Return what reads the files."""
        if self.name == "csv":
            return CsvFormat(CsvSettings.model_validate_json(json.dumps(self.settings)))
        if self.name == "json":
            return JsonLinesFormat(JsonSettings.model_validate_json(json.dumps(self.settings)))
        return ParquetFormat()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FormatChoice:
        """Return the choice whose JSON form is *document*."""
        return cls(name=document["name"], settings=document["settings"])


def chosen_format(
    paths: Sequence[str], declared: FormatName | None, csv: CsvSettings, json_settings: JsonSettings
) -> FormatChoice:
    """Return the one format of all files.

    Raises :class:`~ecmbatch.errors.SourceError` where names tell of none or of several, and for compressed
    Parquet files.
    """
    names = {path: declared or _by_name(path) for path in paths}
    first = names[paths[0]]
    for path, name in names.items():
        if name != first:
            raise SourceError(
                f"source.path finds files of several formats: {first} ({paths[0]}) and {name} ({path})",
                hint="name the files of one format, such as *.csv",
            )
        if name == "parquet" and compression_of(path):
            raise SourceError(f"{path} is compressed as a whole; Parquet files are compressed inside")
    if first == "json":
        return FormatChoice(name="json", settings=json_settings.model_dump(mode="json"))
    if first == "parquet":
        return FormatChoice(name="parquet", settings={})
    if first == "tsv" and "delimiter" not in csv.model_fields_set:
        csv = csv.model_copy(update={"delimiter": "\t"})
    return FormatChoice(name="csv", settings=csv.model_dump(mode="json"))


def _by_name(path: str) -> FormatName:
    name = path.lower()
    if compression_of(path):
        name = name[: name.rindex(".")]
    for suffix, format_name in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return format_name
    raise SourceError(
        f"the name of {path} does not tell its format",
        hint=f"set the connector's 'format'; known are {', '.join(_BY_SUFFIX)}, "
        f"for text also with {', '.join(COMPRESSIONS)}",
    )
