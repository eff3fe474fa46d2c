"""``python -m hostkit.cli`` is ``hostkit``."""

from __future__ import annotations

import sys

from hostkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
