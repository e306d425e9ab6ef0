"""The command line, killed behind its first checkpoint where the current folder has a file ``dies``."""

from __future__ import annotations

import sys
from pathlib import Path

from ecmbatch.cli.main import main
from ecmbatch.testing.crashes import kill_at

if __name__ == "__main__":
    order = Path("dies")
    if order.exists():
        order.unlink()
        kill_at("checkpoint.after")
    sys.exit(main(sys.argv[1:]))
