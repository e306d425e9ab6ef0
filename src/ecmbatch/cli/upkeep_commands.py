"""``doctor`` and ``gc``: is the project well, and what can be thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.errors import EcmbatchError

if TYPE_CHECKING:
    from ecmbatch.engine.doctor import Diagnosis


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (doctor, gc):
        command(app)(each)


def doctor(invocation: Invocation) -> int:
    """Look whether the project is well. Looks at everything and changes nothing."""
    from ecmbatch.cli.upkeep_tables import diagnosis_table

    diagnosis = _diagnosis(invocation)
    invocation.answer(diagnosis.document, lambda: diagnosis_table(diagnosis))
    return diagnosis.exit_code


def gc(
    invocation: Invocation,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be removed; change nothing.")
    ] = False,
    orphans: Annotated[
        bool,
        typer.Option("--orphans", help="Remove also what runs have staged that this ledger does not know."),
    ] = False,
) -> int:
    """Remove what no run needs any more. How long it is kept, [retention] of the project says."""
    from ecmbatch.cli.upkeep_tables import collection_table

    collection = invocation.project.gc(dry_run=dry_run, orphans=orphans)
    invocation.answer(collection.document, lambda: collection_table(collection))
    if collection.error is None:
        return 0
    return collection.error.exit_code if invocation.json else invocation.fail(collection.error)


def _diagnosis(invocation: Invocation) -> Diagnosis:
    """A project that cannot be loaded is a finding, too."""
    from ecmbatch.engine.doctor import without_project

    try:
        project = invocation.project
    except EcmbatchError as error:
        return without_project(error)
    return project.doctor()
