"""Which files are read, and from where."""

import gzip
from pathlib import Path

import pytest
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.errors import InvalidDocument, SourceChanged, SourceError, Unreachable
from log_lines import batches, line, rows, write

from ecmbatch_access_log import ACCESS_LOG, AccessLogConnector, AccessLogSettings

LOG = ReadRequest(path="access.log")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs/access.log"


@pytest.fixture
def connector(tmp_path: Path) -> AccessLogConnector:
    return AccessLogConnector(AccessLogSettings(root="logs"), tmp_path, block=4096)


def paths(found: list[dict[str, object]]) -> list[object]:
    return [row["path"] for row in found]


def test_a_glob_reads_the_files_in_the_order_of_their_paths(log: Path, connector: AccessLogConnector) -> None:
    write(log, line(2))
    write(log.with_name("access.log.1"), line(1))
    with gzip.open(log.with_name("access.log.2.gz"), "wb") as file:
        file.write((line(0) + line(3)).encode())
    found = rows(connector, ReadRequest(path="access.log*"))
    assert paths(found) == ["/page/2", "/page/1", "/page/0", "/page/3"]


def test_a_resumed_read_does_not_look_at_what_was_before(log: Path, connector: AccessLogConnector) -> None:
    write(log, *map(line, range(2000)))
    request = ReadRequest(path="access.log", batch_rows=100)
    (scan,) = connector.plan(request).scans
    scanned = batches(connector, request)
    cursor = scanned[10].cursor
    assert cursor is not None

    # Nobody could read this. It is behind the first bytes, by which the file is known again.
    data = bytearray(log.read_bytes())
    data[4096 : cursor["byte"]] = b"\xff" * (cursor["byte"] - 4096)
    log.write_bytes(data)

    with connector.read(request, scan, cursor) as found:
        rest = [row for each in found for row in each.batch.to_pylist()]
    assert rest == [row for each in scanned[11:] for row in each.batch.to_pylist()]


def test_files_that_are_done_are_not_needed_to_go_on(log: Path, connector: AccessLogConnector) -> None:
    write(log.with_name("a.log"), line(0))
    write(log.with_name("b.log"), line(1), line(2))
    request = ReadRequest(path="?.log", batch_rows=1)
    (scan,) = connector.plan(request).scans
    with connector.read(request, scan, None) as found:
        next(found)
        cursor = next(found).cursor
    log.with_name("a.log").unlink()
    with connector.read(request, scan, cursor) as found:
        assert paths([row for each in found for row in each.batch.to_pylist()]) == ["/page/2"]


def test_what_is_appended_later_is_for_the_next_run(log: Path, connector: AccessLogConnector) -> None:
    write(log, line(0), line(1)[:20])
    (scan,) = connector.plan(LOG).scans
    write(log, line(0), line(1), line(2))
    with connector.read(LOG, scan, None) as found:
        assert paths([row for each in found for row in each.batch.to_pylist()]) == ["/page/0"]
    assert paths(rows(connector, LOG)) == ["/page/0", "/page/1", "/page/2"]


@pytest.mark.parametrize("now", [[], [line(0)], [line(7), line(1), line(2)]])
def test_another_file_of_that_name_is_refused(
    now: list[str], log: Path, connector: AccessLogConnector
) -> None:
    write(log, line(0), line(1))
    (scan,) = connector.plan(LOG).scans
    write(log, *now)
    with (
        connector.read(LOG, scan, None) as found,
        pytest.raises(SourceChanged, match=r"access\.log is not the"),
    ):
        list(found)


def test_a_file_that_vanished_is_told(log: Path, connector: AccessLogConnector) -> None:
    write(log, line(0))
    (scan,) = connector.plan(LOG).scans
    log.unlink()
    with connector.read(LOG, scan, None) as found, pytest.raises(SourceChanged, match=r"access\.log is gone"):
        list(found)


def test_half_a_compressed_file_is_refused(log: Path, connector: AccessLogConnector) -> None:
    write(log)
    data = gzip.compress("".join(map(line, range(500))).encode())
    log.with_name("access.log.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"access\.log\.gz is not a whole gzip file"):
        rows(connector, ReadRequest(path="access.log.gz"))


def test_a_glob_that_is_none_is_refused(log: Path, connector: AccessLogConnector) -> None:
    write(log, line(0))
    with pytest.raises(SourceError, match=r"source\.path|no file"):
        connector.plan(ReadRequest(path="a**b"))


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../secret.log", "*/../../secret.log"])
def test_a_path_stays_below_the_root(path: str, log: Path, connector: AccessLogConnector) -> None:
    write(log, line(0))
    write(log.parent.parent / "secret.log", line(1))
    with pytest.raises(SourceError, match="below the connector's root"):
        connector.plan(ReadRequest(path=path))


def test_a_link_stays_below_the_root(log: Path, connector: AccessLogConnector) -> None:
    write(log.parent.parent / "secret.log", line(1))
    write(log.parent / "old/real.log", line(0))
    log.symlink_to("../secret.log")
    with pytest.raises(SourceError, match=r"access\.log leads out of the connector's root"):
        connector.plan(LOG)
    log.unlink()
    log.symlink_to("old/real.log")
    assert paths(rows(connector, LOG)) == ["/page/0"]


def test_no_file_is_an_error_and_no_folder_is_another(log: Path, connector: AccessLogConnector) -> None:
    with pytest.raises(Unreachable, match="is not a folder"):
        connector.ping()
    write(log)
    connector.ping()
    with pytest.raises(SourceError, match="no file of the connector's root"):
        connector.plan(ReadRequest(path="other*"))


def test_an_order_and_an_unknown_key_are_refused(log: Path, connector: AccessLogConnector) -> None:
    write(log, line(0))
    with pytest.raises(SourceError, match="in its own order"):
        connector.plan(ReadRequest(path="access.log", order_by="time"))


def test_settings_are_checked() -> None:
    assert ACCESS_LOG.parse_config({"root": "logs"}) == AccessLogSettings(root="logs")
    with pytest.raises(InvalidDocument) as caught:
        ACCESS_LOG.parse_config({"rot": "logs"})
    assert [problem.path for problem in caught.value.problems] == ["/root", "/rot"]
