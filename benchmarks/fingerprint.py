"""Prints what a target holds, whatever the order of its rows: ``python -m benchmarks.fingerprint FILE``."""

from __future__ import annotations

import sys

import duckdb

from benchmarks.limits import MEMORY_LIMIT, THREADS

_FINGERPRINT = """
SELECT count(*), sum(hash(context_id, email, name, tier, region, amount, payload, created_at, updated_at, origin))
FROM customers
"""


def fingerprint(path: str) -> tuple[int, int]:
    """Return the number of rows and the sum of their hashes."""
    config = {"threads": THREADS, "memory_limit": MEMORY_LIMIT}
    with duckdb.connect(path, read_only=True, config=config) as connection:
        rows, hashes = connection.execute(_FINGERPRINT).fetchall()[0]
    return int(rows), int(hashes)


if __name__ == "__main__":
    print(*fingerprint(sys.argv[1]))
