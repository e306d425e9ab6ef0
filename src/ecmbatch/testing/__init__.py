"""For tests of jobs and plug-ins: crash points, in-memory doubles, contract suites."""
