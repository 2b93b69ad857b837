"""Messages and events of every unpleasant kind, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from builders import NOON, event

from penstock.envelope import Event

MIB = 1 << 20

IDS: tuple[str, ...] = (
    "a\nb",
    "\n",
    "a\n",
    "a\r\n\tb",
    "a/b",
    "/",
    "//a/",
    "a/../b",
    "..",
    ".",
    "../..",
    "%2F",
    "%2E%2E",
    "%252E",
    ".%2e",
    "%",
    "100%25",
    " ",
    " a ",
    "+",
    "a?b#c&d=e",
    "\\",
    "é😀",
    "\u202eabc",
    "\u0085\u2028",
    "x" * 1024,
    "😀" * 1024,
)
"""Ids of events that a path cannot carry as they are, or that one takes for another."""

FIXED: tuple[bytes, ...] = (
    b"",
    b"\x00",
    b"{}",
    b"[]",
    b"null",
    b"NaN",
    b"-Infinity",
    b'{"n": NaN}',
    b'{"n": 9223372036854775808}',
    b'{"n": -9223372036854775809}',
    b'{"n": 1e400}',
    b'{"n": 0.1000000000000000055511151231257827}',
    b'{"a": 1, "a": 2, "a": "three"}',
    b'{"surrogate": "\\ud800"}',
    b'{"pair": "\\ud83d\\ude00"}',
    b'{"nul": "a\\u0000b"}',
    b'{"": {"": ""}}',
    b'{"dotted.name": {"x.y": 1}}',
    b'{"Case": 1, "case": 2, "CASE": 3}',
    b'{"latin": "\xe4"}',
    b"\xef\xbb\xbf{}",
    b'{"list": [1, "a", null, {"b": [[], [2]]}]}',
    b'{"pretty":\n  {\n    "x":\r\n 1}\n}\n',
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b"[" * 100_000,
    b'{"a": {"b": ' * 300,
    b'{"k": 1,}',
    b"{'single': 1}",
    b'{"open": "',
    b"not json at all",
    "ünïcödé ∑ 漢字 🙂".encode(),
    b'{"keys": {' + b",".join(b'"k%d":%d' % (n, n) for n in range(11_000)) + b"}}",
)
"""Each of these broke something somewhere."""

TYPES = ("application/json", "text/plain", "application/octet-stream", None)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a client would send it."""

    payload: bytes
    content_type: str | None
    key: bytes | None
    headers: tuple[tuple[str, str], ...]


def messages(count: int, *, seed: int = 5) -> Iterator[Message]:
    """Answer `count` messages; a few are a mebibyte, most are small."""
    chance = random.Random(seed)
    for number in range(count):
        content_type = chance.choice(TYPES)
        if number < 2 * len(FIXED):
            content_type = "application/json" if number % 2 else None
            payload = FIXED[number // 2]
        elif number % 1_000 == 999:
            payload = chance.randbytes(MIB)
        else:
            payload = _payload(chance)
        yield Message(
            payload=payload,
            content_type=content_type,
            key=chance.choice((None, b"", b"key", chance.randbytes(9))),
            headers=chance.choice(
                (
                    (),
                    (("x-empty", ""),),
                    (("x-twice", "1"), ("x-twice", "2"), ("X-Twice", "3")),
                    (("x-long", "v" * 500),),
                )
            ),
        )


def _payload(chance: random.Random) -> bytes:
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.randint(1, 400))
        case 1:
            return msgspec.json.encode(_document(chance, 3))[: chance.randint(1, 80)]
        case 2:
            return msgspec.json.encode([_document(chance, 2), chance.random()])
        case _:
            return msgspec.json.encode(_document(chance, 3))


def _document(chance: random.Random, depth: int) -> dict[str, object]:
    return {chance.choice("abcdefgh"): _value(chance, depth) for _ in range(chance.randint(0, 5))}


def _value(chance: random.Random, depth: int) -> object:
    kinds = 8 if depth else 6
    match chance.randrange(kinds):
        case 0:
            return chance.randint(-5, 5)
        case 1:
            return chance.uniform(-1e9, 1e9)
        case 2:
            return chance.choice(("", "text", "ß", "a\nb", "\u2028"))
        case 3:
            return None
        case 4:
            return chance.random() < 0.5
        case 5:
            return chance.getrandbits(70)
        case 6:
            return _document(chance, depth - 1)
        case _:
            return [_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]


def events(count: int, *, largest: int = MIB // 2) -> list[Event]:
    """Answer events as only machines and attackers send them."""
    chance = random.Random(7)
    more: list[tuple[tuple[str, bytes], ...]] = [
        (),
        (("x", b"\xff\x00"), ("y", b"1"), ("x", b""), ("X", b"2")),
        (("Ünï", "Zürich".encode()), ("nul", b"a\x00b"), ("line", b"a\r\nb: c")),
        (("n" * 300, b"long"), ("a..b", b"1"), ("AWS.x", b"2")),
        (("", b"nameless"), ("many", b"v")),
        tuple((f"h{n}", b"%d" % n) for n in range(12)),
        (("penstock-headers", b"mine"), ("penstock-key", b"mine"), ("Content-Type", b"odd")),
    ]
    found = []
    for number, message in enumerate(messages(count)):
        own = tuple((name, value.encode()) for name, value in message.headers)
        found.append(
            event(
                message.payload[:largest],
                id=f"e{number}",
                content_type=message.content_type,
                key=message.key,
                headers=chance.choice(more) + own,
                event_time=NOON + number * 1_000,
            )
        )
    return found
