"""Batch jobs for context stores: extract, transform, validate and publish every row exactly once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecmbatch.errors import EcmbatchError, Problem
    from ecmbatch.plugins import Plugins
    from ecmbatch.processors.functions import processor, row_processor
    from ecmbatch.project import Project, RunResult
    from ecmbatch.protocol.job import JobDefinition

__version__ = "0.1.0"

__all__ = [
    "EcmbatchError",
    "JobDefinition",
    "Plugins",
    "Problem",
    "Project",
    "RunResult",
    "__version__",
    "processor",
    "row_processor",
]

_HOMES = {
    "EcmbatchError": "errors",
    "JobDefinition": "protocol.job",
    "Plugins": "plugins",
    "Problem": "errors",
    "Project": "project",
    "RunResult": "project",
    "processor": "processors.functions",
    "row_processor": "processors.functions",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: ``ecmbatch --help`` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ecmbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ecmbatch.{_HOMES[name]}"), name)
