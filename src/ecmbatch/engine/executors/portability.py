"""What worker processes can find: everything that a project file names, and nothing that is made in code."""

from __future__ import annotations

from collections.abc import Iterator

from ecmbatch.engine.resources import Resources, machine_clock
from ecmbatch.errors import PluginError, UsageError
from ecmbatch.protocol.job import JobDefinition


def check_executor(job: JobDefinition, resources: Resources) -> None:
    """Raise :class:`~ecmbatch.errors.UsageError` where the project's executor cannot execute *job*."""
    if resources.project_file.settings.run.executor != "processes":
        return
    reason = next(_made_in_code(job, resources), None)
    if reason is not None:
        raise UsageError(
            f"the executor 'processes' needs what it runs to be found by a project file; {reason}",
            hint="load the project from its file, name processors in [processors] modules and give plug-ins an "
            'entry point; or use executor = "threads"',
        )


def _made_in_code(job: JobDefinition, resources: Resources) -> Iterator[str]:
    """Yield why other processes cannot do what this one can: they would load the project file, as here."""
    if resources.project_file.file is None:
        yield "this project was made in code"
    if resources.clock is not machine_clock:
        yield "this project has a clock of its own"
    with Resources(resources.project_file) as found:
        try:
            found.source(job.source.named)
            if job.transform:
                found.load_processors()
            for step in job.transform:
                found.plugins.processors.get(step.processor)
        except PluginError as error:
            yield f"there, {error.message}"
