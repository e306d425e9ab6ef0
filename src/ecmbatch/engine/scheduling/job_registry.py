"""Job files as the scheduler knows them: picked up when they change, the last good version kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecmbatch.engine.job_check import check_job
from ecmbatch.engine.job_files import JobFile, job_paths, read_job_file
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError, InvalidDocument, Unreachable
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.records import JobState
from ecmbatch.protocol.event_matching import trigger_of
from ecmbatch.protocol.job import JobDefinition

log = logging.getLogger("ecmbatch")

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was last read, the job that was in it, if one was, and whether it was taken."""

    signature: _Signature
    job_id: str | None
    taken: bool = True


class JobRegistry:
    """Keeps the ledger's jobs what the files under ``jobs/`` say."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._seen: dict[Path, _Seen] = {}

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
        if not changed and not gone and self._seen:
            return
        # What was refused may be in order now that another file has changed.
        changed += [path for path in present if path in self._seen and not self._seen[path].taken]
        files = {path: self._read(path, present[path]) for path in changed}
        for path in gone:
            del self._seen[path]
        self._take(files)
        self._retire()

    @property
    def _root(self) -> Path:
        return self._resources.project_file.root

    def _read(self, path: Path, signature: _Signature) -> JobFile | EcmbatchError:
        before = self._seen.get(path)
        try:
            file = read_job_file(path, self._root)
        except EcmbatchError as error:
            self._seen[path] = _Seen(signature, before.job_id if before else None)
            return error
        self._seen[path] = _Seen(signature, file.job.job_id)
        return file

    def _take(self, files: Mapping[Path, JobFile | EcmbatchError]) -> None:
        for path, file in files.items():
            if isinstance(file, EcmbatchError):
                self._refuse(path, file)
                continue
            twin = self._twin(path, file.job.job_id)
            if twin is not None:
                error = InvalidDocument(f"{path}: the job id {file.job.job_id} is that of {twin} too")
                self._seen[path] = replace(self._seen[path], job_id=None)
                self._refuse(path, error)
                continue
            try:
                self._accept(path, file)
            except Unreachable:
                # It is read again with the next pass.
                del self._seen[path]
                raise
            except EcmbatchError as error:
                self._refuse(path, error)

    def _accept(self, path: Path, file: JobFile) -> None:
        report = check_job(file.job, self._resources)
        if not report.valid:
            raise InvalidDocument(
                f"{path}: job {file.job.job_id} does not fit this project: {report.problems[0]}",
                problems=report.problems,
            )
        state, is_news = register(file, self._resources)
        if is_news:
            log.info(
                "job %s is known in version %d",
                state.job_id,
                state.version,
                extra={"event": "job.registered", "job_id": state.job_id, "version": state.version},
            )
        self._resources.ledger.alerts.put(
            state.job_id,
            NewAlert(
                key=_key(path),
                outcome="pass",
                recipients=file.job.alerts,
                message=f"{path.name} is in order again",
            ),
        )

    def _refuse(self, path: Path, error: EcmbatchError) -> None:
        ledger = self._resources.ledger
        job_id = self._seen[path].job_id or path.stem
        self._seen[path] = replace(self._seen[path], taken=False)
        problem = {
            "file": path.name,
            "message": error.message,
            "problems": [str(each) for each in error.problems],
        }
        ledger.jobs.mark_broken(job_id, problem)
        state = ledger.jobs.find(job_id)
        kept = f"version {state.version} stays in force" if state and state.active else "it is not scheduled"
        message = f"{error.message}; {kept}"
        recipients = list(self._resources.project_file.settings.alerts)
        if ledger.alerts.put(
            job_id, NewAlert(key=_key(path), outcome="broken", recipients=recipients, message=message)
        ):
            log.error("%s", message, extra={"event": "job.refused", "job_id": job_id})

    def _twin(self, path: Path, job_id: str) -> Path | None:
        """Return another file that declares the same job and comes before."""
        return next(
            (each for each, seen in self._seen.items() if each < path and seen.job_id == job_id), None
        )

    def _retire(self) -> None:
        """A file that cannot be read stands for the job that it had before, if that was read here."""
        there = {seen.job_id for seen in self._seen.values()} | {path.stem for path in self._seen}
        for state in self._resources.ledger.jobs.all():
            if state.active and state.job_id not in there and not self._may_be_in_an_unread_file(state):
                self._resources.ledger.jobs.deactivate(state.job_id)
                log.warning(
                    "job %s has no file any more and fires no more",
                    state.job_id,
                    extra={"event": "job.retired", "job_id": state.job_id},
                )

    def _may_be_in_an_unread_file(self, state: JobState) -> bool:
        file = self._resources.ledger.jobs.version(state.job_id, state.version).job_file
        return file is not None and any(
            seen.job_id is None and path.name == Path(file).name for path, seen in self._seen.items()
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
