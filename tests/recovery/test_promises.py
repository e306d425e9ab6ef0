"""Every promise holds, and every scenario notices when its promise is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutations import MUTATIONS
from scenarios import SCENARIOS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds(scenario: str, tmp_path: Path) -> None:
    SCENARIOS[scenario](tmp_path)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_promise_is_noticed(mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_promise, scenario = MUTATIONS[mutation]
    break_promise(monkeypatch)
    with pytest.raises(AssertionError):
        SCENARIOS[scenario](tmp_path)
