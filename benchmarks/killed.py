"""An ``ecmbatch`` command that dies: ``python -m benchmarks.killed POINT OCCURRENCE ARGUMENTS…``.

The process ends by SIGKILL when it passes the crash point *POINT* for the *OCCURRENCE*-th time.
"""

from __future__ import annotations

import sys
from typing import cast

from ecmbatch.cli.main import main
from ecmbatch.crash_points import CrashPoint
from ecmbatch.testing.crashes import kill_at

if __name__ == "__main__":
    kill_at(cast(CrashPoint, sys.argv[1]), occurrence=int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
