"""`python -m storefs`: the command line."""

from __future__ import annotations

import sys

from storefs.cli import main

sys.exit(main())
