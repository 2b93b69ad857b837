"""The corpus that every engine of search is asked about: ugly events, and what searches mean.

The meaning of a search is written beside it, in the words of `query_reference`; no engine and no
parser of ours has a say in it. An event's offset is its place in `EVENTS`, in partition 0.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from builders import event
from msgspec.structs import replace
from query_reference import (
    NOW,
    Asked,
    Holds,
    Read,
    Scalar,
    Searches,
    in_a_row,
    is_number,
    iso_compared,
    lowered,
    micros,
    number_of,
    words_of,
)
from ugly_events import NUMBERS, TEXTS, UglyEvents

from penstock.envelope import Event
from penstock.schema.convert import Rules

Test = Callable[[Scalar], bool]


def _minutes_ago(minutes: float) -> int:
    return micros(NOW - timedelta(minutes=minutes))


_PAYLOADS: tuple[bytes | str, ...] = (
    # Plain objects, and the same field in several types
    '{"carrier": "UA", "delay": 3, "late": true, "name": "alpha"}',
    '{"carrier": "ua", "delay": 3.5, "late": false, "name": "Alpha Bravo"}',
    '{"carrier": "AA", "delay": "3", "late": "true", "name": "alpha-bravo, charlie"}',
    '{"carrier": null, "delay": -12, "late": null, "name": "bravo alpha"}',
    '{"carrier": ["UA", "DL"], "delay": [1, 40], "name": ["alpha", "x bravo y"]}',
    '{"carrier": {"code": "UA", "since": 1931}, "delay": {"minutes": 40}}',
    '{"carrier": true, "delay": "40 minutes", "name": 3}',
    # Numbers
    '{"n": 0}',
    '{"n": -0.0}',
    '{"n": 40}',
    '{"n": 40.0}',
    '{"n": "40"}',
    '{"n": 4e1}',
    '{"n": "NaN"}',
    '{"n": "Infinity"}',
    '{"n": 1e400}',
    '{"n": -1e400}',
    '{"n": 1e-400}',
    '{"n": 9007199254740992}',
    '{"n": 9007199254740993}',
    '{"n": -9223372036854775808}',
    '{"n": 12345678901234567890123}',
    '{"n": 0.1}',
    '{"n": 0.30000000000000004}',
    '{"zip": "02134", "n": [39, 41]}',
    '{"zip": 2134, "n": []}',
    # Text: case, signs, escapes, blanks
    '{"city": "Łódź", "note": "Straße 12"}',
    '{"city": "ŁÓDŹ", "note": "STRASSE 12"}',
    '{"city": "İstanbul", "note": "ΣΊΣΥΦΟΣ"}',
    '{"city": "istanbul", "note": "Σίσυφος"}',
    '{"city": "ISTANBUL", "note": "σίσυφοσ"}',
    '{"city": "\\u212Aelvin", "note": "日本 語"}',
    '{"city": "x²", "note": "ⅣⅤ and 😀 smile"}',
    '{"city": "a\\u0301e", "note": "na\\u00efve nbsp\\u00a0nbsp"}',
    '{"city": "", "note": " "}',
    '{"city": "50% a_b", "note": "nul\\u0000l line\\nbreak tab\\there"}',
    '{"city": "wild*card q?", "note": "say \\"hi\\" it\'s back\\\\slash"}',
    '{"city": "\\ud83d\\ude00", "note": "unit\\u001fpart alpha"}',
    '{"city": "[1 TO 2]", "note": "(a OR b)"}',
    # Keys
    '{"a.b": 1, "a": {"b": 2}}',
    '{"a": {"b": {"c": "deep"}}, "b c": "blank"}',
    '{"Case": 1, "case": 2}',
    '{"": {"": "empty"}, "x:y": 1, "q\\"q": 2}',
    '{"source": "payload", "data": {"source": "nested"}, "key": "k", "headers": {"tenant": "no"}}',
    '{"%": "per", "%2E": "cent", "-m": "minus", "[0]": "zero"}',
    '{"twice": 1, "twice": "two"}',
    # Lists
    '{"lines": [{"sku": "x-1", "qty": 1}, {"sku": "Y-2", "qty": 20, "tags": ["red", "blue"]}]}',
    '{"lines": [{"sku": null}, {"qty": "2"}, {}, null]}',
    '{"lines": []}',
    '{"lines": [[1, [2, "three"]], [{"sku": "x-1"}]]}',
    '{"lines": {"sku": "x-1", "qty": 2.5}}',
    '{"tags": [true, "true", 1, "1", null]}',
    # Times as text
    '{"at": "2026-11-05"}',
    '{"at": "2026-11-05T10:30:00Z"}',
    '{"at": "2026-11-05T10:30:00.123Z"}',
    '{"at": "2026-11-05T10:30:00+02:00"}',
    '{"at": "2026-11-05x"}',
    '{"at": ["2026-11-20", 20261105]}',
    '{"at": "2026-12-01T00:00"}',
    # Documents that are no objects, and payloads that are no documents
    "{}",
    "[]",
    "null",
    "true",
    "33.5",
    '"alpha bravo"',
    '[{"a": 1}, {"a": "alpha"}, 33]',
    b"plain alpha text",
    b"NaN",
    b"[1,]",
    b'{"a":1,}',
    b"{'a':1}",
    b'{"a":1}{"a":2}',
    b'"\\ud800"',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe alpha",
    b"",
    b" \n",
    "Straße İ 33".encode(),
    b"alpha\x00bravo",
)

_CONTENT_TYPES = (None, "text/plain", "application/octet-stream")
_KEYS = (None, b"alpha", b"\xff", "Straße".encode(), b"33")
_HEADERS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (),
    (("X-Request-Id", b"req alpha"),),
    (("x-request-id", b"33"), ("X-REQUEST-ID", b"Bravo"), ("tenant", b"\xff")),
    (("tenant", b""),),
)
_METADATA: tuple[dict[str, str], ...] = (
    {},
    {"topic": "orders"},
    {"topic": "Orders Łódź", "partition": "33"},
    {"kafka.key": "a:b", "topic": ""},
)

EVENTS: tuple[Event, ...] = tuple(
    event(
        payload,
        id=f"e-{place:02}",
        received_at=_minutes_ago(60 * place + 0.5),
        event_time=None if place % 3 else _minutes_ago(60 * place + 90),
        # Declared JSON that is none would go to quarantine.
        content_type=_CONTENT_TYPES[place % 3],
        key=_KEYS[place % 5],
        headers=_HEADERS[place % 4],
        metadata=_METADATA[place % 4],
        source=("http", "grpc", "HTTP")[place % 3],
    )
    for place, payload in enumerate(_PAYLOADS)
)

READS: tuple[Read, ...] = tuple(
    Read(told, partition=0, offset=offset) for offset, told in enumerate(EVENTS)
)


# What searches mean


def _some(path: str | None, test: Test) -> Holds:
    """Answer whether some leaf at the path passes; None is any path."""
    return lambda read: any(test(v) for p, v in read.leaves if path in (None, p))


def _below(path: str) -> Holds:
    return lambda read: any(p == path or p.startswith(f"{path}.") for p, _ in read.leaves)


def _is(text: str) -> Test:
    number = number_of(text)

    def test(leaf: Scalar) -> bool:
        if isinstance(leaf, bool):
            return lowered(text) == ("true" if leaf else "false")
        if isinstance(leaf, float):
            return number is not None and leaf == number
        return lowered(leaf) == lowered(text)

    return test


def _holds(words: str) -> Test:
    wanted = [word for word in words_of(words) if word]
    return lambda leaf: isinstance(leaf, str) and in_a_row(wanted, leaf)


def _fits(expression: str) -> Test:
    return lambda leaf: (
        isinstance(leaf, str) and bool(re.fullmatch(expression, lowered(leaf), re.DOTALL))
    )


def _number(test: Callable[[float], bool]) -> Test:
    return lambda leaf: is_number(leaf) and test(leaf)


def _iso(*bounds: tuple[str, tuple[int, ...]]) -> Test:
    return lambda leaf: (
        isinstance(leaf, str) and all(iso_compared(leaf, bound) in sides for bound, sides in bounds)
    )


def _word(text: str) -> Holds:
    """Answer what a bare word finds: it in some text, or the number in some number."""
    number = number_of(text)
    return _some(None, lambda leaf: _holds(text)(leaf) or (is_number(leaf) and number == leaf))


def _column(name: str, test: Callable[[str], bool]) -> Holds:
    return lambda read: (text := read.text(name)) is not None and test(text)


def _header(name: str, test: Callable[[str], bool]) -> Holds:
    def holds(read: Read) -> bool:
        for key, value in read.event.headers:
            try:
                if key.lower() == name and test(value.decode()):
                    return True
            except UnicodeDecodeError:
                continue
        return False

    return holds


def _metadata(name: str, test: Callable[[str], bool]) -> Holds:
    return lambda read: name in read.event.metadata and test(read.event.metadata[name])


def _time(name: str, test: Callable[[int], bool]) -> Holds:
    return lambda read: (at := getattr(read.event, name)) is not None and test(at)


def _not(holds: Holds) -> Holds:
    return lambda read: not holds(read)


def _all(*parts: Holds) -> Holds:
    return lambda read: all(part(read) for part in parts)


def _any(*parts: Holds) -> Holds:
    return lambda read: any(part(read) for part in parts)


def _day(day: int, hour: int = 0) -> int:
    return micros(datetime(2026, 11, day, hour, tzinfo=UTC))


SEARCHES: tuple[Asked, ...] = (
    Asked("*", lambda _: True),
    Asked("", lambda _: True),
    # Words
    Asked("alpha", _word("alpha")),
    Asked("ALPHA", _word("alpha")),
    Asked('"alpha bravo"', _word("alpha bravo")),
    Asked('"bravo alpha"', _word("bravo alpha")),
    Asked("33", _word("33")),
    Asked("40", _word("40")),
    Asked("33.5", _word("33.5")),
    Asked("straße", _word("straße")),
    Asked("strasse", _word("strasse")),
    Asked("łódź", _word("łódź")),
    Asked("istanbul", _word("istanbul")),
    Asked("σίσυφος", _word("σίσυφος")),
    Asked("ΣΊΣΥΦΟΣ", _word("ΣΊΣΥΦΟΣ")),
    Asked("kelvin", _word("kelvin")),
    Asked("日本", _word("日本")),
    Asked('"日本 語"', _word("日本 語")),
    Asked("ⅳⅴ", _word("ⅳⅴ")),
    Asked("x²", _word("x²")),
    Asked("smile", _word("smile")),
    Asked("nbsp", _word("nbsp")),
    Asked("nul", _word("nul")),
    Asked('"unit part"', _word("unit part")),
    Asked('"line break"', _word("line break")),
    Asked("nan", _word("nan")),
    Asked("hi", _word("hi")),
    Asked("NOT alpha", _not(_word("alpha"))),
    Asked("alpha bravo", _all(_word("alpha"), _word("bravo"))),
    Asked("alpha OR straße", _any(_word("alpha"), _word("straße"))),
    Asked("alpha AND NOT bravo", _all(_word("alpha"), _not(_word("bravo")))),
    Asked("-alpha -bravo", _all(_not(_word("alpha")), _not(_word("bravo")))),
    # Equality
    Asked("carrier:UA", _some("carrier", _is("UA"))),
    Asked("carrier:true", _some("carrier", _is("true"))),
    Asked("late:true", _some("late", _is("true"))),
    Asked("late:FALSE", _some("late", _is("false"))),
    Asked("NOT carrier:UA", _not(_some("carrier", _is("UA")))),
    Asked("carrier:(UA OR AA)", _any(_some("carrier", _is("UA")), _some("carrier", _is("AA")))),
    Asked("delay:3", _some("delay", _is("3"))),
    Asked("delay:3.50", _some("delay", _is("3.50"))),
    Asked("delay:-12", _some("delay", _is("-12"))),
    Asked("n:40", _some("n", _is("40"))),
    Asked("n:0", _some("n", _is("0"))),
    Asked("n:NaN", _some("n", _is("NaN"))),
    Asked("n:9007199254740993", _some("n", _is("9007199254740993"))),
    Asked("n:12345678901234567890123", _some("n", _is("12345678901234567890123"))),
    Asked("n:0.1", _some("n", _is("0.1"))),
    Asked("zip:02134", _some("zip", _is("02134"))),
    Asked("zip:2134", _some("zip", _is("2134"))),
    Asked('city:""', _some("city", _is(""))),
    Asked('city:"ŁÓDŹ"', _some("city", _is("łódź"))),
    Asked("city:İstanbul", _some("city", _is("istanbul"))),
    Asked(
        'note:"say \\"hi\\" it\'s back\\\\slash"', _some("note", _is('say "hi" it\'s back\\slash'))
    ),
    Asked('city:"50% a_b"', _some("city", _is("50% a_b"))),
    Asked('data:"plain alpha text"', _some("", _is("plain alpha text"))),
    Asked("data:33.5", _some("", _is("33.5"))),
    Asked("data:true", _some("", _is("true"))),
    Asked("data:NaN", _some("", _is("NaN"))),
    # Words of a field
    Asked("name:~alpha", _some("name", _holds("alpha"))),
    Asked('name:~"alpha bravo"', _some("name", _holds("alpha bravo"))),
    Asked("note:~straße", _some("note", _holds("straße"))),
    Asked("lines.sku:~x", _some("lines.sku", _holds("x"))),
    Asked("NOT name:~bravo", _not(_some("name", _holds("bravo")))),
    Asked("data:~alpha", _some("", _holds("alpha"))),
    # Wildcards
    Asked("name:al*", _some("name", _fits("al.*"))),
    Asked("name:*bravo*", _some("name", _fits(".*bravo.*"))),
    Asked("name:*a*a*b*", _some("name", _fits(".*a.*a.*b.*"))),
    Asked("city:??", _some("city", _fits(".."))),
    Asked("city:?", _some("city", _fits("."))),
    Asked("city:50%*_b", _some("city", _fits("50%.*_b"))),
    Asked("city:wild\\**", _some("city", _fits("wild\\*.*"))),
    Asked("note:*break*here", _some("note", _fits(".*break.*here"))),
    Asked("note:*\\\\slash", _some("note", _fits(".*\\\\slash"))),
    Asked("city:İ*", _some("city", _fits("i.*"))),
    # Existence
    Asked("_exists_:carrier", _below("carrier")),
    Asked("delay:*", _below("delay")),
    Asked("NOT _exists_:name", _not(_below("name"))),
    Asked("_exists_:a", _below("a")),
    Asked("_exists_:a\\.b", _below("a\\.b")),
    Asked("a.b:2", _some("a.b", _is("2"))),
    Asked("a\\.b:1", _some("a\\.b", _is("1"))),
    Asked("a.b.c:deep", _some("a.b.c", _is("deep"))),
    Asked("b\\ c:blank", _some("b\\ c", _is("blank"))),
    Asked("Case:1", _some("Case", _is("1"))),
    Asked("case:*", _below("case")),
    Asked("x\\:y:1", _some("x\\:y", _is("1"))),
    Asked("data.source:payload", _some("source", _is("payload"))),
    Asked("data.data.source:nested", _some("data.source", _is("nested"))),
    Asked("data.key:k", _some("key", _is("k"))),
    Asked("%:per OR %2E:cent", _any(_some("%", _is("per")), _some("%2E", _is("cent")))),
    Asked("twice:two", _some("twice", _is("two"))),
    Asked("data:*", lambda read: bool(read.leaves)),
    # Ranges
    Asked("delay:>3", _some("delay", _number(lambda v: v > 3))),
    Asked("delay:<=3.5", _some("delay", _number(lambda v: v <= 3.5))),
    Asked("delay:[1 TO 40}", _some("delay", _number(lambda v: 1 <= v < 40))),
    Asked("NOT delay:>3", _not(_some("delay", _number(lambda v: v > 3)))),
    Asked("n:>1e308", _some("n", _number(lambda v: v > 1e308))),
    Asked("n:<0", _some("n", _number(lambda v: v < 0))),
    Asked("n:>=9007199254740992", _some("n", _number(lambda v: v >= 9007199254740992))),
    Asked("n:{39 TO 40.5}", _some("n", _number(lambda v: 39 < v < 40.5))),
    Asked("lines.qty:>=2", _some("lines.qty", _number(lambda v: v >= 2))),
    Asked("tags:1", _some("tags", _is("1"))),
    Asked(
        "at:[2026-11-05 TO 2026-11-20]",
        _some("at", _iso(("2026-11-05", (0, 1)), ("2026-11-20", (-1, 0)))),
    ),
    Asked("at:>2026-11-05", _some("at", _iso(("2026-11-05", (1,))))),
    Asked("at:<2026-12", _some("at", _iso(("2026-12", (-1,))))),
    Asked("at:>=2026-11-05T10:30:00Z", _some("at", _iso(("2026-11-05T10:30:00Z", (0, 1))))),
    # Lists
    Asked("lines.sku:x-1", _some("lines.sku", _is("x-1"))),
    Asked("lines[].sku:Y-2", _some("lines.sku", _is("Y-2"))),
    Asked("lines.tags:red", _some("lines.tags", _is("red"))),
    Asked("lines:three", _some("lines", _is("three"))),
    Asked("lines:2", _some("lines", _is("2"))),
    Asked("NOT lines.sku:*", _not(_below("lines.sku"))),
    # The envelope
    Asked("source:http", _column("source", lambda t: lowered(t) == "http")),
    Asked("NOT source:grpc", _column("source", lambda t: t != "grpc")),
    Asked("content_type:text*", _column("content_type", lambda t: t.startswith("text"))),
    Asked("_exists_:content_type", _column("content_type", lambda _: True)),
    Asked("key:alpha", _column("key", lambda t: t == "alpha")),
    Asked("key:straße", _column("key", lambda t: lowered(t) == "straße")),
    Asked("_exists_:key", lambda read: read.event.key is not None),
    Asked("event_id:E-03", _column("event_id", lambda t: t == "e-03")),
    Asked("event_id:e-0?", _column("event_id", lambda t: t.startswith("e-0"))),
    Asked("log_offset:[3 TO 9]", lambda read: 3 <= read.offset <= 9),
    Asked("log_partition:0", lambda _: True),
    Asked("headers.x-request-id:bravo", _header("x-request-id", lambda t: lowered(t) == "bravo")),
    Asked("headers.X-Request-ID:~alpha", _header("x-request-id", _holds("alpha"))),
    Asked(
        "_exists_:headers.tenant", lambda read: any(k == "tenant" for k, _ in read.event.headers)
    ),
    Asked('headers.tenant:""', _header("tenant", lambda t: not t)),
    Asked("metadata.topic:orders", _metadata("topic", lambda t: t == "orders")),
    Asked("metadata.topic:~łódź", _metadata("topic", _holds("łódź"))),
    Asked("metadata.partition:33", _metadata("partition", lambda t: t == "33")),
    Asked("_exists_:metadata.topic", _metadata("topic", lambda _: True)),
    Asked("NOT metadata:*", lambda read: not read.event.metadata),
    # Times
    Asked("received_at:>now-5h", _time("received_at", lambda t: t > _minutes_ago(300))),
    Asked("received_at:2026-11-22", _time("received_at", lambda t: _day(22) <= t < _day(23))),
    Asked(
        "received_at:[2026-11-21 TO 2026-11-22]",
        _time("received_at", lambda t: _day(21) <= t < _day(23)),
    ),
    Asked("received_at:<2026-11-22T06", _time("received_at", lambda t: t < _day(22, 6))),
    Asked("event_time:>=now-1d/d", _time("event_time", lambda t: t >= _day(22))),
    Asked("NOT event_time:*", lambda read: read.event.event_time is None),
    # Together
    Asked(
        "carrier:UA delay:[1 TO 5] OR lines.sku:x-1",
        _any(
            _all(_some("carrier", _is("UA")), _some("delay", _number(lambda v: 1 <= v <= 5))),
            _some("lines.sku", _is("x-1")),
        ),
    ),
    Asked(
        "NOT (name:~alpha OR (source:http AND NOT n:>=0))",
        _not(
            _any(
                _some("name", _holds("alpha")),
                _all(
                    _column("source", lambda t: lowered(t) == "http"),
                    _not(_some("n", _number(lambda v: v >= 0))),
                ),
            )
        ),
    ),
    Asked("alpha NOT source:grpc", _all(_word("alpha"), _column("source", lambda t: t != "grpc"))),
)
"""What the lake's rows answer. `FACTS` need more than stored columns."""

FACTS: tuple[Asked, ...] = (
    Asked("carrier:null", lambda read: "carrier" in read.nulls),
    Asked("late:null", lambda read: "late" in read.nulls),
    Asked("lines:null", lambda read: "lines" in read.nulls),
    Asked("lines.length():>2", lambda read: any(p == "lines" and n > 2 for p, n in read.lengths)),
    Asked("n.length():0", lambda read: any(p == "n" and n == 0 for p, n in read.lengths)),
    Asked("NOT tags[].length():>=1", lambda read: not any(p == "tags" for p, _ in read.lengths)),
)
"""Searches that payloads have to be read for."""


def found(asked: Asked) -> set[str]:
    """Answer the ids of the events that a search finds."""
    return {read.event.id for read in READS if asked.holds(read)}


MANY = Rules(max_columns=60)
"""Ugly keys make a column for every path, and an engine plans a thousand of them for long."""


class Wanted(NamedTuple):
    """A search, and the ids of the events that it finds."""

    asked: Asked
    ids: set[str]


def many() -> tuple[list[Event], list[Read], list[Wanted]]:
    """Answer 2,000 ugly events, how they read, and 200 searches, some with facts.

    Beside the fixed ones they are random, but none that finds nothing, or everything: such a one
    proves little.
    """
    source = UglyEvents(77)
    ugly = [
        replace(one, id=f"u-{number}")
        for number, one in enumerate(source.events(2_000 - len(EVENTS)))
    ]
    corpus = [*EVENTS, *ugly]
    reads = [*READS]
    reads += [Read(e, partition=0, offset=n + len(EVENTS)) for n, e in enumerate(ugly)]
    searches = [_wanted(asked, reads) for asked in (*SEARCHES, *FACTS)]
    maker = Searches(random.Random(77), source.paths, [*TEXTS, *NUMBERS], reads)
    while len(searches) < 200:
        one = _wanted(maker.search(), reads)
        if 0 < len(one.ids) < len(corpus):
            searches.append(one)
    return corpus, reads, searches


def _wanted(asked: Asked, reads: Iterable[Read]) -> Wanted:
    return Wanted(asked, {read.event.id for read in reads if asked.holds(read)})
