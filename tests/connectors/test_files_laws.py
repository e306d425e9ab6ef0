"""Laws of text files: what was written is read, however it is cut; what is broken is refused by name."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.file_formats import text_blocks
from ecmbatch.connectors.files import FilesConnector, FilesSource
from ecmbatch.errors import EcmbatchError
from ecmbatch.testing.connector_contract import read_all

ALL = ReadRequest(path="*")
pytestmark = pytest.mark.slow

LAW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

CELLS = st.none() | st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('",;\n\r\\\'{}[]:#\t x"'),
    max_size=8,
)


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    before = text_blocks.BLOCK_BYTES
    text_blocks.BLOCK_BYTES = size
    try:
        yield
    finally:
        text_blocks.BLOCK_BYTES = before


def read_back(name: str, content: bytes, source: dict[str, Any], draw: Any) -> list[dict[str, Any]]:
    """Read a file, and check that it reads the same from any place and with any sizes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        connector = FilesConnector(FilesSource(root=".", **source), Path(folder))
        request = replace(ALL, batch_rows=draw(st.integers(1, 9), "batch_rows"))
        with blocks_of(draw(st.sampled_from([7, 40, 100, 400]), "block bytes")):
            (scan,) = connector.plan(request).scans
            whole = read_all(connector, request, scan)
        rows = [row for each in whole for row in each.batch.to_pylist()]
        if whole:
            stop = draw(st.integers(0, len(whole) - 1), "stop")
            other = replace(request, batch_rows=draw(st.integers(1, 9), "batch_rows after"))
            with blocks_of(draw(st.sampled_from([7, 40, 100, 400]), "block bytes after")):
                rest = read_all(
                    connector, other, scan, json.loads(json.dumps(dict(whole[stop].cursor or {})))
                )
            done = sum(each.batch.num_rows for each in whole[: stop + 1])
            assert [row for each in rest for row in each.batch.to_pylist()] == rows[done:]
    return rows


def as_csv(rows: Sequence[Sequence[str | None]], dialect: dict[str, Any]) -> str:
    """Write NULL as nothing, empty text quoted."""
    mark, ends = dialect["delimiter"], dialect["line_end"]
    quoted = {"delimiter": mark, "lineterminator": "", "quoting": csv.QUOTE_ALL}

    def cell(value: str | None) -> str:
        if value is None:
            return ""
        if value and not set(value) & {mark, '"', "\r", "\n"} and not dialect["quote_all"]:
            return value
        text = io.StringIO()
        csv.writer(text, **quoted).writerow([value])
        return text.getvalue()

    return ends.join(mark.join(map(cell, row)) for row in rows) + (ends if dialect["last_end"] else "")


DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"),
        "line_end": st.sampled_from(["\n", "\r\n"]),
        "quote_all": st.booleans(),
        "last_end": st.booleans(),
    }
)


@LAW
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12), dialect=DIALECTS, data=st.data())
def test_csv_is_read_as_it_was_written(
    rows: list[tuple[str | None, ...]], dialect: dict[str, Any], data: st.DataObject
) -> None:
    names = ["a", "b,\n", 'c"d']
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), "encoding")
    content = as_csv([names, *rows], dialect).encode(encoding)
    name = data.draw(st.sampled_from(["a.csv", "a.csv.gz"]), "name")
    declared = dict.fromkeys(names, "string")
    source = {"csv": {"delimiter": dialect["delimiter"], "encoding": encoding, "columns": declared}}
    # Nothing between two line ends is no record.
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    read = read_back(name, gzip.compress(content) if name.endswith("gz") else content, source, data.draw)
    assert read == expected


@LAW
@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=12), data=st.data())
def test_csv_with_escapes_is_read_as_it_was_written(
    rows: list[tuple[str | None, ...]], data: st.DataObject
) -> None:
    def escaped(text: str | None) -> str:
        if text is None:
            return "NULL"
        inner = "".join(f"\\{char}" if char in '\\",\n\r' else char for char in text)
        return f'"{inner}"' if text in ("", "NULL") or data.draw(st.booleans()) else inner

    content = "a,b\n" + "".join(",".join(map(escaped, row)) + "\n" for row in rows)
    source = {"csv": {"escape": "\\", "null_values": ["NULL"], "columns": {"a": "string", "b": "string"}}}
    assert read_back("a.csv", content.encode(), source, data.draw) == [
        {"a": one, "b": other} for one, other in rows
    ]


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "t": CELLS,
        "b": st.none() | st.booleans(),
        "l": st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
        "o": st.none() | st.fixed_dictionaries({"t": CELLS, "n": st.lists(CELLS, max_size=2)}),
    },
)
DECLARED = {
    "i": "int64",
    "f": "float64",
    "t": "string",
    "b": "bool",
    "l": ["int64"],
    "o": {"t": "string", "n": ["string"]},
}


@LAW
@given(rows=st.lists(VALUES, max_size=12), ascii_only=st.booleans(), data=st.data())
def test_json_lines_are_read_as_they_were_written(
    rows: list[dict[str, Any]], ascii_only: bool, data: st.DataObject
) -> None:
    ends = data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]), "line end")
    content = "".join(json.dumps(row, ensure_ascii=ascii_only) + ends for row in rows).encode()
    name = data.draw(st.sampled_from(["a.jsonl", "a.jsonl.gz"]), "name")
    compressed = gzip.compress(content) if name.endswith("gz") else content
    read = read_back(name, compressed, {"json": {"columns": DECLARED}}, data.draw)
    assert read == [{key: row.get(key) for key in DECLARED} for row in rows]


@LAW
@given(rows=st.lists(st.tuples(CELLS, st.integers() | st.none(), st.floats(allow_nan=False)), max_size=15))
def test_what_is_inferred_says_the_same_as_the_text(rows: list[tuple[Any, ...]]) -> None:
    content = as_csv(
        [("t", "i", "f"), *((t, None if i is None else str(i), str(f)) for t, i, f in rows)],
        {"delimiter": ",", "line_end": "\n", "quote_all": False, "last_end": True},
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_text(content, encoding="utf-8", newline="")
        connector = FilesConnector(FilesSource(root="."), Path(folder))
        (scan,) = connector.plan(ALL).scans
        read = [row for each in read_all(connector, ALL, scan) for row in each.batch.to_pylist()]
    for row, (_, whole, number) in zip(read, rows, strict=True):
        assert row["i"] is whole is None or int(row["i"]) == whole
        assert float(row["f"]) == number


# --- broken files ------------------------------------------------------------------------------------------------

GOOD_CSV = b'id,name,"x\ny",at\n' + b"".join(
    b'%d,"na""me\n%d",1.5,2024-01-02\r\n%d,\xc3\xa9,,\n' % (n, n, n) for n in range(30)
)
GOOD_JSON = b"".join(
    b'{"id": %d, "name": "n\\u00e9}x", "o": {"x": [1.5, null]}, "at": "2024-01-02"}\n\n' % n
    for n in range(30)
)
PIECES = [
    b'"',
    b"\n",
    b"\r",
    b",",
    b"\\",
    b"\0",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"null",
    b"NaN",
    b"\xef\xbb\xbf",
    b"0",
    b" ",
]


@st.composite
def broken(draw: st.DrawFn, good: bytes) -> bytes:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["insert", "cut", "drop", "set"])):
            case "insert":
                content[at:at] = draw(st.sampled_from(PIECES))
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + draw(st.integers(1, 20))]
            case "set" if content:
                content[at] = draw(st.integers(0, 255))
    return bytes(content)


def read_or_refused(name: str, content: bytes, source: dict[str, Any]) -> int | None:
    """Return how many rows were read, ``None`` where the file was refused."""
    with tempfile.TemporaryDirectory() as folder, blocks_of(97):
        (Path(folder) / name).write_bytes(content)
        connector = FilesConnector(FilesSource(root=".", **source), Path(folder))
        try:
            plan = connector.plan(ALL)
            read = read_all(connector, ALL, plan.scans[0])
        except EcmbatchError as error:
            assert name in str(error) or "column" in str(error) or "declares" in str(error)
            return None
        for scanned in read:
            scanned.batch.validate(full=True)
            assert scanned.batch.schema.equals(plan.schema)
        return sum(each.batch.num_rows for each in read)


SOURCES: list[dict[str, Any]] = [
    {},
    {"csv": {"quote": ""}},
    {"csv": {"escape": "\\", "encoding": "utf-16"}},
    {"csv": {"escape": "\\", "columns": {"id": "int64", "name": "string"}}},
    {"json": {"columns": {"id": "int8", "o": {"x": ["float32"]}}}},
    {"json": {"encoding": "utf-7"}},
]


@settings(LAW, max_examples=150)
@given(content=broken(GOOD_CSV), source=st.sampled_from(SOURCES))
def test_broken_csv_is_read_or_refused_by_name(content: bytes, source: dict[str, Any]) -> None:
    read_or_refused("broken.csv", content, source)


@settings(LAW, max_examples=150)
@given(content=broken(GOOD_JSON), source=st.sampled_from(SOURCES))
def test_broken_json_is_read_or_refused_by_name(content: bytes, source: dict[str, Any]) -> None:
    rows = read_or_refused("broken.json", content, source)
    assert (
        rows is None or source.get("json") or rows == sum(bool(line.strip()) for line in content.split(b"\n"))
    )


@settings(LAW, max_examples=100)
@given(good=st.sampled_from([GOOD_CSV, GOOD_JSON]), data=st.data())
def test_a_broken_gzip_file_is_refused_or_complete(good: bytes, data: st.DataObject) -> None:
    content = data.draw(broken(gzip.compress(good, mtime=0)))
    rows = read_or_refused("broken.csv.gz" if good == GOOD_CSV else "broken.json.gz", content, {})
    assert rows in (None, 60 if good == GOOD_CSV else 30)


@pytest.mark.parametrize("quote_all", [False, True])
def test_csv_of_many_blocks_says_what_pyarrow_says(quote_all: bool) -> None:
    table = pa.table(
        {"a": list(range(20_000)), "b": [f"{n:05d}" if n % 3 else f'x"\n{n}' for n in range(20_000)]}
    )
    rows = [("a", "b"), *zip(map(str, table["a"].to_pylist()), table["b"].to_pylist(), strict=True)]
    dialect = {"delimiter": ",", "line_end": "\n", "quote_all": quote_all, "last_end": True}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_text(as_csv(rows, dialect), newline="")
        connector = FilesConnector(FilesSource(root="."), Path(folder))
        (scan,) = connector.plan(ALL).scans
        assert pa.Table.from_batches([each.batch for each in read_all(connector, ALL, scan)]).equals(table)
