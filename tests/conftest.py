"""What holds for all tests: a slow machine is no failure, and who needs PostgreSQL gets a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from postgres_server import PostgresServer

settings.register_profile("whole", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)


def pytest_configure(config: pytest.Config) -> None:
    """Look for fewer examples where somebody waits for the quick part."""
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "whole")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, one for each process of the tests; nobody may stop it. For chaos start your own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.new_database()
