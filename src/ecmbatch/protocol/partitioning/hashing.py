"""The hash behind ``strategy: hash`` (protocol: Partitioning Strategy).

**ecm-hash-1** is fixed for good; a change would be a new name. All
arithmetic is on unsigned 64-bit words and wraps. ``mix`` is the finaliser of splitmix64 (Steele, Lea and
Flood, *Fast Splittable Pseudorandom Number Generators*, 2014). A key is one or more words ``w0 … wk``:

====================================  ==============================================================
key                                   words
====================================  ==============================================================
NULL                                  none: always partition 0
integer of any width, boolean         the value in two's complement
date                                  days since 1970-01-01
timestamp (zoned or not)              microseconds since 1970-01-01 (UTC), then the remaining nanoseconds
time of day                           nanoseconds since midnight
float                                 IEEE 754 bits as float64; -0.0 counts as 0.0, every NaN is one value
decimal                               the unscaled value in two's complement, least significant word first
text (UTF-8), binary, UUID            bytes in groups of eight, little-endian, zero padded; then the length
====================================  ==============================================================

``h = 0``, then for each word ``h = mix((h ^ w) + 0x9E3779B97F4A7C15)``; the partition is ``h mod n``.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ecmbatch.errors import SourceError

HASH_NAME = "ecm-hash-1"

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8
_BLOCK = 4_096
"""Texts are hashed in blocks that stay in the processor's cache: half the time of all at once."""

Words = NDArray[np.uint64]


def hash_partitions(keys: pa.Array, partitions: int) -> NDArray[np.uint16]:
    """Return the partition (0 … *partitions* − 1) of every key; NULL keys are in partition 0.

    Raises :class:`~ecmbatch.errors.SourceError` for a type that cannot be a key (nested values).
    """
    if pa.types.is_dictionary(keys.type):
        return _partitions_of_dictionary(keys, partitions)
    hashed = hash_keys(keys)
    assigned = (hashed % np.uint64(partitions)).astype(np.uint16)
    if keys.null_count:
        assigned[_is_null(keys)] = 0
    return assigned


def hash_keys(keys: pa.Array) -> Words:
    """Return the 64-bit **ecm-hash-1** of every key; what stands at NULL keys is unspecified."""
    kind = keys.type
    if isinstance(keys, pa.ExtensionArray):
        return hash_keys(keys.storage)
    if pa.types.is_dictionary(kind):
        return hash_keys(keys.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return hash_keys(pc.run_end_decode(keys))
    if pa.types.is_null(kind):
        return np.zeros(len(keys), np.uint64)
    if _is_bytes(kind):
        return _hash_bytes(keys)
    hashed = np.zeros(len(keys), np.uint64)
    for word in _words(keys):
        hashed = _mix(hashed ^ word)
    return hashed


def _partitions_of_dictionary(keys: pa.DictionaryArray, partitions: int) -> NDArray[np.uint16]:
    of_value = hash_partitions(keys.dictionary, partitions)
    assigned = np.zeros(len(keys), np.uint16)
    valid = ~_is_null(keys)
    if of_value.size:
        assigned[valid] = of_value[keys.indices.drop_null().to_numpy(zero_copy_only=False)]
    return assigned


def _mix(words: Words) -> Words:
    with np.errstate(over="ignore"):
        words = words + _GAMMA
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _is_null(keys: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(keys.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _words(keys: pa.Array) -> list[Words]:
    kind = keys.type
    if pa.types.is_boolean(kind):
        return [_integers(keys.cast(pa.uint8()))]
    if pa.types.is_integer(kind):
        return [_integers(keys)]
    if pa.types.is_date(kind):
        return [_integers(keys.cast(pa.date32()).cast(pa.int32()))]
    if pa.types.is_timestamp(kind):
        return _timestamp_words(keys)
    if pa.types.is_time(kind):
        return [_integers(keys.cast(pa.time64("ns")).cast(pa.int64()))]
    if pa.types.is_floating(kind):
        return [_float_word(keys)]
    if pa.types.is_decimal(kind):
        return _decimal_words(keys)
    raise SourceError(
        f"a column of type {kind} cannot be a partitioning key; "
        "use a column of numbers, text, binary, dates, times, booleans or UUIDs"
    )


def _integers(keys: pa.Array) -> Words:
    values = keys.fill_null(0).to_numpy(zero_copy_only=False)
    wide: NDArray[np.int64 | np.uint64]
    wide = values.astype(np.int64) if values.dtype.kind == "i" else values.astype(np.uint64)
    return wide.view(np.uint64)


def _timestamp_words(keys: pa.Array) -> list[Words]:
    raw = keys.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    unit = keys.type.unit
    with np.errstate(over="ignore"):
        if unit == "ns":
            return [(raw // 1000).view(np.uint64), (raw % 1000).view(np.uint64)]
        micros = raw * np.int64({"s": 1_000_000, "ms": 1_000, "us": 1}[unit])
    return [micros.view(np.uint64), np.zeros(len(keys), np.uint64)]


def _float_word(keys: pa.Array) -> Words:
    values = keys.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    # Adding 0.0 turns -0.0 into 0.0; NaNs differ in bits that mean nothing.
    canonical: NDArray[np.float64] = np.where(np.isnan(values), np.nan, values + 0.0)
    return canonical.view(np.uint64)


def _decimal_words(keys: pa.Array) -> list[Words]:
    width = 4 if pa.types.is_decimal256(keys.type) else 2
    if width == 2:
        keys = keys.cast(pa.decimal128(keys.type.precision, keys.type.scale))
    raw = np.frombuffer(keys.buffers()[1], dtype="<u8")
    words = raw.reshape(-1, width)[keys.offset : keys.offset + len(keys)]
    return [np.ascontiguousarray(words[:, place]) for place in range(width)]


def _hash_bytes(keys: pa.Array) -> Words:
    plain = keys.cast(pa.large_binary())
    if plain.null_count:
        plain = plain.fill_null(b"")
    _, offset_buffer, data = plain.buffers()
    bounds = np.frombuffer(offset_buffer, dtype="<i8")[plain.offset : plain.offset + len(plain) + 1]
    starts, lengths = bounds[:-1], np.diff(bounds)
    words_at = _words_at_every_byte(data)
    hashed = np.zeros(len(plain), np.uint64)
    for block in range(0, len(plain), _BLOCK):
        rows = slice(block, block + _BLOCK)
        hashed[rows] = _hash_texts(words_at, starts[rows], lengths[rows])
    return hashed


def _hash_texts(words_at: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Words:
    hashed = np.zeros(len(starts), np.uint64)
    active = np.arange(len(starts))
    for place in range(0, int(lengths.max(initial=0)), _WORD):
        active = active[lengths[active] > place]
        words = words_at[starts[active] + place]
        missing = np.clip(_WORD - (lengths[active] - place), 0, _WORD - 1).astype(np.uint64)
        words = words & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (missing * np.uint64(8)))
        hashed[active] = _mix(hashed[active] ^ words)
    return _mix(hashed ^ lengths.astype(np.uint64))


def _words_at_every_byte(data: pa.Buffer | None) -> Words:
    """Return the little-endian word that starts at each byte of *data*, zeros beyond its end."""
    size = data.size if data is not None else 0
    padded = np.zeros(size + _WORD, np.uint8)
    if data is not None:
        padded[:size] = np.frombuffer(data, np.uint8)
    return np.ndarray((size + 1,), np.dtype("<u8"), padded.data, 0, (1,))
