"""A slow reading of events and searches, from the words of the language's page alone.

It shares no code with what it checks: its own JSON rules, its own words and case, its own times.
It has no parser either: a random search is made together with what it means.
"""

from __future__ import annotations

import calendar
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from penstock.envelope import Event

Scalar = str | bool | float
Leaf = tuple[str, Scalar]
Holds = Callable[["Read"], bool]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 15, 4, 5, 678_901, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


# What an event is


class Read:
    """An event as a search sees it."""

    def __init__(self, event: Event, *, partition: int, offset: int, quarantine: str = "") -> None:
        self.event = event
        self.partition = partition
        self.offset = offset
        self.quarantine = quarantine
        try:
            document = _document(event.payload)
            self.leaves = list(_leaves(document, ""))
            self.nulls = set(_paths_of_nulls(document, ""))
            self.lengths = list(_lengths(document, ""))
        except ValueError:
            self.nulls, self.lengths = set(), []
            text = _text(event.payload)
            self.leaves = [] if text is None else [("", text)]

    def text(self, column: str) -> str | None:
        if column == "key":
            return None if self.event.key is None else _text(self.event.key)
        return self.event.id if column == "event_id" else getattr(self.event, column)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _document(payload: bytes) -> object:
    text = payload.decode()
    document = json.loads(text, parse_int=float, parse_float=float, parse_constant=_refuse_constant)
    # Half a surrogate is no text, so a document that spells one is no JSON.
    json.dumps(document, ensure_ascii=False).encode()
    return document


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _below(path: str | None, key: str) -> str:
    step = "".join(f"\\{c}" if c in '. :"\\' else c for c in key)
    return step if path is None else f"{path}.{step}"


def _walk(value: object, path: str | None) -> Iterator[tuple[str, object]]:
    yield path or "", value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, _below(path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, path)


def _leaves(document: object, _: str) -> Iterator[Leaf]:
    for path, value in _walk(document, None):
        if isinstance(value, str | bool | float):
            yield path, value


def _paths_of_nulls(document: object, _: str) -> Iterator[str]:
    return (path for path, value in _walk(document, None) if value is None)


def _lengths(document: object, _: str) -> Iterator[tuple[str, int]]:
    return ((path, len(value)) for path, value in _walk(document, None) if isinstance(value, list))


# What text is


def lowered(text: str) -> str:
    """One code point for one, by the simple mapping of the Unicode data."""
    return "".join("i" if c == "\u0130" else c.lower() for c in text)


def words_of(text: str) -> list[str]:
    spaced = "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in lowered(text))
    return spaced.split(" ") if not spaced.isspace() and spaced else []


def in_a_row(wanted: list[str], text: str) -> bool:
    found = [word for word in words_of(text) if word]
    size = len(wanted)
    return any(found[i : i + size] == wanted for i in range(len(found) - size + 1))


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def number_of(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def is_number(value: Scalar) -> bool:
    return isinstance(value, float) and not isinstance(value, bool)


# Searches: a text and what it means


@dataclass(frozen=True)
class Asked:
    text: str
    holds: Holds
    words: bool = False
    """Whether it may stand in parentheses behind a field: it is a value."""


@dataclass(frozen=True)
class Place:
    """A field: how it is written, and the leaves of an event that it means."""

    text: str
    leaves: Callable[[Read], list[Scalar]]
    exists: Holds
    path: str | None = None


_ENVELOPE = ("event_id", "source", "content_type", "key", "log_partition", "log_offset")
_TIMES = ("received_at", "event_time")
_RESERVED = {*_ENVELOPE, *_TIMES, "data", "client", "metadata", "headers", "batch", "quarantine"}


class Searches:
    """Makes searches over the keys, values and words of some events."""

    def __init__(
        self,
        chance: random.Random,
        paths: list[tuple[str, ...]],
        values: list[str],
        reads: Sequence[Read],
    ) -> None:
        self._chance = chance
        self._paths = paths
        self._values = values
        self._known: dict[str | None, list[str]] = {}
        for path, value in (leaf for read in reads for leaf in read.leaves):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if text not in ("inf", "-inf"):
                self._known.setdefault(path, []).append(text)

    # Fields

    def place(self) -> Place:
        kind = self._chance.random()
        if kind < 0.75:
            return self.payload_place()
        if kind < 0.85:
            return self._envelope_place()
        if kind < 0.93:
            return self._metadata_place()
        return self._header_place()

    def payload_place(self) -> Place:
        keys = self._chance.choice(self._paths)
        if keys and self._chance.random() < 0.1:
            keys = keys[: self._chance.randint(1, len(keys))]
        if self._chance.random() < 0.05:
            keys = (*keys, "nosuch")
        path = None
        for key in keys:
            path = _below(path, key)
        path = path or ""
        written = ".".join("".join(self._escaped(c) for c in key) for key in keys)
        bare = keys and keys[0] not in _RESERVED and keys != ("_exists_",) and written
        prefix = self._chance.choice(["", "", "data.", "client.payload."])
        if not bare:
            prefix = prefix or "data."
        if self._chance.random() < 0.1 and written and not written.endswith("."):
            written += "[]"
        below = f"{path}."
        return Place(
            prefix + written if keys else prefix[:-1],
            lambda read: [value for where, value in read.leaves if where == path],
            lambda read: any(not keys or w == path or w.startswith(below) for w, _ in read.leaves),
            path,
        )

    def _escaped(self, character: str) -> str:
        needed = character in '-+. :"\\()[]{}$' or character.isspace()
        return f"\\{character}" if needed or self._chance.random() < 0.03 else character

    def _envelope_place(self) -> Place:
        column = self._chance.choice(_ENVELOPE)
        written = column
        if column == "event_id":
            written = self._chance.choice([column, "batch.info.request_id"])
        if column == "source":
            written = self._chance.choice([column, "batch.info.source"])

        def leaves(read: Read) -> list[Scalar]:
            if column == "log_partition":
                return [float(read.partition)]
            if column == "log_offset":
                return [float(read.offset)]
            text = read.text(column)
            return [] if text is None else [text]

        def exists(read: Read) -> bool:
            return column.startswith("log_") or read.text(column) is not None

        if column == "key":
            return Place(written, leaves, lambda read: read.event.key is not None)
        return Place(written, leaves, exists)

    def _metadata_place(self) -> Place:
        name = self._chance.choice(["topic", "partition", "kafka.key", "nosuch"])
        prefix = self._chance.choice(["metadata.", "client.metadata."])
        return Place(
            prefix + name,
            lambda read: [read.event.metadata[name]] if name in read.event.metadata else [],
            lambda read: name in read.event.metadata,
        )

    def _header_place(self) -> Place:
        name = self._chance.choice(["x-request-id", "X-Request-ID", "Tenant", "nosuch"])

        def values(read: Read) -> list[bytes]:
            return [v for n, v in read.event.headers if lowered(n) == lowered(name)]

        return Place(
            f"headers.{name}",
            lambda read: [t for v in values(read) if (t := _text(v)) is not None],
            lambda read: bool(values(read)),
        )

    def _whole_place(self) -> Place:
        """All headers, or all metadata: there is no leaf at them, but below."""
        if self._chance.random() < 0.5:
            return Place("headers", lambda _: [], lambda read: bool(read.event.headers))
        written = self._chance.choice(["metadata", "client.metadata"])
        return Place(written, lambda _: [], lambda read: bool(read.event.metadata))

    # Conditions

    def search(self, depth: int = 0) -> Asked:
        kind = self._chance.random()
        if depth > 2 or kind < 0.45:
            return self.condition()
        if kind < 0.6:
            return self._joined(depth, [" ", " AND "], all)
        if kind < 0.75:
            return self._joined(depth, [" OR "], any)
        if kind < 0.9:
            part = self.search(depth + 1)
            sign = self._chance.choice(["NOT ", "-", "NOT  "])
            return Asked(f"{sign}({part.text})", lambda read: not part.holds(read))
        if kind < 0.95:
            part = self.condition()
            return Asked(f"+{part.text}", part.holds)
        return self._values_of_one_field()

    def _joined(self, depth: int, signs: list[str], how: Callable[..., bool]) -> Asked:
        parts = [self.search(depth + 1) for _ in range(self._chance.randint(2, 3))]
        sign = self._chance.choice(signs)
        text = sign.join(f"({part.text})" for part in parts)
        return Asked(text, lambda read: how(part.holds(read) for part in parts))

    def _values_of_one_field(self) -> Asked:
        place = self.place()
        first, second = self._value(place), self._value(place)
        if self._chance.random() < 0.5:
            return Asked(
                f"{place.text}:({first.text} OR {second.text})",
                lambda read: first.holds(read) or second.holds(read),
            )
        return Asked(
            f"{place.text}:({first.text} AND NOT {second.text})",
            lambda read: first.holds(read) and not second.holds(read),
        )

    def condition(self) -> Asked:
        kind = self._chance.random()
        if kind < 0.2:
            return self._free_words()
        if kind < 0.3:
            return self._time()
        if kind < 0.35:
            return self._null()
        if kind < 0.42:
            return self._length()
        if kind < 0.5:
            return self._exists()
        place = self.place()
        value = self._value(place)
        blank = self._chance.choice(["", "", " "])
        return Asked(f"{place.text}:{blank}{value.text}", value.holds)

    def _value(self, place: Place) -> Asked:
        makers = [self._equals, self._equals, self._contains, self._like, self._range]
        if place.path is not None:
            makers.append(self._iso_range)
        return self._chance.choice(makers)(place)

    def _quoted(self, text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _some_text(self, place: Place | None = None) -> str:
        known = self._known.get(place.path) if place else None
        text = self._chance.choice(self._values)
        if known and self._chance.random() < 0.7:
            text = self._chance.choice(known)
        change = self._chance.random()
        if change < 0.2:
            return text.upper() if "ß" not in text else text
        return text

    def _equals(self, place: Place) -> Asked:
        text = self._some_text(place)
        plain = re.fullmatch(r"[\w.+][\w.+-]*", text) and text not in ("null", "AND", "OR", "NOT")
        written = text if plain and self._chance.random() < 0.7 else self._quoted(text)
        number = number_of(text)

        def holds(read: Read) -> bool:
            for value in place.leaves(read):
                if isinstance(value, bool):
                    if lowered(text) == ("true" if value else "false"):
                        return True
                elif isinstance(value, float):
                    if number is not None and value == number:
                        return True
                elif lowered(value) == lowered(text):
                    return True
            return False

        return Asked(written, holds)

    def _some_words(self, place: Place | None = None) -> tuple[str, list[str]]:
        while True:
            text = self._some_text(place)
            found = [word for word in words_of(text) if word]
            if not found:
                continue
            start = self._chance.randrange(len(found))
            wanted = found[start : start + self._chance.randint(1, 3)]
            return " ".join(wanted), wanted

    def _contains(self, place: Place) -> Asked:
        text, wanted = self._some_words(place)
        one = len(wanted) == 1 and text not in ("and", "or", "not")
        written = text if one and self._chance.random() < 0.5 else self._quoted(text)

        def holds(read: Read) -> bool:
            return any(isinstance(v, str) and in_a_row(wanted, v) for v in place.leaves(read))

        return Asked(f"~{written}", holds)

    def _free_words(self) -> Asked:
        text, wanted = self._some_words()
        if self._chance.random() < 0.3:
            text = self._chance.choice(self._values)
            wanted = [word for word in words_of(text) if word]
            if not wanted:
                return self._free_words()
        one = re.fullmatch(r"\w+", text)
        written = text if one and self._chance.random() < 0.7 else self._quoted(text)
        number = number_of(text)

        def holds(read: Read) -> bool:
            for _, value in read.leaves:
                if isinstance(value, str) and in_a_row(wanted, value):
                    return True
                if is_number(value) and number is not None and value == number:
                    return True
            return False

        return Asked(written, holds)

    def _like(self, place: Place) -> Asked:
        text = self._some_text(place) or "a"
        cuts = sorted(
            self._chance.randint(0, len(text)) for _ in range(2 * self._chance.choice((1, 1, 2, 4)))
        )
        written, expression, last = "", "", 0
        for start, stop in zip(cuts[::2], cuts[1::2], strict=True):
            wild = self._chance.choice(["*", "?", "*"])
            written += self._escaped_value(text[last:start]) + wild
            expression += re.escape(lowered(text[last:start])) + {"*": ".*", "?": "."}[wild]
            last = stop
        written += self._escaped_value(text[last:])
        expression += re.escape(lowered(text[last:]))
        if written == "*" or "\\\n" in written:
            return self._equals(place)

        def holds(read: Read) -> bool:
            return any(
                isinstance(v, str) and re.fullmatch(expression, lowered(v), re.DOTALL)
                for v in place.leaves(read)
            )

        return Asked(written, holds)

    def _escaped_value(self, text: str) -> str:
        return "".join(c if re.match(r"[\w]", c) else f"\\{c}" for c in text)

    def _some_number(self) -> str:
        numbers = [text for text in self._values if number_of(text) is not None]
        return self._chance.choice([*numbers, "0", "-1", "1e3", "0.5"])

    def _range(self, place: Place) -> Asked:
        return self._range_over(place, lambda read: [v for v in place.leaves(read) if is_number(v)])

    def _range_over(self, place: Place, values: Callable[[Read], list[float]]) -> Asked:
        low, high = self._some_number(), self._some_number()
        least, most = float(low), float(high)
        form = self._chance.choice([">", ">=", "<", "<=", "[]", "{}", "[}", "{]", "[*", "*]"])
        tests: dict[str, tuple[str, Callable[[float], bool]]] = {
            ">": (f">{low}", lambda v: v > least),
            ">=": (f">= {low}", lambda v: v >= least),
            "<": (f"<{low}", lambda v: v < least),
            "<=": (f"<={low}", lambda v: v <= least),
            "[]": (f"[{low} TO {high}]", lambda v: least <= v <= most),
            "{}": (f"{{{low} TO {high}}}", lambda v: least < v < most),
            "[}": (f"[ {low} TO {high} }}", lambda v: least <= v < most),
            "{]": (f"{{{low} TO {high}]", lambda v: least < v <= most),
            "[*": (f"[{low} TO *]", lambda v: least <= v),
            "*]": (f"[* TO {high}}}", lambda v: v < most),
        }
        written, test = tests[form]
        return Asked(written, lambda read: any(test(value) for value in values(read)))

    def _iso_range(self, place: Place) -> Asked:
        low = self._chance.choice(
            ["2026-11-05", "2026-11", "2026-11-05T10", "2026-11-05T10:30:00Z"]
        )
        high = self._chance.choice(["2026-11-20", "2026-12", "2026-11-05T10:30", "2027-01-01"])
        form = self._chance.choice([">", ">=", "<", "<=", "[]", "{}"])

        def holds(read: Read) -> bool:
            for value in place.leaves(read):
                if not isinstance(value, str):
                    continue
                a, b = iso_compared(value, low), iso_compared(value, high)
                if (form == ">" and a == 1) or (form == ">=" and a in (0, 1)):
                    return True
                if (form == "<" and a == -1) or (form == "<=" and a in (0, -1)):
                    return True
                if form == "[]" and a in (0, 1) and b in (0, -1):
                    return True
                if form == "{}" and a == 1 and b == -1:
                    return True
            return False

        if form in ("[]", "{}"):
            return Asked(f"{form[0]}{low} TO {high}{form[1]}", holds)
        return Asked(f"{form}{low}", holds)

    def _exists(self) -> Asked:
        place = self._chance.choice([self.place(), self.place(), self._whole_place()])
        written = self._chance.choice([f"_exists_:{place.text}", f"{place.text}:*"])
        return Asked(written, place.exists)

    def _null(self) -> Asked:
        place = self.payload_place()
        return Asked(f"{place.text}:null", lambda read: place.path in read.nulls)

    def _length(self) -> Asked:
        place = self.payload_place()
        value = self._range_over(
            place, lambda read: [float(n) for path, n in read.lengths if path == place.path]
        )
        return Asked(f"{place.text}.length():{value.text}", value.holds)

    # Times

    def _time(self) -> Asked:
        column = self._chance.choice(["received_at", "received_at", "event_time"])
        written = column
        if column == "received_at" and self._chance.random() < 0.2:
            written = "batch.info.date_human"
        first, second = self._moment(), self._moment()
        form = self._chance.choice([":", ":>", ":>=", ":<", ":<=", "[]", "{}"])
        start, end = first[1]
        tests: dict[str, Callable[[int], bool]] = {
            ":": lambda at: start <= at < end,
            ":>": lambda at: at >= end,
            ":>=": lambda at: at >= start,
            ":<": lambda at: at < start,
            ":<=": lambda at: at < end,
            "[]": lambda at: start <= at < second[1][1],
            "{}": lambda at: end <= at < second[1][0],
        }

        def holds(read: Read) -> bool:
            at = getattr(read.event, column)
            return at is not None and tests[form](at)

        if form in ("[]", "{}"):
            return Asked(f"{written}:{form[0]}{first[0]} TO {second[0]}{form[1]}", holds)
        return Asked(f"{written}{form}{first[0]}", holds)

    def _moment(self) -> tuple[str, tuple[int, int]]:
        at = NOW - timedelta(seconds=self._chance.randint(0, 40 * 86_400))
        if self._chance.random() < 0.4:
            return self._relative()
        kind = self._chance.randrange(8)
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        match kind:
            case 0:
                year = datetime(at.year, 1, 1, tzinfo=UTC)
                return f"{at:%Y}", (micros(year), micros(datetime(at.year + 1, 1, 1, tzinfo=UTC)))
            case 1:
                days = calendar.monthrange(at.year, at.month)[1]
                month = day.replace(day=1)
                return f"{at:%Y-%m}", (micros(month), micros(month + timedelta(days=days)))
            case 2:
                return f"{at:%Y-%m-%d}", (micros(day), micros(day + timedelta(days=1)))
            case 3:
                hour = at.replace(minute=0, second=0, microsecond=0)
                return f"{at:%Y-%m-%dT%H}", (micros(hour), micros(hour + timedelta(hours=1)))
            case 4:
                second = at.replace(microsecond=0)
                shifted = second + timedelta(hours=2)
                text = f"{shifted:%Y-%m-%dT%H:%M:%S}+02:00"
                return text, (micros(second), micros(second + timedelta(seconds=1)))
            case 5:
                days = self._chance.randint(1, 40)
                moment = micros(NOW - timedelta(days=days))
                return f"now-{days}d", (moment, moment + 1)
            case 6:
                hours = self._chance.randint(1, 900)
                moment = micros(NOW - timedelta(hours=hours))
                return f"now-{hours}h", (moment, moment + 1)
            case _:
                days = self._chance.randint(1, 40)
                start = (NOW - timedelta(days=days)).replace(
                    hour=0, minute=0, second=0, microsecond=0
                )
                return f"now-{days}d/d", (micros(start), micros(start + timedelta(days=1)))

    def _relative(self) -> tuple[str, tuple[int, int]]:
        """Answer a moment some steps from now, or all of the unit of time around it."""
        text, at = "now", NOW
        for _ in range(self._chance.randint(0, 3)):
            unit = self._chance.choice("smhdwMy")
            most = {"s": 90_000, "m": 5_000, "h": 300, "d": 20, "w": 4, "M": 2, "y": 1}[unit]
            amount = self._chance.randint(0, most) * self._chance.choice([-1, -1, -1, 1])
            text += f"{amount:+d}{unit}"
            at = _stepped(at, amount, unit)
        if self._chance.random() < 0.5:
            return text, (micros(at), micros(at) + 1)
        unit = self._chance.choice("smhdwMy")
        start = _floored(at, unit)
        return f"{text}/{unit}", (micros(start), micros(_stepped(start, 1, unit)))


_STEPS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _stepped(at: datetime, amount: int, unit: str) -> datetime:
    if unit in _STEPS:
        return at + timedelta(**{_STEPS[unit]: amount})
    months = at.year * 12 + at.month - 1 + amount * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    return at.replace(year=year, month=month + 1, day=day)


def _floored(at: datetime, unit: str) -> datetime:
    """Answer the beginning of the unit of time; weeks begin on Monday."""
    if unit == "w":
        return _floored(at - timedelta(days=at.weekday()), "d")
    finer = {"s": 0, "m": 1, "h": 2, "d": 3, "M": 4, "y": 5}[unit]
    firsts = ["microsecond", "second", "minute", "hour", "day", "month"][: finer + 1]
    return at.replace(**{name: int(name in ("day", "month")) for name in firsts})


_ISO = re.compile(
    r"(\d{4}-\d\d)(-\d\d)?(T\d\d)?(:\d\d)?(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


def _iso_parts(text: str) -> tuple[list[str], str] | None:
    """Answer the parts of an ISO 8601 text from the month on, and its zone."""
    match = _ISO.fullmatch(text.replace(" ", "T"))
    if match is None:
        return None
    *parts, zone = match.groups()
    given = [part for part in parts if part is not None]
    if parts[: len(given)] != given or (zone and len(given) < 3):
        return None
    return given, zone or ""


def iso_compared(leaf: str, bound: str) -> int | None:
    """-1, 0 or 1 for a leaf before, within or after what the bound stands for; else None."""
    left, right = _iso_parts(leaf), _iso_parts(bound)
    if left is None or right is None or len(left[0]) < len(right[0]):
        return None
    if right[1] and left[1] != right[1]:
        return None
    if " " in leaf and len(right[0]) > 2:
        return None
    a, b = left[0][: len(right[0])], right[0]
    return (a > b) - (a < b)
