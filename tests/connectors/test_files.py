"""What the files connector promises beyond the contract suite."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.files import FILES, FilesConnector
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError
from ecmbatch.protocol.partitioning.partitions import HashPartitions
from ecmbatch.testing.connector_contract import read_all

ALL = ReadRequest(path="**/*.parquet")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def connector_of(root: Path) -> FilesConnector:
    connector = FILES.build(FILES.parse_config({}), root.parent)
    assert isinstance(connector, FilesConnector)
    return connector


def write(path: Path, columns: dict[str, object] | pa.Table, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def read_rows(root: Path, request: ReadRequest = ALL) -> list[dict[str, object]]:
    connector = connector_of(root)
    plan = connector.plan(request)
    (scan,) = plan.scans
    read = read_all(connector, request, scan)
    assert all(scanned.batch.schema.equals(plan.schema) for scanned in read)
    return [row for scanned in read for row in scanned.batch.to_pylist()]


def files_of(root: Path, path: str) -> list[str]:
    (scan,) = connector_of(root).plan(ReadRequest(path=path)).scans
    return [file["path"] for file in scan.detail["files"]]


def refusal(root: Path, request: ReadRequest) -> str:
    with pytest.raises(SourceError) as raised:
        connector_of(root).plan(request)
    return f"{raised.value} | {raised.value.hint}"


# --- which files -----------------------------------------------------------------------------------------


def test_globs_find_files_in_the_order_of_their_paths(root: Path) -> None:
    for name in (
        "b.parquet",
        "a.parquet",
        "2024/01/x.parquet",
        "2024/02/x.parquet",
        ".hidden.parquet",
        "n.csv",
    ):
        write(root / name, {"a": [1]})
    assert files_of(root, "*.parquet") == ["a.parquet", "b.parquet"]
    assert files_of(root, "2024/*/x.parquet") == ["2024/01/x.parquet", "2024/02/x.parquet"]
    assert files_of(root, "**/*.parquet") == [
        "2024/01/x.parquet",
        "2024/02/x.parquet",
        "a.parquet",
        "b.parquet",
    ]
    assert files_of(root, "**/**/0[12]/?.parquet") == files_of(root, "2024/*/x.parquet")
    assert files_of(root, "2024/**") == files_of(root, "2024/*/*")
    assert files_of(root, "a.parquet") == files_of(root, "./a.parquet") == ["a.parquet"]
    assert files_of(root, f"{root}/a.parquet") == ["a.parquet"]


@pytest.mark.parametrize("path", ["none*.parquet", "a.parquet/x", "2025/*.parquet", "[", ""])
def test_a_path_that_finds_nothing_is_an_error(root: Path, path: str) -> None:
    write(root / "a.parquet", {"a": [1]})
    with pytest.raises(SourceError):
        connector_of(root).plan(ReadRequest(path=path))


def test_a_folder_is_answered_with_the_pattern_to_write(root: Path) -> None:
    write(root / "2024" / "a.parquet", {"a": [1]})
    assert "add /*.parquet" in refusal(root, ReadRequest(path="2024"))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    assert "no folder" in refusal(tmp_path / "data", ALL)


@pytest.mark.parametrize(
    "path", ["../secret.parquet", "sub/../../secret.parquet", "/etc/*", "{root}-other/*", "a\0b"]
)
def test_a_path_out_of_the_root_is_refused(root: Path, path: str) -> None:
    write(root.parent / "secret.parquet", {"a": [1]})
    write(root.parent / "data-other" / "secret.parquet", {"a": [1]})
    refusal(root, ReadRequest(path=path.replace("{root}", str(root))))


def test_links_out_of_the_root_are_refused_and_those_inside_are_followed(root: Path) -> None:
    outside = write(root.parent / "outside" / "secret.parquet", {"a": [1]})
    write(root / "real.parquet", {"a": [1]})
    (root / "inside.parquet").symlink_to(root / "real.parquet")
    assert files_of(root, "*.parquet") == ["inside.parquet", "real.parquet"]
    (root / "link.parquet").symlink_to(outside)
    assert "link that leads out" in refusal(root, ReadRequest(path="*.parquet"))
    (root / "folder").symlink_to(outside.parent)
    assert "link that leads out" in refusal(root, ReadRequest(path="folder/*.parquet"))


def test_a_file_that_became_a_link_out_of_the_root_is_not_read(root: Path) -> None:
    outside = write(root.parent / "secret.parquet", {"a": [1]})
    write(root / "a.parquet", {"a": [1]})
    (scan,) = connector_of(root).plan(ALL).scans
    (root / "a.parquet").unlink()
    (root / "a.parquet").symlink_to(outside)
    with pytest.raises(SourceError, match="link that leads out"):
        read_all(connector_of(root), ALL, scan)


def test_a_circle_of_folders_ends(root: Path) -> None:
    write(root / "sub" / "a.parquet", {"a": [1]})
    (root / "sub" / "again").symlink_to(root)
    assert files_of(root, "**/*.parquet") == ["sub/a.parquet"]
    assert files_of(root, "**/**/*/**/*.parquet") == ["sub/a.parquet", "sub/again/sub/a.parquet"]


def test_a_pipe_is_not_a_file(root: Path) -> None:
    os.mkfifo(root / "a.parquet")
    assert "no file matches" in refusal(root, ALL)


# --- what is read ----------------------------------------------------------------------------------------


def test_columns_are_united_by_name(root: Path) -> None:
    write(root / "1.parquet", {"id": pa.array([1], pa.int8()), "name": ["a"], "x": pa.nulls(1)})
    write(
        root / "2.parquet", {"name": pa.array(["b"]).dictionary_encode(), "id": pa.array([2**40]), "x": [1.5]}
    )
    write(root / "3.parquet", {"id": pa.array([3], pa.uint16()), "new": [Decimal("1.5")]})
    write(root / "4.parquet", {"id": pa.array([], pa.int8()), "new": pa.array([], pa.decimal128(9, 4))})
    assert read_rows(root) == [
        {"id": 1, "name": "a", "x": None, "new": None},
        {"id": 2**40, "name": "b", "x": 1.5, "new": None},
        {"id": 3, "name": None, "x": None, "new": Decimal("1.5")},
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.string()),
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.uint64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.timestamp("us")),
        (pa.decimal128(38, 0), pa.decimal128(38, 10)),
    ],
)
def test_types_that_no_type_holds_are_named_with_file_and_column(
    root: Path, one: pa.DataType, other: pa.DataType
) -> None:
    write(root / "a.parquet", {"id": pa.array([None], one)})
    write(root / "b.parquet", {"id": pa.array([None], other)})
    message = refusal(root, ALL)
    for part in ("'id'", "a.parquet", "b.parquet", str(one), str(other)):
        assert part in message


def test_dictionaries_are_read_as_their_values_wherever_they_are(root: Path) -> None:
    words = pa.array(["x", "y", "x"]).dictionary_encode()
    nested = pa.StructArray.from_arrays([pa.array([1, 2, 3])], ["n"])
    write(root / "a.parquet", {"word": words, "nested": nested})
    assert [row["word"] for row in read_rows(root)] == ["x", "y", "x"]


def test_files_without_rows_and_row_groups_without_rows(root: Path) -> None:
    empty = pa.table({"a": pa.array([], pa.int64())})
    write(root / "1.parquet", empty)
    with pq.ParquetWriter(root / "2.parquet", empty.schema) as writer:
        writer.write_table(empty)
        writer.write_table(pa.table({"a": [1, 2]}))
        writer.write_table(empty)
        writer.write_table(pa.table({"a": [3]}))
        writer.write_table(empty)
    with pq.ParquetWriter(root / "3.parquet", empty.schema):
        pass
    for batch_rows in (1, 2, 10):
        request = replace(ALL, batch_rows=batch_rows)
        assert [row["a"] for row in read_rows(root, request)] == [1, 2, 3]
        connector = connector_of(root)
        (scan,) = connector.plan(request).scans
        whole = read_all(connector, request, scan)
        for stop, scanned in enumerate(whole):
            rest = read_all(connector, request, scan, scanned.cursor)
            assert [each.batch for each in rest] == [each.batch for each in whole[stop + 1 :]]


def test_cursors_say_file_row_group_and_row(root: Path) -> None:
    write(root / "a.parquet", {"a": list(range(10))}, row_group_size=4)
    write(root / "b.parquet", {"a": [1]})
    request = replace(ALL, batch_rows=3)
    connector = connector_of(root)
    (scan,) = connector.plan(request).scans
    cursors = [scanned.cursor for scanned in read_all(connector, request, scan)]
    assert cursors[0] == {"file": 0, "row_group": 0, "row": 3}
    assert cursors[-2:] == [{"file": 0, "row_group": 3, "row": 0}, {"file": 1, "row_group": 1, "row": 0}]
    assert connector.plan(request).scans[0].resume == "position"


def test_a_resumed_scan_decodes_nothing_before_its_row_group(root: Path) -> None:
    # The pages of the first row group are destroyed behind the connector's back: it must not notice.
    path = write(root / "a.parquet", {"a": list(range(20_000))}, row_group_size=10_000, compression="none")
    connector = connector_of(root)
    first = pq.ParquetFile(path).metadata.row_group(0).column(0)
    facts = path.stat()
    content = bytearray(path.read_bytes())
    start = first.dictionary_page_offset or first.data_page_offset
    end = start + first.total_compressed_size
    (scan,) = connector.plan(ALL).scans
    content[start:end] = bytes(end - start)
    tail = len(content) - 64 * 1024
    assert tail > end
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(SourceError):
        read_all(connector, ALL, scan)
    rest = read_all(connector, ALL, scan, {"file": 0, "row_group": 1, "row": 5000})
    assert [value for each in rest for value in each.batch.column(0).to_pylist()] == list(
        range(15_000, 20_000)
    )


def test_one_scan_feeds_all_partitions(root: Path) -> None:
    write(root / "a.parquet", {"a": [1]})
    (scan,) = connector_of(root).plan(replace(ALL, partitioning=HashPartitions(key="a", count=5))).scans
    assert scan.partitions == (0, 1, 2, 3, 4)


def test_what_makes_no_sense_for_files_is_refused(root: Path) -> None:
    write(root / "a.parquet", {"abc": [1]})
    assert "order_by" in refusal(root, replace(ALL, order_by="abc"))
    assert "did you mean 'abc'?" in refusal(
        root, replace(ALL, partitioning=HashPartitions(key="abd", count=2))
    )
    write(root / "a.parquet", {"_ecm_x": [1]})
    assert "'_ecm_x'" in refusal(root, ALL)
    write(root / "a.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))
    assert "2 columns named 'a'" in refusal(root, ALL)


@pytest.mark.parametrize("config", [{"root": ""}, {"root": 1}, {"path": "x"}])
def test_wrong_settings_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(InvalidDocument):
        FILES.parse_config(config)


# --- files that change -----------------------------------------------------------------------------------


def _gone(path: Path) -> None:
    path.unlink()


def _rewritten(path: Path) -> None:
    write(path, {"a": [9, 9, 9]})


def _touched(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [_gone, _rewritten, _touched, _truncated])
def test_a_file_that_changed_since_the_plan_is_named(root: Path, change: object) -> None:
    write(root / "a.parquet", {"a": [1]})
    changed = write(root / "b.parquet", {"a": [1, 2, 3]})
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    assert callable(change)
    change(changed)
    with connector.read(ALL, scan, None) as batches:
        assert next(batches).batch.num_rows == 1
        with pytest.raises(SourceChanged, match=r"b\.parquet") as raised:
            next(batches)
    assert raised.value.exit_code == 6 and "--fresh" in (raised.value.hint or "")


def test_a_file_that_changes_while_it_is_read_is_named(root: Path) -> None:
    path = write(root / "a.parquet", {"a": list(range(1000))})
    request = replace(ALL, batch_rows=100)
    connector = connector_of(root)
    (scan,) = connector.plan(request).scans
    with connector.read(request, scan, None) as batches:
        next(batches)
        _touched(path)
        with pytest.raises(SourceChanged):
            list(batches)


def test_files_that_appear_later_belong_to_the_next_run(root: Path) -> None:
    write(root / "b.parquet", {"a": [1]})
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    write(root / "a.parquet", {"a": [2]})
    assert [each.batch.column(0).to_pylist() for each in read_all(connector, ALL, scan)] == [[1]]


def test_a_plan_is_plain_json(root: Path) -> None:
    write(root / "a.parquet", {"a": pa.array([1]), "w": pa.array(["x"]).dictionary_encode()})
    (scan,) = connector_of(root).plan(ALL).scans
    assert json.loads(json.dumps(dict(scan.detail))) == scan.detail


# --- broken files ------------------------------------------------------------------------------------------


def _contents() -> Iterator[bytes]:
    tables = [
        pa.table({"id": list(range(300)), "name": [f"name {n % 7}" for n in range(300)]}),
        pa.table(
            {
                "many": pa.array([[1, None], [], None] * 20, pa.list_(pa.int32())),
                "part": pa.array([{"a": "é", "b": 1.5}, None] * 30),
                "money": pa.array([Decimal("1.25"), None] * 30, pa.decimal128(20, 2)),
            }
        ),
    ]
    for table in tables:
        for options in ({"compression": "none"}, {"compression": "zstd", "data_page_version": "2.0"}):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, row_group_size=100, **options)
            yield buffer.getvalue()


CONTENTS = list(_contents())


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(CONTENTS)))
    for _ in range(draw(st.integers(1, 4))):
        # Half of the blows go to the footer, where all the counts and offsets are.
        first = draw(st.sampled_from([0, max(0, len(content) - 600)]))
        at = draw(st.integers(first, max(first, len(content) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "insert", "drop"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if content:
                content[at] = draw(st.sampled_from([0, 0x7F, 0x80, 0xFF]))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.binary(max_size=8))
            case "drop":
                del content[at : at + draw(st.integers(1, 8))]
    return bytes(content)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=broken_files())
def test_a_broken_file_is_read_or_refused_by_name(root: Path, content: bytes) -> None:
    path = root / "broken.parquet"
    path.write_bytes(content)
    connector = connector_of(root)
    try:
        plan = connector.plan(ALL)
        for scanned in read_all(connector, ALL, plan.scans[0]):
            scanned.batch.validate(full=True)
            assert scanned.batch.schema.equals(plan.schema)
    except SourceError as error:
        assert "broken.parquet" in str(error) or "column" in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1PAR1", b"\0" * 100, b"PAR1" + b"\xff" * 60 + b"PAR1", b"a,b\n1,2\n"]
)
def test_what_is_no_parquet_file_is_refused_by_name(root: Path, content: bytes) -> None:
    (root / "broken.parquet").write_bytes(content)
    assert "broken.parquet is not a sound Parquet file" in refusal(root, ALL)


def test_text_that_is_not_utf8_is_refused(root: Path) -> None:
    words = pa.array(["abcdefgh" * 4], pa.string())
    path = write(
        root / "a.parquet", {"a": words}, compression="none", use_dictionary=False, write_statistics=False
    )
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\xff\xfefgh"))
    with pytest.raises(SourceError, match=r"a\.parquet"):
        read_rows(root)


@pytest.mark.slow
def test_memory_stays_flat_however_long_the_files_are(root: Path) -> None:
    rows = pa.table({"id": list(range(200_000)), "pad": ["x" * 100 + str(n) for n in range(200_000)]})
    for number in range(4):
        write(root / f"{number}.parquet", rows, row_group_size=50_000, compression="none")
    connector = connector_of(root)
    request = replace(ALL, batch_rows=10_000)
    (scan,) = connector.plan(request).scans
    # Other tests of this process may still hold something.
    before = peak = pa.total_allocated_bytes()
    with connector.read(request, scan, None) as batches:
        for _ in batches:
            peak = max(peak, pa.total_allocated_bytes())
    assert peak - before < 4 * rows.nbytes / 5
