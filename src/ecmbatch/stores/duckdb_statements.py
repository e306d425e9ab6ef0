"""The SQL of the DuckDB store. Names are quoted by :func:`quoted`; values are bound by whoever executes.

Every name that starts with ``_ecm`` is ours: jobs may not use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ecmbatch.stores.store import PARTITION_COLUMN, PROVENANCE_COLUMN

PLACE_COLUMNS = ("file_index", "file_row_number")
"""DuckDB's names for the place of a row in Parquet files; a staged column of that name would hide it."""

_LOSERS = "temp.main._ecm_losers"
_JUDGED = "temp.main._ecm_judged"

CREATE_PUBLICATIONS = """
CREATE TABLE IF NOT EXISTS _ecmbatch_publications (
    run_id VARCHAR PRIMARY KEY,
    outcome VARCHAR NOT NULL,
    job_id VARCHAR,
    stream VARCHAR,
    target VARCHAR,
    mode VARCHAR,
    manifest VARCHAR,
    inserted BIGINT NOT NULL DEFAULT 0,
    updated BIGINT NOT NULL DEFAULT 0,
    deleted BIGINT NOT NULL DEFAULT 0,
    unchanged BIGINT NOT NULL DEFAULT 0,
    folded BIGINT NOT NULL DEFAULT 0,
    outdated BIGINT NOT NULL DEFAULT 0,
    published_at TIMESTAMPTZ NOT NULL
)
"""

CREATE_HEADS = """
CREATE TABLE IF NOT EXISTS _ecmbatch_heads (
    job_id VARCHAR,
    target VARCHAR,
    stream VARCHAR,
    run_id VARCHAR NOT NULL,
    window_end TIMESTAMPTZ,
    PRIMARY KEY (job_id, target, stream)
)
"""

# Instants leave as microseconds: Python values of TIMESTAMPTZ would need another package.
MARKER = """
SELECT outcome, manifest, inserted, updated, deleted, unchanged, folded, outdated, epoch_us(published_at)
FROM _ecmbatch_publications WHERE run_id = $run_id
"""

HEAD = """
SELECT run_id, epoch_us(window_end)
FROM _ecmbatch_heads WHERE job_id = $job_id AND target = $target AND stream = $stream
"""

INSERT_MARKER = """
INSERT INTO _ecmbatch_publications (run_id, outcome, job_id, stream, target, mode, manifest, published_at)
VALUES ($run_id, 'published', $job_id, $stream, $target, $mode, $manifest, $at)
"""

INSERT_TOMBSTONE = """
INSERT INTO _ecmbatch_publications (run_id, outcome, published_at) VALUES ($run_id, 'abandoned', $at)
"""

COUNT_PUBLISHED_ROWS = """
UPDATE _ecmbatch_publications SET
    inserted = $inserted, updated = $updated, deleted = $deleted,
    unchanged = $unchanged, folded = $folded, outdated = $outdated
WHERE run_id = $run_id
"""

MOVE_HEAD = """
INSERT INTO _ecmbatch_heads (job_id, target, stream, run_id, window_end)
VALUES ($job_id, $target, $stream, $run_id, $window_end)
ON CONFLICT (job_id, target, stream) DO UPDATE SET run_id = excluded.run_id, window_end = excluded.window_end
"""

# What is computed has a default here.
COLUMNS = """
SELECT name, type, NOT "notnull", dflt_value IS NOT NULL, pk FROM pragma_table_info($table) ORDER BY cid
"""

# These search the whole catalogue, and are asked only where it matters, see has_table().
VIEW = """
SELECT table_type FROM information_schema.tables
WHERE table_catalog = current_database() AND lower(table_schema) = lower($schema)
    AND lower(table_name) = lower($name) AND table_type <> 'BASE TABLE'
"""

GENERATED_COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_catalog = current_database() AND lower(table_schema) = lower($schema)
    AND lower(table_name) = lower($name) AND is_generated = 'ALWAYS'
"""

VERSIONS = """
SELECT target, count(*) FROM _ecmbatch_publications WHERE outcome = 'published' GROUP BY target
"""

# Why DuckDB would not change the type of a column, or of any where none is named. That a generated column
# is computed from it shows only when it is tried.
FIXED_TYPES = """
SELECT unnest(constraint_column_names), 'a ' || constraint_type || ' constraint of the table names it'
FROM duckdb_constraints()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
    AND lower(table_name) = lower($name)
    AND constraint_type IN ('PRIMARY KEY', 'UNIQUE', 'CHECK', 'FOREIGN KEY')
UNION ALL
SELECT NULL, 'the table has an index, ' || index_name
FROM duckdb_indexes()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
    AND lower(table_name) = lower($name)
UNION ALL
SELECT NULL, 'a FOREIGN KEY of table ' || table_name || ' refers to the table'
FROM duckdb_constraints()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
    AND lower(referenced_table) = lower($name)
    AND constraint_type = 'FOREIGN KEY'
"""

PRIMARY_KEY = """
SELECT constraint_column_names FROM duckdb_constraints()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
    AND lower(table_name) = lower($name)
    AND constraint_type = 'PRIMARY KEY'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The staged rows of a publication on their way into a table.

    ``table`` is its full quoted name; ``columns`` are the delivered ones with the types of the table;
    ``kept`` are stored columns that the stage does not deliver; ``provenance`` says whether the table has
    the column for it.
    """

    table: str
    columns: Sequence[tuple[str, str]]
    kept: Sequence[str] = ()
    key: Sequence[str] = ()
    order_by: str | None = None
    provenance: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]


def quoted(name: str) -> str:
    """Return *name* as an identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def create_schema(schema: str) -> str:
    return f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"


def create_table(table: str, columns: Iterable[tuple[str, str]]) -> str:
    return f"CREATE TABLE {table} ({', '.join(f'{quoted(name)} {type_}' for name, type_ in columns)})"


def add_column(table: str, name: str, type_: str) -> str:
    return f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {type_}"


def widen_column(table: str, name: str, type_: str) -> str:
    return f"ALTER TABLE {table} ALTER COLUMN {quoted(name)} SET DATA TYPE {type_}"


def count_rows(table: str) -> str:
    return f"SELECT count(*) FROM {table}"


def no_rows(table: str) -> str:
    """Return a query that has the columns of *table* and none of its rows."""
    return f"SELECT * FROM {table} LIMIT 0"


def delete_all(table: str) -> str:
    return f"DELETE FROM {table}"


def count_keys(delivery: Delivery) -> str:
    """Rows, rows with NULL in the key, and distinct keys of the staged rows in ``$files``."""
    key = _list(delivery.key)
    no_key = " OR ".join(f"{quoted(name)} IS NULL" for name in delivery.key)
    return f"""
        SELECT coalesce(sum(_ecm_rows), 0)::BIGINT,
            coalesce(sum(_ecm_rows) FILTER (WHERE {no_key}), 0)::BIGINT,
            count(*)
        FROM (SELECT {key}, count(*) AS _ecm_rows FROM ({_staged(delivery, delivery.key)}) GROUP BY {key})
    """


def create_losers(delivery: Delivery) -> str:
    """Remember the places of those staged rows in ``$files`` that give way to another one of their key."""
    key = _list(delivery.key)
    newest = [f"{quoted(delivery.order_by)} DESC NULLS LAST"] if delivery.order_by is not None else []
    order = ", ".join([*newest, f"{PARTITION_COLUMN} DESC", "_ecm_file DESC", "_ecm_row DESC"])
    needed = [*delivery.key, *([delivery.order_by] if delivery.order_by else [])]
    return f"""
        CREATE TEMP TABLE _ecm_losers AS
        WITH staged AS ({_staged(delivery, needed)}),
            repeated AS (SELECT {key} FROM staged GROUP BY {key} HAVING count(*) > 1)
        SELECT _ecm_file, _ecm_row
        FROM (
            SELECT _ecm_file, _ecm_row, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS _ecm_rank
            FROM staged SEMI JOIN repeated USING ({key})
        )
        WHERE _ecm_rank > 1
    """


def insert_staged(delivery: Delivery, *, folds: bool) -> str:
    """Insert the staged rows in ``$files``, without the losers if it *folds*."""
    into, values = _insertion(delivery, kept=())
    return f"INSERT INTO {delivery.table} ({into}) SELECT {values} FROM ({_winners(delivery, folds=folds)}) s"


def judge_part(delivery: Delivery, *, folds: bool) -> str:
    """Set every staged row in ``$files`` beside the stored row of its key, and say what becomes of it.

    ``$first_file`` is the number of the first file among all files of the stage.
    """
    same_key = " AND ".join(f"s.{quoted(name)} = t.{quoted(name)}" for name in delivery.key)
    values = [name for name in delivery.names if name not in delivery.key]
    changed = " OR ".join(f"s.{quoted(name)} IS DISTINCT FROM t.{quoted(name)}" for name in values) or "false"
    columns = [f"s.{quoted(name)}" for name in delivery.names] + [
        f"t.{quoted(name)}" for name in delivery.kept
    ]
    return f"""
        CREATE TEMP TABLE _ecm_judged AS
        SELECT t.rowid AS _ecm_stored,
            CASE WHEN t.rowid IS NULL THEN 'inserted'
                WHEN {_stored_is_newer(delivery)} THEN 'outdated'
                WHEN {changed} THEN 'updated'
                ELSE 'unchanged' END AS _ecm_verdict,
            {", ".join(columns)}
        FROM ({_winners(delivery, folds=folds)}) s LEFT JOIN {delivery.table} t ON {same_key}
    """


COUNT_VERDICTS = f"SELECT _ecm_verdict, count(*) FROM {_JUDGED} GROUP BY _ecm_verdict"

DROP_JUDGED = f"DROP TABLE {_JUDGED}"


def delete_updated(delivery: Delivery) -> str:
    """Delete the stored rows that come back changed: far cheaper than updating them in place."""
    return f"""
        DELETE FROM {delivery.table}
        WHERE rowid IN (SELECT _ecm_stored FROM {_JUDGED} WHERE _ecm_verdict = 'updated')
    """


def insert_updated(delivery: Delivery) -> str:
    """Bring the changed rows back, with the stored values of what was not delivered."""
    into, values = _insertion(delivery, kept=delivery.kept)
    return f"INSERT INTO {delivery.table} ({into}) SELECT {values} FROM {_JUDGED} s WHERE _ecm_verdict = 'updated'"


def insert_new(delivery: Delivery) -> str:
    """Insert rows whose key is new; columns that were not delivered take their default."""
    into, values = _insertion(delivery, kept=())
    return f"INSERT INTO {delivery.table} ({into}) SELECT {values} FROM {_JUDGED} s WHERE _ecm_verdict = 'inserted'"


def _insertion(delivery: Delivery, *, kept: Sequence[str]) -> tuple[str, str]:
    names = [*delivery.names, *kept]
    into, values = _list(names), ", ".join(f"s.{quoted(name)}" for name in names)
    if not delivery.provenance:
        return into, values
    return f"{into}, {PROVENANCE_COLUMN}", f"{values}, $provenance"


def _stored_is_newer(delivery: Delivery) -> str:
    if delivery.order_by is None:
        return "false"
    column = quoted(delivery.order_by)
    return f"(t.{column} > s.{column} OR (t.{column} IS NOT NULL AND s.{column} IS NULL))"


def _winners(delivery: Delivery, *, folds: bool) -> str:
    staged = _staged(delivery, delivery.names)
    return f"SELECT * FROM ({staged}) ANTI JOIN {_LOSERS} USING (_ecm_file, _ecm_row)" if folds else staged


def _staged(delivery: Delivery, names: Sequence[str]) -> str:
    """Some columns of the staged rows, in the types of the table, with the place of each row."""
    types = dict(delivery.columns)
    columns = ", ".join(
        f"CAST({quoted(name)} AS {types[name]}) AS {quoted(name)}" for name in dict.fromkeys(names)
    )
    return f"""
        SELECT {columns}, {PARTITION_COLUMN}, file_index + $first_file AS _ecm_file, file_row_number AS _ecm_row
        FROM read_parquet($files)
    """


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))
