"""How texts are compared whatever their case, and how without that where a column has one. Pure.

Putting the texts of a column in lower case takes as long as reading it, and hides from engines
what its statistics and dictionaries say. Of a column whose texts are all spelt in one way it is
the text that is looked for that is spelt so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from penstock.query.pieces import Sql, sql
from penstock.query.stored import LeafColumn
from penstock.query.text import lower

Spelling = Literal["small", "capital"]
"""Every text is as `lower` makes it; or every one is ASCII, and has no small letter."""

Spelt = frozenset[tuple[LeafColumn, Spelling]]
"""What is known of the columns of some rows."""

UNKNOWN: Spelt = frozenset()


class Fold(NamedTuple):
    """How leaves, and what they are compared with, come to be spelt in one way."""

    of_leaf: str
    of_text: Callable[[str], str | None]
    """Answers None for a text that no leaf can have a part of."""

    def leaf(self, leaf: Sql) -> Sql:
        """Answer the expression that is compared."""
        return sql(self.of_leaf, leaf)


def _capital(text: str) -> str | None:
    # Letters that are not ASCII may have small ones that are, as the Kelvin sign has.
    small = lower(text)
    return small.upper() if small.isascii() else None


ANY_CASE = Fold("lower({0})", lower)

FOLDS: dict[Spelling, Fold] = {"small": Fold("{0}", lower), "capital": Fold("{0}", _capital)}
