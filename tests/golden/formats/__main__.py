"""``python -m golden.formats [NAME ...]``: keep what this version writes."""

from __future__ import annotations

import sys

from golden.formats import keep

if __name__ == "__main__":
    keep(sys.argv[1:])
