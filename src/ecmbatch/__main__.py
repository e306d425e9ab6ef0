"""``python -m ecmbatch`` is the command ``ecmbatch``."""

import sys

from ecmbatch.cli.main import main

sys.exit(main())
