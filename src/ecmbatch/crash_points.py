"""Named places where a test may end the process.

In production the hook is never set and a crash point costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def crash_point(name: str) -> None:
    """Mark an instant between two durable effects; a test decides what happens here."""
    if _hook is not None:
        _hook(name)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Install what runs at every crash point of this process; ``None`` removes it."""
    global _hook
    _hook = hook
