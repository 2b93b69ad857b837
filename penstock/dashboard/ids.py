"""Ids in the paths of pages: senders choose ids, and one may have any character. Pure."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote, unquote

from pydantic import AfterValidator

# Dots that stand alone, and how those are written that had to be written another way.
_DOTS = re.compile(r"(?:\.|%(?:25)*2E){1,2}")
_WRITTEN = re.compile(r"(?:%(?:25)*2E){1,2}")


def in_path(text: str) -> str:
    """Write a name or an id as one part of a path.

    Browsers take ``..`` for the folder above, and ``%2E%2E`` too: dots that stand alone are
    written twice over.
    """
    if _DOTS.fullmatch(text):
        return quote(quote(text, safe="").replace(".", "%2E"), safe="")
    return quote(text, safe="")


def of_path(text: str) -> str:
    """Answer the id that `in_path` wrote, of what the server has undone once."""
    return unquote(text) if _WRITTEN.fullmatch(text) else text


EventId = Annotated[str, AfterValidator(of_path)]
"""An id in the path of a page."""
