"""The jobs that schedulers know: their versions, whether they are paused, and up to which tick they have fired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ecmbatch.errors import UsageError
from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.events import set_legs
from ecmbatch.ledger.records import Document, JobState, JobVersion

_TIMES = ("type", "cron", "timezone", "every")
"""What a schedule's times depend on; ticks from before they were changed are not made up for."""


class Jobs:
    """The ledger's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job_id: str) -> JobState | None:
        """Return what is known of a job, ``None`` where no scheduler has seen it."""
        with self._database.read() as connection:
            return job_state(connection, job_id)

    def all(self) -> Sequence[JobState]:
        """Return what is known of all jobs, by id."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.jobs).order_by(tables.jobs.c.job_id))
            return [JobState(**row._asdict()) for row in rows]

    def digests_in_force(self) -> Mapping[str, str]:
        """Return the digest of the version in force of each job that fires and whose file is in order, by id."""
        jobs, versions = tables.jobs.c, tables.job_versions.c
        query = (
            select(jobs.job_id, jobs.problem, versions.digest)
            .join(tables.job_versions, (versions.job_id == jobs.job_id) & (versions.version == jobs.version))
            .where(jobs.active)
        )
        with self._database.read() as connection:
            return {row.job_id: row.digest for row in connection.execute(query) if row.problem is None}

    def files_in_force(self) -> Mapping[str, str]:
        """Return the job that fires in the version that was read from each file, by the file."""
        jobs, versions = tables.jobs.c, tables.job_versions.c
        query = (
            select(jobs.job_id, versions.job_file)
            .join(tables.job_versions, (versions.job_id == jobs.job_id) & (versions.version == jobs.version))
            .where(jobs.active, versions.job_file.is_not(None))
        )
        with self._database.read() as connection:
            return {row.job_file: row.job_id for row in connection.execute(query)}

    def version(self, job_id: str, version: int) -> JobVersion:
        """Return a version of a job; raises :class:`~ecmbatch.errors.UsageError` where there is none."""
        found = tables.job_versions.c
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.job_versions).where(found.job_id == job_id, found.version == version)
            ).one_or_none()
        if row is None:
            raise UsageError(
                f"the ledger has no version {version} of job {job_id}",
                hint=f"list them with: ecmbatch schedule versions {job_id}",
            )
        return JobVersion(**row._asdict())

    def versions(self, job_id: str) -> Sequence[JobVersion]:
        """Return the versions of a job, newest first."""
        found = tables.job_versions.c
        query = select(tables.job_versions).where(found.job_id == job_id).order_by(found.version.desc())
        with self._database.read() as connection:
            return [JobVersion(**row._asdict()) for row in connection.execute(query)]

    def register(
        self, job_id: str, document: Document, digest: str, job_file: str | None, *, legs: Sequence[str]
    ) -> tuple[JobState, bool]:
        """Let *document* be the job from now on; tell whether that is news.

        A job that is new, back again, or runs at other times than before does not fire for the past. *legs* are
        the events that it listens to.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            before = job_state(connection, job_id)
            old = _newest(connection, job_id) if before is None else _version(connection, before)
            version = keep_version(connection, job_id, document, digest, job_file, now)
            values: dict[str, Any] = {"version": version, "active": True, "problem": None}
            if before is None:
                connection.execute(
                    insert(tables.jobs).values(job_id=job_id, cursor=now, paused=False, **values)
                )
            else:
                if not before.active or _fires_otherwise(old, document):
                    values["cursor"] = max(before.cursor, now)
                connection.execute(update(tables.jobs).where(tables.jobs.c.job_id == job_id).values(**values))
            set_legs(connection, job_id, legs)
            return _state(connection, job_id), before is None or version != before.version

    def keep_version(self, job_id: str, document: Document, digest: str, job_file: str | None) -> int:
        """Return the number of the version that *document* is, a new one if it is not the newest; the job that
        schedulers know stays what it is."""
        with self._database.write() as connection:
            return keep_version(
                connection, job_id, document, digest, job_file, self._database.now(connection)
            )

    def mark_broken(self, job_id: str, problem: Document) -> bool:
        """Remember that the job's file cannot be used as it is now; tell whether that is news."""
        with self._database.write() as connection:
            before = job_state(connection, job_id)
            if before is None or before.problem == problem:
                return False
            connection.execute(
                update(tables.jobs).where(tables.jobs.c.job_id == job_id).values(problem=dict(problem))
            )
            return True

    def deactivate(self, job_id: str) -> None:
        """Remember that the job's file is gone: it fires no more, and its runs go on."""
        with self._database.write() as connection:
            connection.execute(
                update(tables.jobs).where(tables.jobs.c.job_id == job_id).values(active=False, problem=None)
            )
            set_legs(connection, job_id, [])

    def pause(self, job_id: str, reason: str | None) -> JobState:
        """Let nothing fire the job until it is resumed; its events are kept, its ticks are not."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            return _changed(connection, job_id, paused=True, pause_reason=reason, paused_at=now)

    def resume(self, job_id: str) -> JobState:
        """Let the job fire again, from now on: no tick of the time in between is made up for."""
        with self._database.write() as connection:
            before = _state(connection, job_id)
            if not before.paused:
                return before
            now = self._database.now(connection)
            return _changed(
                connection,
                job_id,
                paused=False,
                pause_reason=None,
                paused_at=None,
                cursor=max(before.cursor, now),
            )


def job_state(connection: Connection, job_id: str) -> JobState | None:
    """Return what is known of a job, in the transaction of the caller."""
    row = connection.execute(select(tables.jobs).where(tables.jobs.c.job_id == job_id)).one_or_none()
    return None if row is None else JobState(**row._asdict())


def keep_version(
    connection: Connection,
    job_id: str,
    document: Document,
    digest: str,
    job_file: str | None,
    now: datetime,
) -> int:
    """Return the number of the version that *document* is, adding one if it is not the newest."""
    newest = _newest(connection, job_id)
    if newest is not None and newest.digest == digest:
        if job_file is not None and newest.job_file != job_file:
            versions = tables.job_versions.c
            connection.execute(
                update(tables.job_versions)
                .where(versions.job_id == job_id, versions.version == newest.version)
                .values(job_file=job_file)
            )
        return newest.version
    version = 1 if newest is None else newest.version + 1
    connection.execute(
        insert(tables.job_versions).values(
            job_id=job_id,
            version=version,
            at=now,
            digest=digest,
            document=dict(document),
            job_file=job_file,
        )
    )
    return version


def _newest(connection: Connection, job_id: str) -> JobVersion | None:
    found = tables.job_versions.c
    row = connection.execute(
        select(tables.job_versions).where(found.job_id == job_id).order_by(found.version.desc()).limit(1)
    ).one_or_none()
    return None if row is None else JobVersion(**row._asdict())


def _version(connection: Connection, state: JobState) -> JobVersion:
    found = tables.job_versions.c
    row = connection.execute(
        select(tables.job_versions).where(found.job_id == state.job_id, found.version == state.version)
    ).one()
    return JobVersion(**row._asdict())


def _fires_otherwise(old: JobVersion | None, document: Mapping[str, Any]) -> bool:
    return old is None or _times(old.document) != _times(document)


def _times(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{name: each.get(name) for name in _TIMES} for each in document.get("schedule", ())]


def _state(connection: Connection, job_id: str) -> JobState:
    state = job_state(connection, job_id)
    if state is None:
        raise UsageError(f"no scheduler has seen a job {job_id!r}")
    return state


def _changed(connection: Connection, job_id: str, **values: Any) -> JobState:
    _state(connection, job_id)
    connection.execute(update(tables.jobs).where(tables.jobs.c.job_id == job_id).values(**values))
    return _state(connection, job_id)
