from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, ConfigDict, Field

from ecmbatch.errors import InvalidDocument, PluginError, TransformError
from ecmbatch.processors.functions import processor, processors_in
from ecmbatch.processors.processor import Processor, ProcessorType, RunFacts

BATCH = pa.record_batch({"x": pa.array([1, 2])})


class Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    lowest: int = Field(alias="min")
    since: date = date(2024, 1, 1)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suffix:
    text: str
    times: int = 1
    inner: dict[str, int] = field(default_factory=dict)


def type_of(target: Any) -> ProcessorType:
    module = ModuleType("processors")
    module.__dict__["target"] = target
    (found,) = processors_in(module)
    return found


def problems(kind: ProcessorType, config: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as raised:
        kind.parse_config(config)
    return {
        problem.path: f"{problem.message} {problem.hint or ''}".strip() for problem in raised.value.problems
    }


def keep(batch, config):
    return batch


@pytest.fixture
def load(tmp_path):
    """Write and import a module, as a project does."""

    def run(source: str, name: str = "processors") -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


# --- functions and classes ------------------------------------------------------------------------


def test_a_function_gets_the_batch_and_its_checked_configuration(facts):
    @processor("limited")
    def limited(batch: pa.RecordBatch, config: Limits) -> pa.RecordBatch:
        return batch.slice(config.lowest)

    kind = type_of(limited)
    config = kind.parse_config({"min": 1, "since": "2024-05-06", "names": ["a"]})
    assert (config.since, config.names) == (date(2024, 5, 6), ("a",))
    assert kind.name == "limited"
    built = kind.build(config, facts)
    assert isinstance(built, Processor)
    assert built.process(BATCH).to_pylist() == [{"x": 2}]
    assert limited(BATCH, config).num_rows == 1


def test_values_that_are_no_json_reach_the_configuration():
    kind = type_of(processor("p", config=Limits)(lambda batch, config: batch))
    config = kind.parse_config({"min": 1, "since": datetime(2024, 5, 6, tzinfo=UTC).date()})
    assert config.since == date(2024, 5, 6)


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Mapping[str, Any], Any, None])
def test_a_dict_is_handed_over_unchecked(annotation, facts):
    def own(batch, config):
        return batch.rename_columns([config["name"]])

    if annotation is not None:
        own.__annotations__["config"] = annotation
    kind = type_of(processor("own")(own))
    built = kind.build(kind.parse_config({"name": "y"}), facts)
    assert built.process(BATCH).schema.names == ["y"]


def test_a_class_is_set_up_once_and_may_take_the_facts_of_the_run(facts):
    made = []

    @processor("lookup")
    class Lookup:
        def __init__(self, config: Suffix, run: RunFacts) -> None:
            made.append(run.run_id)
            self.column = config.text

        def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return batch.rename_columns([self.column])

    kind = type_of(Lookup)
    built = kind.build(kind.parse_config({"text": "y"}), facts)
    assert [built.process(BATCH).schema.names for _ in range(2)] == [["y"], ["y"]]
    assert made == [facts.run_id]


def test_a_function_may_take_the_facts_of_the_run(facts):
    @processor("stamped")
    def stamped(batch, config, run):
        return batch.append_column("at", pa.repeat(pa.scalar(run.started_at), batch.num_rows))

    result = type_of(stamped).build({}, facts).process(BATCH)
    assert result.column("at").to_pylist() == [facts.started_at] * 2


def test_a_dataclass_can_be_a_processor(facts):
    @processor("renamed")
    @dataclass(frozen=True)
    class Renamed:
        config: Suffix

        def process(self, batch):
            return batch.rename_columns([self.config.text])

    kind = type_of(Renamed)
    assert kind.build(kind.parse_config({"text": "z"}), facts).process(BATCH).schema.names == ["z"]


def test_a_set_up_that_fails_names_the_processor_and_hides_the_message(facts):
    @processor("broken")
    class Broken:
        def __init__(self, config):
            raise ValueError("secret")

        def process(self, batch):
            return batch

    with pytest.raises(
        TransformError, match=r"'broken' could not be set up: ValueError at \S+\.py:"
    ) as raised:
        type_of(Broken).build({}, facts)
    assert "secret" not in str(raised.value)


# --- configuration --------------------------------------------------------------------------------


def test_a_wrong_configuration_is_refused_with_all_its_places_and_no_values():
    kind = type_of(processor("p", config=Limits)(lambda batch, config: batch))
    found = problems(kind, {"min": "secret", "naems": [], "names": ["a", 7]})
    assert list(found) == ["/min", "/names/1", "/naems"]
    assert "did you mean 'names'?" in found["/naems"]
    assert "secret" not in str(found)


def test_a_dataclass_refuses_keys_it_does_not_have():
    kind = type_of(processor("p", config=Suffix)(lambda batch, config: batch))
    assert kind.parse_config({"text": "a", "inner": {"b": 1}}) == Suffix("a", inner={"b": 1})
    found = problems(kind, {"tex": "a", "times": "often"})
    assert set(found) == {"/tex", "/text", "/times"}
    assert "did you mean 'text'?" in found["/tex"]


@pytest.mark.parametrize("config", [int, list[str], Mapping[str, int] | None, "Suffix"], ids=str)
def test_another_configuration_type_is_refused(config):
    def own(batch, config):
        return batch

    own.__annotations__["config"] = config
    if config == "Suffix":
        assert type_of(processor("own")(own)).parse_config({"text": "a"}) == Suffix("a")
    else:
        with pytest.raises(PluginError, match="must be a pydantic model, a dataclass or dict"):
            processor("own")(own)


def test_annotations_that_cannot_be_read_ask_for_the_type():
    def own(batch: NotImported, config: AlsoNot):  # noqa: F821
        return batch

    with pytest.raises(PluginError, match=r"NotImported.*@processor\(\.\.\., config=\.\.\.\)"):
        processor("own")(own)
    assert type_of(processor("own", config=Suffix)(own)).parse_config({"text": "a"}) == Suffix("a")


def test_a_model_that_pydantic_cannot_check_is_refused():
    @dataclass
    class Odd:
        value: Undefined  # noqa: F821

    class OddModel(BaseModel):
        value: Undefined  # noqa: F821

    class Unknown:
        pass

    @dataclass
    class Holder:
        value: Unknown

    for kind in (Odd, OddModel, Holder):
        with pytest.raises(
            PluginError, match=f"pydantic cannot check its configuration {kind.__name__}"
        ) as raised:
            processor("own", config=kind)(keep)
        assert raised.value.plugin is keep


# --- what registration refuses --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a.b", "a b", "é", "a" * 65, "a\n", None, 5])
def test_a_bad_name_is_refused(name):
    with pytest.raises(PluginError, match="cannot name a processor"):
        processor(name)


def test_the_longest_name_is_accepted():
    assert type_of(processor("a" * 64)(lambda batch, config: batch)).name == "a" * 64


async def _async(batch, config):
    return batch


def _generator(batch, config):
    yield batch


def _table(batch: pa.Table, config):
    return batch


def _nothing(batch, config) -> None:
    return None


class _NoProcess:
    def __init__(self, config):
        pass


class _NoConfig:
    def process(self, batch):
        return batch


class _WrongProcess:
    def __init__(self, config):
        pass

    def process(self, batch, run):
        return batch


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: None, r"must take \(batch, config\), or \(batch, config, run\), but takes \(\)"),
        (lambda batch: batch, r"must take \(batch, config\)"),
        (lambda batch, config, cache: batch, r"but takes \(batch, config, cache\)"),
        (lambda batch, config, cache=None: batch, r"but takes \(batch, config, cache=None\)"),
        (lambda *batches: None, r"but takes \(\*batches\)"),
        (lambda batch, *, config: batch, r"but takes \(batch, config\)"),
        (_async, "function _async must not be async"),
        (_generator, "must not yield"),
        (_table, "must take as 'batch' a pyarrow.RecordBatch, not Table"),
        (_nothing, "must return a pyarrow.RecordBatch, not NoneType"),
        (_NoProcess, r"class _NoProcess has no method process\(batch\)"),
        (_NoConfig, r"class _NoConfig must take \(config\)"),
        (_WrongProcess, r"_WrongProcess.process must take \(batch\), but takes \(batch, run\)"),
    ],
)
def test_a_wrong_signature_is_refused_with_the_object_at_fault(target, message):
    with pytest.raises(PluginError, match=message) as raised:
        processor("own")(target)
    assert raised.value.plugin in (target, getattr(target, "process", None))


@pytest.mark.parametrize("target", [5, functools.partial(keep), Path("x")], ids=["number", "partial", "path"])
def test_only_functions_and_classes_are_processors(target):
    with pytest.raises(PluginError, match="must be a function or a class"):
        processor("own")(target)


def test_a_function_is_registered_once():
    with pytest.raises(PluginError, match="'b' is already registered as 'a'"):

        @processor("b")
        @processor("a")
        def own(batch, config):
            return batch


# --- modules --------------------------------------------------------------------------------------

SOURCE = """
from ecmbatch.processors.functions import processor

@processor("first")
def one(batch, config):
    return batch

@processor("second")
class Two:
    def __init__(self, config):
        pass
    def process(self, batch):
        return batch

class Three(Two):
    pass

alias = one
"""


def test_a_module_gives_its_processors_and_no_subclasses(load):
    assert [kind.name for kind in processors_in(load(SOURCE))] == ["first", "second"]


def test_two_modules_do_not_see_each_others_processors(load):
    one, other = load(SOURCE, "one"), load(SOURCE.replace("first", "third"), "other")
    assert [kind.name for kind in processors_in(one)] == ["first", "second"]
    assert [kind.name for kind in processors_in(other)] == ["third", "second"]


def test_a_module_with_one_name_twice_is_refused(load):
    with pytest.raises(PluginError, match="module 'processors' registers the processor 'second' twice"):
        processors_in(load(SOURCE.replace("first", "second")))


def test_an_imported_processor_counts(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "clean", load(SOURCE, "clean"))
    assert [kind.name for kind in processors_in(load("from clean import one, Two"))] == ["first", "second"]


def test_a_processor_that_is_wrapped_again_is_refused(load):
    source = SOURCE + "import functools\nwrapped = functools.wraps(one)(lambda batch, config: batch)\n"
    with pytest.raises(PluginError, match="put @processor above it"):
        processors_in(load(source))


def test_the_version_follows_the_source_of_the_module(load):
    first, second = processors_in(load(SOURCE))
    assert first.version == second.version
    assert [kind.version for kind in processors_in(load(SOURCE))] == [first.version] * 2
    assert processors_in(load(SOURCE + "# changed"))[0].version != first.version


def test_a_function_without_source_is_refused():
    scope: dict[str, Any] = {}
    exec("def own(batch, config): return batch", scope)
    with pytest.raises(PluginError, match="'own' has no source file"):
        processor("own")(scope["own"])
