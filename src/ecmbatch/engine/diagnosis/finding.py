"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ecmbatch.errors import EcmbatchError, Unreachable, UsageError

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that ``doctor`` found. ``exit_code`` is what a problem makes the command exit with: 2 where a
    project or job has to be corrected, 7 where something cannot be reached or used."""

    check: str
    status: Status
    message: str
    hint: str | None = None
    exit_code: int = 0

    def document(self) -> dict[str, str | None]:
        """Return the JSON form."""
        return {"check": self.check, "status": self.status, "message": self.message, "hint": self.hint}


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, hint: str | None = None) -> Finding:
    return Finding(check=check, status="warning", message=message, hint=hint)


def wrong(check: str, message: str, hint: str | None = None) -> Finding:
    """A problem of the project or of a job: somebody has to correct a file."""
    return Finding(check=check, status="problem", message=message, hint=hint, exit_code=UsageError.exit_code)


def unusable(check: str, message: str, hint: str | None = None) -> Finding:
    """A problem outside of the project's files: something cannot be reached, read or written."""
    return Finding(check=check, status="problem", message=message, hint=hint, exit_code=Unreachable.exit_code)


def of_error(check: str, error: EcmbatchError, *, about: str = "") -> Finding:
    """Return the problem that *error* tells; *about* names what it is about."""
    told = [error.message, *(str(each) for each in error.problems if str(each) not in error.message)]
    message = "; ".join([f"{about}: {told[0]}" if about else told[0], *told[1:]])
    problem = wrong if error.exit_code == UsageError.exit_code else unusable
    return problem(check, message, error.hint)


def guarded(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what *look* finds; what it raises is a finding too and keeps no other check from looking."""
    try:
        yield from look()
    except EcmbatchError as error:
        yield of_error(check, error)
    except Exception as error:
        yield unusable(
            check,
            f"the check itself failed with an unexpected {type(error).__name__}",
            "this is a defect of ecmbatch or of a plug-in; the error's text may hold secrets and is left out",
        )
