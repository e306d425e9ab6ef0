"""What both sides of every comparison may use."""

THREADS = 2
MEMORY_LIMIT = "1GB"
"""Of each DuckDB instance."""
