"""``python -m golden FILE``: keep a home as this version writes it."""

from __future__ import annotations

import sys
from pathlib import Path

from golden import make

if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
