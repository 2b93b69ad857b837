"""What is being written at a place of an unfinished search. Pure.

The text before the place is read as `parse` reads it, but for what is wrong or unfinished in it:
somebody is typing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from penstock.query.parse import (
    BARE,
    COMPARE,
    FIELD,
    LONGEST,
    MODIFIER,
    QUOTED,
    WHOLE_PATH,
    field_of,
)
from penstock.query.tree import Field

What = Literal["field", "path", "value", "number", "word", "nothing"]

_BLANKS = re.compile(r"\s*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SIGNS = "+-"
_OPERATORS = ("AND", "OR", "NOT")
_MODIFIERS = ("ORDER_BY", "SORT", "LIMIT", "UNIQUE")
_DIRECTIONS = ("ASC", "DESC")


@dataclass(frozen=True, slots=True)
class Completing:
    """What stands between `start` and `end`, and is to be replaced.

    A ``field`` has a value behind it and a ``path`` has none; a ``value`` is one of `field`, which
    is to be a ``number`` behind a comparison. `typed` is what of it stands before the cursor,
    without backslashes and quotes if it is a value. `words` of the language may stand there, too.
    """

    what: What
    start: int
    end: int
    typed: str = ""
    field: Field | None = None
    words: tuple[str, ...] = ()


def completing(text: str, position: int) -> Completing:
    """Answer what is being written at a position; beyond the text that is at its end.

    In a text that is too long to be a search it is nothing.
    """
    at = max(0, min(position, len(text)))
    if len(text) > LONGEST:
        return Completing("nothing", at, at)
    return _Scan(text, at).all()


class _Scan:
    """Goes through the text before the cursor, condition by condition."""

    def __init__(self, text: str, cursor: int) -> None:
        self._text = text
        self._before = text[:cursor]
        self._cursor = cursor
        self._at = 0
        self._groups: list[str | None] = []
        self._within: str | None = None
        """The field before the parentheses that are open."""
        self._begun = False
        """Whether a condition stands before this one."""

    def all(self) -> Completing:
        while True:
            self._skip()
            if self._sees("${"):
                return self._modifiers(self._at + 2)
            if self._at == self._cursor:
                return self._fresh(self._at, "")
            if (found := self._one()) is not None:
                return found

    def _one(self) -> Completing | None:
        """Go over one piece; answer what is completed if the cursor is in it."""
        here = self._before[self._at]
        if here == "(":
            self._open(self._within)
            return None
        if here == ")":
            self._within = self._groups.pop() if self._groups else None
            self._begun = True
            self._at += 1
            return None
        if self._within is not None:
            return self._value(self._within)
        if field := FIELD.match(self._before, self._at):
            self._at = field.end()
            self._skip()
            if field["path"] == "_exists_":
                return self._path(self._at)
            return self._of_field(field[0][:-1])
        if here in _SIGNS:
            self._at += 1
            if self._at == self._cursor:
                return Completing("field", self._at, self._end_of_field(self._at))
            return None
        if here == '"':
            return self._quoted(None)
        return self._bare()

    def _of_field(self, name: str) -> Completing | None:
        if self._at < self._cursor and self._before[self._at] == "(":
            self._open(name)
            return None
        return self._value(name)

    def _open(self, field: str | None) -> None:
        self._groups.append(self._within)
        self._within = field
        self._begun = False
        self._at += 1

    def _bare(self) -> Completing | None:
        start, bare = self._at, BARE.match(self._before, self._at)
        if bare is None:
            self._at += 1
            return None
        if bare.end() == self._cursor:
            return self._fresh(start, bare[0])
        self._at = bare.end()
        self._begun = bare[0] not in _OPERATORS
        return None

    def _fresh(self, start: int, typed: str) -> Completing:
        """Answer what a condition may begin with."""
        words = _OPERATORS if self._begun else ("NOT",)
        if self._within is not None:
            return self._of_value("value", start, typed, self._within, words)
        return Completing("field", start, self._end_of_field(start), typed, words=words)

    def _path(self, start: int) -> Completing | None:
        path = WHOLE_PATH.match(self._before, start)
        end = start if path is None else path.end()
        if end == self._cursor:
            return Completing("path", start, self._end_of_path(start), self._before[start:])
        self._at = max(end, start + 1)
        self._begun = True
        return None

    # Values

    def _value(self, name: str) -> Completing | None:
        what: What = "value"
        if self._sees("~"):
            self._at += 1
        elif compare := COMPARE.match(self._before, self._at):
            what, self._at = "number", compare.end()
        elif self._at < self._cursor and self._before[self._at] in "[{":
            return self._range(name)
        self._skip()
        return self._one_value(name, what)

    def _one_value(self, name: str, what: What) -> Completing | None:
        if self._at == self._cursor:
            return self._of_value(what, self._at, "", name)
        if self._sees('"'):
            return self._quoted(name, what)
        start, bare = self._at, BARE.match(self._before, self._at)
        if bare is None:
            self._at += 1
            return None
        if bare.end() == self._cursor:
            words = _OPERATORS if name == self._within else ()
            return self._of_value(what, start, bare[0], name, words)
        self._at, self._begun = bare.end(), bare[0] not in _OPERATORS
        return None

    def _range(self, name: str) -> Completing | None:
        self._at += 1
        ends = 0
        while True:
            self._skip()
            if self._at == self._cursor and ends == 1:
                return Completing("word", self._at, self._at, words=("TO",))
            if self._at < self._cursor and self._before[self._at] in "]}":
                self._at, self._begun = self._at + 1, True
                return None
            if ends == 1 and self._sees("TO"):
                self._at += len("TO")
                ends += 1
                continue
            before = self._at
            if (found := self._one_value(name, "number")) is not None:
                return found
            if self._at == before + 1 and not BARE.match(self._before, before):
                continue  # a bracket that is none of a range
            ends += 1

    def _quoted(self, name: str | None, what: What = "value") -> Completing | None:
        start, quoted = self._at, QUOTED.match(self._before, self._at)
        if quoted is not None:
            self._at, self._begun = quoted.end(), True
            if self._at == self._cursor:
                return Completing("nothing", self._at, self._at)
            return None
        typed = _ESCAPED.sub(r"\1", self._before[start + 1 :])
        if name is None:
            return Completing("nothing", self._cursor, self._cursor)
        whole = QUOTED.match(self._text, start)
        rest = self._text[self._cursor : whole.end()] if whole else " "
        end = self._cursor if re.search(r"\s", rest) else self._cursor + len(rest)
        return self._valued(what, start, end, typed, name, ())

    def _of_value(
        self, what: What, start: int, typed: str, name: str, words: tuple[str, ...] = ()
    ) -> Completing:
        bare = BARE.match(self._text, start)
        end = self._cursor if bare is None else max(self._cursor, bare.end())
        return self._valued(what, start, end, _ESCAPED.sub(r"\1", typed), name, words)

    def _valued(
        self, what: What, start: int, end: int, typed: str, name: str, words: tuple[str, ...]
    ) -> Completing:
        if name.endswith(".length()"):
            return Completing("nothing", self._cursor, self._cursor)
        return Completing(what, start, end, typed, field_of(name), words)

    # Batch's modifiers

    def _modifiers(self, start: int) -> Completing:
        self._at = start
        seen: set[str] = set()
        while True:
            self._skip()
            if "}" in self._before[start : self._at]:
                break
            words = tuple(word for word in _MODIFIERS if word not in seen)
            modifier = MODIFIER.match(self._before, self._at)
            if modifier is None or modifier.end() == self._cursor:
                return self._word(words)
            seen.add(_MODIFIERS[0] if modifier[0] == "ORDER" else modifier[0])
            self._at = modifier.end()
            self._skip()
            if (found := self._argument(modifier[0])) is not None:
                return found
            self._skip()
            if self._sees("}"):
                break
            if not self._sees("AND") or self._at + len("AND") == self._cursor:
                return self._word(("AND",))
            self._at += len("AND")
        return Completing("nothing", self._cursor, self._cursor)

    def _argument(self, modifier: str) -> Completing | None:
        if modifier in ("LIMIT", "SORT"):
            given = re.compile(r"[^\s}]*").match(self._before, self._at)
            end = self._at if given is None else given.end()
            if end == self._cursor and modifier == "SORT":
                return self._word(_DIRECTIONS)
            if end == self._cursor:
                return Completing("nothing", self._cursor, self._cursor)
            self._at = end
            return None
        return self._path(self._at)

    def _word(self, words: tuple[str, ...]) -> Completing:
        return Completing("word", self._at, self._cursor, self._before[self._at :], words=words)

    # Characters

    def _end_of_field(self, start: int) -> int:
        field = FIELD.match(self._text, start)
        if field is not None and field.end() > self._cursor:
            return field.end()
        return self._end_of_path(start)

    def _end_of_path(self, start: int) -> int:
        path = WHOLE_PATH.match(self._text, start)
        return self._cursor if path is None else max(self._cursor, path.end())

    def _skip(self) -> None:
        self._at = _BLANKS.match(self._before, self._at).end()  # type: ignore[union-attr]  # matches nothing, too

    def _sees(self, text: str) -> bool:
        return self._before.startswith(text, self._at)
