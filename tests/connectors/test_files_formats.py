"""What the files connector promises whatever the format: which it is, compression, path columns, partitions."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.files import FILES, FilesConnector
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError
from ecmbatch.protocol.partitioning.partitions import HashPartitions, RangePartitions
from ecmbatch.testing.connector_contract import read_all

ALL = ReadRequest(path="**/*")
ROWS = [{"a": n, "b": f"text {n}"} for n in range(5000)]
CSV = ("a,b\n" + "".join(f"{row['a']},{row['b']}\n" for row in ROWS)).encode()
JSON = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEXTS = {"csv": CSV, "jsonl": JSON}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def connector_of(root: Path, **settings: Any) -> FilesConnector:
    connector = FILES.build(FILES.parse_config(settings), root.parent)
    assert isinstance(connector, FilesConnector)
    return connector


def rows_of(root: Path, request: ReadRequest = ALL, **settings: Any) -> list[dict[str, Any]]:
    connector = connector_of(root, **settings)
    (scan,) = connector.plan(request).scans
    return [row for scanned in read_all(connector, request, scan) for row in scanned.batch.to_pylist()]


def problem(act: Callable[[], Any]) -> str:
    with pytest.raises(SourceError) as raised:
        act()
    return f"{raised.value} | {raised.value.hint}"


def zstd(content: bytes, *, checked: bool = True) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESSED = {"gz": gzip.compress, "zst": zstd}


# --- formats -----------------------------------------------------------------------------------------------


def test_the_name_tells_the_format(root: Path) -> None:
    for name, content in [
        ("a.csv", "a\n1\n"),
        ("a.tsv", "a\n1\n"),
        ("a.JSON", '{"a": 1}'),
        ("a.ndjson", '{"a": 1}'),
    ]:
        (root / name).write_text(content)
        assert rows_of(root, ReadRequest(path=name)) == [{"a": 1}]


def test_files_of_several_formats_are_refused(root: Path) -> None:
    (root / "a.csv").write_text("a\n1\n")
    (root / "b.jsonl").write_text('{"a": 1}\n')
    said = problem(lambda: rows_of(root))
    assert "csv (a.csv) and json (b.jsonl)" in said and "such as *.csv" in said


def test_a_name_that_tells_no_format_needs_the_setting(root: Path) -> None:
    (root / "a.txt.gz").write_bytes(gzip.compress(b"a\n1\n"))
    assert "'format'" in problem(lambda: rows_of(root))
    assert rows_of(root, format="csv") == [{"a": 1}]


def test_parquet_is_not_compressed_from_outside(root: Path) -> None:
    (root / "a.parquet.gz").write_bytes(b"")
    assert "compressed inside" in problem(lambda: rows_of(root))


@pytest.mark.parametrize(
    "settings", [{"format": "xml"}, {"path_columns": "yes"}, {"csv": []}, {"json": {"x": 1}}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument):
        FILES.parse_config(settings)


# --- compression -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_compressed_files_are_read_and_resumed(root: Path, suffix: str, compression: str) -> None:
    compress = COMPRESSED[compression]
    half = len(TEXTS[suffix]) // 2
    content = compress(TEXTS[suffix][:half]) + compress(TEXTS[suffix][half:])
    (root / f"a.{suffix}.{compression}").write_bytes(content)
    (root / f"b.{suffix}").write_bytes(TEXTS[suffix])
    connector = connector_of(root)
    request = replace(ALL, batch_rows=700)
    (scan,) = connector.plan(request).scans
    whole = read_all(connector, request, scan)
    assert [row for each in whole for row in each.batch.to_pylist()] == ROWS * 2
    for stop in (0, 4, 9):
        rest = read_all(connector, replace(ALL, batch_rows=999), scan, whole[stop].cursor)
        read = [row for each in rest for row in each.batch.to_pylist()]
        assert read == (ROWS * 2)[sum(each.batch.num_rows for each in whole[: stop + 1]) :]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_file_that_is_cut_off_never_passes_for_a_shorter_one(
    root: Path, suffix: str, compression: str
) -> None:
    content = COMPRESSED[compression](TEXTS[suffix])
    path = root / f"a.{suffix}.{compression}"
    places = {
        *range(12),
        *range(0, len(content), len(content) // 20),
        *range(len(content) - 12, len(content)),
    }
    for length in sorted(places):
        path.write_bytes(content[:length])
        said = problem(lambda: rows_of(root))
        assert f"{path.name} is cut off" in said


def test_a_damaged_file_is_named(root: Path) -> None:
    content = gzip.compress(CSV)
    for damaged in (
        content + b"garbage",
        content[:-8] + b"1234" + content[-4:],
        CSV,
        b"\x28\xb5\x2f\xfd" * 9,
    ):
        (root / "a.csv.gz").write_bytes(damaged)
        assert "a.csv.gz is damaged" in problem(lambda: rows_of(root))


def test_a_text_that_swells_is_read_in_little_memory(root: Path) -> None:
    with gzip.open(root / "a.csv.gz", "wt", compresslevel=1) as file:
        file.write("a,b\n")
        for _ in range(50):
            file.write("1,some text of this row\n" * 50_000)
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    # Other tests of this process may still hold something.
    before = peak = pa.total_allocated_bytes()
    with connector.read(ALL, scan, None) as batches:
        for _ in batches:
            peak = max(peak, pa.total_allocated_bytes())
    assert peak - before < 30_000_000


# --- path columns --------------------------------------------------------------------------------------------


def lay(root: Path, *paths: str, content: str = "v\n1\n") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def test_folders_name_columns(root: Path) -> None:
    lay(root, "year=2013/month=01/day=2013-01-05/place=New%20York%2FUS/a.csv")
    lay(root, "year=2014/month=__HIVE_DEFAULT_PARTITION__/day=2014-01-05/plain/place=a=b/a.csv")
    connector = connector_of(root)
    plan = connector.plan(ALL)
    assert {field.name: str(field.type) for field in plan.schema} == {
        "v": "int64",
        "year": "int64",
        "month": "string",
        "day": "date32[day]",
        "place": "string",
    }
    read = read_all(connector, ALL, plan.scans[0])
    assert all(scanned.batch.schema.equals(plan.schema) for scanned in read)
    assert [tuple(scanned.batch.to_pylist()[0].values()) for scanned in read] == [
        (1, 2013, "01", date(2013, 1, 5), "New York/US"),
        (1, 2014, None, date(2014, 1, 5), "a=b"),
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2"], "int64"),
        (["1", "01"], "string"),
        (["-0"], "string"),
        (["9223372036854775808"], "string"),
        (["2024-02-29", "__HIVE_DEFAULT_PARTITION__"], "date32[day]"),
        (["2023-02-29"], "string"),
        (["__HIVE_DEFAULT_PARTITION__"], "string"),
        (["١"], "string"),
        ([""], "string"),
    ],
)
def test_the_type_of_a_path_column_holds_all_its_values(root: Path, values: list[str], kind: str) -> None:
    lay(root, *(f"k={value}/a.csv" for value in values))
    assert str(connector_of(root).plan(ALL).schema.field("k").type) == kind


def test_path_columns_work_for_parquet_and_as_key(root: Path) -> None:
    for key in ("a", "b"):
        (root / f"k={key}").mkdir()
        pq.write_table(pa.table({"v": [1, 2]}), root / f"k={key}" / "a.parquet")
    request = replace(ALL, partitioning=HashPartitions(key="k", count=3))
    assert [row["k"] for row in rows_of(root, request)] == ["a", "a", "b", "b"]
    assert "'k'" in problem(lambda: rows_of(root, request, path_columns="none"))


def test_files_must_agree_on_their_path_columns(root: Path) -> None:
    lay(root, "a=1/x.csv", "b=1/x.csv", "x.csv")
    said = problem(lambda: rows_of(root))
    assert "b=1/x.csv" in said and "'a'" in said and "'b'" in said
    assert len(rows_of(root, path_columns="none")) == 3


@pytest.mark.parametrize("path", ["v=1/x.csv", "k=1/k=2/x.csv", "k=%ff/x.csv"])
def test_path_columns_that_cannot_be_are_refused(root: Path, path: str) -> None:
    lay(root, path)
    assert 'path_columns = "none"' in problem(lambda: rows_of(root))
    assert rows_of(root, path_columns="none") == [{"v": 1}]


# --- partitions ------------------------------------------------------------------------------------------------


def test_ordered_ranges_have_a_scan_each(root: Path) -> None:
    (root / "a.csv").write_bytes(CSV)
    ranges = RangePartitions(key="a", bounds=(1000, 4000), shown=("1000", "4000"), ordered=True)
    request = replace(ALL, partitioning=ranges, batch_rows=300)
    connector = connector_of(root)
    plan = connector.plan(request)
    assert [scan.partitions for scan in plan.scans] == [(0,), (1,), (2,)]
    read = [read_all(connector, request, scan) for scan in plan.scans]
    rows = [[row["a"] for each in batches for row in each.batch.to_pylist()] for batches in read]
    assert rows == [[*range(1000)], [*range(1000, 4000)], [*range(4000, 5000)]]
    for scan, batches in zip(plan.scans, read, strict=True):
        rest = read_all(connector, request, scan, batches[0].cursor)
        assert sum(each.batch.num_rows for each in rest) == sum(each.batch.num_rows for each in batches[1:])
    (scan,) = connector.plan(replace(request, partitioning=replace(ranges, ordered=False))).scans
    assert scan.partitions == (0, 1, 2)


# --- files that change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_text_file_that_changes_while_it_is_read_is_named(root: Path, name: str) -> None:
    path = root / name
    path.write_bytes(gzip.compress(CSV) if name.endswith("gz") else CSV)
    connector = connector_of(root)
    request = replace(ALL, batch_rows=100)
    (scan,) = connector.plan(request).scans
    with connector.read(request, scan, None) as batches:
        next(batches)
        os.utime(path, ns=(0, 0))
        with pytest.raises(SourceChanged, match=r"a\.csv"):
            list(batches)
    with pytest.raises(SourceChanged, match=r"a\.csv"):
        read_all(connector, request, scan)
