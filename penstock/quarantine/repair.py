r"""Repairs: what makes another payload of one that could not become a row.

Each step is a pure function from bytes to bytes. One that finds nothing to do answers what it was
given. Bytes to look for are written as text: it stands for its UTF-8, and ``\xNN``, ``\n``,
``\r``, ``\t`` and ``\\`` for single bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import BadRequest

LONGEST_PATTERN = 1_000
MOST_GROWTH = 16
"""How many times larger a payload may become, beyond a first kilobyte."""

_FIRST_KILOBYTE = 1_024
_BOM = b"\xef\xbb\xbf"
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[nrt\\])|\\", re.DOTALL)
_PLAIN = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}

# Strings of JSON are read over as a whole: what looks like NaN in them is text. Linear: no part of
# it can match the same bytes in two ways.
_NOT_A_NUMBER = re.compile(
    rb'"(?:[^"\\]|\\.)*+"?|(?<![\w$.])(-?(?:NaN|Infinity))(?![\w$.])', re.DOTALL
)


Step = Callable[[bytes], bytes]
"""One step of a repair. Raises `BadRequest` rather than let a payload grow without bound."""


def drop_bom(payload: bytes) -> bytes:
    """Drop a byte order mark of UTF-8 in front."""
    return payload.removeprefix(_BOM)


def decode_latin1(payload: bytes) -> bytes:
    """Write Latin-1 as UTF-8; what is UTF-8 already stays as it is."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return payload.decode("latin-1").encode()
    return payload


def wrap_ndjson(payload: bytes) -> bytes:
    """Make one JSON array of the lines that are not blank; a single one stays as it is."""
    lines = [line.strip(b" \t\r") for line in payload.split(b"\n")]
    full = [line for line in lines if line]
    return b"[" + b",".join(full) + b"]" if len(full) > 1 else payload


def null_nan(payload: bytes) -> bytes:
    """Write null for NaN, Infinity and -Infinity, which are no JSON; strings keep theirs."""
    return _NOT_A_NUMBER.sub(lambda found: b"null" if found[1] else found[0], payload)


TRANSFORMS: Mapping[str, Step] = {
    "bom": drop_bom,
    "latin1": decode_latin1,
    "ndjson": wrap_ndjson,
    "nan": null_nan,
}
"""The steps that need nothing else, by the name they are asked for."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Puts bytes in place of others, wherever they are."""

    find: bytes
    put: bytes

    def __call__(self, payload: bytes) -> bytes:
        """Answer the payload with every occurrence replaced."""
        count = payload.count(self.find)
        _refuse_growth(len(payload), len(payload) + count * (len(self.put) - len(self.find)))
        return payload.replace(self.find, self.put)


@dataclass(frozen=True, slots=True)
class ReplacePattern:
    r"""Puts bytes in place of what a regular expression finds; ``\1`` is its first group.

    The expression is one of RE2, over bytes: it takes time in proportion to the payload, whatever
    it says, and has no look-around and no back-references. ``\C`` and ``.`` are a byte.
    """

    pattern: str
    put: str

    def __call__(self, payload: bytes) -> bytes:
        """Answer the payload with every match replaced."""
        # Counted first: "" matches between all bytes, and each may bring the whole replacement.
        found = pc.count_substring_regex(pa.array([payload], pa.binary()), pattern=self.pattern)
        groups = payload if "\\" in self.put else b""
        _refuse_growth(len(payload), (len(self.put) + len(groups)) * (found[0].as_py() or 0))
        replaced = pc.replace_substring_regex(
            pa.array([payload], pa.binary()), pattern=self.pattern, replacement=self.put
        )
        answer: bytes = replaced[0].as_py()
        return answer


@dataclass(frozen=True, slots=True)
class Put:
    """Puts a whole other payload in place of the one there is."""

    payload: bytes

    def __call__(self, payload: bytes) -> bytes:  # noqa: ARG002 - it is what all steps are given
        """Answer the other payload."""
        return self.payload


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done to an event before it is released: its content type, then step by step."""

    content_type: str | None = None
    steps: tuple[Step, ...] = ()

    @property
    def single(self) -> bool:
        """Whether it can be meant for one event only: it gives a whole payload."""
        return any(isinstance(step, Put) for step in self.steps)

    def payload(self, payload: bytes) -> bytes:
        """Answer the payload after every step."""
        for step in self.steps:
            payload = step(payload)
        return payload


def transform(name: str) -> Step:
    """Answer the step of this name; raise `BadRequest` for one that there is not."""
    step = TRANSFORMS.get(name)
    if step is None:
        raise BadRequest(f"there is no transform {name!r}; there are {', '.join(TRANSFORMS)}")
    return step


def replace(find: str, put: str) -> Step:
    """Answer the step that puts one text in place of another, both with escapes."""
    sought = read_bytes(find)
    if not sought:
        raise BadRequest("what is to be replaced is empty")
    return Replace(sought, read_bytes(put))


def replace_pattern(pattern: str, put: str) -> Step:
    """Answer the step of a regular expression; raise `BadRequest` if RE2 does not read it."""
    if len(pattern) > LONGEST_PATTERN:
        raise BadRequest(f"a regular expression may have {LONGEST_PATTERN:,} characters")
    step = ReplacePattern(pattern, put)
    try:
        step(b"")
    except pa.ArrowInvalid as error:
        raise BadRequest(f"the regular expression cannot be used: {error}") from None
    return step


def read_bytes(text: str) -> bytes:
    """Read text with escapes; raise `BadRequest` for a backslash that begins none."""
    parts, at = [], 0
    for found in _ESCAPE.finditer(text):
        parts.append(text[at : found.start()].encode())
        at = found.end()
        escape = found[1]
        if escape is None:
            raise BadRequest(r"write a backslash as \\, and a byte as \xNN")
        parts.append(_PLAIN[escape] if escape in _PLAIN else bytes.fromhex(escape[1:]))
    return b"".join([*parts, text[at:].encode()])


def _refuse_growth(before: int, after: int) -> None:
    if after > _FIRST_KILOBYTE + MOST_GROWTH * before:
        raise BadRequest(
            f"a payload of {before:,} bytes could become one of {after:,}: "
            f"a repair may make it {MOST_GROWTH} times as large"
        )
