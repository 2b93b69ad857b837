"""Events as nobody would make them on purpose, but somebody sends: for searches to agree on."""

from __future__ import annotations

import json
import random

from builders import event
from query_reference import NOW, micros

from penstock.envelope import Event

KEYS = [
    *(
        "a",
        "A",
        "b",
        "é",
        "É",
        "s",
        "\u017f",
        "a.b",
        "b c",
        "",
        "x:y",
        'q"q',
        "back\\slash",
        "%",
        "%2E",
    ),
    *(
        "source",
        "data",
        "key",
        "headers",
        "tags",
        "n",
        "a_b",
        "a b",
        "(x)",
        "-m",
        "ß",
        "null",
        "[0]",
    ),
]
"""Pairs in case, and whatever has a meaning in paths, columns or searches."""

TEXTS = [
    *("alpha", "Bravo", "alpha Bravo charlie", "x-ray app-1.log", "d@x.org", "O'Neil", "50% a_b"),
    *(
        "wild*card",
        "q?",
        "back\\slash",
        'say "hi"',
        "33",
        "33 apples",
        "-5",
        "02134",
        "true",
        "TRUE",
    ),
    *(
        "null",
        "ΣΊΣΥΦΟΣ",
        "Σίσυφος",
        "İstanbul",
        "istanbul",
        "ISTANBUL",
        "\u0131s\u0131",
        "Straße",
        "STRASSE",
    ),
    *("Łódź", "日本 語", "ⅣⅤ", "x²", "a\u0301e", "nul\u0000l", "line\nbreak", "tab\there", " ", ""),
    *("2026-11-05", "2026-11-05T10:30:00Z", "2026-11-05T10:30:00.123Z", "2026-11-05 10:30"),
    *("2026-11-05T10:30:00+02:00", "2026-11-05x", "2026-11-20T00:00", "2026-12-01", "/var/log/x"),
    *("[1 TO 2]", "(a OR b)", "a:b", "NaN", "1e400", "\u2028", "😀 smile", "nbsp\u00a0nbsp", "a,b"),
    *("unit\u001fpart alpha", "unit part", "charlie", "bravo charlie x"),
]

NUMBERS = [
    *(
        "0",
        "-0",
        "1",
        "-1",
        "-5",
        "33",
        "33.0",
        "33.5",
        "3.3e1",
        "1E2",
        "100",
        "0.1",
        "1e-7",
        "2026",
    ),
    *("9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807"),
    *(
        "9223372036854775808",
        "12345678901234567890123",
        "1e308",
        "1e400",
        "-1e400",
        "1e-400",
        "4e1",
    ),
]

OPAQUE = [
    *(b"plain alpha text", b"NaN", b"[1,]", b'{"a":1,}', b"", b"\xff\xfe alpha", b"{'a':1}"),
    *(b"\xef\xbb\xbf{}", b'"\\ud800"', b"alpha\x00bravo", "Straße İ".encode(), b"33", b"-inf"),
    *(
        b"null",
        b"[]",
        b"{}",
        b"[null]",
        b'{"alpha":null}',
        b'[{"a":[]}]',
        b'"alpha bravo"',
        b"33.5",
    ),
    *(
        b"[33,null]",
        b"true",
        b'[{"a":1},{"a":"alpha"}]',
        b"01",
        b'{"a":1}{"a":2}',
        b"[nan]",
        b" \n",
    ),
]


class UglyEvents:
    """A source of events, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._keys = self._chance.sample(KEYS, 12)
        self.paths: list[tuple[str, ...]] = [()]

    def events(self, count: int) -> list[Event]:
        return [self._event(number) for number in range(count)]

    def _event(self, number: int) -> Event:
        chance = self._chance
        opaque = chance.random() < 0.15
        payload = chance.choice(OPAQUE) if opaque else self._object((), 0).encode()
        headers = tuple(
            (name, chance.choice([b"req alpha", b"33", b"\xff", b"Bravo"]))
            for name in ("X-Request-Id", "x-request-id", "tenant")
            if chance.random() < 0.3
        )
        names = ("topic", "partition", "kafka.key")
        metadata = {n: chance.choice(TEXTS) for n in names if chance.random() < 0.4}
        moment = micros(NOW) - chance.randrange(40 * 86_400 * 1_000_000)
        return event(
            payload,
            id=f"e-{number}",
            received_at=moment,
            content_type=chance.choice([None, "text/plain", "application/octet-stream"]),
            key=chance.choice([None, None, b"alpha", b"\xff", b"33", "Straße".encode()]),
            headers=headers,
            metadata=metadata,
            event_time=chance.choice([None, moment - chance.randrange(86_400 * 1_000_000)]),
            source=chance.choice(["http", "grpc", "HTTP"]),
        )

    def _object(self, at: tuple[str, ...], depth: int) -> str:
        chance = self._chance
        keys = [chance.choice(self._keys) for _ in range(chance.randint(0, 5 - depth))]
        fields = []
        for key in keys:
            # The same key twice is JSON, and the last one counts.
            spelt = json.dumps(key, ensure_ascii=chance.random() < 0.3)
            fields.append(f"{spelt}:{self._value((*at, key), depth + 1)}")
        blank = chance.choice(["", " "])
        return "{" + f",{blank}".join(fields) + "}"

    def _value(self, at: tuple[str, ...], depth: int) -> str:
        chance = self._chance
        self.paths.append(at)
        kind = chance.random()
        if depth < 3 and kind < 0.15:
            return self._object(at, depth)
        if depth < 4 and kind < 0.35:
            items = [self._value(at, depth + 1) for _ in range(chance.randint(0, 3))]
            return f"[{','.join(items)}]"
        if kind < 0.45:
            return "null"
        if kind < 0.55:
            return chance.choice(["true", "false"])
        if kind < 0.75:
            return chance.choice(NUMBERS)
        return json.dumps(chance.choice(TEXTS), ensure_ascii=chance.random() < 0.3)
