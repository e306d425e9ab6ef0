"""For tests of jobs and plug-ins: crash points, in-memory doubles, contract suites."""

from __future__ import annotations

import sys

# A test of a suite that fails shows its values, as tests of the author's own do.
if (pytest := sys.modules.get("pytest")) is not None:
    pytest.register_assert_rewrite("ecmbatch.testing.connector_contract", "ecmbatch.testing.store_contract")
