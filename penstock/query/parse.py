r"""From the text of a search to its tree, by recursive descent.

    search  = [ any ] [ "${" modifier { "AND" modifier } "}" ]
    any     = all { "OR" all }
    all     = one { [ "AND" ] one }
    one     = ( "NOT" | "-" | "+" ) one | "(" any ")" | condition
    condition, in the open = field ":" value | quoted | bare | "*"
    condition, below a field, is a value:
    value   = "(" any ")" | quoted | bare | "~" ( quoted | bare ) | compare bound | range
    compare = ">" | ">=" | "<" | "<="
    range   = ( "[" | "{" ) bound "TO" bound ( "]" | "}" )
    bound   = quoted | bare | "*"

A bare text ends at a blank or a bracket. A backslash takes the meaning from the character behind
it. What cannot be read is refused and pointed at; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from penstock.envelope import Micros
from penstock.errors import BadQuery
from penstock.query import times
from penstock.query.text import lower, number, words
from penstock.query.tree import (
    And,
    Bound,
    Column,
    Equals,
    Everything,
    Exists,
    Field,
    Header,
    IsNull,
    Length,
    Like,
    Metadata,
    Node,
    Not,
    NumberRange,
    Or,
    Payload,
    Quarantine,
    Query,
    TextBound,
    TextRange,
    Time,
    TimeRange,
    Wild,
    Words,
)
from penstock.schema.names import keys_of

LONGEST = 10_000
"""Characters of a search."""
MOST_CONDITIONS = 200
DEEPEST = 50
"""Levels of parentheses, NOT, ``-`` and ``+``: engines have bounds of their own, and no caret."""

MOST_WILDCARDS = 20
"""Of one value: each of them multiplies the work on a long text."""

MOST_WORDS = 200
"""In a row: the expression that finds 1,000 of them takes more memory than engines allow it."""

_BLANKS = re.compile(r"\s*")
_KEYWORD = re.compile(r"(?:AND|OR|NOT)(?=[\s()]|$)")
_PLAIN = r'[^\s\\()\[\]{}"$]|\$(?!\{)'
BARE = re.compile(rf"(?:\\.|{_PLAIN})+", re.DOTALL)
_PATH = rf"(?:\\.|\[\](?=[.:\s)}}]|$)|(?!:)(?:{_PLAIN}))"
FIELD = re.compile(rf"(?P<path>{_PATH}*?)(?P<length>\.length\(\))?:", re.DOTALL)
WHOLE_PATH = re.compile(rf"{_PATH}+", re.DOTALL)
QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_PIECE = re.compile(r"\\(.)|(.)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LIST = re.compile(r"(\\.)|\[\]", re.DOTALL)
COMPARE = re.compile(r">=|>|<=|<")
_ENDS = re.compile(r"$|[\s)]|\$\{")
MODIFIER = re.compile(r"ORDER_BY|ORDER|SORT|LIMIT|UNIQUE")
_DIRECTION = re.compile(r"ASC|DESC")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")

_BATCH: dict[tuple[str, ...], str] = {
    ("batch", "info", "date_human"): "received_at",
    ("batch", "info", "request_id"): "event_id",
    ("batch", "info", "source"): "source",
}
_FOREIGN = {"!": "expected NOT, or '-', instead of '!'", "&&": "expected AND", "||": "expected OR"}


def parse(text: str, *, now: Micros) -> Query:
    """Answer what the text asks for; `now` is what ``now`` means in it.

    Raises `BadQuery`, which says what was expected and at which character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadQuery(text, error.start, "expected Unicode text, not half a surrogate") from None
    if len(text) > LONGEST:
        raise BadQuery(text, LONGEST, f"expected at most {LONGEST:,} characters")
    return _Parser(text, now).search()


def read_field(text: str) -> Field:
    """Answer the field that a text names as a search does.

    Raises `BadQuery` where it is no name, or goes on behind one.
    """
    path = WHOLE_PATH.match(text)
    if path is None or path.end() < len(text):
        stopped = 0 if path is None else path.end()
        raise BadQuery(
            text,
            stopped,
            "expected the name of a field, with a backslash before a blank, bracket, colon or "
            "quote that is part of it",
        )
    return field_of(text)


def field_of(path: str) -> Field:
    """Answer the field that a path names."""
    keys = keys_of(_LIST.sub(r"\1", path))
    name = _BATCH.get(keys, keys[0] if len(keys) == 1 else "")
    match name:
        case "received_at" | "event_time":
            return Time(name)
        case "event_id" | "source" | "content_type" | "key" | "log_partition" | "log_offset":
            return Column(name)
    match keys:
        case ("data", *rest) | ("client", "payload", *rest):
            return Payload(tuple(rest))
        case ("metadata", *rest) | ("client", "metadata", *rest):
            return Metadata(".".join(rest) if rest else None)
        case ("headers", *rest):
            return Header(lower(".".join(rest)) if rest else None)
        case ("quarantine", "stage" | "reason" as column):
            return Quarantine(column)
        case _:
            return Payload(keys)


class _Piece(NamedTuple):
    """A character of a bare text, and whether it stands for itself."""

    character: str
    literal: bool
    position: int

    @property
    def wild(self) -> bool:
        return not self.literal and self.character in "*?"


class _Bare(NamedTuple):
    """A bare text, without its backslashes."""

    pieces: tuple[_Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.character for piece in self.pieces)

    def is_plain(self, text: str) -> bool:
        """Say whether it is this text, without a backslash."""
        return self.text == text and not any(piece.literal for piece in self.pieces)

    def wildcards(self) -> list[_Piece]:
        return [piece for piece in self.pieces if piece.wild]

    def pattern(self) -> tuple[str | Wild, ...]:
        pattern: list[str | Wild] = []
        for piece in self.pieces:
            if piece.wild:
                pattern.append(Wild(piece.character))
            elif pattern and isinstance(pattern[-1], str):
                pattern[-1] += piece.character
            else:
                pattern.append(piece.character)
        return tuple(pattern)


class _End(NamedTuple):
    """An end of a range as it was written."""

    text: str
    position: int
    inclusive: bool


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the values behind a colon are said of."""

    name: str
    field: Field
    length: bool
    grouped: bool = False


class _Parser:
    def __init__(self, text: str, now: Micros) -> None:
        self._text = text
        self._now = now
        self._at = 0
        self._depth = 0
        self._conditions = 0

    def search(self) -> Query:
        self._skip()
        where: Node = Everything()
        if not self._done() and not self._sees("${"):
            where = self._any(None)
        query = Query(self._text, where)
        if self._sees("${"):
            query = self._modified(query)
        if not self._done():
            self._refuse("expected the end of the search; there is no '(' for this ')'")
        return query

    # What joins conditions

    def _any(self, subject: _Subject | None) -> Node:
        parts = [self._all(subject)]
        while self._keyword("OR"):
            parts.append(self._all(subject))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self, subject: _Subject | None) -> Node:
        parts = [self._one(subject)]
        while not self._done() and not self._sees(")") and not self._sees("${"):
            if self._next_keyword() == "OR":
                break
            self._keyword("AND")
            parts.append(self._one(subject))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, subject: _Subject | None) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"expected at most {DEEPEST} levels of parentheses and NOT")
        node = self._prefixed(subject)
        self._depth -= 1
        self._skip()
        return node

    def _prefixed(self, subject: _Subject | None) -> Node:
        if self._keyword("NOT"):
            return Not(self._one(subject))
        if self._next_keyword():
            self._refuse(f"expected a condition before {self._next_keyword()}")
        for sign in "-+":
            if self._take(sign):
                if _ENDS.match(self._text, self._at):
                    self._refuse(f"expected a condition right after '{sign}'")
                node = self._one(subject)
                return Not(node) if sign == "-" else node
        if self._sees("("):
            return self._group(subject)

        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            self._refuse(f"expected at most {MOST_CONDITIONS} conditions")
        return self._open() if subject is None else self._value(subject)

    def _group(self, subject: _Subject | None) -> Node:
        start = self._at
        self._at += 1
        self._skip()
        if self._done() or self._sees(")"):
            self._refuse("expected a condition inside the parentheses")
        node = self._any(subject)
        if not self._take(")"):
            self._refuse(f"expected ')' for the '(' at character {start + 1}")
        if not self._sees("("):
            self._separated()
        return node

    # Conditions without a field

    def _open(self) -> Node:
        if self._done() or self._sees(")") or self._sees("${"):
            self._refuse("expected a condition")
        if field := FIELD.match(self._text, self._at):
            return self._of_field(field)
        start = self._at
        if (quoted := self._quoted()) is not None:
            return self._words(None, quoted, start)
        if self._sees("[") or self._sees("{"):
            self._refuse("a range needs a field, as in total:[1 TO 5]; expected a condition")
        if COMPARE.match(self._text, self._at):
            self._refuse("a comparison needs a field, as in total:>5; expected a condition")
        for sign, expected in _FOREIGN.items():
            if self._sees(sign):
                self._refuse(expected)
        bare = self._bare("expected a condition")
        if bare.is_plain("*"):
            return Everything()
        return self._bare_words(None, bare, start)

    def _of_field(self, match: re.Match[str]) -> Node:
        if not match["path"]:
            self._refuse("expected the name of a field before ':'")
        if match["path"] == "_exists_" and not match["length"]:
            self._at = match.end()
            self._skip()
            return Exists(self._path())
        subject = _Subject(match[0][:-1], field_of(match["path"]), match["length"] is not None)
        if subject.length and not isinstance(subject.field, Payload):
            self._refuse(f"expected a field of the payload before .length(), not {match['path']}")
        self._at = match.end()
        self._skip()
        if self._sees("("):
            group = _Subject(subject.name, subject.field, subject.length, grouped=True)
            return self._group(group)
        return self._value(subject)

    # Values of a field

    def _value(self, subject: _Subject) -> Node:
        start = self._at
        if self._done() or self._sees(")") or self._sees("${"):
            self._refuse(f"expected a value after '{subject.name}:'")
        if keyword := self._next_keyword():
            self._refuse(f"expected a value after '{subject.name}:'; {keyword} itself needs quotes")
        if self._take("~"):
            return self._contains(subject)
        if compare := COMPARE.match(self._text, self._at):
            self._at = compare.end()
            end = self._end(inclusive=compare[0].endswith("="))
            if end is None:
                self._refuse_at(start, f"expected a value after '{compare[0]}'")
            low, high = (end, None) if compare[0][0] == ">" else (None, end)
            self._separated()
            return self._range(subject, low, high)
        if self._sees("[") or self._sees("{"):
            return self._bracketed(subject)
        if (quoted := self._quoted()) is not None:
            return self._equals(subject, quoted, start)
        return self._bare_value(subject, self._bare("expected a value"), start)

    def _contains(self, subject: _Subject) -> Node:
        self._skip()
        start = self._at
        if subject.length or isinstance(subject.field, Time):
            self._refuse_at(start - 1, f"expected {_kind(subject)}")
        if (quoted := self._quoted()) is not None:
            return self._words(subject.field, quoted, start)
        bare = self._bare("expected a word, or words in quotes, after '~'")
        return self._bare_words(subject.field, bare, start)

    def _bare_value(self, subject: _Subject, bare: _Bare, start: int) -> Node:
        colons = [p for p in bare.pieces if p.character == ":" and not p.literal]
        if subject.grouped and colons and not isinstance(subject.field, Time):
            self._refuse_at(
                colons[0].position,
                "expected a value; another field cannot stand in these parentheses, "
                "and a value with a colon needs quotes",
            )
        if bare.is_plain("*") and not subject.length:
            return Exists(subject.field)
        if bare.is_plain("null") and not subject.length:
            if isinstance(subject.field, Payload):
                return IsNull(subject.field)
            self._refuse_at(
                start,
                f"expected a value; only fields of the payload can be null, NOT {subject.name}:*",
            )
        wildcards = bare.wildcards()
        if wildcards and not subject.length and not isinstance(subject.field, Time):
            if len(wildcards) > MOST_WILDCARDS:
                expected = f"expected at most {MOST_WILDCARDS} wildcards in a value"
                self._refuse_at(wildcards[MOST_WILDCARDS].position, expected)
            return Like(subject.field, bare.pattern())
        return self._equals(subject, bare.text, start)

    def _equals(self, subject: _Subject, text: str, start: int) -> Node:
        end = _End(text, start, inclusive=True)
        if subject.length or isinstance(subject.field, Time):
            return self._range(subject, end, end)
        flag = {"true": True, "false": False}.get(lower(text))
        return Equals(subject.field, text, number(text), flag)

    def _bracketed(self, subject: _Subject) -> Node:
        start = self._at
        low_inclusive = self._text[start] == "["
        self._at += 1
        low = self._end(inclusive=low_inclusive)
        self._skip()
        if not self._take("TO"):
            self._refuse("expected TO, as in [1 TO 5]")
        high = self._end(inclusive=False)
        self._skip()
        if self._take("]"):
            high = high and high._replace(inclusive=True)
        elif not self._take("}"):
            self._refuse(f"expected ']' or '}}' for the '{self._text[start]}' at {start + 1}")
        self._separated()
        if low is None and high is None and not subject.length:
            return Exists(subject.field)
        if low is None and high is None:
            self._refuse_at(start, "expected a number at one end of the range")
        return self._range(subject, low, high)

    def _end(self, *, inclusive: bool) -> _End | None:
        """Read an end of a range; an asterisk is none."""
        self._skip()
        start = self._at
        if quoted := QUOTED.match(self._text, start):
            self._at = quoted.end()
            return _End(_ESCAPED.sub(r"\1", quoted[1]), start, inclusive)
        match = BARE.match(self._text, start)
        if match is None:
            self._refuse("expected a value")
        self._at = match.end()
        bare = _pieces(match)
        return None if bare.is_plain("*") else _End(bare.text, start, inclusive)

    def _range(self, subject: _Subject, low: _End | None, high: _End | None) -> Node:
        field = subject.field
        if isinstance(field, Time):
            return self._time_range(field, low, high)
        if isinstance(field, Payload) and not subject.length:
            bounds = [
                times.text_bound(e.text, inclusive=e.inclusive) if e else None for e in (low, high)
            ]
            if any(bounds):
                for end, bound in zip((low, high), bounds, strict=True):
                    if end is not None and bound is None:
                        self._refuse_at(end.position, "expected a date, as at the other end")
                return TextRange(field, *bounds)
        least, most = (self._bound(subject, end) if end else None for end in (low, high))
        if subject.length and isinstance(field, Payload):
            return Length(field, least, most)
        return NumberRange(field, least, most)

    def _bound(self, subject: _Subject, end: _End) -> Bound:
        value = number(end.text)
        if value is None:
            self._refuse_at(end.position, f"expected {_kind(subject)}")
        return Bound(value, end.inclusive)

    def _time_range(self, field: Time, low: _End | None, high: _End | None) -> TimeRange:
        start, end = self._span(low), self._span(high)
        return TimeRange(
            field,
            None if start is None or low is None else start.start if low.inclusive else start.end,
            None if end is None or high is None else end.end if high.inclusive else end.start,
        )

    def _span(self, end: _End | None) -> times.Span | None:
        if end is None:
            return None
        try:
            return times.span(end.text, self._now)
        except times.NotATime:
            self._refuse_at(end.position, times.EXPECTED)

    # Words

    def _bare_words(self, field: Field | None, bare: _Bare, start: int) -> Words:
        for wildcard in bare.wildcards():
            self._refuse_at(
                wildcard.position,
                f"a wildcard stands in the whole value of a field, as in name:wor*; "
                f"expected a word without '{wildcard.character}'",
            )
        return self._words(field, bare.text, start)

    def _words(self, field: Field | None, text: str, start: int) -> Words:
        found = words(text)
        if not found:
            self._refuse_at(start, "expected a letter or a digit to search for")
        if len(found) > MOST_WORDS:
            self._refuse_at(start, f"expected at most {MOST_WORDS} words in a row")
        return Words(field, found, number(text) if field is None else None)

    # Batch's modifiers

    def _modified(self, query: Query) -> Query:
        self._at += 2
        order_by, unique, limit, descending = None, None, None, True
        seen = set()
        while True:
            self._skip()
            modifier = MODIFIER.match(self._text, self._at)
            if modifier is None:
                self._refuse("expected ORDER_BY, SORT, LIMIT or UNIQUE")
            name = modifier[0].removesuffix("_BY")
            if name in seen:
                self._refuse(f"expected {name} once")
            seen.add(name)
            self._at = modifier.end()
            self._skip()
            match name:
                case "ORDER":
                    order_by = self._path()
                case "UNIQUE":
                    unique = self._path()
                case "SORT":
                    descending = self._token(_DIRECTION, "expected ASC or DESC") == "DESC"
                case _:
                    limit = int(self._token(_COUNT, "expected a number of events"))
            self._skip()
            if self._take("}"):
                break
            if not self._keyword("AND"):
                self._refuse("expected AND or '}'")
        self._skip()
        if not self._done():
            self._refuse("expected the end of the search behind '}'")
        return Query(query.text, query.where, order_by, descending, limit, unique)

    def _token(self, expression: re.Pattern[str], expected: str) -> str:
        match = expression.match(self._text, self._at)
        if match is None:
            self._refuse(expected)
        self._at = match.end()
        return match[0]

    # Characters

    def _path(self) -> Field:
        path = self._token(WHOLE_PATH, "expected the name of a field")
        if not self._sees("}"):
            self._separated()
        return field_of(path)

    def _bare(self, expected: str) -> _Bare:
        match = BARE.match(self._text, self._at)
        if match is None:
            if self._sees("\\"):
                self._refuse("expected a character behind the backslash")
            self._refuse(f"{expected}; write a backslash before a bracket that is part of it")
        self._at = match.end()
        self._separated()
        return _pieces(match)

    def _quoted(self) -> str | None:
        if not self._sees('"'):
            return None
        match = QUOTED.match(self._text, self._at)
        if match is None:
            self._refuse("expected a closing quote for this one")
        self._at = match.end()
        if self._sees(":"):
            self._refuse("expected the field without quotes; a blank in its name is written '\\ '")
        self._separated()
        return _ESCAPED.sub(r"\1", match[1])

    def _separated(self) -> None:
        """Refuse what follows a value without a blank: it would be read as something else."""
        if self._sees("\\"):
            self._refuse("expected a character behind the backslash")
        if not _ENDS.match(self._text, self._at):
            self._refuse(
                "expected a blank; write a backslash before a character that is part of the value, "
                "or quotes around it"
            )

    def _skip(self) -> None:
        self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches nothing, too

    def _done(self) -> bool:
        return self._at == len(self._text)

    def _sees(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        if not self._sees(text):
            return False
        self._at += len(text)
        return True

    def _next_keyword(self) -> str:
        match = _KEYWORD.match(self._text, self._at)
        return match[0] if match else ""

    def _keyword(self, word: str) -> bool:
        """Take the keyword, and the blanks behind it, if it comes next."""
        if self._next_keyword() != word:
            return False
        self._at += len(word)
        self._skip()
        if self._done():
            self._refuse(f"expected a condition after {word}")
        return True

    def _refuse(self, expected: str) -> NoReturn:
        self._refuse_at(self._at, expected)

    def _refuse_at(self, position: int, expected: str) -> NoReturn:
        raise BadQuery(self._text, position, expected)


def _pieces(match: re.Match[str]) -> _Bare:
    return _Bare(
        tuple(
            _Piece(piece[1] or piece[2], piece[1] is not None, match.start() + piece.start())
            for piece in _PIECE.finditer(match[0])
        )
    )


def _text_bound(end: _End | None) -> TextBound | None:
    return None if end is None else times.text_bound(end.text, inclusive=end.inclusive)


def _kind(subject: _Subject) -> str:
    if subject.length:
        return "a number of elements"
    match subject.field:
        case Time():
            return "a time"
        case Payload():
            return "a number, or a date as in 2026-11-22"
        case _:
            return "a number"
