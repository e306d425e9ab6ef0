from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service_processes import ServedProject, served_project


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedProject]:
    with served_project(tmp_path) as project:
        yield project
