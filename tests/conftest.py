"""What holds for all tests: a slow machine is no failure, and who needs PostgreSQL gets a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from postgres_server import PostgresServer

settings.register_profile("whole", deadline=None, max_examples=60)
settings.register_profile("quick", deadline=None, max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-combination", action="store_true", help="also run what the slow part only takes turns at"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.every_combination:
        left_out = [item for item in items if item.get_closest_marker("every_combination")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_configure(config: pytest.Config) -> None:
    """Look for fewer examples where somebody waits for the quick part, and compile once for all processes."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "whole")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, one for each process of the tests; nobody may stop it. For chaos start your own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database."""
    url = postgres.empty_database()
    yield url
    postgres.give_back(url)
