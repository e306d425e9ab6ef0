"""The project file: strict, overridable, and silent about secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.errors import EcmbatchError, InvalidDocument, UsageError
from ecmbatch.project_file import find_project_file, load_project_file


def write(folder: Path, text: str) -> Path:
    path = folder / "ecmbatch.toml"
    path.write_text(text)
    return path


def test_an_empty_file_is_a_project(tmp_path: Path) -> None:
    settings = load_project_file(write(tmp_path, ""), {}).settings
    assert settings.connectors["files"] == {"type": "files"}
    assert settings.stores["context_store"] == {"type": "duckdb", "path": "context.duckdb"}
    assert settings.run.workers == 2


def test_environment_variables_override_single_values(tmp_path: Path) -> None:
    path = write(tmp_path, '[connectors.data-warehouse]\ntype = "duckdb"\npath = "a.db"\n')
    environment = {
        "ECMBATCH_RUN__WORKERS": "7",
        "ECMBATCH_CONNECTORS__DATA_WAREHOUSE__PATH": "b.db",
        "ECMBATCH_STAGE__URL": "elsewhere",
        "ECMBATCH_UNRELATED": "x",
    }
    settings = load_project_file(path, environment).settings
    assert settings.run.workers == 7
    assert settings.connectors["data-warehouse"]["path"] == "b.db"
    assert settings.stage.url == "elsewhere"


def test_secrets_are_resolved_and_redacted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    text = '[connectors.x]\ntype = "y"\nurl = "u:${env:PASSWORD}@h"\nkey = "${file:key}"\n'
    file = load_project_file(write(tmp_path, text), {"PASSWORD": "hunter2"})
    assert file.settings.connectors["x"]["url"] == "u:hunter2@h"
    assert file.settings.connectors["x"]["key"] == "from-a-file"
    assert file.redact("hunter2 and from-a-file") == "*** and ***"
    assert "hunter2" not in repr(file).replace(repr(file.settings), "")


def test_missing_secrets_are_all_named_with_their_places(tmp_path: Path) -> None:
    text = '[connectors.x]\ntype = "y"\na = "${env:A}"\nb = "${file:nowhere}"\n'
    with pytest.raises(InvalidDocument) as raised:
        load_project_file(write(tmp_path, text), {})
    assert {problem.path for problem in raised.value.problems} == {"/connectors/x/a", "/connectors/x/b"}


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project_file(below) == path


def test_no_project_at_all_is_told_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        find_project_file(tmp_path)
    assert raised.value.hint and "init" in raised.value.hint


words = st.sampled_from(
    ["ledger", "stage", "run", "connectors", "x", "type", "url", "path", "workers", "=", "[", "]", '"a"', "1"]
)


@given(st.lists(words | st.text(max_size=5), max_size=20).map(" ".join) | st.text())
def test_any_text_is_a_project_or_a_clear_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "ecmbatch.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_project_file(path, {})
    except EcmbatchError as error:
        assert error.exit_code == 2
