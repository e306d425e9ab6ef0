"""What every store refuses, and the words for it.

:func:`check_publication` holds whatever the rows are; the others are for what only shows while publishing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from ecmbatch.errors import ErrorClass, Fenced, IntegrityError, Problem, StoreError, Superseded
from ecmbatch.stores.schema_change import schema_change
from ecmbatch.stores.store import RESERVED_PREFIX, Head, Marker, Publication, TableChange, WidenedColumn


def check_publication(
    publication: Publication, stored: pa.Schema | None, *, same_name: Callable[[str], str] = str
) -> TableChange:
    """Return how the table changes, or raise :class:`~ecmbatch.errors.StoreError` with all reasons against it.

    *stored* is the table's schema with its provenance column, ``None`` where there is no table yet.
    *same_name* brings names into the form in which the store compares them.
    """
    problems = list(_problems(publication, same_name))
    change, misfits = schema_change(
        publication.schema if stored is None else stored,
        publication.schema,
        evolve=publication.evolve or stored is None,
        provenance=publication.provenance,
        same_name=same_name,
    )
    problems.extend(misfits)
    if stored is not None and publication.mode == "upsert":
        added = set(change.added)
        problems.extend(
            f"key column {name!r} is not in the table, so none of its rows could be recognised"
            for name in publication.key
            if name in added
        )
    if problems:
        raise refused(publication.table, problems)
    return change


def refused(
    table: str, reasons: Sequence[str], *, hint: str | None = None, error_class: ErrorClass = "permanent"
) -> StoreError:
    """Return the error that says why nothing was published to *table*; at least one reason."""
    return StoreError(
        f"nothing was published to table {table!r}: {'; '.join(reasons)}",
        problems=[Problem("", reason) for reason in reasons],
        hint=hint,
        error_class=error_class,
    )


def published_before(marker: Marker) -> Marker:
    """Return the marker of a run that was published; raise :class:`~ecmbatch.errors.Fenced` for a tombstone."""
    if marker.outcome == "abandoned":
        raise Fenced(f"run {marker.run_id} was abandoned; it can never be published")
    return marker


def check_head(publication: Publication, current: Head | None) -> None:
    """Raise :class:`~ecmbatch.errors.Superseded` unless the head is still the one the run started from."""
    found = None if current is None else current.run_id
    if found != publication.expected_head:
        raise Superseded(
            f"run {publication.run_id} cannot be published any more: when it started, the latest run published "
            f"to table {publication.table!r} was {publication.expected_head or 'none'}, now it is "
            f"{found or 'none'}",
            hint="start a new run; what the newer run published stays",
        )


def check_version(publication: Publication, current: int) -> None:
    """Raise :class:`~ecmbatch.errors.Superseded` if the run read its own target and that has moved on since."""
    expected = publication.expected_version
    if expected is not None and current != expected:
        raise Superseded(
            f"run {publication.run_id} cannot be published any more: it read table {publication.table!r}, which "
            f"had been published to {_times(expected)} then and {_times(current)} now",
            hint="start a new run, which reads what is there now",
        )


def check_row_count(publication: Publication, found: int) -> None:
    """Raise :class:`~ecmbatch.errors.IntegrityError` unless the stage holds the rows its manifest counts."""
    expected = sum(file.rows for file in publication.files)
    if found != expected:
        raise IntegrityError(
            f"the staged files of run {publication.run_id} hold {found:,} rows but should hold {expected:,}; "
            "nothing was published"
        )


def not_widened(column: WidenedColumn, reason: str) -> str:
    """Return the sentence for a stored column whose type cannot be changed."""
    return (
        f"column {column.name!r} would have to become {column.after} instead of {column.before} in the table, "
        f"but {reason}"
    )


def null_keys(publication: Publication, rows: int) -> StoreError:
    """Return the refusal of *rows* staged rows without a complete key."""
    columns = ", ".join(map(repr, publication.key))
    return refused(
        publication.table,
        [f"{_rows(rows)} NULL in the key ({columns})"],
        hint="leave such rows out in the query, or choose another key",
        error_class="data",
    )


def repeated_stored_keys(publication: Publication, rows: int) -> StoreError:
    """Return the refusal to upsert into a table in which *rows* rows repeat the key of another one."""
    columns = ", ".join(map(repr, publication.key))
    return refused(
        publication.table,
        [f"the key ({columns}) of {rows:,} stored rows is that of another stored row"],
        hint="remove the duplicates from the table, or choose a key that is unique in it",
        error_class="data",
    )


def empty_replace(publication: Publication, stored_rows: int) -> StoreError:
    """Return the refusal to replace all rows of a table by none."""
    return refused(
        publication.table,
        [f"no rows were staged, and they would replace the {stored_rows:,} there are"],
        hint="if that is meant, set allow_empty in the sink",
        error_class="data",
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _problems(publication: Publication, same_name: Callable[[str], str]) -> Iterator[str]:
    names = [field.name for field in publication.schema]
    if not names:
        yield "there are no columns to publish"
    for name in names:
        if not name or "\x00" in name:
            yield f"{name!r} cannot name a column"
        if name.lower().startswith(RESERVED_PREFIX):
            yield f"column {name!r} has a name that is reserved: those starting with {RESERVED_PREFIX!r}"
    for same, count in Counter(same_name(name) for name in names).items():
        if count > 1:
            alike = [name for name in names if same_name(name) == same]
            yield f"columns {', '.join(map(repr, alike))} have the same name for this store"
    if publication.mode == "upsert" and not publication.key:
        yield "upsert needs a key (sink.key)"
    for name, count in Counter(publication.key).items():
        if count > 1:
            yield f"key column {name!r} is named twice"
        if name not in names:
            yield f"key column {name!r} is not among the columns to publish: {', '.join(map(repr, names))}"
    if publication.order_by is not None and publication.order_by not in names:
        yield f"order_by column {publication.order_by!r} is not among the columns to publish"
