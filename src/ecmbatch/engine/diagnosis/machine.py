"""The machine: versions of what is installed, room and permissions on its disks."""

from __future__ import annotations

import platform
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from ecmbatch.engine.diagnosis.finding import Finding, ok, unusable, warning
from ecmbatch.project_file import ProjectFile
from ecmbatch.stage.stage import LEAST_FREE_BYTES

_PACKAGE = "ecmbatch"
_AT_LEAST = re.compile(r"^([A-Za-z0-9._-]+?) *>= *([0-9.]+)")
_COMFORTABLE_FREE_BYTES = 2**30


def versions() -> Iterator[Finding]:
    """Compare what is installed with what this package says it needs."""
    try:
        needed = _needed()
    except metadata.PackageNotFoundError:
        yield warning("versions", f"{_PACKAGE} is not installed as a package; what it needs is not known")
        return
    found = {"python": platform.python_version(), **{name: _installed(name) for name in needed}}
    for name, least in {"python": _needed_python(), **needed}.items():
        version = found[name]
        if version is None or _numbers(version) < _numbers(least):
            yield warning(
                "versions",
                f"{name} {version or 'is not installed'}; {_PACKAGE} needs at least {least}",
                f"pip install --upgrade {_PACKAGE}",
            )
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    yield ok(
        "versions", f"{_PACKAGE} {metadata.version(_PACKAGE)}, {listed}, sqlite {sqlite3.sqlite_version}"
    )


def disks(file: ProjectFile) -> Iterator[Finding]:
    """See whether there is room, and whether files can be made, where the project writes."""
    for folder, uses in _folders(file).items():
        what = f"{' and '.join(uses)}: {folder}"
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        room = f"{what} has {free / 2**30:,.1f} GiB free"
        if (refusal := _refusal(there)) is not None:
            yield unusable("disk", f"{what} cannot be written: {refusal}", "correct the folder's permissions")
        elif free < LEAST_FREE_BYTES:
            yield unusable("disk", f"{room}, too little to go on", "make room")
        elif free < _COMFORTABLE_FREE_BYTES:
            yield warning("disk", room, "make room before a large run")
        else:
            yield ok("disk", room)


def _needed() -> dict[str, str]:
    """Return the least version of each package that is needed without extras."""
    found = (_AT_LEAST.match(each) for each in metadata.requires(_PACKAGE) or () if "extra ==" not in each)
    return {each[1]: each[2] for each in found if each is not None}


def _needed_python() -> str:
    return metadata.metadata(_PACKAGE)["Requires-Python"].removeprefix(">=")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version; ``21`` and ``21.0.0`` are the same."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", version)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _folders(file: ProjectFile) -> Mapping[Path, list[str]]:
    places = {"stage": file.stage_path}
    if isinstance(file.ledger, Path):
        places = {"ledger": file.ledger.parent, **places}
    for name, settings in file.settings.stores.items():
        # Stores that are files say where with `path`; others have no folder here.
        if isinstance(settings.get("path"), str):
            places[f"store {name}"] = file.path(settings["path"]).parent
    folders: dict[Path, list[str]] = {}
    for use, folder in places.items():
        folders.setdefault(folder.resolve(), []).append(use)
    return folders


def _refusal(folder: Path) -> str | None:
    """Return why no file can be made in *folder*; the one that is tried has no name and is gone at once."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None
