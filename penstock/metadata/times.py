"""Times and durations as every database keeps them (docs/decisions/0003-times-are-microseconds.md).

What a database calls a timestamp differs from one to the next.
"""

from __future__ import annotations

from sqlalchemy import BigInteger

Micros = BigInteger
"""The column of a `penstock.envelope.Micros`."""
