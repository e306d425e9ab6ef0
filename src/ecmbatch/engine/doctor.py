"""The doctor: looks at everything that a run needs and at what runs have left, and changes nothing.

Every check is made, whatever the others find. The ledger is opened untouched: where there is none, none is
made, and one of another version stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ecmbatch.engine.diagnosis import machine, memory, project
from ecmbatch.engine.diagnosis.finding import Finding, guarded, of_error, ok, warning
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError, Unreachable, UsageError
from ecmbatch.ledger.ledger import Ledger

DOCTOR_FORMAT = "ecmbatch.doctor/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings, in the order in which they were made. Secrets of the project are not among them."""

    findings: Sequence[Finding]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings may be."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0; else 2 where a project or job has to be corrected; else 7: something cannot be reached or used."""
        found = {finding.exit_code for finding in self.findings}
        return next((code for code in (UsageError.exit_code, Unreachable.exit_code) if code in found), 0)

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.doctor/1`` document."""
        return {
            "format": DOCTOR_FORMAT,
            "healthy": self.healthy,
            "findings": [finding.document() for finding in self.findings],
        }


def examine(resources: Resources) -> Diagnosis:
    """Look at the project and at the machine that it is on."""
    file = resources.project_file
    found = [
        *guarded("versions", machine.versions),
        ok("project", f"{file.root} can be loaded"),
        *_checks(resources),
    ]
    return Diagnosis(findings=[_redacted(finding, resources) for finding in found])


def without_project(error: EcmbatchError) -> Diagnosis:
    """Look at what there is without a project: *error* says why it cannot be loaded."""
    problems = [
        replace(of_error("project", error), message=str(problem), hint=problem.hint)
        for problem in error.problems
    ]
    return Diagnosis(
        findings=[*guarded("versions", machine.versions), *(problems or [of_error("project", error)])]
    )


def _checks(resources: Resources) -> Iterator[Finding]:
    jobs = project.readable_jobs(resources.project_file.root)
    yield from guarded("disk", lambda: machine.disks(resources.project_file))
    yield from guarded("processors", lambda: project.processors(resources))
    yield from guarded("jobs", lambda: project.jobs(resources))
    yield from guarded("connectors", lambda: project.connectors(resources, jobs))
    yield from guarded("stores", lambda: project.stores(resources))
    yield from guarded("clocks", lambda: project.clocks(resources, jobs))
    yield from guarded("ledger", lambda: memory.ledger_file(resources))
    with ExitStack() as opened:
        try:
            ledger = _ledger(resources, opened)
        except EcmbatchError:
            yield warning("runs", "runs, stage and heads are not checked: the ledger cannot be read")
        else:
            if ledger is not None:
                yield from guarded("runs", lambda: memory.runs(ledger))
                yield from guarded("alerts", lambda: memory.alerts(ledger))
            yield from guarded("stages", lambda: memory.stage(resources, ledger))
            yield from guarded("heads", lambda: memory.heads(resources, ledger, jobs))
    yield from guarded("temporary files", lambda: memory.leftover_files(resources))


def _ledger(resources: Resources, opened: ExitStack) -> Ledger | None:
    ledger = Ledger.untouched(resources.project_file.ledger, clock=resources.clock_by_hand)
    if ledger is not None:
        opened.callback(ledger.close)
    return ledger


def _redacted(finding: Finding, resources: Resources) -> Finding:
    redact = resources.project_file.redact
    return replace(
        finding, message=redact(finding.message), hint=redact(finding.hint) if finding.hint else None
    )
