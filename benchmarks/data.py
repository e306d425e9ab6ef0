"""Makes a source file: ``python -m benchmarks.data FILE ROWS PERCENT CHANGED``.

``FILE`` ends in ``.parquet`` or ``.duckdb`` and holds *PERCENT* of a table ``customers`` of *ROWS* rows, about
180 bytes each in Arrow; with *CHANGED* 1 they differ from those made with 0 in two columns, under the same
keys. The rows follow from the arguments alone, in any version of DuckDB: MD5 is the source of all noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from benchmarks.limits import MEMORY_LIMIT, THREADS

_STRIDE = 7_368_787
"""A prime: its multiples visit every id once, far from the one before."""

_CUSTOMERS = """
SELECT
    id,
    'Customer.' || (noise % 100000000) || '@Example.com' AS email,
    'Name ' || (noise % 50000) AS name,
    ['gold', 'silver', 'bronze'][1 + (noise % 3)::INT] AS tier,
    ['EU', 'US', 'APAC'][1 + (noise // 3 % 3)::INT] AS region,
    (noise % 100000000 / 100 + {changed})::DECIMAL(12, 2) AS amount,
    '{{"visits":' || (noise % 1000) || ',"token":"' || md5(noise::VARCHAR) || '","opted_in":'
        || (noise % 2 = 0) || '}}' AS payload,
    TIMESTAMP '2020-01-01' + to_seconds((noise % 100000000)::BIGINT) AS created_at,
    TIMESTAMP '2024-01-01' + to_seconds(id % 30000000 + {changed}) AS updated_at
FROM (
    SELECT place * {stride} % {rows} AS id, md5_number_lower(id::VARCHAR) AS noise
    FROM range({rows}) AS places(place)
)
WHERE id % 100 < {percent}
"""


def make(path: Path, *, rows: int, percent: int, changed: bool) -> None:
    """Write the file; it has its name only when it is complete."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    query = _CUSTOMERS.format(stride=_STRIDE, rows=rows, percent=percent, changed=int(changed))
    in_file = path.suffix == ".duckdb"
    config = {"threads": THREADS, "memory_limit": MEMORY_LIMIT}
    with duckdb.connect(str(unfinished) if in_file else ":memory:", config=config) as connection:
        if in_file:
            connection.execute(f"CREATE TABLE customers AS {query}")
        else:
            connection.execute(f"COPY ({query}) TO '{unfinished}' (FORMAT parquet, COMPRESSION zstd)")
    unfinished.rename(path)


if __name__ == "__main__":
    make(Path(sys.argv[1]), rows=int(sys.argv[2]), percent=int(sys.argv[3]), changed=bool(int(sys.argv[4])))
