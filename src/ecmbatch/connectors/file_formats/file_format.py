"""The contract of a file format: learn a file's columns, and read its rows from a place on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

import pyarrow as pa

from ecmbatch.connectors.columns import check_names
from ecmbatch.errors import EcmbatchError, SourceError, Unreachable

Place = Mapping[str, int]
"""A place in a file, in the format's own JSON values. It means: everything up to here was handed out."""

Learnt = TypeVar("Learnt")
"""What a format knows of the columns of one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """An open file at its start, and its path below the connector's root, by which errors call it."""

    path: str
    opened: BinaryIO


class FileFormat(ABC, Generic[Learnt]):
    """One way to write rows into files. Files are hostile until read: whatever they make a reader raise
    becomes an :class:`~ecmbatch.errors.EcmbatchError` that names the file and repeats no value."""

    @abstractmethod
    def learn(self, file: SourceFile) -> Learnt:
        """Return what the file, or a bounded part of it, tells of its columns."""

    @abstractmethod
    def unite(self, learnt: Iterable[tuple[str, Learnt]]) -> pa.Schema:
        """Return the schema that the rows of all files fit, given as ``(path, what was learnt)``.

        Raises :class:`~ecmbatch.errors.SourceError` that names file, column and both types where no type
        holds both.
        """

    @abstractmethod
    def batches(
        self, file: SourceFile, schema: pa.Schema, after: Place | None, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yield the rows behind the place *after*, and the place behind each batch.

        Batches have *schema*, NULL where the file lacks a column, and at most *batch_rows* rows. A place
        holds for any *batch_rows*; what is before it is not parsed.
        """


@contextmanager
def readable(path: str, what: str) -> Iterator[None]:
    """Turn whatever a broken file makes a reader raise into an error that names the file.

    *what* is what the file is not, such as "Parquet file".
    """
    try:
        yield
    except EcmbatchError:
        raise
    except PermissionError as error:
        raise Unreachable(f"the source file {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # The reader's own words may repeat values of rows, so they are neither shown nor kept.
        raise SourceError(
            f"{path} is not a sound {what} ({type(error).__name__})",
            hint="write it again, or leave it out of source.path",
        ) from None


def check_columns(path: str, names: Sequence[str]) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` for unusable column names of one file."""
    try:
        check_names(names)
    except SourceError as error:
        raise SourceError(f"{path}: {error.message}", hint=error.hint) from None
