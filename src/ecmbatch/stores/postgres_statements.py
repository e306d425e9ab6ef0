"""The SQL of the PostgreSQL store. Names are quoted by :func:`quoted`; values are bound by whoever executes.

Every name that starts with ``_ecm`` is ours: jobs may not use them. Placeholders are psycopg's, so a percent
sign in a quoted name is doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ecmbatch.stores.store import PARTITION_COLUMN, PROVENANCE_COLUMN

ROW_COLUMN = "_ecm_row"
"""A staged row's place in (file, row) order."""

LockMode = Literal["ROW EXCLUSIVE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]

SET_UP_SESSION = """
SELECT set_config('lock_timeout', %(lock_timeout)s, false),
    set_config('idle_in_transaction_session_timeout', '60s', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('TimeZone', 'UTC', false),
    set_config('row_security', 'off', false),
    CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END
"""
"""Without ``row_security`` PostgreSQL refuses to read a table of which a policy hides rows."""

WAIT_BRIEFLY = "SET lock_timeout = '1s'"

WATCH_CLIENT = "SET client_connection_check_interval = '5s'"

BLOCKERS = """
SELECT b.pid, coalesce(nullif(b.application_name, ''), b.backend_type), b.usename
FROM unnest(pg_blocking_pids(%(pid)s)) AS blocking(pid) JOIN pg_stat_activity b USING (pid)
"""

LOCK_NAME = "SELECT pg_advisory_xact_lock(%(key)s)"

HOLD_NAME = "SELECT pg_advisory_lock(%(key)s)"

NAME_IS_FREE = "SELECT pg_try_advisory_xact_lock(%(key)s)"

OWN_TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname IN ('_ecmbatch_publications', '_ecmbatch_heads')
"""

SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)"

RELATION = """
SELECT c.oid, c.relkind::text, pg_has_role(c.relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
"""

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, -1), NOT a.attnotnull,
    a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a',
    e.typname, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, e.typtype = 'e',
    l.typname, coalesce(l.typtype = 'e', false)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_type l ON l.oid = e.typelem AND e.typcategory = 'A'
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

INDEXES = """
SELECT i.indisprimary, i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid,
    (SELECT array_agg(a.attname::text ORDER BY k.place)
     FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
     WHERE k.place <= i.indnkeyatts)
FROM pg_index i WHERE i.indrelid = %(oid)s
"""

FIXED_TYPES = """
SELECT DISTINCT a.attname,
    CASE v.relkind WHEN 'm' THEN 'the materialized view ' ELSE 'the view ' END || v.oid::regclass::text
        || ' reads it'
FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND v.oid <> d.refobjid
ORDER BY 1, 2
"""
"""Why PostgreSQL would not change the type of a column. Other reasons show only when it is tried."""

_WITH_DESCENDANTS = """
WITH RECURSIVE tree(oid) AS (
    SELECT %(oid)s::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
)
"""
"""The table and its partitions: what is done to its rows fires what they have of their own, too."""

DELETING_REFERENCES = f"""
{_WITH_DESCENDANTS}
SELECT c.conname, c.conrelid::regclass::text,
    CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END
FROM pg_constraint c
WHERE c.contype = 'f' AND c.confdeltype IN ('c', 'n', 'd')
    AND c.confrelid IN (SELECT oid FROM tree) AND c.conrelid NOT IN (SELECT oid FROM tree)
    AND NOT EXISTS (
        SELECT FROM pg_constraint p WHERE p.oid = c.conparentid AND p.confrelid IN (SELECT oid FROM tree)
    )
ORDER BY 2, 1
"""
"""Foreign keys of other tables that change those when rows are deleted here."""

FILTERS_ROWS = f"""
{_WITH_DESCENDANTS}
SELECT EXISTS (
        SELECT FROM pg_trigger t JOIN tree ON t.tgrelid = tree.oid
        WHERE t.tgenabled <> 'D' AND t.tgtype & 3 = 3 AND t.tgtype & 12 <> 0
    )
    OR EXISTS (SELECT FROM pg_class c JOIN tree USING (oid) WHERE c.relhasrules)
"""
"""Whether a rule, or a trigger BEFORE each row, can keep rows from being inserted or deleted."""

STAGING_TABLES = """
SELECT c.relname, obj_description(c.oid, 'pg_class'), pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relpersistence = 'u' AND starts_with(c.relname, %(prefix)s)
    AND pg_has_role(c.relowner, 'USAGE')
ORDER BY c.relname
"""


def create_publications(schema: str) -> str:
    return f"""
        CREATE TABLE {quoted(schema)}._ecmbatch_publications (
            run_id text PRIMARY KEY,
            outcome text NOT NULL,
            job_id text,
            stream text,
            target text,
            mode text,
            manifest text,
            inserted bigint NOT NULL DEFAULT 0,
            updated bigint NOT NULL DEFAULT 0,
            deleted bigint NOT NULL DEFAULT 0,
            unchanged bigint NOT NULL DEFAULT 0,
            folded bigint NOT NULL DEFAULT 0,
            outdated bigint NOT NULL DEFAULT 0,
            published_at timestamptz NOT NULL
        )
    """


def create_heads(schema: str) -> str:
    return f"""
        CREATE TABLE {quoted(schema)}._ecmbatch_heads (
            job_id text,
            target text,
            stream text,
            run_id text NOT NULL,
            window_end timestamptz,
            PRIMARY KEY (job_id, target, stream)
        )
    """


def marker(schema: str) -> str:
    return f"""
        SELECT outcome, manifest, inserted, updated, deleted, unchanged, folded, outdated, published_at
        FROM {quoted(schema)}._ecmbatch_publications WHERE run_id = %(run_id)s
    """


def insert_marker(schema: str) -> str:
    """Insert a marker unless there is one. Waits for whoever is inserting the same one, and how that ends."""
    return f"""
        INSERT INTO {quoted(schema)}._ecmbatch_publications
            (run_id, outcome, job_id, stream, target, mode, manifest, published_at)
        VALUES (%(run_id)s, 'published', %(job_id)s, %(stream)s, %(target)s, %(mode)s, %(manifest)s, %(at)s)
        ON CONFLICT (run_id) DO NOTHING
    """


def insert_tombstone(schema: str) -> str:
    return f"""
        INSERT INTO {quoted(schema)}._ecmbatch_publications (run_id, outcome, published_at)
        VALUES (%(run_id)s, 'abandoned', %(at)s)
        ON CONFLICT (run_id) DO NOTHING
    """


def count_published_rows(schema: str) -> str:
    return f"""
        UPDATE {quoted(schema)}._ecmbatch_publications SET
            inserted = %(inserted)s, updated = %(updated)s, deleted = %(deleted)s,
            unchanged = %(unchanged)s, folded = %(folded)s, outdated = %(outdated)s
        WHERE run_id = %(run_id)s
    """


def versions(schema: str) -> str:
    return f"""
        SELECT target, count(*) FROM {quoted(schema)}._ecmbatch_publications
        WHERE outcome = 'published' GROUP BY target
    """


def head(schema: str) -> str:
    return f"""
        SELECT run_id, window_end FROM {quoted(schema)}._ecmbatch_heads
        WHERE job_id = %(job_id)s AND target = %(target)s AND stream = %(stream)s
    """


def move_head(schema: str) -> str:
    """Move the head by compare-and-swap: no row is changed unless it is still the expected one."""
    return f"""
        UPDATE {quoted(schema)}._ecmbatch_heads SET run_id = %(run_id)s, window_end = %(window_end)s
        WHERE job_id = %(job_id)s AND target = %(target)s AND stream = %(stream)s AND run_id = %(expected)s
    """


def first_head(schema: str) -> str:
    """Insert the first head; no row is inserted where there is one."""
    return f"""
        INSERT INTO {quoted(schema)}._ecmbatch_heads (job_id, target, stream, run_id, window_end)
        VALUES (%(job_id)s, %(target)s, %(stream)s, %(run_id)s, %(window_end)s)
        ON CONFLICT (job_id, target, stream) DO NOTHING
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A column on its way from the staging table into the target.

    ``type`` is the target's, without length or precision: those are the insert's to enforce, since an
    explicit cast would cut what is too long. ``None`` where both have the same. ``most`` is how many
    characters a text may have, or each text of an ``array``; ``None`` where there is no limit.
    """

    name: str
    type: str | None
    text: bool = False
    json: bool = False
    array: bool = False
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The staged rows of a publication on their way into a table; both names are full and quoted.

    ``provenance`` says whether the table has the column for it.
    """

    staging: str
    table: str
    columns: Sequence[Delivered]
    key: Sequence[str] = ()
    order_by: str | None = None
    provenance: bool = False

    def column(self, name: str) -> Delivered:
        return next(column for column in self.columns if column.name == name)


def quoted(name: str) -> str:
    """Return *name* as an identifier, whatever characters it has."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def create_schema(schema: str) -> str:
    return f"CREATE SCHEMA {quoted(schema)}"


def create_table(table: str, columns: Iterable[tuple[str, str]]) -> str:
    return f"CREATE TABLE {table} ({_definitions(columns)})"


def create_staging(table: str, columns: Iterable[tuple[str, str]]) -> str:
    return f"CREATE UNLOGGED TABLE {table} ({_definitions(columns)}) WITH (autovacuum_enabled = false)"


def comment_on(table: str, comment: str) -> str:
    # No placeholders in COMMENT; quotes are doubled as in any literal.
    literal = comment.replace("'", "''").replace("%", "%%")
    return f"COMMENT ON TABLE {table} IS '{literal}'"


def analyze(table: str) -> str:
    return f"ANALYZE {table}"


def drop_table(table: str) -> str:
    return f"DROP TABLE IF EXISTS {table}"


def add_column(table: str, name: str, type_: str) -> str:
    return f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {type_}"


def widen_column(table: str, name: str, type_: str) -> str:
    return f"ALTER TABLE {table} ALTER COLUMN {quoted(name)} SET DATA TYPE {type_}"


def create_index(table: str, columns: Sequence[str]) -> str:
    return f"CREATE INDEX ON {table} ({_list(columns)})"


def lock_table(table: str, mode: LockMode) -> str:
    return f"LOCK TABLE {table} IN {mode} MODE"


def count_rows(table: str) -> str:
    return f"SELECT count(*) FROM {table}"


def has_rows(table: str) -> str:
    return f"SELECT EXISTS (SELECT FROM {table})"


def delete_all(table: str) -> str:
    """Delete all rows. TRUNCATE would show readers of an older snapshot an empty table."""
    return f"DELETE FROM {table}"


def try_cast(delivery: Delivery, column: Delivered) -> str:
    """Cast all staged values of one column to the table's type, to see whether that is what fails."""
    return f"SELECT count({_value(column)}) FROM {delivery.staging} s"


def count_too_long(delivery: Delivery) -> str:
    """For each column with a limit, staged rows with a text that is longer."""
    counts = [
        f"count(*) FILTER (WHERE {_length(column)} > {column.most})"
        for column in delivery.columns
        if column.most is not None
    ]
    return f"SELECT {', '.join(counts)} FROM {delivery.staging} s"


def count_keys(delivery: Delivery) -> str:
    """Staged rows with NULL in the key, and staged rows that are one too many of their key."""
    key = ", ".join(_value(delivery.column(name)) for name in delivery.key)
    no_key = " OR ".join(f"s.{quoted(name)} IS NULL" for name in delivery.key)
    return f"""
        SELECT coalesce(sum(_ecm_rows) FILTER (WHERE _ecm_no_key), 0)::bigint,
            coalesce(sum(_ecm_rows), 0)::bigint - count(*)
        FROM (SELECT count(*) AS _ecm_rows, bool_or({no_key}) AS _ecm_no_key
            FROM {delivery.staging} s GROUP BY {key}) counted
    """


def delete_losers(delivery: Delivery) -> str:
    """Delete those staged rows that give way to another one of their key."""
    key = ", ".join(_value(delivery.column(name)) for name in delivery.key)
    newest = [f"{_ordered(delivery, 's')} DESC NULLS LAST"] if delivery.order_by is not None else []
    order = ", ".join([*newest, f"s.{PARTITION_COLUMN} DESC", f"s.{ROW_COLUMN} DESC"])
    return f"""
        DELETE FROM {delivery.staging} USING (
            SELECT {ROW_COLUMN}, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS _ecm_rank
            FROM {delivery.staging} s
        ) ranked
        WHERE _ecm_rank > 1 AND ranked.{ROW_COLUMN} = {delivery.staging}.{ROW_COLUMN}
    """


def judge(delivery: Delivery) -> str:
    """Set the staged rows beside the stored rows of their key: how many pairs, how many stay as newer, and
    how many change."""
    newer = _stored_is_newer(delivery)
    return f"""
        SELECT count(*), count(*) FILTER (WHERE {newer}),
            count(*) FILTER (WHERE NOT {newer} AND {_changed(delivery)})
        FROM {delivery.staging} s JOIN {delivery.table} t ON {_same_key(delivery)}
    """


def update_changed(delivery: Delivery) -> str:
    """Change the stored rows that differ; the others are not written."""
    names = [column for column in delivery.columns if column.name not in delivery.key]
    changes = [f"{quoted(column.name)} = {_value(column)}" for column in names]
    if delivery.provenance:
        changes.append(f"{PROVENANCE_COLUMN} = %(provenance)s")
    return f"""
        UPDATE {delivery.table} t SET {", ".join(changes)} FROM {delivery.staging} s
        WHERE {_same_key(delivery)} AND NOT {_stored_is_newer(delivery)} AND {_changed(delivery)}
    """


def insert_new(delivery: Delivery) -> str:
    """Insert rows whose key is new; columns that were not delivered take their default."""
    return f"""
        {insert_staged(delivery)}
        WHERE NOT EXISTS (SELECT FROM {delivery.table} t WHERE {_same_key(delivery)})
    """


def count_new(delivery: Delivery) -> str:
    """Staged rows whose key is new."""
    return f"""
        SELECT count(*) FROM {delivery.staging} s
        WHERE NOT EXISTS (SELECT FROM {delivery.table} t WHERE {_same_key(delivery)})
    """


def insert_staged(delivery: Delivery) -> str:
    """Insert all rows that are left in the staging table."""
    into = _list(column.name for column in delivery.columns)
    values = ", ".join(map(_value, delivery.columns))
    if delivery.provenance:
        into, values = f"{into}, {PROVENANCE_COLUMN}", f"{values}, %(provenance)s"
    return f"INSERT INTO {delivery.table} ({into}) SELECT {values} FROM {delivery.staging} s"


def _definitions(columns: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{quoted(name)} {type_}" for name, type_ in columns)


def _value(column: Delivered) -> str:
    value = f"s.{quoted(column.name)}"
    return value if column.type is None else f"CAST({value} AS {column.type})"


def _length(column: Delivered) -> str:
    value = f"s.{quoted(column.name)}"
    if column.array:
        # A column of NULLs alone is staged as a text.
        return f"(SELECT max(length(element)) FROM unnest({value}::text[]) element)"
    return f"length({value})"


def _same_key(delivery: Delivery) -> str:
    return " AND ".join(f"t.{quoted(name)} = {_value(delivery.column(name))}" for name in delivery.key)


def _changed(delivery: Delivery) -> str:
    differences = [
        f"{_compared(column, _value(column))} IS DISTINCT FROM {_compared(column, f't.{quoted(column.name)}')}"
        for column in delivery.columns
        if column.name not in delivery.key
    ]
    return f"({' OR '.join(differences) or 'false'})"


def _compared(column: Delivered, value: str) -> str:
    """Let texts differ wherever their bytes do, whatever the collation; the type json cannot be compared."""
    if column.text:
        return f'{value}::text COLLATE "C"'
    return f"{value}::jsonb" if column.json else value


def _ordered(delivery: Delivery, row: Literal["s", "t"]) -> str:
    assert delivery.order_by is not None
    column = delivery.column(delivery.order_by)
    return _compared(column, _value(column) if row == "s" else f"t.{quoted(column.name)}")


def _stored_is_newer(delivery: Delivery) -> str:
    if delivery.order_by is None:
        return "false"
    stored, staged = _ordered(delivery, "t"), _ordered(delivery, "s")
    return f"(({stored} > {staged} OR ({stored} IS NOT NULL AND {staged} IS NULL)) IS TRUE)"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))
