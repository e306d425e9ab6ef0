"""Prints what a target holds, whatever the order of its rows: ``python -m benchmarks.fingerprint TARGET``.

``TARGET`` is a DuckDB file, unless ``route.json`` in the folder names another one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb

from benchmarks.limits import MEMORY_LIMIT, THREADS

_COLUMNS = "context_id, email, name, tier, region, amount, payload, created_at, updated_at, origin"
_FINGERPRINT = f"SELECT count(*), sum(hash({_COLUMNS})) FROM customers"
# A numeric column shows the digits that its values came with.
_AS_TEXT = f"ROW({_COLUMNS.replace('amount', 'trim_scale(amount)')})::text"
_IN_POSTGRES = f"SELECT count(*), sum(hashtextextended({_AS_TEXT}, 0)) FROM customers"


def fingerprint(target: str) -> tuple[int, int]:
    """Return the number of rows and the sum of their hashes."""
    if target.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(target) as database:
            rows, hashes = database.execute(_IN_POSTGRES).fetchall()[0]
        return int(rows), int(hashes)
    config = {"threads": THREADS, "memory_limit": MEMORY_LIMIT}
    with duckdb.connect(target, read_only=True, config=config) as connection:
        rows, hashes = connection.execute(_FINGERPRINT).fetchall()[0]
    return int(rows), int(hashes)


if __name__ == "__main__":
    route = Path("route.json")
    print(*fingerprint(json.loads(route.read_text())[1] if route.exists() else sys.argv[1]))
