"""What the files connector promises of CSV files."""

import codecs
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.connectors.connector import ReadPlan, ReadRequest
from ecmbatch.connectors.file_formats import text_blocks
from ecmbatch.connectors.files import FILES, FilesConnector
from ecmbatch.errors import InvalidDocument, SourceError
from ecmbatch.testing.connector_contract import read_all

ALL = ReadRequest(path="**/*")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little text goes a long way."""
    monkeypatch.setattr(text_blocks, "SAMPLE_BYTES", 4_000)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 16_000)


def connector_of(root: Path, **settings: Any) -> FilesConnector:
    connector = FILES.build(FILES.parse_config(settings), root.parent)
    assert isinstance(connector, FilesConnector)
    return connector


def plan_of(root: Path, **csv: Any) -> ReadPlan:
    return connector_of(root, csv=csv).plan(ALL)


def rows_of(root: Path, **csv: Any) -> list[dict[str, Any]]:
    connector = connector_of(root, csv=csv)
    plan = connector.plan(ALL)
    read = read_all(connector, ALL, plan.scans[0])
    assert all(scanned.batch.schema.equals(plan.schema) for scanned in read)
    return [row for scanned in read for row in scanned.batch.to_pylist()]


def types_of(root: Path, **csv: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in plan_of(root, **csv).schema}


def problem(act: Callable[[], Any]) -> str:
    with pytest.raises(SourceError) as raised:
        act()
    assert raised.value.__cause__ is None
    return f"{raised.value} | {raised.value.hint}"


def column(root: Path, *values: str, **csv: Any) -> tuple[str, list[Any]]:
    (root / "column.csv").write_text("\n".join(["n,v", *(f"{n},{v}" for n, v in enumerate(values))]))
    return types_of(root, **csv)["v"], [row["v"] for row in rows_of(root, **csv)]


# --- types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["1", "-20", "0"], "int64", [1, -20, 0]),
        (["007", "1"], "string", ["007", "1"]),
        (["-07"], "string", ["-07"]),
        (["+1"], "string", ["+1"]),
        (["-0"], "double", [0.0]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "string", ["9223372036854775808"]),
        (["1.5", "2", ".5", "1e3"], "double", [1.5, 2.0, 0.5, 1000.0]),
        (["0.1234567890123456"], "double", [0.1234567890123456]),
        (["0.12345678901234567890"], "string", ["0.12345678901234567890"]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),
        (["1e400"], "string", ["1e400"]),
        (["0x10"], "string", ["0x10"]),
        (["nan"], "string", ["nan"]),
        (["true", "FALSE", ""], "bool", [True, False, None]),
        (["yes"], "string", ["yes"]),
        (["2024-02-29"], "date32[day]", [date(2024, 2, 29)]),
        (["2023-02-29"], "string", ["2023-02-29"]),
        (["2024-01-02 03:04"], "timestamp[us]", [datetime(2024, 1, 2, 3, 4)]),
        (["2024-01-02T03:04:05.123456"], "timestamp[us]", [datetime(2024, 1, 2, 3, 4, 5, 123456)]),
        (["2024-01-02T03:04:05.1234567"], "string", ["2024-01-02T03:04:05.1234567"]),
        (
            ["2024-01-02T03:04:05Z", "2024-01-02 03:04:05+02:00"],
            "timestamp[us, tz=UTC]",
            [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)],
        ),
        (["2024-01-02", "2024-01-02 03:04"], "string", ["2024-01-02", "2024-01-02 03:04"]),
        (["2024-01-02 03:04Z", "2024-01-02 03:04"], "string", ["2024-01-02 03:04Z", "2024-01-02 03:04"]),
        (["1", "x", ""], "string", ["1", "x", None]),
        (["", ""], "string", [None, None]),
        (['"1"', '"2"'], "int64", [1, 2]),
        (["1", '""'], "string", ["1", ""]),
        ([" 1"], "string", [" 1"]),
    ],
)
def test_types_are_inferred_without_loss(root: Path, values: list[str], kind: str, read: list[Any]) -> None:
    assert column(root, *values) == (kind, read)


def test_an_empty_field_is_null_and_a_quoted_one_is_empty_text(root: Path) -> None:
    assert column(root, "a", "", '""')[1] == ["a", None, ""]


def test_declared_types_win(root: Path) -> None:
    (root / "a.csv").write_text("id,amount,at,day,zip\n007,1.50,2024-01-02 03:04:05,2024-01-02,01234\n")
    columns = {
        "id": "int32",
        "amount": "decimal(12, 2)",
        "at": "timestamp[ms]",
        "day": "date",
        "zip": "string",
    }
    assert rows_of(root, columns=columns) == [
        {
            "id": 7,
            "amount": Decimal("1.50"),
            "at": datetime(2024, 1, 2, 3, 4, 5),
            "day": date(2024, 1, 2),
            "zip": "01234",
        }
    ]
    assert types_of(root, columns=columns)["id"] == "int32"


def test_settings_say_how_values_are_written(root: Path) -> None:
    (root / "a.csv").write_text("a;b;c;d;e\n1,5;ja;-;02.01.2024;x\n2,25;nein;7;03.01.2024;-\n")
    settings = {
        "delimiter": ";",
        "decimal_point": ",",
        "true_values": ["ja"],
        "false_values": ["nein"],
        "null_values": ["-"],
        "timestamp_formats": ["%d.%m.%Y"],
    }
    assert rows_of(root, **settings) == [
        {"a": 1.5, "b": True, "c": None, "d": datetime(2024, 1, 2), "e": "x"},
        {"a": 2.25, "b": False, "c": 7, "d": datetime(2024, 1, 3), "e": None},
    ]
    assert rows_of(root, **settings, columns={"d": "date", "a": "decimal(9, 3)"})[0] == {
        "a": Decimal("1.500"),
        "b": True,
        "c": None,
        "d": date(2024, 1, 2),
        "e": "x",
    }


def test_rows_before_the_header_are_skipped_and_files_without_one_have_their_names_declared(
    root: Path,
) -> None:
    (root / "a.csv").write_text('an "export\nof today\n\na,b\n1,2\n')
    assert rows_of(root, skip_rows=2) == [{"a": 1, "b": 2}]
    (root / "a.csv").write_text("1,2\n3,4\n")
    assert rows_of(root, header=False, columns={"x": "int64", "y": "string"}) == [
        {"x": 1, "y": "2"},
        {"x": 3, "y": "4"},
    ]


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "utf-8", "utf-32"]
)
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_encodings(root: Path, encoding: str, bom: str) -> None:
    if bom and encoding not in ("utf-8", "utf-16-le"):
        pytest.skip("cannot write a byte order mark, or writes its own")
    text = bom + "näme,ß\n" + "".join(f"é{n},{n}\n" for n in range(3000))
    (root / "a.csv").write_bytes(text.encode(encoding))
    assert rows_of(root, encoding=encoding) == [{"näme": f"é{n}", "ß": n} for n in range(3000)]


def test_tabs_and_other_suffixes(root: Path) -> None:
    (root / "a.TSV").write_text('a\tb\n1\t"x\ty"\n')
    assert rows_of(root) == [{"a": 1, "b": "x\ty"}]
    assert rows_of(root, delimiter="\t") == [{"a": 1, "b": "x\ty"}]
    (root / "a.TSV").rename(root / "a.txt")
    connector = connector_of(root, format="tsv")
    assert connector.plan(ALL).schema.names == ["a", "b"]


# --- many files ----------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name(root: Path) -> None:
    (root / "1.csv").write_text("id,name\n1,a\n")
    (root / "2.csv").write_text("name,extra,id\nb,2.5,2\n")
    (root / "3.csv").write_text("id,extra\n3,\n")
    (root / "4.csv").write_text("id\n")
    assert rows_of(root) == [
        {"id": 1, "name": "a", "extra": None},
        {"id": 2, "name": "b", "extra": 2.5},
        {"id": 3, "name": None, "extra": None},
    ]


def test_types_are_united_over_files(root: Path) -> None:
    (root / "1.csv").write_text("a\n\n")
    (root / "2.csv").write_text("a\n1\n")
    (root / "3.csv").write_text("a\n1.5\n")
    assert types_of(root) == {"a": "double"}
    (root / "4.csv").write_text("a\nx\n")
    said = problem(lambda: plan_of(root))
    for part in ("'a'", "4.csv", "3.csv", "string", "float64", "csv.columns"):
        assert part in said
    assert types_of(root, columns={"a": "string"}) == {"a": "string"}


@pytest.mark.parametrize(
    ("one", "other"), [("true", "1"), ("2024-01-01", "2024-01-01 00:00"), ("1", "01"), ("x", "1")]
)
def test_types_that_differ_between_files_are_settled_by_people(root: Path, one: str, other: str) -> None:
    (root / "1.csv").write_text(f"a\n{one}\n")
    (root / "2.csv").write_text(f"a\n{other}\n")
    assert "declare its type in csv.columns" in problem(lambda: plan_of(root))


# --- what is wrong, and where ----------------------------------------------------------------------------------


def late(root: Path, line: str, header: str = "id,name") -> int:
    """Write a file whose sample is fine, and *line* behind it; return its number."""
    fine = "12345678,a name that is long\n"
    rows = text_blocks.SAMPLE_BYTES * 3 // len(fine)
    (root / "late.csv").write_text(f"{header}\n{fine * rows}{line}\n{fine * 100}")
    return rows + 2


SECRET = "s3cret"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SECRET},x", "column 'id' is no int64"),
        ("9223372036854775808,x", "column 'id' is no int64"),
        ("007,x", "column 'id' starts with a zero that int64 would lose"),
        ('"007",x', "column 'id' starts with a zero that int64 would lose"),
        ("-07,x", "column 'id' starts with a zero that int64 would lose"),
        ("0x7,x", "column 'id' starts with a zero"),
        ('"",x', "column 'id' is no int64"),
        (f"1,{SECRET},3", "3 fields where 2 are expected"),
        ("1", "1 fields where 2 are expected"),
        (f'1,{SECRET}"x', "quote inside an unquoted field"),
        (f'1,"{SECRET}"x', "goes on behind its closing quote"),
        (f'1, "{SECRET}"', "quote inside an unquoted field"),
        (f"1,{SECRET}\0", "NUL"),
        (f"1,{SECRET}\r2,x", "carriage return"),
        (f'1,"{SECRET}', "goes on behind|never closed"),
    ],
)
def test_a_bad_record_is_told_with_file_line_and_column_but_not_its_values(
    root: Path, line: str, message: str
) -> None:
    at = late(root, line)
    said = problem(lambda: rows_of(root))
    assert f"late.csv, line {at}:" in said
    assert any(part in said for part in message.split("|"))
    assert SECRET not in said


def test_lines_are_counted_inside_quotes_too(root: Path) -> None:
    (root / "a.csv").write_bytes(b'\n"i\nd",b\r\n1,"two\r\nlines"\r\n\r\nx,3\r\n')
    assert "a.csv, line 7: the value in column 'i\nd' is no int64" in problem(
        lambda: rows_of(root, columns={"i\nd": "int64"})
    )


def test_a_value_that_does_not_fit_its_declared_type_is_told(root: Path) -> None:
    (root / "a.csv").write_text("a,f,m,d\n1,1,1,02.01.2024 10:00\n")
    for name, kind, value in [
        ("a", "int8", "300"),
        ("f", "float64", "1e999"),
        ("f", "float32", "1e39"),
        ("m", "decimal(4, 2)", "1.555"),
        ("m", "decimal(4, 2)", "100.0"),
        ("a", "bool", "2"),
        ("a", "timestamp", "2024-01-01T00:00Z"),
        ("a", "timestamp[us, UTC]", "2024-01-01T00:00"),
        ("a", "int64", "0x10"),
    ]:
        (root / "a.csv").write_text("a,f,m\n1,1,1\n".replace("1,1,1", ",,"))
        row = {"a": "", "f": "", "m": "", name: value}
        (root / "a.csv").write_text(f"a,f,m\n\n{','.join(row.values())}\n")
        said = problem(lambda kind=kind, name=name: rows_of(root, columns={name: kind}))
        assert "a.csv, line 3:" in said and f"'{name}'" in said and value not in said
        assert "declare another type in csv.columns" in said
    (root / "a.csv").write_text("d\n02.01.2024 10:00\n")
    settings = {"timestamp_formats": ["%d.%m.%Y %H:%M"], "columns": {"d": "date"}}
    assert "'d' is no date" in problem(lambda: rows_of(root, **settings))


def test_infinite_floats_are_values_if_they_are_written_so(root: Path) -> None:
    assert column(root, "inf", "-Infinity", "1.5", columns={"v": "float64"})[1] == [
        float("inf"),
        float("-inf"),
        1.5,
    ]


def test_a_quoted_field_that_is_never_closed_is_told_with_the_line_of_its_start(root: Path) -> None:
    (root / "a.csv").write_text('a,b\n1,x\n2,"with ""quotes"" and\n3,x\n4,y\n')
    said = problem(lambda: rows_of(root))
    assert "a.csv, line 3: a quoted field that starts here is never closed" in said
    assert "csv.quote" in said


def test_a_record_without_end_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "MAX_RECORD_BYTES", 2**15)
    (root / "a.csv").write_text('a,b\n1,x\n2,"' + "y\n" * (30 * 2**10))
    said = problem(lambda: rows_of(root))
    assert "a.csv, line 3: a record that starts here is longer than 32 KiB" in said
    (root / "a.csv").write_text('a,b\n1,x\n2,"' + "y\n" * (30 * 2**9) + '"\n3,z\n')
    assert [row["a"] for row in rows_of(root)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "line"), [(b"a\n1\n\xff\n", 3), (b"\xff\n1\n", 1), (b"a\n\xc3", 2), (b"a\xed\xa0\x80\n1", 1)]
)
def test_text_that_is_not_utf8_is_told_with_its_line(root: Path, content: bytes, line: int) -> None:
    (root / "a.csv").write_bytes(content)
    said = problem(lambda: rows_of(root))
    assert f"a.csv, line {line}: the text is not valid UTF-8" in said and "csv.encoding" in said


def test_text_that_is_not_in_its_encoding_is_told_with_its_line(root: Path) -> None:
    (root / "a.csv").write_bytes("a\n1\n2\n".encode("utf-16") + b"\x00")
    assert "a.csv, line 4: the text is not in the declared encoding" in problem(
        lambda: rows_of(root, encoding="utf-16")
    )
    (root / "a.csv").write_bytes(b"a\n1\n\x81\n")
    assert "a.csv, line 3:" in problem(lambda: rows_of(root, encoding="cp1252"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv has no header"),
        ("\n\r\n\n", "a.csv has no header"),
        ("a,a\n1,2\n", "a.csv: the source has 2 columns named 'a'"),
        ("a,\n1,2\n", "a.csv: the source has a column without a name"),
        ('a,""\n1,2\n', "a.csv: the source has a column without a name"),
        ("_ecm_x\n1\n", "a.csv: the source has a column '_ecm_x'"),
        ('a,b"c\n1,2\n', "a.csv, line 1: there is a quote"),
    ],
)
def test_a_header_must_name_every_column(root: Path, content: str, message: str) -> None:
    (root / "a.csv").write_text(content)
    assert message in problem(lambda: plan_of(root))


def test_a_declared_column_that_no_file_has_is_an_error(root: Path) -> None:
    (root / "a.csv").write_text("amount\n1\n")
    assert "did you mean 'amount'?" in problem(lambda: plan_of(root, columns={"amuont": "int64"}))


@pytest.mark.parametrize(
    "csv",
    [
        {"delimiter": ""},
        {"delimiter": ",,"},
        {"delimiter": "\n"},
        {"delimiter": "§"},
        {"quote": ","},
        {"escape": '"'},
        {"decimal_point": ","},
        {"encoding": "no-such"},
        {"encoding": "base64"},
        {"columns": {"a": "money"}},
        {"columns": {"a": 1}},
        {"header": False},
        {"skip_rows": -1},
        {"quotes": '"'},
        {"null_values": "x"},
    ],
)
def test_wrong_settings_are_refused(csv: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        FILES.parse_config({"csv": csv})
    assert all(found.path.startswith("/csv") for found in raised.value.problems)


# --- dialects --------------------------------------------------------------------------------------------------


def test_without_quoting_a_quote_is_a_character(root: Path) -> None:
    (root / "a.csv").write_text('a,b\n1,5" pipe\n2,"\n')
    assert rows_of(root, quote="") == [{"a": 1, "b": '5" pipe'}, {"a": 2, "b": '"'}]


def test_escapes(root: Path) -> None:
    (root / "a.csv").write_text('a,b\n1,x\\,y\n2,"say \\"hi\\"\\\\"\n3,two\\\nlines\n4,\\"\n')
    assert [row["b"] for row in rows_of(root, escape="\\")] == ["x,y", 'say "hi"\\', "two\nlines", '"']
    (root / "a.csv").write_text("a,b\n1,x\n2,y\\")
    assert "line 3: the file ends behind an escape" in problem(lambda: rows_of(root, escape="\\"))


def test_empty_lines_are_nothing_but_in_files_of_one_column(root: Path) -> None:
    (root / "a.csv").write_bytes(b"a,b\n\n1,2\n\r\n\n3,4\n\n")
    assert [row["a"] for row in rows_of(root)] == [1, 3]
    (root / "a.csv").write_bytes(b"a\r\n1\r\n\r\n2\r\n")
    assert [row["a"] for row in rows_of(root)] == [1, None, 2]


# --- resuming --------------------------------------------------------------------------------------------------


def test_cursors_say_offset_line_and_row(root: Path) -> None:
    (root / "a.csv").write_text('a,b\n1,"x\ny"\n2,z\n')
    connector = connector_of(root)
    request = ReadRequest(path="a.csv", batch_rows=1)
    (scan,) = connector.plan(request).scans
    assert [scanned.cursor for scanned in read_all(connector, request, scan)] == [
        {"file": 0, "offset": 4, "line": 2, "row": 1},
        {"file": 0, "offset": 16, "line": 5, "row": 0},
    ]


def test_a_resumed_scan_parses_nothing_before_its_place(root: Path) -> None:
    path = root / "a.csv"
    path.write_text("a,b\n" + "1,x\n" * 100_000)
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b'"broken')
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    place = {"file": 0, "offset": 4 + 4 * 60_000, "line": 60_002, "row": 5}
    assert sum(each.batch.num_rows for each in read_all(connector, ALL, scan, place)) == 39_995


def test_what_was_planned_is_read_whatever_the_settings_are_later(root: Path) -> None:
    (root / "a.csv").write_text("a;b\n1;2\n")
    (scan,) = connector_of(root, csv={"delimiter": ";"}).plan(ALL).scans
    (first,) = read_all(connector_of(root), ALL, scan)
    assert first.batch.to_pylist() == [{"a": 1, "b": 2}]
    assert json.loads(json.dumps(dict(scan.detail))) == scan.detail


def test_every_known_encoding_is_a_setting() -> None:
    for name in ("ascii", "shift_jis", "big5", codecs.lookup("utf8").name):
        FILES.parse_config({"csv": {"encoding": name}})


def test_memory_stays_flat_however_long_the_file_is(root: Path) -> None:
    path = root / "a.csv"
    with path.open("w") as file:
        file.write("a,b\n")
        for _ in range(4):
            file.write("12345678,some text of this row\n" * 32_768)
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    # Other tests of this process may still hold something.
    before = peak = pa.total_allocated_bytes()
    with connector.read(ALL, scan, None) as batches:
        for _ in batches:
            peak = max(peak, pa.total_allocated_bytes())
    assert peak - before < path.stat().st_size / 3
