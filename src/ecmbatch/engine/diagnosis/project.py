"""The project: its processors and jobs, its connectors and stores, and their clocks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ecmbatch.engine.diagnosis.finding import Finding, of_error, ok, warning, wrong
from ecmbatch.engine.job_check import check_job
from ecmbatch.engine.job_files import job_paths, project_jobs, read_job_file
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.ledger import untouched_database
from ecmbatch.protocol.dependency_graph import DependencyGraph
from ecmbatch.protocol.job import JobDefinition, SourceName

_NO_RUN = "ecmbatch-doctor"
"""A run that no store knows: asking for its marker reaches the store and changes nothing."""
_TOLERANCE = timedelta(seconds=5)


def processors(resources: Resources) -> Iterator[Finding]:
    """Import the modules of the project's own processors."""
    modules = resources.project_file.settings.processors.modules
    if not modules:
        return
    with _no_bytecode():
        resources.load_processors()
    yield ok("processors", f"imported: {', '.join(modules)}")


def jobs(resources: Resources) -> Iterator[Finding]:
    """Check every job under ``jobs/`` as ``validate`` does."""
    valid = 0
    ids: Counter[str] = Counter()
    graph = DependencyGraph.of(project_jobs(resources.project_file.root).values())
    for path in job_paths(resources.project_file.root):
        name = str(path.relative_to(resources.project_file.root))
        try:
            job = read_job_file(path, resources.project_file.root).job
            with _no_bytecode():
                problems = check_job(job, resources, graph).problems
        except EcmbatchError as error:
            yield wrong("jobs", error.message, f"see all of it with: ecmbatch validate {name}")
            continue
        ids[job.job_id] += 1
        if problems:
            yield wrong("jobs", f"{name}: {_told(problems)}", f"see all of it with: ecmbatch validate {name}")
        else:
            valid += 1
    for job_id, count in ids.items():
        if count > 1:
            yield warning(
                "jobs",
                f"{count} files under jobs/ have the job_id {job_id!r}; they share watermark and history",
                "give each job an id of its own",
            )
    yield ok("jobs", f"{valid} {'job is' if valid == 1 else 'jobs are'} valid")


def readable_jobs(root: Path) -> list[JobDefinition]:
    """Return the jobs under ``jobs/`` that can be read."""
    found = []
    for path in job_paths(root):
        with suppress(EcmbatchError):
            found.append(read_job_file(path, root).job)
    return found


def connectors(resources: Resources, jobs: Sequence[JobDefinition]) -> Iterator[Finding]:
    """Reach every connector that is declared or used."""

    def reach(name: str) -> None:
        with resources.reading(SourceName("connector", name)) as connector:
            connector.ping()

    yield from _each("connectors", _connectors(resources, jobs), reach)


def stores(resources: Resources) -> Iterator[Finding]:
    """Read from every store; one that is not made yet is fine."""
    names = list(resources.project_file.settings.stores)
    yield from _each("stores", names, lambda name: resources.store(name).marker(_NO_RUN))


def clocks(resources: Resources, jobs: Sequence[JobDefinition]) -> Iterator[Finding]:
    """Compare the clocks of sources and ledger with that of this machine: windows are cut by the source's."""
    known: dict[str, Callable[[], datetime]] = {"the ledger": lambda: _ledger_time(resources)}
    for name in _connectors(resources, jobs):
        # One that cannot even be made is told by another check.
        with suppress(EcmbatchError):
            known[f"connector {name}"] = resources.connector(name).clock
    agreeing = []
    for name, clock in known.items():
        try:
            difference = _difference(clock)
        except EcmbatchError:
            continue
        if abs(difference) > _TOLERANCE:
            way = "ahead of" if difference > timedelta(0) else "behind"
            yield warning(
                "clocks",
                f"the clock of {name} is {abs(difference).total_seconds():,.0f} s {way} this machine's",
                "set both by NTP; for a source, `source.lag` of a job keeps its window behind the source's clock",
            )
        else:
            agreeing.append(name)
    if agreeing:
        yield ok(
            "clocks", f"within {_TOLERANCE.total_seconds():.0f} s of this machine's: {', '.join(agreeing)}"
        )


def _ledger_time(resources: Resources) -> datetime:
    database = untouched_database(resources.project_file.ledger, clock=resources.clock_by_hand)
    if database is None:
        return resources.clock()
    with closing(database):
        return database.clock()


def _difference(clock: Callable[[], datetime]) -> timedelta:
    """Return how far *clock* is ahead; the time that asking it takes is not held against it."""
    before = datetime.now(UTC)
    told = clock()
    after = datetime.now(UTC)
    return told - min(max(told, before), after)


def _connectors(resources: Resources, jobs: Sequence[JobDefinition]) -> list[str]:
    """Return the connectors that are declared, and what every project has where a job uses it."""
    file = resources.project_file
    used = {job.source.connector for job in jobs}
    return [name for name in file.settings.connectors if name in used or not file.is_implied_connector(name)]


def _each(check: str, names: Sequence[str], reach: Callable[[str], object]) -> Iterator[Finding]:
    reached = []
    for name in names:
        try:
            reach(name)
        except EcmbatchError as error:
            yield of_error(check, error, about=name)
        except Exception as error:
            yield of_error(check, EcmbatchError(f"unexpected {type(error).__name__}"), about=name)
        else:
            reached.append(name)
    if reached:
        yield ok(check, f"can be reached: {', '.join(reached)}")


def _told(problems: Sequence[object]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Import without leaving compiled files in the project's folder."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
