"""Stores publish staged rows, exactly once."""
