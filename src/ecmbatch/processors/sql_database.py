"""A DuckDB that holds nothing, reaches nothing, and works on one thread of its caller's."""

from __future__ import annotations

import duckdb

_CONFIG = {
    # The caller's own thread does the work: partitions run in parallel, and rows keep their order.
    "threads": "1",
    "preserve_insertion_order": "true",
    "memory_limit": "512MB",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_SETTINGS = (
    "SET GLOBAL TimeZone = 'UTC'",
    # A query could otherwise name a Python variable of this process as a table.
    "SET GLOBAL python_enable_replacements = false",
    # Deeper trees than people write would exhaust the stack of whoever walks them.
    "SET GLOBAL max_expression_depth = 200",
    "SET GLOBAL temp_directory = ''",
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)


def closed_database() -> duckdb.DuckDBPyConnection:
    """Open a database in memory: no file, network, extension or Python variable can be reached from it."""
    connection = duckdb.connect(":memory:", config=_CONFIG)
    for setting in _SETTINGS:
        connection.execute(setting)
    return connection
