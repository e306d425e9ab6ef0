"""Log lines for tests."""

from pathlib import Path

from ecmbatch.connectors.connector import ReadRequest, ScannedBatch

from ecmbatch_access_log import AccessLogConnector

EXAMPLE = (
    '203.0.113.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
    ' "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"\n'
)


def line(number: int) -> str:
    """Return a line like no other."""
    clock = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
    return (
        f"192.0.2.{number % 250} - - [01/Mar/2024:{clock} +0000] "
        f'"GET /page/{number} HTTP/1.1" 200 {number} "-" "test"\n'
    )


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(lines).encode())


def batches(connector: AccessLogConnector, request: ReadRequest) -> list[ScannedBatch]:
    with connector.read(request, connector.plan(request).scans[0], None) as found:
        return list(found)


def rows(connector: AccessLogConnector, request: ReadRequest) -> list[dict[str, object]]:
    return [row for scanned in batches(connector, request) for row in scanned.batch.to_pylist()]
