"""Texts as every database keeps them: any character that is one, ordered by its number."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Dialect, types

_ESCAPE = re.compile("[\x00\x1b]")
_ESCAPED = re.compile("\x1b([01])")


def escape(text: str) -> str:
    """Answer the text without NUL, which PostgreSQL cannot keep; `restore` undoes it."""
    return _ESCAPE.sub(lambda found: "\x1b0" if found[0] == "\x00" else "\x1b1", text)


def restore(text: str) -> str:
    """Answer the text that was escaped."""
    return _ESCAPED.sub(lambda found: "\x00" if found[1] == "0" else "\x1b", text)


class Text(types.TypeDecorator[str]):
    """A text of any length. Two are equal, or ordered, as they are in Python, on every database.

    A database's own order depends on how it was made: many put ``a_b`` before ``aa``.
    """

    impl = types.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        """Answer the database's own type."""
        ours = types.Text(collation="C") if dialect.name == "postgresql" else types.Text()
        return dialect.type_descriptor(ours)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Answer what the database is given."""
        return value if value is None or dialect.name != "postgresql" else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Answer what the database was given."""
        return value if value is None or dialect.name != "postgresql" else restore(value)
