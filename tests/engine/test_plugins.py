"""Plug-ins are checked when they are registered, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ecmbatch import JobDefinition, Project
from ecmbatch.connectors.connector import ConnectorType
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.errors import PluginError
from ecmbatch.plugins import Plugins
from ecmbatch.project_file import ProjectSettings

MODULE = """
import pyarrow as pa
from ecmbatch.connectors.connector import ConnectorType
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.processors.processor import Processor, ProcessorType
from ecmbatch.stores.memory import MemoryStore
from ecmbatch.stores.store import StoreType

class Doubling(Processor):
    def process(self, batch):
        return pa.RecordBatch.from_arrays([pa.compute.multiply(batch.column("id"), 2)], ["id"])

STORE = MemoryStore()
lake = ConnectorType(name="lake", fields=frozenset({"table"}), parse_config=dict,
                     build=lambda config, root: MemoryConnector(pa.table({"id": [1, 2, 3]})))
shelf = StoreType(name="shelf", parse_config=dict, build=lambda config, root, tell: STORE)
doubling = ProcessorType(name="doubling", version="1", parse_config=dict,
                         build=lambda config, run: Doubling())
mistaken = ConnectorType(name="other_name", fields=frozenset(), parse_config=dict, build=None)
"""
ENTRY_POINTS = """
[ecmbatch.connectors]
lake = a_plug_in_package:lake
mistaken = a_plug_in_package:mistaken
missing = a_plug_in_package:nothing
[ecmbatch.processors]
doubling = a_plug_in_package:doubling
[ecmbatch.stores]
shelf = a_plug_in_package:shelf
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with entry points, as pip would leave it."""
    site = tmp_path / "site"
    information = site / "a_plug_in_package-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "a_plug_in_package.py").write_text(MODULE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plug-in-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    return


@pytest.mark.usefixtures("installed")
def test_a_job_can_use_what_another_package_provides(tmp_path: Path) -> None:
    settings = ProjectSettings(connectors={"rows": {"type": "lake"}}, stores={"kept": {"type": "shelf"}})
    job = JobDefinition.from_value(
        {
            "job_id": "doubled",
            "source": {"connector": "rows", "table": "any"},
            "transform": {"processor": "doubling"},
            "sink": {"store": "kept", "mode": "append"},
        }
    )
    with Project(tmp_path, settings=settings) as project:
        assert project.run(job).rows["inserted"] == 3
    import a_plug_in_package

    assert sorted(row["id"] for row in a_plug_in_package.STORE.rows("doubled")) == [2, 4, 6]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mistaken", "connector 'other_name' has no build"),
        ("missing", "cannot be loaded from a_plug_in_package:nothing"),
        ("lakes", "there is no connector named 'lakes'; did you mean 'lake'"),
    ],
)
def test_a_wrong_plug_in_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Plugins().connectors.get(name)


def test_a_name_is_given_once() -> None:
    plugins = Plugins()
    connector = ConnectorType(
        name="mine",
        fields=frozenset({"table"}),
        parse_config=dict,
        build=lambda config, root: MemoryConnector(pa.table({"id": [1]})),
    )
    plugins.connectors.add(connector)
    with pytest.raises(PluginError, match="already a connector named 'mine'") as raised:
        plugins.connectors.add(connector)
    assert raised.value.plugin is connector


def test_what_is_no_plug_in_is_refused_with_the_object_at_fault() -> None:
    with pytest.raises(PluginError, match="must be given as a ConnectorType, not int") as raised:
        Plugins().connectors.add(5)  # type: ignore[arg-type]
    assert raised.value.plugin == 5
