"""What becomes of a line."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from ecmbatch.connectors.connector import Cursor, ReadRequest
from ecmbatch.errors import SourceError
from log_lines import EXAMPLE, line, rows, write

from ecmbatch_access_log import AccessLogConnector, AccessLogSettings

LOG = ReadRequest(path="access.log")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs/access.log"


@pytest.fixture
def connector(tmp_path: Path) -> AccessLogConnector:
    return AccessLogConnector(AccessLogSettings(root="logs"), tmp_path)


def test_every_part_of_a_line_is_a_column(log: Path, connector: AccessLogConnector) -> None:
    write(log, EXAMPLE)
    assert rows(connector, LOG) == [
        {
            "host": "203.0.113.9",
            "identity": None,
            "user": "frank",
            "time": datetime(2000, 10, 10, 20, 55, 36, tzinfo=UTC),
            "method": "GET",
            "path": "/apache_pb.gif",
            "protocol": "HTTP/1.0",
            "status": 200,
            "bytes": 2326,
            "referrer": "http://www.example.com/start.html",
            "user_agent": "Mozilla/4.08 [en] (Win98; I ;Nav)",
        }
    ]


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET /a%20b?c=d HTTP/2.0", ("GET", "/a%20b?c=d", "HTTP/2.0")),
        ("GET /two words HTTP/1.1", ("GET", "/two words", "HTTP/1.1")),
        ("GET /", ("GET", "/", None)),
        (r"GET /\"quoted\" HTTP/1.1", ("GET", r"/\"quoted\"", "HTTP/1.1")),
        (r"\x16\x03\x01", (None, r"\x16\x03\x01", None)),
        ("-", (None, None, None)),
        ("", (None, "", None)),
    ],
)
def test_a_request_is_taken_apart(
    request_line: str, expected: tuple[object, ...], log: Path, connector: AccessLogConnector
) -> None:
    write(log, EXAMPLE.replace("GET /apache_pb.gif HTTP/1.0", request_line))
    (row,) = rows(connector, LOG)
    assert (row["method"], row["path"], row["protocol"]) == expected


def test_a_dash_is_null(log: Path, connector: AccessLogConnector) -> None:
    write(log, '::1 - - [29/Feb/2024:00:00:00 +0530] "GET / HTTP/1.1" 304 - "-" "-"\r\n')
    (row,) = rows(connector, LOG)
    assert [name for name, value in row.items() if value is None] == [
        "identity", "user", "bytes", "referrer", "user_agent",
    ]  # fmt: skip
    assert row["time"] == datetime(2024, 2, 28, 18, 30, tzinfo=UTC)


def test_a_user_may_have_spaces_and_other_letters(log: Path, connector: AccessLogConnector) -> None:
    write(log, EXAMPLE.replace("frank", "Zoë [admin] Smith"))
    assert [row["user"] for row in rows(connector, LOG)] == ["Zoë [admin] Smith"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"SECRET\n", "it is not in the Combined Log Format"),
        (b"\n", "it is not in the Combined Log Format"),
        (line(1)[:-8].encode() + b"SECRET\n", "it is not in the Combined Log Format"),
        (line(1).replace("01/Mar", "31/Feb").encode(), "its time cannot be read"),
        (line(1).replace("01/Mar", "01/SECRET").encode(), "it is not in the Combined Log Format"),
        (line(1).encode().replace(b"test", b"\xff SECRET"), "it is not UTF-8"),
    ],
)
@pytest.mark.parametrize("place", [0, 2, 700, 999])
def test_a_malformed_line_is_named_and_not_shown(
    place: int, bad: bytes, reason: str, log: Path, connector: AccessLogConnector
) -> None:
    lines = [line(number).encode() for number in range(1000)]
    lines[place] = bad
    write(log)
    log.write_bytes(b"".join(lines))
    with pytest.raises(SourceError) as caught:
        rows(connector, LOG)
    assert caught.value.message == f"access.log, line {place + 1}: {reason}"
    assert "SECRET" not in repr(caught.value.__cause__)


def test_the_number_of_a_malformed_line_counts_from_the_start_of_its_file(tmp_path: Path) -> None:
    connector = AccessLogConnector(AccessLogSettings(root="logs"), tmp_path, block=1000)
    write(tmp_path / "logs/a.log", *map(line, range(50)))
    write(tmp_path / "logs/b.log", *map(line, range(50)), "\n", *map(line, range(50)))
    request = ReadRequest(path="*.log", batch_rows=3)
    (scan,) = connector.plan(request).scans
    cursors: list[Cursor | None] = []
    with connector.read(request, scan, None) as found, pytest.raises(SourceError, match=r"b\.log, line 51:"):
        cursors.extend(scanned.cursor for scanned in found)
    with (
        connector.read(request, scan, cursors[-1]) as found,
        pytest.raises(SourceError, match=r"b\.log, line 51:"),
    ):
        list(found)


def test_a_line_that_is_no_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    connector = AccessLogConnector(AccessLogSettings(root="logs"), tmp_path, block=1000)
    write(tmp_path / "logs/access.log", line(0), "x" * 5000)
    with pytest.raises(SourceError, match=r"access\.log, line 2: it is too long for a line"):
        rows(connector, LOG)
