"""The stage: sealed Parquet files that hold what a run would publish, and the manifest that lists them.

Layout: ``<root>/.identity``, by which hosts tell whether they see the same stage, and
``<root>/<run_id>/s00002/000003-t7.parquet``, that is scan, sequence, token; never a data value. One file
holds the rows of all partitions of its scan (each row carries its partition), because a scan is checkpointed
as a whole: sixteen small files for every checkpoint would cost sixteen times the ``fsync``.

A file is written under a temporary name, synced, renamed, and its folder synced; only then may a checkpoint
name it. Files that no checkpoint names do not exist for anyone and are deleted when the scan goes on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecmbatch.crash_points import crash_point
from ecmbatch.errors import IntegrityError, StageError

_TEMPORARY = ".part"
_IDENTITY = ".identity"
_IDENTITY_FORM = re.compile(r"[0-9a-f]{32}")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FOLDER = re.compile(r"s[0-9]{5}|references")
LEAST_FREE_BYTES = 16 * 1024 * 1024
"""What must be free before a file is begun; to run full in the middle of one helps nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """A durable file of the stage, by its path below the run's folder; ``sha256`` of its bytes."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSize:
    """What is staged for a run: files, sealed or not, and their bytes."""

    files: int
    bytes: int


class Stage:
    """The stage below *root*, on a local disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def identity(self) -> str:
        """Return the id of the folder, which is made when it is first asked for.

        Whoever sees the same folder, from whatever host and under whatever path, gets the same one. Raises
        :class:`~ecmbatch.errors.StageError` when it cannot be read or made.
        """
        with _problems_named(self.root / _IDENTITY):
            _make_durable_folder(self.root)
            return self.known_identity() or self._new_identity()

    def known_identity(self) -> str | None:
        """Return the id of the folder, ``None`` where it has none yet."""
        path = self.root / _IDENTITY
        with _problems_named(path):
            try:
                found = path.read_text(encoding="ascii", errors="replace").strip()
            except FileNotFoundError:
                return None
        if not _IDENTITY_FORM.fullmatch(found):
            raise StageError(
                f"{path} does not hold the identity of a stage",
                hint="restore it; if no unfinished run has anything staged there, delete it",
            )
        return found

    def _new_identity(self) -> str:
        """Make the id. Of several who do so at once, on several hosts too, one gives it its name."""
        mine = secrets.token_hex(16)
        temporary = self.root / f"{_IDENTITY}-{mine}{_TEMPORARY}"
        with temporary.open("x") as opened:
            opened.write(f"{mine}\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            # Unlike a renaming, a link never replaces what is there.
            (self.root / _IDENTITY).hardlink_to(temporary)
        temporary.unlink()
        _sync_folder(self.root)
        return self.known_identity() or mine

    def writer(self, run_id: str, scan: int, sequence: int, token: int, schema: pa.Schema) -> ChunkWriter:
        """Begin a new file; raises :class:`~ecmbatch.errors.StageError` when there is no room for it."""
        folder = self._scan_folder(run_id, scan)
        with _problems_named(folder):
            _make_durable_folder(folder)
            _check_room(folder)
        return ChunkWriter(folder, f"{sequence:06d}-t{token}.parquet", schema)

    def path(self, run_id: str, file: str) -> Path:
        """Return where a sealed file is."""
        return self.root / run_id / file

    def drop_leftovers(self, run_id: str, scan: int, token: int, keep: Collection[str]) -> None:
        """Delete the scan's files that are not in *keep*: what a crash left before its checkpoint.

        Only files of claims before *token*: whoever claimed the scan after us has files that we do not know.
        """
        folder = self._scan_folder(run_id, scan)
        if not folder.exists():
            return
        with _problems_named(folder):
            for path in folder.iterdir():
                if _token_of(path.name) < token and f"{folder.name}/{path.name}" not in keep:
                    path.unlink(missing_ok=True)

    def check_present(self, run_id: str, files: Sequence[SealedFile]) -> None:
        """Check quickly, before more is read, that no file is missing or has another size.

        Raises :class:`~ecmbatch.errors.IntegrityError`, naming the file.
        """
        for sealed in files:
            path = self.path(run_id, sealed.file)
            if not path.is_file() or path.stat().st_size != sealed.bytes:
                raise IntegrityError(
                    f"the staged file {path} is gone or not what was checkpointed; nothing was published",
                    hint="restore the file, or give the run up and start anew with --fresh",
                )

    def verify(self, run_id: str, files: Sequence[SealedFile]) -> None:
        """Check that every file is what was sealed: its bytes and the rows its footer counts.

        Raises :class:`~ecmbatch.errors.IntegrityError`, naming the file.
        """
        for sealed in files:
            path = self.path(run_id, sealed.file)
            try:
                with path.open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
                rows = pq.read_metadata(path).num_rows if digest == sealed.sha256 else -1
            except (OSError, pa.ArrowException) as error:
                raise IntegrityError(
                    f"the staged file {path} cannot be read any more ({type(error).__name__}); "
                    "nothing was published",
                    hint="restore the file, or give the run up and start anew with --fresh",
                ) from error
            if rows != sealed.rows:
                raise IntegrityError(
                    f"the staged file {path} is not what was checkpointed; nothing was published",
                    hint="something else changed the stage; give the run up and start anew with --fresh",
                )

    def save_reference(self, run_id: str, name: str, table: pa.Table) -> SealedFile:
        """Keep a table that processors of the run look things up in: durable when this returns.

        *name* must be another one for every table and attempt: what an attempt has saved and told nobody of
        stays where it is, unused.
        """
        final = self.root / run_id / "references" / f"{name}.arrow"
        temporary = final.with_name(final.name + _TEMPORARY)
        with _problems_named(temporary):
            _make_durable_folder(final.parent)
            _check_room(final.parent)
            with temporary.open("wb") as opened, pa.ipc.new_file(opened, table.schema) as writer:
                writer.write_table(table)
            sealed = _sealed(temporary, final, table.num_rows)
        crash_point("stage.reference")
        return sealed

    def reference(self, run_id: str, sealed: SealedFile) -> pa.Table:
        """Return a table that was kept by :meth:`save_reference`.

        Raises :class:`~ecmbatch.errors.IntegrityError` where it is gone or not what was kept.
        """
        path = self.path(run_id, sealed.file)
        try:
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise _lost_reference(path, f"cannot be read any more ({type(error).__name__})") from error
        if digest != sealed.sha256:
            raise _lost_reference(path, "is not what was kept")
        with pa.memory_map(str(path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()

    def run_ids(self) -> list[str]:
        """Return the runs that have something staged."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if not path.name.startswith(_IDENTITY))

    def holds_run(self, name: str) -> bool:
        """Tell whether what is called *name* looks like the stage of a run, whoever knows the run.

        Somebody may have pointed the stage at a folder that holds other things too.
        """
        folder = self.root / name
        if not _RUN_ID.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
            return False
        return all(_FOLDER.fullmatch(path.name) for path in folder.iterdir())

    def size(self, run_id: str) -> StageSize:
        """Return how much is staged for a run."""
        sizes = []
        for folder, _, names in os.walk(self.root / run_id):
            for name in names:
                # A worker or another gc may take the file away meanwhile.
                with suppress(FileNotFoundError):
                    sizes.append(Path(folder, name).stat().st_size)
        return StageSize(files=len(sizes), bytes=sum(sizes))

    def remove(self, run_id: str) -> bool:
        """Delete everything staged for a run; tell whether all of it is gone."""
        shutil.rmtree(self.root / run_id, ignore_errors=True)
        return not (self.root / run_id).exists()

    def _scan_folder(self, run_id: str, scan: int) -> Path:
        return self.root / run_id / f"s{scan:05d}"


class ChunkWriter:
    """One file while it is written. Its rows count for nobody before :meth:`seal` and a checkpoint."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._final = folder / name
        self._temporary = folder / (name + _TEMPORARY)
        self._rows = 0
        with _problems_named(self._temporary):
            # Each file is written once and read once, soon: lz4 takes two thirds of the time of zstd's lowest
            # level, for less than twice the bytes. Dictionaries cost more than they save, and nobody reads
            # statistics of the stage.
            self._parquet = pq.ParquetWriter(
                self._temporary,
                schema,
                compression="lz4",
                use_dictionary=False,
                write_statistics=False,
                store_schema=True,
            )
        crash_point("stage.opened")

    def write(self, table: pa.Table) -> None:
        """Append rows of the writer's schema."""
        with _problems_named(self._temporary):
            self._parquet.write_table(table, row_group_size=max(table.num_rows, 1))
        self._rows += table.num_rows

    def seal(self) -> SealedFile:
        """Make the file durable under its final name and return what a checkpoint needs to know of it."""
        with _problems_named(self._temporary):
            self._parquet.close()
            crash_point("stage.written")
            sealed = _sealed(self._temporary, self._final, self._rows)
        crash_point("stage.sealed")
        return sealed

    def discard(self) -> None:
        """Give the file up."""
        try:
            self._parquet.close()
        except (OSError, pa.ArrowException):
            # A full disk cannot take the footer either; the file goes away all the same.
            self._temporary.unlink(missing_ok=True)
            return
        self._temporary.unlink(missing_ok=True)


def manifest_digest(files: Sequence[SealedFile]) -> str:
    """Return the sha256 of the exact list of files that a verdict judges and a publication uses."""
    listed = [[sealed.file, sealed.rows, sealed.bytes, sealed.sha256] for sealed in files]
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()


def _sealed(temporary: Path, final: Path, rows: int) -> SealedFile:
    """Make a file that was written durable under its final name, below the run's folder and its own."""
    with temporary.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        os.fsync(opened.fileno())
    size = temporary.stat().st_size
    temporary.rename(final)
    _sync_folder(final.parent)
    return SealedFile(file=f"{final.parent.name}/{final.name}", rows=rows, bytes=size, sha256=digest)


def _lost_reference(path: Path, found: str) -> IntegrityError:
    return IntegrityError(
        f"{path}, in which a processor looks things up, {found}; nothing was published",
        hint="restore the file, or give the run up and start anew with --fresh",
    )


def _token_of(name: str) -> int:
    """Return the token in a file's name, whether sealed or not; 0 for a file that is not the stage's."""
    found = re.search(r"-t(\d+)\.parquet", name)
    return int(found[1]) if found else 0


def _make_durable_folder(folder: Path) -> None:
    """Make *folder* and what it lies in, so that a power cut does not take a new folder from its files."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for made in reversed(missing):
        # One by one: `parents=True` would leave the folders in between open to everybody.
        made.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(made.parent)


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise StageError(
            f"the disk of the stage at {folder} has {free / 2**20:.0f} MiB free; at least "
            f"{LEAST_FREE_BYTES / 2**20:.0f} MiB are needed to go on",
            hint="make room, then resume the run: what is checkpointed is kept",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _problems_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        found = "its disk is full" if full else (error.strerror or type(error).__name__)
        raise StageError(
            f"the stage cannot be written at {path}: {found}",
            hint="make room or correct permissions, then resume the run: what is checkpointed is kept",
            error_class="permanent",
        ) from error
