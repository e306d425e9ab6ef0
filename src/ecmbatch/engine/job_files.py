"""Job files of a project: finding them by path or id, and reading them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecmbatch.errors import InvalidDocument, UsageError
from ecmbatch.plugins import did_you_mean
from ecmbatch.protocol.document import MAX_BYTES
from ecmbatch.protocol.job import JobDefinition

JOBS_FOLDER = "jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A job and where it was read, relative to the project where it lies inside; ``None`` for one made in code."""

    job: JobDefinition
    path: str | None


def read_job(name: str, root: Path, working_folder: Path) -> JobFile:
    """Return the job that *name* means: a file's path, or the id of a job under ``jobs/``.

    Raises ``UsageError`` where there is no such job and ``InvalidDocument`` when it is not well-formed.
    """
    for candidate in (working_folder / name, root / name, root / JOBS_FOLDER / f"{name}.json"):
        if candidate.is_file():
            return read_job_file(candidate, root)
    known = []
    for path in job_paths(root):
        job = _job_or_none(path)
        if job is not None and job.job_id == name:
            return JobFile(job=job, path=relative_path(path, root))
        if job is not None:
            known.append(job.job_id)
    raise UsageError(
        f"there is no job {name!r}: no such file, and no such id in {root / JOBS_FOLDER}"
        f"{did_you_mean(name, known)}"
    )


def read_job_file(path: Path, root: Path) -> JobFile:
    """Return the job in the file *path*."""
    try:
        with path.open("rb") as opened:
            # One byte more than a job may have is enough to see that it is too large.
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the job file {path} cannot be read: {error.strerror}") from error
    try:
        return JobFile(job=JobDefinition.from_json(text), path=relative_path(path, root))
    except InvalidDocument as error:
        raise InvalidDocument(f"{path}: {error.message}", problems=error.problems, hint=error.hint) from None


def job_paths(root: Path) -> Iterator[Path]:
    """Yield the files under ``jobs/``, sorted."""
    yield from sorted((root / JOBS_FOLDER).glob("*.json"))


def project_jobs(root: Path) -> dict[str, JobDefinition]:
    """Return all well-formed jobs of the project by id."""
    jobs = (_job_or_none(path) for path in job_paths(root))
    return {job.job_id: job for job in jobs if job is not None}


def _job_or_none(path: Path) -> JobDefinition | None:
    try:
        return JobDefinition.from_json(path.read_bytes())
    except (InvalidDocument, OSError):
        return None


def relative_path(path: Path, root: Path) -> str:
    """Return where a job file is, relative to the project where it lies inside."""
    resolved = path.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)
