"""The steps of a transform as people write them: one a line. Pure."""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """Answer the steps of a text; blank lines, and those that begin with #, are left out."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
