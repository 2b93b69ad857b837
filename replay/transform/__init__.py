r"""What a replay changes in each event on its way to the target. Pure.

A transform is a list of steps, each a line of text::

    mask card.number
    mask email as hash
    remove debug where internal
    rename user to customer
    set environment = 'staging'
    set headers.x-total = to_string(total)

A place is named as in a search: a path in the payload (`data.` forces it), ``key``, or a header,
``headers.NAME``. Expressions are JMESPath over the same names. Each step sees what those before it
left, and what cannot be changed as asked is never sent as it was.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn, cast

import msgspec
from msgspec.structs import replace

from penstock.envelope import Event, Position
from penstock.errors import BadRequest
from penstock.query.parse import field_of
from penstock.query.tree import Column, Header, Payload
from penstock.schema.names import keys_of
from replay.transform.document import (
    Document,
    Unchangeable,
    Whole,
    string_of,
    written,
)
from replay.transform.expression import Expression, NotAnExpression, json_of, value_of

MOST_STEPS = 50
LONGEST_STEP = 2_000
MASK = "***"
ADDED_HEADER = "penstock-transform"
"""Says, unless the replay is verbatim, that an event is not as it was received, and by what."""

_HASH_LETTERS = 32
_ID_LETTERS = 16
_VERB = re.compile(r"(?:mask|remove|rename|set)(?!\S)")
_PLACE = re.compile(r"((?:[^\s\\=]|\\.)+)\s*", re.DOTALL)
_PATTERN = re.compile(r"(?:[^\\*\[\]]|\\.|\[\])*+([*\[\]])", re.DOTALL)
_WORD = re.compile(r"\S+")
# Texts of an expression may have the word in them.
_WHERE = re.compile(
    r"""'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|`(?:[^`\\]|\\.)*`?|(\swhere\s)""", re.DOTALL
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Verb = Literal["mask", "remove", "rename", "set"]
Pair = tuple[str, bytes]
Place = Payload | Header | Column


class Step(NamedTuple):
    """One step, as it was read."""

    verb: Verb
    place: Place
    name: str = ""
    """Of `rename`: the other name."""
    value: Expression | None = None
    """Of `set`."""
    hashed: bool = False
    """Of `mask`: by a pseudonym and not by `MASK`."""
    where: Expression | None = None


class Transform:
    """Steps that were read, ready to change events."""

    def __init__(
        self, lines: Sequence[str], steps: Sequence[Step], secret: bytes, *, mark: bool
    ) -> None:
        self._steps = steps
        self._secret = secret
        self._mark = mark
        self.id = hashlib.sha256(msgspec.json.encode(list(lines))).hexdigest()[:_ID_LETTERS]
        """The beginning of the SHA-256 of its steps."""
        self.reads_payload = any(map(_reads_payload, steps))
        """Whether it can be done only to payloads that are JSON."""
        self.hashes = any(step.hashed for step in steps)
        """Whether it needs a secret."""

    def changed(self, event: Event, position: Position) -> Event:
        """Answer the event as it is sent.

        Raises `Unchangeable` for one that cannot be changed as asked: it must not be sent at all.
        """
        where = "the transform"
        try:
            work = _Work(event, position, self)
            for number, step in enumerate(self._steps, 1):
                where = f"step {number} of the transform"
                if step.where is None or step.where.holds(work.root()):
                    work.do(step)
            made = work.event()
        except Unchangeable as error:
            raise Unchangeable(f"{where}: {error}") from None
        except Exception:  # noqa: BLE001 - whatever it is, its text may hold values of the event
            raise Unchangeable(f"{where} cannot be done") from None
        return self.marked(made) if self._mark else made

    def marked(self, event: Event) -> Event:
        """Answer the event with the header that says what changed it."""
        kept = [pair for pair in event.headers if pair[0].lower() != ADDED_HEADER]
        return replace(event, headers=(*kept, (ADDED_HEADER, self.id.encode())))

    def pseudonym(self, value: bytes) -> str:
        """Answer the text that stands for a value; without the secret nobody finds the value."""
        return hmac.digest(self._secret, value, "sha256").hex()[:_HASH_LETTERS]


class _Work:
    """One event while it is changed."""

    def __init__(self, event: Event, position: Position, transform: Transform) -> None:
        self._event = event
        self._position = position
        self._transform = transform
        self._headers = event.headers
        self._key = event.key
        self._document = Document(event.payload) if transform.reads_payload else None
        self._root: dict[str, object] | None = None

    def event(self) -> Event:
        """Answer the event as it has become."""
        document = self._document
        return replace(
            self._event,
            payload=self._event.payload if document is None else document.payload(),
            headers=self._headers,
            key=self._key,
        )

    def root(self) -> Mapping[str, object]:
        """Answer what expressions are about: the names of a search."""
        if self._root is None:
            event, document = self._event, self._document
            data = None if document is None else value_of(document.text())
            self._root = {
                **(data if isinstance(data, dict) else {}),
                "data": data,
                "event_id": event.id,
                "received_at": event.received_at,
                "event_time": event.event_time,
                "source": event.source,
                "content_type": event.content_type,
                "key": _text(self._key),
                "headers": {name.lower(): _text(v) for name, v in reversed(self._headers)},
                "metadata": event.metadata,
                "log_partition": self._position.partition,
                "log_offset": self._position.offset,
            }
        return self._root

    def do(self, step: Step) -> None:
        """Do one step."""
        match step.place:
            case Payload(keys):
                self._to_payload(step, keys)
            case Header(name):
                self._to_headers(step, name or "")
            case Column():
                self._to_key(step)
        self._root = None

    def _to_payload(self, step: Step, keys: Sequence[str]) -> None:
        document = self._document
        assert document is not None  # noqa: S101 - the transform reads payloads
        match step.verb:
            case "mask":
                for part in document.members(keys):
                    masked = self._masked(step, _told(part.value)) if step.hashed else MASK
                    part.value = msgspec.json.encode(masked)
            case "remove":
                document.remove(keys)
            case "rename":
                document.rename(keys, step.name)
            case "set":
                document.set(keys, self._value(step))

    def _to_headers(self, step: Step, name: str) -> None:
        before = self._headers
        found = [pair for pair in before if pair[0].lower() == name]
        others = [pair for pair in before if pair[0].lower() != name]
        match step.verb:
            case "remove":
                after = others
            case "rename" if found:
                other = step.name.lower()
                kept = [pair for pair in before if pair in found or pair[0].lower() != other]
                after = [(step.name, pair[1]) if pair in found else pair for pair in kept]
            case "mask":
                after = [
                    (pair[0], self._masked(step, pair[1]).encode()) if pair in found else pair
                    for pair in before
                ]
            case "set":
                after = self._with_header(step, found, others)
            case _:
                return
        self._headers = tuple(after)

    def _with_header(self, step: Step, found: list[Pair], others: list[Pair]) -> list[Pair]:
        """Answer the headers with one of another value, where the first of that name was."""
        value = self._text_value(step)
        if value is None:
            return others
        if _NOT_IN_HEADERS.search(value):
            raise Unchangeable("a header would have control characters")
        at = self._headers.index(found[0]) if found else len(others)
        own = found[0][0] if found else step.name
        return [*others[:at], (own, value.encode()), *others[at:]]

    def _to_key(self, step: Step) -> None:
        match step.verb:
            case "remove":
                self._key = None
            case "mask" if self._key is not None:
                self._key = self._masked(step, self._key).encode()
            case "set":
                value = self._text_value(step)
                self._key = None if value is None else value.encode()
            case _:
                pass

    def _masked(self, step: Step, value: bytes) -> str:
        return self._transform.pseudonym(value) if step.hashed else MASK

    def _value(self, step: Step) -> bytes:
        expression = step.value
        assert expression is not None  # noqa: S101 - a `set` has one
        if expression.constant is not None:
            return expression.constant
        return json_of(expression.value(self.root()))

    def _text_value(self, step: Step) -> str | None:
        """Answer the value of a `set` as the text of a header or a key; None for null."""
        value = self._value(step)
        text = string_of(value)
        if text is None and value != b"null":
            text = value.decode()
        return text


def read_transform(
    lines: Sequence[str], *, secret: Callable[[], bytes] = lambda: b"", mark: bool = True
) -> Transform:
    """Read steps; raise `BadRequest` that says which one is wrong, at which character, and why.

    `secret` is asked if a step masks by a pseudonym. With `mark` events say by a header that they
    are not as they were received.
    """
    if len(lines) > MOST_STEPS:
        raise BadRequest(f"the transform has {len(lines)} steps; {MOST_STEPS} are allowed").at(
            "transform"
        )
    steps = [_Reader(line, number).step() for number, line in enumerate(lines, 1)]
    hashes = any(step.hashed for step in steps)
    return Transform(lines, steps, secret() if hashes else b"", mark=mark)


def _reads_payload(step: Step) -> bool:
    computed = step.value is not None and step.value.constant is None
    return isinstance(step.place, Payload) or computed or step.where is not None


def _told(value: bytes | Whole) -> bytes:
    """Answer what a pseudonym is made of: of a string its text, however that was escaped."""
    text = string_of(value)
    return written(value) if text is None else text.encode()


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


class _Reader:
    """Reads one line."""

    def __init__(self, line: str, number: int) -> None:
        self._line = line
        self._number = number
        self._at = len(line) - len(line.lstrip())

    def step(self) -> Step:
        """Answer the step."""
        line = self._line
        if len(line) > LONGEST_STEP:
            self._wrong(f"it is longer than {LONGEST_STEP:,} characters", 0)
        self._line, where = self._parted()
        verb = self._word()
        place, name = self._place(verb)
        match verb:
            case "mask":
                hashed = self._hashed()
                return Step("mask", place, hashed=hashed, where=where)
            case "rename":
                return Step("rename", place, name=self._name(place), where=where)
            case "set":
                return Step("set", place, name=name, value=self._set_value(), where=where)
            case _:
                self._end()
                return Step("remove", place, where=where)

    def _parted(self) -> tuple[str, Expression | None]:
        """Answer the line before its condition, and the condition."""
        for found in _WHERE.finditer(self._line):
            if found[1] is not None:
                return self._line[: found.start()], self._expression(found.end())
        return self._line, None

    def _word(self) -> Verb:
        found = _VERB.match(self._line, self._at)
        if found is None:
            self._wrong("it begins with one of mask, remove, rename, set", self._at)
        self._at = found.end()
        self._blank()
        return cast("Verb", found[0])

    def _place(self, verb: str) -> tuple[Place, str]:
        """Answer a place, and how its last part is written."""
        start = self._at
        found = _PLACE.match(self._line, start)
        if found is None:
            self._wrong("a place is missing: a path in the payload, key, or headers.NAME", start)
        self._at = found.end()
        if (special := _PATTERN.match(found[1])) is not None:
            self._wrong(
                "lists are gone into by themselves, and a place is no pattern; write "
                f"\\{special[1]} for a key that has it",
                start + special.start(1),
            )
        if not all(keys_of(found[1])):
            self._wrong("a key of the path is empty", start)
        match field_of(found[1]):
            case Payload(keys) as place if keys:
                return place, keys[-1]
            case Header(name) as place if name and _TOKEN.fullmatch(name):
                return place, found[1].partition(".")[2]
            case Column("key") as place if verb != "rename":
                return place, "key"
            case Payload():
                raise self._error("the payload as a whole cannot be changed, only in parts", start)
            case _:
                why = f"{found[1]} cannot be changed; a field of the payload that is called so is "
                raise self._error(f"{why}data.{found[1]}", start)

    def _hashed(self) -> bool:
        start = self._at
        words = self._line[start:].split()
        if words and words != ["as", "hash"]:
            self._wrong("behind a place to mask there is nothing, or: as hash", start)
        return bool(words)

    def _name(self, place: Place) -> str:
        start = self._at
        found = _WORD.match(self._line, start)
        if found is None or found[0] != "to":
            self._wrong("write: rename PLACE to NAME", start)
        self._at = found.end()
        self._blank()
        start = self._at
        name = _PLACE.match(self._line, start)
        if name is None:
            self._wrong("a name is missing", start)
        self._at = name.end()
        self._end()
        if isinstance(place, Header):
            text = name[1]
            if not _TOKEN.fullmatch(text):
                self._wrong("no header can have this name", start)
            return text
        keys = keys_of(name[1])
        if len(keys) != 1:
            self._wrong(r"a name is one key, not a path; a dot in it is written \.", start)
        return keys[0]

    def _set_value(self) -> Expression:
        if self._line[self._at : self._at + 1] != "=":
            self._wrong("write: set PLACE = EXPRESSION", self._at)
        return self._expression(self._at + 1)

    def _expression(self, start: int) -> Expression:
        try:
            return Expression(self._line[start:])
        except NotAnExpression as error:
            self._wrong(str(error), start + error.at)

    def _blank(self) -> None:
        rest = self._line[self._at :]
        self._at += len(rest) - len(rest.lstrip())

    def _end(self) -> None:
        if self._line[self._at :].strip():
            self._wrong("there is more than it takes", self._at)

    def _wrong(self, why: str, at: int) -> NoReturn:
        raise self._error(why, at)

    def _error(self, why: str, at: int) -> BadRequest:
        said = f"step {self._number} of the transform, character {at + 1}: {why}"
        return BadRequest(said).at("transform")
