"""How far a window ends behind the clock of a source that cannot tell which of its writers are still at work."""

from datetime import timedelta

LAG_WITHOUT_BOUND = timedelta(minutes=5)
"""Covers writers that stamp a row and commit it later, as long as their transactions are no longer than this."""
