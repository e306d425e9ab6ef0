"""Types and values survive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from ecmbatch.stores.store import (
    PublishedRows,
    Store,
)
from ecmbatch.testing.store_contract.staging import (
    AT,
    comparable,
    publication,
)
from ecmbatch.testing.store_contract.suite import StoreSuite


class Types(StoreSuite):
    """Types and values survive."""

    @pytest.mark.parametrize(
        ("type_", "values"),
        [
            (pa.bool_(), [True, False]),
            (pa.int8(), [-128, 127]),
            (pa.uint64(), [0, 2**64 - 1]),
            (pa.float32(), [1.5, float("inf")]),
            (pa.float64(), [float("-inf"), float("nan"), 5e-324]),
            (pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(-1)]),
            (pa.decimal128(38, 38), [Decimal("0.1") ** 38, Decimal("-0.5")]),
            (pa.decimal128(9, 4), [Decimal("12345.6789")]),
            (pa.string(), ["", "naïve ☕\nline", "nul"]),
            (pa.large_string(), ["x" * 100_000]),
            (pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
            (pa.binary(), [b"", b"\x00\xff"]),
            (pa.binary(3), [b"abc"]),
            (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
            (pa.time64("us"), [time(23, 59, 59, 999_999)]),
            (pa.timestamp("s"), [datetime(1969, 12, 31, 23, 59, 59)]),
            (pa.timestamp("ms"), [datetime(2026, 1, 1, 0, 0, 0, 1000)]),
            (pa.timestamp("us"), [datetime(2026, 1, 1, 0, 0, 0, 1)]),
            (pa.timestamp("ns"), [datetime(2026, 1, 1, 0, 0, 0, 1)]),
            (pa.timestamp("us", "UTC"), [datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]),
            (pa.timestamp("us", "America/New_York"), [datetime(2026, 3, 8, 7, 0, tzinfo=UTC)]),
            (pa.uuid(), [UUID(int=0), UUID(int=2**128 - 1)]),
            (pa.list_(pa.int16()), [[], [1, None]]),
            (
                pa.struct([("a b", pa.int64()), ("c", pa.struct([("d", pa.string())]))]),
                [{"a b": 1, "c": {"d": None}}],
            ),
            (pa.map_(pa.string(), pa.decimal128(5, 1)), [[("k", Decimal("1.5"))]]),
            (pa.list_(pa.struct([("at", pa.timestamp("us", "UTC"))])), [[{"at": AT}]]),
        ],
        ids=str,
    )
    def test_types_and_values_are_kept(
        self, store: Store, tmp_path: Path, type_: pa.DataType, values: Sequence[Any]
    ) -> None:
        schema = pa.schema([("id", pa.int64()), ("value", type_)])
        rows = [{"id": number, "value": value} for number, value in enumerate([*values, None])]
        store.publish(publication(tmp_path, "run-1", rows, schema=schema), AT)
        found = sorted(self.read_table(store, "customers").to_pylist(), key=lambda row: int(row["id"]))
        # NaN is not equal to itself, but its text is.
        assert [repr(comparable(row["value"])) for row in found] == [
            repr(comparable(row["value"])) for row in rows
        ]
        again = store.publish(publication(tmp_path, "run-2", rows, schema=schema), AT)
        assert again.rows == PublishedRows(unchanged=len(rows)), "the stored values equal the staged ones"
        swapped = [{"id": row["id"], "value": rows[-1 - number]["value"]} for number, row in enumerate(rows)]
        store.publish(publication(tmp_path, "run-3", swapped, schema=schema), AT)
        store.publish(publication(tmp_path, "run-4", rows, schema=schema), AT)
        back = sorted(self.read_table(store, "customers").to_pylist(), key=lambda row: int(row["id"]))
        assert [repr(comparable(row["value"])) for row in back] == [
            repr(comparable(row["value"])) for row in rows
        ]
