"""Job files as the scheduler knows them: picked up when they change, the last good version kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmbatch.engine.job_check import name_problems
from ecmbatch.engine.job_files import JobFile, job_paths, read_job_file, relative_path
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError, InvalidDocument, Problem
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.records import JobState
from ecmbatch.protocol.dependency_graph import DependencyGraph, Edge, edges_of
from ecmbatch.protocol.event_matching import trigger_of
from ecmbatch.protocol.job import JobDefinition

log = logging.getLogger("ecmbatch")

_Signature = tuple[int, int, int]

Check = Callable[[Sequence[JobDefinition]], Sequence[Sequence[Problem]]]
"""Returns what is wrong with each job by itself, as ``engine.job_check.name_problems`` does."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was last read, and the job that was in it, if one was.

    ``edges`` are what that job asks of others, ``None`` where the file is not in order.
    """

    signature: _Signature
    job_id: str | None
    edges: Sequence[Edge] | None = None


class JobRegistry:
    """Keeps the ledger's jobs what the files under ``jobs/`` say.

    *check* looks at the jobs that are new or changed; without one it is done here, with all that it imports.
    """

    def __init__(self, resources: Resources, check: Check | None = None) -> None:
        self._resources = resources
        self._check = check or self._check_here
        self._looked = False
        self._seen: dict[Path, _Seen] = {}
        self._refused: dict[Path, str] = {}
        self._in_force: Mapping[str, str] = {}

    def refresh(self) -> None:
        """Read the files that changed since the last time.

        A job whose file is not in order any more stays what it was, with an alert; one whose file is gone fires
        no more. Raises ``Unreachable`` where the ledger cannot be used.
        """
        present = {path: signature for path in job_paths(self._root) if (signature := _signature(path))}
        changed = [
            path
            for path, signature in present.items()
            if path not in self._seen or self._seen[path].signature != signature
        ]
        gone = self._seen.keys() - present.keys()
        if not changed and not gone and self._looked:
            return
        # What was refused may be in order now that another file has changed.
        again = (self._refused.keys() & present.keys()).difference(changed)
        files = {path: self._read(path, present[path]) for path in sorted([*changed, *again])}
        for path in gone:
            del self._seen[path]
            self._refused.pop(path, None)
        try:
            self._in_force = self._resources.ledger.jobs.files_in_force()
            self._take(files)
            self._retire()
        except BaseException:
            # All of it is done again with the next pass.
            self._seen.clear()
            self._looked = False
            raise
        self._looked = True

    def claim_back(self, states: Sequence[JobState]) -> None:
        """Read those files again whose jobs another scheduler has retired, for it had older files than these."""
        inactive = {state.job_id for state in states if not state.active}
        self._seen = {
            path: seen
            for path, seen in self._seen.items()
            if path in self._refused or seen.job_id not in inactive
        }

    @property
    def _root(self) -> Path:
        return self._resources.project_file.root

    def _read(self, path: Path, signature: _Signature) -> JobFile | EcmbatchError:
        try:
            file = read_job_file(path, self._root)
        except EcmbatchError as error:
            self._seen[path] = _Seen(signature, None)
            return error
        self._seen[path] = _Seen(signature, file.job.job_id, tuple(edges_of(file.job)))
        return file

    def _take(self, files: Mapping[Path, JobFile | EcmbatchError]) -> None:
        refused = {path: file for path, file in files.items() if isinstance(file, EcmbatchError)}
        refused |= self._twins()
        for path, error in refused.items():
            self._refuse(path, error)
        jobs = {
            path: file for path, file in files.items() if isinstance(file, JobFile) and path not in refused
        }
        found = self._checked(jobs)
        graph = self._graph(refused)
        for path, seen in sorted(self._seen.items()):
            if path in refused or seen.job_id is None:
                continue
            problems = [*found.get(path, ()), *graph.problems_of(seen.job_id)]
            if problems:
                text = f"{path}: job {seen.job_id} does not fit this project: {problems[0]}"
                self._refuse(path, InvalidDocument(text, problems=problems))
            elif path in jobs and (path in found or path in self._refused):
                self._accept(path, jobs[path])

    def _twins(self) -> dict[Path, EcmbatchError]:
        """Return an error for each file that declares the same job as another: the one that the job was read from
        before keeps it, else the first."""
        declaring: dict[str, list[Path]] = {}
        for path, seen in sorted(self._seen.items()):
            if seen.job_id is not None:
                declaring.setdefault(seen.job_id, []).append(path)
        twins: dict[Path, EcmbatchError] = {}
        for job_id, paths in declaring.items():
            owner = next((path for path in paths if self._kept_by(path) == job_id), paths[0])
            for path in paths:
                if path != owner:
                    twins[path] = InvalidDocument(f"{path}: the job id {job_id} is that of {owner} too")
        return twins

    def _kept_by(self, path: Path) -> str | None:
        """Return the job whose version in force was read from the file *path*."""
        return self._in_force.get(relative_path(path, self._root))

    def _checked(self, files: Mapping[Path, JobFile]) -> dict[Path, Sequence[Problem]]:
        """Return what is wrong with each job but those that are in force as they are."""
        in_force = self._resources.ledger.jobs.digests_in_force() if files else {}
        new = {
            path: file.job
            for path, file in files.items()
            if in_force.get(file.job.job_id) != digest_of_document(document_of(file.job))
            or self._kept_by(path) != file.job.job_id
        }
        return dict(zip(new, self._check(list(new.values())), strict=True)) if new else {}

    def _graph(self, refused: Collection[Path]) -> DependencyGraph:
        """Return who depends on whom, of the files that can be read and are no twins."""
        jobs = {
            seen.job_id: seen.edges
            for path, seen in self._seen.items()
            if seen.job_id is not None and seen.edges is not None and path not in refused
        }
        kept = {job_id for path in self._seen if (job_id := self._kept_by(path)) is not None}
        return DependencyGraph(
            frozenset(jobs.keys() | kept), tuple(edge for edges in jobs.values() for edge in edges)
        )

    def _check_here(self, jobs: Sequence[JobDefinition]) -> Sequence[Sequence[Problem]]:
        return [name_problems(job, self._resources) for job in jobs]

    def _accept(self, path: Path, file: JobFile) -> None:
        self._refused.pop(path, None)
        # A process that is killed before the job is registered is followed by one that comes here again.
        self._resources.ledger.alerts.put(
            file.job.job_id,
            NewAlert(
                key=_key(path),
                outcome="pass",
                recipients=file.job.alerts,
                message=f"{path.name} is in order again",
            ),
        )
        before = self._resources.ledger.jobs.find(file.job.job_id)
        state, is_news = register(file, self._resources)
        if is_news or (before is not None and (before.problem is not None or not before.active)):
            log.info(
                "job %s is in force in version %d",
                state.job_id,
                state.version,
                extra={"event": "job.registered", "job_id": state.job_id, "version": state.version},
            )

    def _refuse(self, path: Path, error: EcmbatchError) -> None:
        """Leave the job that the file stood for as it was, and tell why; whoever is alerted hears of it once."""
        ledger = self._resources.ledger
        job_id = self._kept_by(path) or self._seen[path].job_id or path.stem
        problem = {
            "file": path.name,
            "message": error.message,
            "problems": [str(each) for each in error.problems],
        }
        if self._kept_by(path) is not None:
            ledger.jobs.mark_broken(job_id, problem)
        state = ledger.jobs.find(job_id) if self._kept_by(path) is not None else None
        kept = f"version {state.version} stays in force" if state else "it is not scheduled"
        message = f"{error.message}; {kept}"
        recipients = list(self._resources.project_file.settings.alerts)
        ledger.alerts.put(
            job_id, NewAlert(key=_key(path), outcome="broken", recipients=recipients, message=message)
        )
        if self._refused.get(path) != message:
            self._refused[path] = message
            log.error("%s", message, extra={"event": "job.refused", "job_id": job_id})

    def _retire(self) -> None:
        """A file that is refused stands for the job that it had before."""
        there = {seen.job_id for seen in self._seen.values()}
        there |= {self._kept_by(path) for path in self._refused}
        for state in self._resources.ledger.jobs.all():
            if state.active and state.job_id not in there:
                self._resources.ledger.jobs.deactivate(state.job_id)
                log.warning(
                    "job %s has no file any more and fires no more",
                    state.job_id,
                    extra={"event": "job.retired", "job_id": state.job_id},
                )


def register(file: JobFile, resources: Resources) -> tuple[JobState, bool]:
    """Let the ledger know a job that is in order; tell whether that is news."""
    document = document_of(file.job)
    trigger = trigger_of(file.job)
    return resources.ledger.jobs.register(
        file.job.job_id,
        document,
        digest_of_document(document),
        file.path,
        legs=sorted(set(trigger.leg_names)) if trigger else [],
    )


def document_of(job: JobDefinition) -> dict[str, Any]:
    """Return the job as the JSON object that was read."""
    document: dict[str, Any] = json.loads(job.to_json())
    return document


def digest_of_document(document: Mapping[str, Any]) -> str:
    """Return what tells one version of a job from another: every word of it counts, their order does not."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _signature(path: Path) -> _Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _key(path: Path) -> str:
    return f"file {path.name}"[:200]
