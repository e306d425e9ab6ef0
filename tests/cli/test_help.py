from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ecmbatch.cli.main import main, make_app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")} - {
        "--help"
    }


COMMANDS = dict(commands(get_command(make_app())))
EVERYWHERE = set.intersection(*(options(command) for command in COMMANDS.values()))


def sections() -> dict[str, str]:
    """The reference's sections, by the command that their heading names."""
    parts = re.split(r"^### `ecmbatch ([a-z ]+?)(?: [A-Z\[].*)?`$", REFERENCE.read_text(), flags=re.MULTILINE)
    return {
        name: re.split(r"^#", text, flags=re.MULTILINE)[0]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def documented(text: str) -> set[str]:
    return set(re.findall(r"^\| `(--[a-z-]+)", text, flags=re.MULTILINE))


def test_every_command_has_a_section_in_the_reference_and_no_section_is_about_nothing() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_lists_the_options_that_a_command_has(name: str) -> None:
    assert documented(sections()[name]) == options(COMMANDS[name]) - EVERYWHERE


def test_the_reference_lists_the_options_of_all_commands() -> None:
    common = REFERENCE.read_text().split("## Options of every command")[1].split("\n## ")[0]
    assert (
        documented(common) == EVERYWHERE == {"--project", "--json", "--quiet", "--log-format", "--log-level"}
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"Usage: ecmbatch {name}" in capsys.readouterr().out


def test_no_arguments_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "checkpoints" in capsys.readouterr().out


def test_help_imports_nothing_that_takes_long() -> None:
    program = (
        "import sys, ecmbatch.cli.main as cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"duckdb", "numpy", "pyarrow", "pydantic", "rich", "sqlalchemy"}
    assert not heavy & set(result.stderr.split())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from ecmbatch import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ecmbatch {__version__}\n"
