"""Names in a job, as models declare them. What becomes part of a path or a line of output is checked here."""

from __future__ import annotations

import re
from typing import Annotated

from ecmbatch.protocol.document import Matching

_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

JobId = Annotated[
    str, Matching(_ID, "1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit")
]
EventName = JobId


def is_event_name(text: str) -> bool:
    """Tell whether an event may have this name."""
    return re.fullmatch(_ID, text) is not None


PluginName = Annotated[
    str,
    Matching(
        "[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "1 to 64 letters, digits, '_' and '-', the first not '_' or '-'"
    ),
]
"""What the project file calls a connector, a store or an alert."""

ProcessorName = Annotated[
    str,
    Matching("[a-z][a-z0-9_]{0,63}", "1 to 64 lower-case letters, digits and '_', the first a letter"),
]

ColumnName = Annotated[
    str,
    Matching(r"[^\x00-\x1f\x7f]{1,255}", "a column name of 1 to 255 characters without control characters"),
]
"""Always quoted where it becomes SQL."""

TargetTable = Annotated[
    str,
    Matching(
        r"(?:(?!(?:information_schema|pg_catalog|temp|system)\.)[A-Za-z0-9_]{1,63}\.)?"
        r"(?!_ecmbatch_|_ECMBATCH_)[A-Za-z0-9_]{1,63}",
        "a table name of 1 to 63 letters, digits and '_', which does not begin with '_ecmbatch_'; "
        "a schema and '.' may stand before it",
    ),
]
"""63 is PostgreSQL's limit; beyond it two names would silently become one."""

ParameterName = Annotated[
    str,
    Matching("[A-Za-z_][A-Za-z0-9_]{0,63}", "1 to 64 letters, digits and '_', the first not a digit"),
]
