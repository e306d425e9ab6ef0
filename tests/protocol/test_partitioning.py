"""ecm-hash-1 against its definition, and what partitions promise."""

import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.errors import SourceError
from ecmbatch.protocol.partitioning.hashing import hash_keys, hash_partitions
from ecmbatch.protocol.partitioning.partitions import HashPartitions, split

WORD = (1 << 64) - 1


def ecm_hash_1(words: Iterable[int]) -> int:
    """The definition, word by word."""
    hashed = 0
    for word in words:
        mixed = ((hashed ^ (word & WORD)) + 0x9E3779B97F4A7C15) & WORD
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & WORD
        hashed = mixed ^ (mixed >> 31)
    return hashed


def words_of_bytes(value: bytes) -> list[int]:
    groups = [value[at : at + 8] for at in range(0, len(value), 8)]
    return [*(int.from_bytes(group, "little") for group in groups), len(value)]


def words_of_float(value: float) -> list[int]:
    canonical = float("nan") if value != value else value + 0.0
    return list(struct.unpack("<Q", struct.pack("<d", canonical)))


def words_of_decimal(value: Decimal) -> list[int]:
    unscaled = int(value.scaleb(4))
    return [unscaled & WORD, (unscaled >> 64) & WORD]


def micros(value: datetime) -> int:
    since = value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def nanos(value: time) -> int:
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return (seconds * 1_000_000 + value.microsecond) * 1000


INSTANTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
REFERENCE: dict[str, tuple[pa.DataType, st.SearchStrategy[Any], Callable[[Any], list[int]]]] = {
    "int8": (pa.int8(), st.integers(-128, 127), lambda value: [value]),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1), lambda value: [value]),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1), lambda value: [value]),
    "bool": (pa.bool_(), st.booleans(), lambda value: [int(value)]),
    "date": (pa.date32(), st.dates(), lambda value: [(value - date(1970, 1, 1)).days]),
    "timestamp": (pa.timestamp("us"), INSTANTS, lambda value: [micros(value), 0]),
    "time": (pa.time64("us"), st.times(), lambda value: [nanos(value)]),
    "float": (pa.float64(), st.floats(), words_of_float),
    "single": (pa.float32(), st.floats(width=32), words_of_float),
    "decimal": (pa.decimal128(30, 4), st.decimals(-(10**20), 10**20, places=4), words_of_decimal),
    "text": (
        pa.string(),
        st.text(st.characters(codec="utf-8")),
        lambda value: words_of_bytes(value.encode()),
    ),
    "binary": (pa.binary(), st.binary(max_size=40), words_of_bytes),
    "fixed": (pa.binary(5), st.binary(min_size=5, max_size=5), words_of_bytes),
}


@pytest.mark.parametrize("kind", REFERENCE)
@given(data=st.data())
def test_the_hash_is_as_defined(kind: str, data: st.DataObject) -> None:
    arrow_type, values, words_of = REFERENCE[kind]
    keys = data.draw(st.lists(values, max_size=30))
    assert hash_keys(pa.array(keys, arrow_type)).tolist() == [ecm_hash_1(words_of(key)) for key in keys]


# Written down once: they may never change, whatever happens to the code and to the reference above.
GOLDEN = [
    (pa.array([0, 1, -1, 42, 2**63 - 1]), [15, 1, 0, 5, 7]),
    (pa.array(["", "a", "customer-1", "Zoë", "x" * 100]), [15, 11, 11, 1, 12]),
    (pa.array([b"\0", b"\0\0"]), [14, 9]),
    (pa.array([0.0, 1.5, float("nan"), float("inf")]), [15, 10, 6, 9]),
    (pa.array([Decimal("1.50"), Decimal("-1.50")]), [12, 9]),
    (pa.array([date(1970, 1, 1), date(2024, 2, 29)]), [15, 13]),
    (pa.array([datetime(2024, 2, 29, 12, 30, 15, 123456)]), [4]),
    (pa.array([1709209815123456789]).view(pa.timestamp("ns")), [6]),
    (pa.array([time(12, 30, 15, 123456)]), [9]),
    (pa.array([True, False]), [1, 15]),
    (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID(int=7).bytes], pa.binary(16))), [10]),
]


@pytest.mark.parametrize(("keys", "partitions"), GOLDEN, ids=lambda value: str(getattr(value, "type", "")))
def test_partitions_are_those_of_the_first_version(keys: pa.Array, partitions: list[int]) -> None:
    assert hash_partitions(keys, 16).tolist() == partitions


def test_partitions_are_the_same_in_processes_with_other_hash_seeds() -> None:
    program = (
        "import pyarrow as pa; from ecmbatch.protocol.partitioning.hashing import hash_partitions;"
        "print(hash_partitions(pa.array([f'customer-{n}' for n in range(200)]), 16).tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(printed) == 1


KEYS = st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=20), max_size=40)
COUNTS = st.sampled_from([1, 2, 3, 16, 1000, 65_536])


@given(keys=KEYS, partitions=COUNTS)
def test_the_form_of_an_array_makes_no_difference(keys: list[str | None], partitions: int) -> None:
    plain = pa.array(keys, pa.string())
    expected = hash_partitions(plain, partitions).tolist()
    forms = {
        "dictionary": plain.dictionary_encode(),
        "large": plain.cast(pa.large_string()),
        "view": plain.cast(pa.string_view()),
        "binary": plain.cast(pa.binary()),
        "binary view": plain.cast(pa.binary_view()),
        "slice": pa.concat_arrays([pa.array(["before", None]), plain, pa.array(["x"])]).slice(2, len(keys)),
    }
    for form, array in forms.items():
        assert hash_partitions(array, partitions).tolist() == expected, form


@given(keys=st.lists(st.none() | st.integers(-5, 5), max_size=40), partitions=COUNTS)
def test_the_width_of_an_integer_makes_no_difference(keys: list[int | None], partitions: int) -> None:
    expected = hash_partitions(pa.array(keys, pa.int64()), partitions).tolist()
    for kind in (pa.int8(), pa.int16(), pa.int32()):
        assert hash_partitions(pa.array(keys, kind), partitions).tolist() == expected
    sliced = pa.concat_arrays([pa.array([None, 9], pa.int64()), pa.array(keys, pa.int64())]).slice(2)
    assert hash_partitions(sliced, partitions).tolist() == expected


@given(keys=st.lists(st.none() | st.decimals(-100, 100, places=2), max_size=20), partitions=COUNTS)
def test_slices_of_decimals_and_booleans_make_no_difference(
    keys: list[Decimal | None], partitions: int
) -> None:
    decimals = pa.array([Decimal("7.77"), None, *keys], pa.decimal128(12, 2))
    whole = hash_partitions(decimals, partitions)
    assert hash_partitions(decimals.slice(2), partitions).tolist() == whole[2:].tolist()
    flags = pa.array([None, True, *(None if key is None else key > 0 for key in keys)], pa.bool_())
    assert (
        hash_partitions(flags.slice(1), partitions).tolist()
        == hash_partitions(flags, partitions)[1:].tolist()
    )


def test_one_moment_has_one_partition_in_every_unit_and_zone() -> None:
    seconds = pa.array([0, 1_709_209_815, -5])
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    hashes = [
        hash_keys(pa.array([value * factor for value in seconds.to_pylist()]).view(pa.timestamp(unit, zone)))
        for unit, factor in units.items()
        for zone in (None, "UTC", "Europe/Berlin")
    ]
    assert all(np.array_equal(hashed, hashes[0]) for hashed in hashes)


@pytest.mark.parametrize("kind", [kind for kind, *_ in REFERENCE.values()], ids=str)
def test_nulls_are_in_partition_0(kind: pa.DataType) -> None:
    assert hash_partitions(pa.nulls(3, kind), 7).tolist() == [0, 0, 0]
    assert hash_partitions(pa.nulls(3, kind).dictionary_encode(), 7).tolist() == [0, 0, 0]


@given(keys=KEYS.filter(len), partitions=COUNTS)
def test_splitting_keeps_every_row_once_in_its_partition_and_in_order(
    keys: list[str | None], partitions: int
) -> None:
    batch = pa.record_batch(
        {"key": pa.array(keys, pa.string()), "row": pa.array(range(len(keys)), pa.int64())}
    )
    parts = list(split(batch, HashPartitions(key="key", count=partitions)))
    assert [partition for partition, _ in parts] == sorted({partition for partition, _ in parts})
    assert sorted(row for _, rows in parts for row in rows.column("row").to_pylist()) == list(
        range(len(keys))
    )
    for partition, rows in parts:
        assert set(hash_partitions(rows.column("key"), partitions).tolist()) == {partition}
        assert rows.column("row").to_pylist() == sorted(rows.column("row").to_pylist())
        assert rows.schema == batch.schema


@pytest.mark.parametrize(
    "keys",
    [
        pa.array(range(160_000)),
        pa.array([f"customer-{n}" for n in range(160_000)]),
        pa.array([n * 1024 for n in range(160_000)]),
    ],
    ids=["counted", "text", "multiples"],
)
def test_partitions_are_even(keys: pa.Array) -> None:
    counts = Counter(hash_partitions(keys, 16).tolist())
    assert len(counts) == 16
    assert all(9_500 < count < 10_500 for count in counts.values())


@pytest.mark.parametrize(
    "keys", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))]
)
def test_nested_values_cannot_be_keys(keys: pa.Array) -> None:
    with pytest.raises(SourceError, match="cannot be a partitioning key"):
        hash_partitions(keys, 2)
