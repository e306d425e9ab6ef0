"""``sql``: one ``SELECT`` over the rows that come in, run by DuckDB batch by batch.

Only what is row by row is allowed; :mod:`ecmbatch.processors.sql_statement` says what that is. Measured once
on two busy cores: a filter, a joined text and a product over 65,536 rows of nine columns take 21 ms, the same
in Arrow 7 ms. Most of it is copying columns into DuckDB and out, 1 to 2 ms each; an empty batch takes 3 ms.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import duckdb
import pyarrow as pa
from pydantic import Field

from ecmbatch import __version__
from ecmbatch.errors import InvalidDocument, Problem, TransformError
from ecmbatch.processors.processor import Processor, ProcessorType, RunFacts
from ecmbatch.processors.sql_columns import check_input, check_result, exported, imported
from ecmbatch.processors.sql_database import closed_database
from ecmbatch.processors.sql_statement import statement_problems
from ecmbatch.protocol.document import Section, did_you_mean, invalid, parse_model, pointer, under
from ecmbatch.protocol.names import ParameterName
from ecmbatch.protocol.query import MAX_PARAMETERS, BoundQuery, bind

_WHAT = "configuration of processor 'sql'"

# Their messages speak of names and syntax; those of all others may repeat values of rows.
_ABOUT_THE_QUERY = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
)
_VALUES_REFUSED = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException)


class SqlConfig(Section):
    """``transform.config`` of the processor: the query, and the values of its ``:name``\\ s."""

    query: Annotated[str, Field(min_length=1)]
    parameters: Annotated[
        dict[ParameterName, bool | int | float | str | None], Field(max_length=MAX_PARAMETERS)
    ] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowQuery:
    """A checked query as DuckDB takes it, and its values in the order of their ``?``."""

    sql: str
    values: tuple[bool | int | float | str | None, ...]


def parse_sql(config: Mapping[str, Any]) -> RowQuery:
    """Raise :class:`~ecmbatch.errors.InvalidDocument` unless the query is one row-local ``SELECT``."""
    settings = parse_model(SqlConfig, dict(config), what=_WHAT)
    try:
        bound = bind(settings.query, "question")
    except InvalidDocument as error:
        raise invalid(_WHAT, under("/query", error.problems)) from None
    problems = [*_binding_problems(bound, settings), *under("/query", statement_problems(bound.sql))]
    if problems:
        raise invalid(_WHAT, problems)
    return RowQuery(sql=bound.sql, values=tuple(settings.parameters[name] for name in bound.names))


def _binding_problems(bound: BoundQuery, settings: SqlConfig) -> list[Problem]:
    given = settings.parameters
    missing = [name for name in dict.fromkeys(bound.names) if name not in given]
    unused = [name for name in given if name not in bound.names]
    return [
        *(
            Problem(
                "/query",
                f"uses :{name}, which is not among the parameters",
                did_you_mean(name, given) or f"add '{name}' to parameters",
            )
            for name in missing
        ),
        *(Problem(pointer(["parameters", name]), "is not used by the query") for name in unused),
    ]


class SqlProcessor(Processor):
    """Runs a :class:`RowQuery` over each batch, on the thread that asks."""

    def __init__(self, query: RowQuery) -> None:
        self._sql = query.sql
        # A plain integer would be of 32 or of 64 bits, as its value needs; the result's type must not follow it.
        self._values = [_as_bigint(value) for value in query.values] or None
        self._database = closed_database()
        self._opening = threading.Lock()
        self._of_thread = threading.local()

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        check_input(batch.schema)
        connection = self._connection()
        try:
            return self._select(connection, batch)
        except _VALUES_REFUSED as error:
            raise self._value_refused(connection, batch, error) from None
        except duckdb.NotImplementedException as error:
            unreadable = _unreadable(connection, batch.schema)
            raise unreadable or self._value_refused(connection, batch, error) from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _refused(error) from None

    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Return the thread's own connection: a DuckDB connection serves one query at a time."""
        found: duckdb.DuckDBPyConnection | None = getattr(self._of_thread, "connection", None)
        if found is None:
            with self._opening:
                found = self._of_thread.connection = self._database.cursor()
        return found

    def _select(self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch) -> pa.RecordBatch:
        connection.register("batch", batch)
        try:
            result = connection.sql(self._sql, params=self._values)
            names, types = result.columns, result.types
            check_result(names, types)
            query = exported(self._sql, names, types)
            if query != self._sql:
                result = connection.sql(query, params=self._values)
            return imported(result.to_arrow_table(), types)
        finally:
            connection.unregister("batch")

    def _value_refused(
        self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, error: duckdb.Error
    ) -> TransformError:
        """Say what happened in which row. DuckDB's own message is left out: it quotes values."""
        what, hint = _explained(error, batch.schema.names)
        where = (
            f" in row {self._first_refused(connection, batch)} of the batch (from 0)"
            if batch.num_rows
            else ""
        )
        return TransformError(f"{what}{where}", hint=hint)

    def _first_refused(self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch) -> int:
        """Find the row by halving: each row is judged by itself alone."""
        start, stop = 0, batch.num_rows
        while stop - start > 1:
            middle = (start + stop) // 2
            try:
                self._select(connection, batch.slice(start, middle - start))
                start = middle
            except _VALUES_REFUSED:
                stop = middle
        return start


def _as_bigint(value: object) -> object:
    return duckdb.Value(value, "BIGINT") if type(value) is int else value


def _explained(error: duckdb.Error, columns: list[str]) -> tuple[str, str]:
    message = str(error).partition("\n")[0]
    if isinstance(error, duckdb.ConversionException):
        source = re.search(r"when casting from source column (.+)$", message)
        # A value of a row could hold these words as well.
        of_column = f" of column '{source[1]}'" if source and source[1] in columns else ""
        hint = "where NULL is wanted for such values, write TRY_CAST(x AS type)"
        return f"a value{of_column} cannot be converted to the type wanted", hint
    hint = "where NULL is wanted for such values, write TRY(expression)"
    if isinstance(error, duckdb.OutOfRangeException):
        return "a result is out of the range of its type", f"cast to a wider type first; {hint}"
    if message.startswith("Invalid Input Error: Division by zero"):
        return "a number is divided by zero", hint
    return "a function cannot work on a value", hint


def _refused(error: Exception) -> TransformError:
    if isinstance(error, _ABOUT_THE_QUERY):
        message = " ".join(line for line in str(error).partition("\n\nLINE ")[0].splitlines() if line)
        return TransformError(f"DuckDB refuses the query: {message}", error_class="permanent")
    if isinstance(error, duckdb.OutOfMemoryException):
        return TransformError(
            "DuckDB needs more memory for a batch than it is given",
            hint='lower "batch_rows" of the source',
        )
    return TransformError(f"DuckDB failed: {type(error).__name__} (its message may hold values)")


def _unreadable(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> TransformError | None:
    """Find the column that DuckDB has no type for, if that is what it failed at."""
    for field in schema:
        try:
            connection.register(
                "batch", pa.record_batch([pa.nulls(0, field.type)], schema=pa.schema([field]))
            )
            connection.unregister("batch")
        except duckdb.Error:
            return TransformError(
                f"column '{field.name}' is {field.type}, which DuckDB cannot read",
                hint="cast it or leave it out in a step before, for example with field_mapper",
                error_class="permanent",
            )
    return None


def _build(query: RowQuery, run: RunFacts) -> SqlProcessor:
    return SqlProcessor(query)


SQL = ProcessorType(name="sql", version=__version__, parse_config=parse_sql, build=_build)
