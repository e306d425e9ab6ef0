"""Changes some flights in this folder's warehouse, so that there is something new to read.

The changes are made up: flights of the warehouse's last three days arrive one minute later, and those of
the last day take place once more on the following day. All of them get a new ``updated_at``.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb

CORRECT_ARRIVALS = """
    UPDATE flights SET arr_delay = arr_delay + 1, updated_at = $at
    WHERE make_date(year, month, day) > (SELECT max(make_date(year, month, day)) FROM flights) - 3
      AND arr_delay IS NOT NULL
"""

# 24 hours are the same everywhere; a day would depend on the session's time zone.
FLY_ONE_MORE_DAY = """
    INSERT INTO flights
    SELECT * REPLACE (
        extract(year FROM make_date(year, month, day) + 1) AS year,
        extract(month FROM make_date(year, month, day) + 1) AS month,
        extract(day FROM make_date(year, month, day) + 1) AS day,
        time_hour + INTERVAL 24 HOURS AS time_hour,
        $at AS updated_at
    )
    FROM flights
    WHERE make_date(year, month, day) = (SELECT max(make_date(year, month, day)) FROM flights)
"""


def apply_changes(folder: Path, at: datetime) -> int:
    """Change flights in *folder*'s ``warehouse.duckdb``, with *at* as their ``updated_at``; how many changed.

    The same warehouse and instant always give the same rows. All changes are made in one transaction.
    Raises FileNotFoundError where there is no warehouse, ValueError where *at* has no time zone,
    and duckdb.IOException while another process holds the file.
    """
    warehouse = folder / "warehouse.duckdb"
    if not warehouse.is_file():
        raise FileNotFoundError(f"there is no warehouse.duckdb in {folder}")
    if at.tzinfo is None:
        raise ValueError("the instant of the changes has no time zone; give one, such as datetime.now(UTC)")
    with duckdb.connect(warehouse) as connection:
        connection.begin()
        changed = [
            _rows_changed(connection, statement, at) for statement in (CORRECT_ARRIVALS, FLY_ONE_MORE_DAY)
        ]
        connection.commit()
    return sum(changed)


def _rows_changed(connection: duckdb.DuckDBPyConnection, statement: str, at: datetime) -> int:
    row = connection.execute(statement, {"at": at}).fetchone()
    return int(row[0]) if row else 0


def main() -> None:
    try:
        changed = apply_changes(Path(__file__).resolve().parent, datetime.now(UTC))
    except (FileNotFoundError, duckdb.IOException) as error:
        sys.exit(f"nothing was changed: {error}")
    print(
        f"{changed:,} flights changed in warehouse.duckdb; read them with: ecmbatch run flights-incremental"
    )


if __name__ == "__main__":
    main()
