"""What a page asks before something is done that cannot be undone, or is felt elsewhere.

The first form asks for it, and the answer is the page with a question on top. Its own form says the
same again, and `sure`: only that does it. So it works without script, is in the page's text, and
nothing is asked behind a curtain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What somebody is about to do: the sentences say what it does, the fields say it again."""

    title: str
    says: tuple[str, ...]
    action: str
    """The path that it is sent to, once somebody is sure."""
    sure: str
    back: str
    """The path that leads away from it, with nothing done."""
    leave: str = "Leave it as it is"
    fields: Sequence[tuple[str, str]] = ()
    danger: bool = False
    count: int = 0
    """What has to be typed to say that so many are meant; 0 where nothing has."""
