"""The example package keeps its own tests, as if it were installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/ecmbatch-access-log"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the path that announces the package, as pip would have written it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines: list[str] = []
    for group, objects in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in objects.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
def test_the_tests_of_the_access_log_connector_pass(site: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE / "src"), str(site), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(site / "hypothesis"),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "few_examples",
        "--basetemp",
        str(site / "tests"),
    ]
    done = subprocess.run(command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
