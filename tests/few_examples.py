"""A plug-in for pytest: Hypothesis looks for few examples, in suites whose laws are tested with many elsewhere."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("few", deadline=None, max_examples=20)
settings.load_profile("few")
