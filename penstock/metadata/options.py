"""What a connection's execution options say about the transaction that is to begin."""

from __future__ import annotations

WRITES = "penstock_writes"
"""It may change something."""

LONG = "penstock_long"
"""It may take minutes: it changes tables that are full."""
