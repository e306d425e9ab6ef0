"""The demo: New York's flights of 2013, and a project that loads them into a context store."""
