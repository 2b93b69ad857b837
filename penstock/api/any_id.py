r"""Ids of events in paths: senders choose them, and one may have any character.

Starlette's own ``{…:path}`` ends where a line does: an id with ``\n`` has no page, or another's.
"""

from __future__ import annotations

import re

from starlette.convertors import Convertor, register_url_convertor

ANY_ID = "{event_id:any}"
"""All that stands there, slashes and the ends of lines too; for the end of a path."""


class _Any(Convertor[str]):
    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


# Routes are read where they are declared, so it has to be known by then.
register_url_convertor("any", _Any())


def across_lines(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Answer the pattern of a path, with a ``.`` that stands for any character."""
    return re.compile(pattern.pattern, re.DOTALL)
