"""What may be said of an exception of a user's processor: its type and its place.

Its message is left out: ``ValueError: invalid literal for int(): '4111 1111 …'`` would show a row.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from ecmbatch.errors import EcmbatchError

_THIS_FOLDER = Path(__file__).parent


def shown_failure(error: BaseException) -> str:
    """``"ValueError at clean.py:12 in clean_name"``; for our own errors, which show no row, their message.

    The place is the innermost one in the user's own code; what lies in libraries further in does not help.
    """
    if isinstance(error, EcmbatchError):
        return error.message
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    beyond_us = [(Path(code.co_filename), code.co_name, line) for code, line in frames]
    beyond_us = [place for place in beyond_us if place[0].parent != _THIS_FOLDER]
    if not beyond_us:
        return type(error).__name__
    folder = beyond_us[0][0].parent
    path, function, line = [place for place in beyond_us if _is_own(place[0], folder)][-1]
    return f"{type(error).__name__} at {path.name}:{line} in {function}"


def _is_own(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and "site-packages" not in path.relative_to(folder).parts
