"""Checking a job against its project: every name it uses must mean something here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.job_files import project_jobs
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError, InvalidDocument, Problem
from ecmbatch.plugins import did_you_mean
from ecmbatch.protocol.dependency_graph import DependencyGraph
from ecmbatch.protocol.document import pointer, under
from ecmbatch.protocol.job import JobDefinition, job_warnings
from ecmbatch.protocol.schedule_words import ScheduleDescription, describe, schedule_warnings

if TYPE_CHECKING:
    from ecmbatch.processors.processor import Reference

_SHOWN_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What ``validate`` found: problems refuse the job, warnings do not.

    ``schedule`` says when the job is due, ``None`` if it has no schedule.
    """

    problems: Sequence[Problem] = ()
    warnings: Sequence[Problem] = ()
    schedule: ScheduleDescription | None = None

    @property
    def valid(self) -> bool:
        """Whether the job could be run."""
        return not self.problems


def check_job(job: JobDefinition, resources: Resources, graph: DependencyGraph | None = None) -> JobReport:
    """Return everything that is wrong with *job* in this project; opens no connection.

    *graph* is that of all jobs of the project, *job* among them; without it they are read.
    """
    if graph is None:
        jobs = project_jobs(resources.project_file.root)
        graph = DependencyGraph.of({**jobs, job.job_id: job}.values())
    problems = [*name_problems(job, resources), *graph.problems_of(job.job_id)]
    now = resources.clock()
    return JobReport(
        problems=problems,
        warnings=[*job_warnings(job), *schedule_warnings(job.schedule, now)],
        schedule=describe(job.schedule, now, _SHOWN_TICKS) if job.schedule else None,
    )


def name_problems(job: JobDefinition, resources: Resources) -> list[Problem]:
    """Return what is wrong with the names that *job* uses, but for those of other jobs.

    It imports the plug-ins that it finds, and the project's own modules.
    """
    return [
        *_source_problems(job, resources),
        *_transform_problems(job, resources),
        *_named("/sink/store", lambda: resources.store(job.sink.store)),
        *_alert_problems(job, resources),
    ]


def _named(place: str, look_up: Callable[[], object]) -> list[Problem]:
    try:
        look_up()
    except InvalidDocument as error:
        return [
            Problem(place, f"{problem.path} of the project file: {problem.message}")
            for problem in error.problems
        ]
    except EcmbatchError as error:
        return [Problem(place, error.message, error.hint)]
    return []


def _source_problems(job: JobDefinition, resources: Resources) -> Iterator[Problem]:
    source = job.source.named
    problems = _named(f"/source/{source.kind}", lambda: resources.source(source))
    yield from problems
    if problems:
        return
    yield from under("/source", resources.unread_fields(source, job.source))


def _transform_problems(job: JobDefinition, resources: Resources) -> Iterator[Problem]:
    if not job.transform:
        return
    unloaded = _named("/transform", resources.load_processors)
    yield from unloaded
    if unloaded:
        return
    for number, step in enumerate(job.transform):
        # A single step is nearly always written without a list around it.
        place = "/transform" if len(job.transform) == 1 else pointer(("transform", number))
        try:
            plugin = resources.plugins.processors.get(step.processor)
            if not _looks_up(step.config):
                config = plugin.parse_config(step.config)
                yield from _reference_problems(f"{place}/config", plugin.references(config), resources)
        except InvalidDocument as error:
            yield from under(f"{place}/config", error.problems)
        except EcmbatchError as error:
            yield Problem(f"{place}/processor", error.message, error.hint)


def _reference_problems(
    place: str, references: Sequence[Reference], resources: Resources
) -> Iterator[Problem]:
    for reference in references:
        named = reference.source
        problems = _named(f"{place}/{named.kind}", partial(resources.source, named))
        yield from problems or under(place, resources.unread_fields(named, reference))


def _looks_up(config: Any) -> bool:
    """A configuration with ``${…}`` can be checked only when a run gives it values."""
    if isinstance(config, Mapping):
        return any(_looks_up(value) for value in config.values())
    if isinstance(config, list | tuple):
        return any(_looks_up(value) for value in config)
    return isinstance(config, str) and "${" in config


def _alert_problems(job: JobDefinition, resources: Resources) -> Iterator[Problem]:
    known = resources.project_file.settings.alerts
    named = [("/alerts", name) for name in job.alerts]
    if job.validation is not None:
        named += [("/validation/on_failure", name) for name in job.validation.on_failure.alert]
        for number, rule in enumerate(job.validation.rules):
            if rule.on_failure is not None:
                place = pointer(("validation", "rules", number, "on_failure"))
                named += [(place, name) for name in rule.on_failure.alert]
    for place, name in named:
        if name not in known:
            yield Problem(place, f"the project file has no alert named {name!r}{did_you_mean(name, known)}")
