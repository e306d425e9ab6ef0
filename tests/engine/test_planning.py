"""What making a plan asks the store: each question may open its file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch import JobDefinition, Plugins, Project
from ecmbatch.connectors.connector import ConnectorType
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.project_file import ProjectSettings
from ecmbatch.stores.memory import MemoryStore
from ecmbatch.stores.store import Head, Publication, StoreType, TableChange, TargetTable


class Asked(MemoryStore):
    """Remembers the questions that it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[str] = []

    def table(self, name: str) -> TargetTable | None:
        self.questions.append("table")
        return super().table(name)

    def head(self, job_id: str, table: str, stream: str) -> Head | None:
        self.questions.append("head")
        return super().head(job_id, table, stream)

    def check(self, publication: Publication) -> TableChange:
        self.questions.append("check")
        return super().check(publication)


@pytest.mark.parametrize(("sink", "column"), [({"mode": "append"}, "id"), ({"mode": "upsert"}, "context_id")])
def test_a_run_asks_the_store_for_its_head_and_what_it_would_change(
    tmp_path: Path, sink: dict[str, str], column: str
) -> None:
    store = Asked()
    plugins = Plugins()
    plugins.connectors.add(
        ConnectorType(
            name="rows",
            fields=frozenset({"table"}),
            parse_config=lambda config: config,
            build=lambda config, root: MemoryConnector(pa.table({column: [1]})),
        )
    )
    plugins.stores.add(
        StoreType(name="asked", parse_config=lambda config: config, build=lambda config, root, tell: store)
    )
    settings = ProjectSettings(connectors={"rows": {"type": "rows"}}, stores={"asked": {"type": "asked"}})
    job = {
        "job_id": "rows",
        "source": {"connector": "rows", "table": "any"},
        "sink": {"store": "asked", **sink},
    }
    project = Project(tmp_path, settings=settings, plugins=plugins)
    for _ in range(2):
        project.run(JobDefinition.from_value(job))
    assert store.questions == 2 * ["head", "check"]
