"""What the files connector promises of JSON lines."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ecmbatch.connectors.connector import ReadRequest
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


def connector_of(root: Path, **json: Any) -> FilesConnector:
    connector = FILES.build(FILES.parse_config({"json": json}), root.parent)
    assert isinstance(connector, FilesConnector)
    return connector


def rows_of(root: Path, **json: Any) -> list[dict[str, Any]]:
    connector = connector_of(root, **json)
    plan = connector.plan(ALL)
    read = read_all(connector, ALL, plan.scans[0])
    assert all(scanned.batch.schema.equals(plan.schema) for scanned in read)
    return [row for scanned in read for row in scanned.batch.to_pylist()]


def types_of(root: Path, **json: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in connector_of(root, **json).plan(ALL).schema}


def problem(act: Callable[[], Any]) -> str:
    with pytest.raises(SourceError) as raised:
        act()
    assert raised.value.__cause__ is None
    return f"{raised.value} | {raised.value.hint}"


def values(root: Path, *values: str, **json: Any) -> tuple[str, list[Any]]:
    (root / "values.jsonl").write_text("".join(f'{{"v": {value}}}\n' for value in values))
    return types_of(root, **json)["v"], [row["v"] for row in rows_of(root, **json)]


@pytest.mark.parametrize(
    ("given", "kind", "read"),
    [
        (["1", "null"], "int64", [1, None]),
        (["1", "2.5"], "double", [1.0, 2.5]),
        (["1e2"], "double", [100.0]),
        (["9223372036854775808"], "decimal128(38, 0)", [Decimal(2**63)]),
        (["true", "false"], "bool", [True, False]),
        (['"007"', '"1"'], "string", ["007", "1"]),
        (['"true"'], "string", ["true"]),
        (['"2024-01-02"'], "date32[day]", [date(2024, 1, 2)]),
        (['"2024-01-02T03:04:05Z"'], "timestamp[us, tz=UTC]", [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)]),
        (['"2024-01-02 03:04"'], "timestamp[us]", [datetime(2024, 1, 2, 3, 4)]),
        (['"2024-01-02"', '"x"'], "string", ["2024-01-02", "x"]),
        (["null"], "string", [None]),
        (['""', "null"], "string", ["", None]),
        (['"\\u00e9\\ud83d\\ude00"'], "string", ["é😀"]),
        (["[1, null]", "[]", "null"], "list<element: int64>", [[1, None], [], None]),
        (['[["2024-01-02"]]'], "list<element: list<element: date32[day]>>", [[[date(2024, 1, 2)]]]),
        (["[]"], "list<element: string>", [[]]),
        (
            ['{"a": 1}', '{"b": ["x}y"]}'],
            "struct<a: int64, b: list<element: string>>",
            [{"a": 1, "b": None}, {"a": None, "b": ["x}y"]}],
        ),
    ],
)
def test_types_are_inferred_without_loss(root: Path, given: list[str], kind: str, read: list[Any]) -> None:
    found, rows = values(root, *given)
    assert (found.replace("item: ", "element: "), rows) == (kind, read)


def test_declared_types_win_also_inside_objects_and_arrays(root: Path) -> None:
    columns = {
        "v": {"price": "decimal(9, 2)", "at": "timestamp[ms, UTC]", "late": "int8"},
        "tags": ["string"],
        "more": "float32",
    }
    (root / "a.json").write_text(
        '{"v": {"price": 1.5, "at": "2024-01-02T03:04Z", "x": 1}}\n{"v": {"price": "2.25"}}'
    )
    assert rows_of(root, columns=columns) == [
        {
            "v": {
                "price": Decimal("1.50"),
                "at": datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
                "x": 1,
                "late": None,
            },
            "tags": None,
            "more": None,
        },
        {"v": {"price": Decimal("2.25"), "at": None, "x": None, "late": None}, "tags": None, "more": None},
    ]


def test_files_are_united_by_field(root: Path) -> None:
    (root / "1.jsonl").write_text('{"a": 1, "o": {"x": 1}, "n": null}\n')
    (root / "2.jsonl").write_text('{"o": {"y": 2.5}, "a": 2.5, "n": [1]}\n')
    (root / "3.jsonl").write_text("")
    (root / "4.jsonl").write_text("\n \r\n")
    assert rows_of(root) == [
        {"a": 1.0, "o": {"x": 1, "y": None}, "n": None},
        {"a": 2.5, "o": {"x": None, "y": 2.5}, "n": [1]},
    ]
    (root / "5.jsonl").write_text('{"o": {"x": "text"}}\n')
    said = problem(lambda: rows_of(root))
    for part in ("'o.x'", "5.jsonl", "1.jsonl", "string", "int64", "json.columns"):
        assert part in said


def test_files_without_rows_need_declared_columns(root: Path) -> None:
    (root / "1.jsonl").write_text("")
    assert "no columns" in problem(lambda: rows_of(root))
    assert types_of(root, columns={"a": "int64"}) == {"a": "int64"}


def test_empty_lines_and_spaces_around_objects_are_nothing(root: Path) -> None:
    (root / "1.ndjson").write_bytes(b'\n{"a": 1}\r\n\r\n \t{"a": 2} \n\n{"a": "}x" }'.replace(b'"}x"', b"3"))
    assert [row["a"] for row in rows_of(root)] == [1, 2, 3]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_encodings(root: Path, encoding: str) -> None:
    (root / "1.jsonl").write_bytes('{"ä": "ß"}\n'.encode(encoding))
    assert rows_of(root, encoding=encoding) == [{"ä": "ß"}]


SECRET = "s3cret"


def late(root: Path, line: str) -> int:
    fine = '{"id": 12345678, "name": "a long name", "o": {"x": 1.5}, "d": "2024-01-02"}\n'
    rows = text_blocks.SAMPLE_BYTES * 3 // len(fine)
    (root / "late.jsonl").write_text(f"{fine * rows}{line}\n{fine * 100}")
    return rows + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"id": "{SECRET}"}}', "field 'id' is no int64"),
        ('{"id": 1.0}', "field 'id' is no int64"),
        ('{"id": 9223372036854775808}', "field 'id' is no int64"),
        ('{"id": true}', "field 'id' is no int64"),
        ('{"name": 5}', "field 'name' is no string"),
        ('{"d": "2024-02-30"}', "field 'd' is no date"),
        ('{"d": 1}', "field 'd' is no date"),
        ('{"o": {"x": NaN}}', "NaN is no JSON number"),
        ('{"o": {"x": -Infinity}}', "-Infinity is no JSON number"),
        ('{"o": {"x": 1e999}}', "line"),
        (f'{{"new": "{SECRET}"}}', "field 'new' was not in the start of any file"),
        ('{"o": {"y": 1}}', "field 'o.y' was not in the start of any file"),
        ('{"o": [1]}', "field 'o' is no"),
        ('{"id": 1, "id": 2}', "field 'id' is given twice"),
        ('{"o": {"x": 1, "x": 2}}', "field 'x' is given twice"),
        (f'{{"name": "{SECRET}}}', "not valid JSON"),
        ('{"name": "\\ud800"}', "half a surrogate pair"),
        ('{"id": 1,}', "not valid JSON"),
        ('{"id": 01}', "not valid JSON"),
        ("null", "not a JSON object"),
        ("[]", "not a JSON object"),
        (f'"{SECRET}"', "not a JSON object"),
        ('{"id": 1}{"id": 2}', "not valid JSON: Extra data"),
        ('{"id": 1} null', "not valid JSON: Extra data"),
        ('{"id": 1} null {"id": 1}', "not valid JSON: Extra data"),
        ('{"o": {"x": 1} null}', "not valid JSON"),
        ('{"id":\n1}', "not valid JSON"),
        ('{"id": 1', "not valid JSON"),
        ("}", "not valid JSON"),
        ('{"name": ' + "[" * 100_000 + "}", "line"),
    ],
)
def test_a_bad_line_is_told_with_file_line_and_field_but_not_its_values(
    root: Path, line: str, message: str
) -> None:
    at = late(root, line)
    said = problem(lambda: rows_of(root))
    assert f"late.jsonl, line {at}:" in said and message in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1}]', "line 1: not a JSON object | write one object per line, without brackets"),
        ('[\n{"a": 1},\n{"a": 2}\n]', "line 1: not valid JSON"),
        ('{\n"a": 1}', "line 1: not valid JSON"),
        ("null", "line 1: not a JSON object"),
        ('{"a": 1}\n{"a": "x"}', "line 2: field 'a' is text, but a number on a line before"),
        ('{"a": [1, "x"]}', "line 1: field 'a[]' is text, but a number"),
        ('{"a": {}}', "only objects without fields were found of the field 'a'"),
        ('{"a": 0.5}\n{"a": 9007199254740993}', "field 'a' has"),
        ('{"a": ' + "[" * 100_000, "line 1:"),
        ('{"a": "\\udc00"}', "line 1: text with half a surrogate pair"),
        ('{"": 1}', "a column without a name"),
        ('{"_ecm_x": 1}', "'_ecm_x'"),
        ('{"a": 1}\n\0', "line 2: the text has a NUL byte"),
        ('{"a": 1}\r{"a": 2}', "line 1: not valid JSON: Extra data"),
    ],
)
def test_what_the_sample_shows_is_told_when_the_run_is_planned(
    root: Path, content: str, message: str
) -> None:
    (root / "a.json").write_bytes(content.encode())
    assert message in problem(lambda: connector_of(root).plan(ALL))


def test_bytes_that_are_not_utf8_are_told(root: Path) -> None:
    (root / "a.json").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    assert "a.json, line 2: the text is not valid UTF-8" in problem(lambda: rows_of(root))


def test_decimals_keep_to_their_digits(root: Path) -> None:
    assert values(root, "1.5", '"2.25"', columns={"v": "decimal(4, 2)"})[1] == [
        Decimal("1.50"),
        Decimal("2.25"),
    ]
    for wrong in ("100.0", '"1.555"', '"x"', "true"):
        said = problem(lambda wrong=wrong: values(root, wrong, columns={"v": "decimal(4, 2)"}))
        assert "field 'v' is no decimal(4, 2)" in said and "values.jsonl, line 1" in said


@pytest.mark.parametrize(
    "columns", [{"a": 1}, {"a": "money"}, {"a": []}, {"a": {}}, {"a": {"b": "x"}}, {"a": ["int64", "int64"]}]
)
def test_wrong_types_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument) as raised:
        FILES.parse_config({"json": {"columns": columns}})
    assert all(found.path.startswith("/json/columns/a") for found in raised.value.problems)


def test_a_resumed_scan_parses_nothing_before_its_place(root: Path) -> None:
    (root / "a.jsonl").write_text("".join(f'{{"a": {n % 10}}}\n' for n in range(30_000)))
    connector = connector_of(root)
    (scan,) = connector.plan(ALL).scans
    place = {"file": 0, "offset": 9 * 20_000, "line": 20_001, "row": 7}
    rows = [value for each in read_all(connector, ALL, scan, place) for value in each.batch[0].to_pylist()]
    assert rows == [n % 10 for n in range(20_007, 30_000)]
