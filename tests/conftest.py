"""What holds for all tests: a slow machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ecmbatch", deadline=None)
settings.load_profile("ecmbatch")
