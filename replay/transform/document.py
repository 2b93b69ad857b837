"""A JSON text that is changed in places and keeps every other byte as it was. Pure.

Nothing is decoded but keys: numbers keep their digits, objects the order and the repetitions of
their keys, and white space stays. Only what is asked for is taken apart.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

import msgspec

from penstock.schema.gate import Refused, read

MOST_GROWTH = 16 << 20
"""Bytes by which steps may make one event larger."""

_BLANK = b" \t\n\r"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _nested(levels: int) -> bytes:
    """Answer what matches an object or a list that has so many levels at most.

    Nothing in it can match the same bytes in two ways, so it takes time in proportion to them.
    """
    below = b"" if levels == 1 else b"|" + _nested(levels - 1)
    return rb"[{\[](?:[^\"{}\[\]]++|" + _STRING + below + rb")*+[}\]]"


# A value is read with what is around it, unless it has more levels: then it begins where these end.
# The text is known to be JSON, so they need not be strict.
_END = rb"([ \t\n\r]*+)([,}\]])"
_VALUE = rb"(?:(" + _STRING + rb"|[^\"{\[,\]}\s]++|" + _nested(8) + rb")" + _END + rb")?"
_MEMBER = re.compile(
    rb"([ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+)" + _VALUE, re.DOTALL
)
_ELEMENT = re.compile(rb"([ \t\n\r]*+())" + _VALUE, re.DOTALL)
_TAIL = re.compile(_END)
_EMPTY = re.compile(rb".[ \t\n\r]*+[}\]]", re.DOTALL)
_MARKS = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)

_decode = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Unchangeable(Exception):
    """An event cannot be changed as asked. The text never holds any of the event."""


class Part:
    """A member of an object or an element of a list, with the white space that is around it.

    `head` is everything before the value, `tail` what is between it and the comma or bracket.
    """

    __slots__ = ("head", "key", "tail", "value")

    def __init__(self, key: str, head: bytes, value: bytes | Whole, tail: bytes = b"") -> None:
        self.key = key
        self.head = head
        self.value = value
        self.tail = tail


class Whole:
    """An object or a list, taken apart."""

    __slots__ = ("blank", "is_object", "parts")

    def __init__(self, *, is_object: bool, blank: bytes = b"") -> None:
        self.parts: list[Part] = []
        self.is_object = is_object
        self.blank = blank
        """The white space in one that was empty."""

    def text(self) -> bytes:
        """Answer it as JSON."""
        parts = [part.head + written(part.value) + part.tail for part in self.parts]
        inner = b",".join(parts) if parts else self.blank
        return b"{" + inner + b"}" if self.is_object else b"[" + inner + b"]"


class Document:
    """A payload that is JSON. Raises `Unchangeable` if it is none, or nested beyond reading."""

    def __init__(self, payload: bytes) -> None:
        try:
            # How much may be in it was decided when it landed, and takes as long as all the rest.
            text = read(payload, max_depth=sys.maxsize, max_keys=sys.maxsize)
        except Refused:
            raise Unchangeable("the payload is no JSON") from None
        start = len(payload) - len(payload.lstrip(_BLANK))
        self._root = Part("", payload[:start], text, payload[start + len(text) :])
        self._growth = 0

    def payload(self) -> bytes:
        """Answer it as bytes: where nothing was changed, those that were given."""
        root = self._root
        return root.head + written(root.value) + root.tail

    def text(self) -> bytes:
        """Answer its JSON, without white space around it."""
        return written(self._root.value)

    def members(self, keys: Sequence[str]) -> list[Part]:
        """Answer every member that the keys lead to, also those that stand twice.

        Lists on the way are gone into, so a member may be in many objects.
        """
        *way, last = keys
        return [part for owner in self._owners(way) for part in owner.parts if part.key == last]

    def remove(self, keys: Sequence[str]) -> None:
        """Leave out every member that the keys lead to."""
        *way, last = keys
        for owner in self._owners(way):
            owner.parts = [part for part in owner.parts if part.key != last]

    def rename(self, keys: Sequence[str], name: str) -> None:
        """Give every member that the keys lead to another key.

        One that has that key already is left out: a reader would not know which counts.
        """
        *way, last = keys
        if last == name:
            return
        for owner in self._owners(way):
            if not any(part.key == last for part in owner.parts):
                continue
            owner.parts = [part for part in owner.parts if part.key != name]
            for part in owner.parts:
                if part.key == last:
                    self._grow(len(name))
                    part.head = _renamed(part.head, name)
                    part.key = name

    def set(self, keys: Sequence[str], value: bytes) -> None:
        """Have this value wherever the keys lead to; objects that are missing are made.

        Raises `Unchangeable` where something else than an object or a list is in the way.
        """
        *way, last = keys
        for owner in self._owners(way, make=True):
            self._grow(len(value) + len(last))
            found = [part for part in owner.parts if part.key == last]
            for part in found:
                part.value = value
            if not found:
                _append(owner, last, value)

    def _owners(self, way: Sequence[str], *, make: bool = False) -> list[Whole]:
        """Answer the objects at the end of a way."""
        level = [self._root]
        for key in way:
            below = []
            for owner in _objects(level, strict=make):
                found = [part for part in owner.parts if part.key == key]
                if make and not found:
                    self._grow(len(key))
                    found = [_append(owner, key, Whole(is_object=True))]
                below += found
            level = below
        return list(_objects(level, strict=make))

    def _grow(self, count: int) -> None:
        self._growth += count
        if self._growth > MOST_GROWTH:
            raise Unchangeable("the transform makes the event too large")


def written(value: bytes | Whole) -> bytes:
    """Answer a value as JSON."""
    return value if isinstance(value, bytes) else value.text()


def key_text(key: str) -> bytes:
    """Answer a key as JSON."""
    return _encode(key)


def string_of(value: bytes | Whole) -> str | None:
    """Answer the text of a value that is a string."""
    return _decode(value) if isinstance(value, bytes) and value.startswith(b'"') else None


def _objects(parts: Sequence[Part], *, strict: bool) -> Iterator[Whole]:
    """Answer the objects that the parts are, or have in lists.

    Whatever else there is, is passed over, or where it is `strict` raises `Unchangeable`.
    """
    for part in parts:
        value = part.value
        if isinstance(value, bytes):
            if value[:1] not in (b"{", b"["):
                if strict:
                    raise Unchangeable("what it sets a field of is no object")
                continue
            value = part.value = _opened(value)
        if value.is_object:
            yield value
        else:
            yield from _objects(value.parts, strict=strict)


def _opened(text: bytes) -> Whole:
    """Take an object or a list apart, one level deep."""
    is_object = text.startswith(b"{")
    if _EMPTY.fullmatch(text):
        return Whole(is_object=is_object, blank=text[1:-1])
    whole = Whole(is_object=is_object)
    find = (_MEMBER if is_object else _ELEMENT).match
    at = 1
    while True:
        found = find(text, at)
        assert found is not None  # noqa: S101 - it is JSON
        head, name, value, tail, mark = found.groups()
        at = found.end()
        if value is None:
            start, at = at, _end_of(text, at)
            value = text[start:at]
            found = _TAIL.match(text, at)
            assert found is not None  # noqa: S101 - it is JSON
            tail, mark = found.groups()
            at = found.end()
        whole.parts.append(Part(_key(name), head, value, tail))
        if mark != b",":
            return whole


def _end_of(text: bytes, start: int) -> int:
    """Answer where the object or list ends that begins there."""
    depth = 0
    for found in _MARKS.finditer(text, start):
        mark = found[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
            if not depth:
                return found.end()
    raise AssertionError("it is JSON")


def _key(text: bytes) -> str:
    """Answer a key, `''` for an element of a list, which has none."""
    return _decode(text) if b"\\" in text else text[1:-1].decode()


def _renamed(head: bytes, name: str) -> bytes:
    """Answer the head of a member with another key in it."""
    start = head.index(b'"')
    end = len(head) - len(head.rpartition(b'"')[2])
    return head[:start] + key_text(name) + head[end:]


def _append(owner: Whole, key: str, value: bytes | Whole) -> Part:
    """Have one more member, on a line of its own where the one before it has that."""
    blank = tail = b""
    if owner.parts:
        last = owner.parts[-1]
        blank = last.head[: len(last.head) - len(last.head.lstrip(_BLANK))]
        last.tail, tail = b"", last.tail
    made = Part(key, blank + key_text(key) + b":", value, tail)
    owner.parts.append(made)
    return made
