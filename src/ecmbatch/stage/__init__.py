"""Run-scoped files that hold what would be published."""
