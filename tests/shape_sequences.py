"""What one collection is sent in the course of time: its documents change their shape at random.

A sequence is the same for the same seed. It has a few batches, and before each of them something
happens to the documents: a field is added, or widened, or becomes an object, …
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

Value = Callable[[], str]
"""Makes the JSON text of a value, another one each time."""

NUMBERS: tuple[tuple[str, ...], ...] = (
    ("0", "1", "-7", "40", "1.0", "2e1"),
    ("9007199254740992", "9007199254740993", "9223372036854775807", "-9223372036854775808"),
    ("5.99", "0.1", "-0.5", "1e-7", "-0.0"),
    ("9223372036854775808", "18446744073709551615", "123456789012345678901234567890"),
    ("0.1000000000000000055511151231257827", "12345678901234567890.12345", "4.9e-324", "1e-400"),
    ("1.7976931348623157e308", "1e400", "-1e999"),
)
"""Numbers of each width, from those that any column holds to those that none does."""

TEXTS = (
    "",
    "x",
    "5",
    "null",
    "Łódź",
    "日本 語",
    "ΣΊΣΥΦΟΣ",
    "tab\there",
    "nul\0l",
    'say "hi"',
    "😀",
)

NAMES = (
    *("naïve", "İd", "\u0131d", "\u017fize", "STRASSE", "straße", "\u212a", "日本", "ключ", "א"),
    *("😀", "é", "É"),
    *("e\u0301", "\u200bzero", "nbsp\u00a0x", "line\nbreak", 'q"q', "back\\slash", "tab\t"),
    *("1st", "_", "a b", "a_x20b", "a-b", "select", "element", "key", "x" * 255, "y" * 256),
)
"""Names that are unusual, forbidden as columns, or alike to some engine."""

DOTTED = ("a.b", ".", "..", "a.", ".b", "a%2Eb", "%", "%25", "%2E", "a..b")

MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Sequence:
    """The batches of JSON texts in their order, and what happened to their shape."""

    batches: list[list[str]]
    steps: list[str]


def sequence(seed: int, *, batches: int = 4) -> Sequence:
    """Answer the sequence of a seed; every fiftieth has documents of ten thousand keys."""
    sender = _Sender(random.Random(seed), many_keys=seed % 50 == 7)
    return Sequence([sender.batch() for _ in range(batches)], sender.steps)


class _Sender:
    def __init__(self, chance: random.Random, *, many_keys: bool) -> None:
        self.steps: list[str] = []
        self._chance = chance
        self._many_keys = many_keys
        self._fields: dict[str, Value] = {"n": self._number(0)}
        self._blank: list[str] = []
        """Fields that were sent without a value so far."""
        self._changes: dict[str, Callable[[], None]] = {
            "add": self._add,
            "widen": self._widen,
            "nest": self._nest,
            "list": self._into_list,
            "list of objects": self._into_objects,
            "null first": self._null_first,
            "conflict": self._conflict,
            "rename by case": self._rename,
            "dotted": self._dotted,
            "empty key": self._empty_key,
            "unicode name": self._unicode,
            "grow into double": self._grow_into_double,
            "deep": self._deep,
            "no object": self._no_object,
        }

    def batch(self) -> list[str]:
        chance = self._chance
        for name in self._blank:
            self._fields[name] = self._any()
        self._blank.clear()
        extra: list[str] = []
        for _ in range(chance.randint(1, 3)):
            step = chance.choice(list(self._changes))
            self.steps.append(step)
            self._changes[step]()
            if step == "no object":
                extra.append(chance.choice(["{}", "[]", "null", "7", '"x"', '[1, {"a": [2]}]']))
        if self._many_keys and chance.random() < 0.5:
            self.steps.append("ten thousand keys")
            extra.append(self._wide())
        return [*(self._document() for _ in range(chance.randint(1, 4))), *extra]

    def _document(self) -> str:
        chosen = [name for name in self._fields if self._chance.random() < 0.85]
        if chosen and self._chance.random() < 0.05:
            # The same key twice is JSON, and the last one counts.
            chosen.append(self._chance.choice(chosen))
        self._chance.shuffle(chosen)
        return self._object([(name, self._fields[name]) for name in chosen])

    def _wide(self) -> str:
        """Answer a document of as many keys as an object may have, of all kinds."""
        values = ["1", "0.5", '"x"', "true", "[1]", "null"]
        texts = (f'"k{n}": {values[n % len(values)]}' for n in range(MOST_KEYS))
        return "{" + ", ".join(texts) + "}"

    def _object(self, fields: list[tuple[str, Value]]) -> str:
        ascii_only = self._chance.random() < 0.3
        texts = (f"{json.dumps(key, ensure_ascii=ascii_only)}: {value()}" for key, value in fields)
        return "{" + ", ".join(texts) + "}"

    # Values

    def _number(self, width: int) -> Value:
        return lambda: self._chance.choice(NUMBERS[self._chance.randint(0, width)])

    def _text(self) -> str:
        return json.dumps(self._chance.choice(TEXTS), ensure_ascii=self._chance.random() < 0.3)

    def _any(self) -> Value:
        """Answer a maker of values of one kind."""
        kinds: list[Value] = [
            self._number(self._chance.choice([0, 0, 2, 5])),
            self._text,
            lambda: self._chance.choice(["true", "false"]),
            lambda: self._chance.choice(["null", "true", "1", '"x"', "[2.5]", '{"z": 1}']),
        ]
        return self._chance.choice(kinds)

    def _some(self) -> str:
        """Answer a field that there is."""
        return self._chance.choice(list(self._fields))

    # What happens to the shape

    def _add(self) -> None:
        self._fields[self._chance.choice("abcdefgh")] = self._any()

    def _widen(self) -> None:
        self._fields[self._some()] = self._number(self._chance.randrange(1, len(NUMBERS)))

    def _grow_into_double(self) -> None:
        name = self._chance.choice(["price", "rate"])
        self._fields[name] = self._number(2 if name in self._fields else 0)

    def _nest(self) -> None:
        name, more = self._some(), self._any()
        inner, key = self._fields[name], self._chance.choice(["in", "IN", "", "a.b", "ß"])
        self._fields[name] = lambda: self._object([(key, inner), ("more", more)])

    def _into_list(self) -> None:
        name = self._some()
        inner = self._fields[name]

        def items() -> str:
            texts = [inner() for _ in range(self._chance.randint(0, 3))]
            if self._chance.random() < 0.3:
                texts.append("null")
            return f"[{', '.join(texts)}]"

        self._fields[name] = items

    def _into_objects(self) -> None:
        name = self._some()
        keys = [(self._chance.choice("pqrPQ"), self._any()) for _ in range(3)]

        def items() -> str:
            texts = [
                self._object(keys[: self._chance.randint(0, 3)])
                for _ in range(self._chance.randint(1, 3))
            ]
            return f"[{', '.join(texts)}]"

        self._fields[name] = items

    def _null_first(self) -> None:
        name = self._chance.choice("ijkl")
        blank = self._chance.choice(["null", "{}", "[]", "[null]", "[{}]", '{"x": null}'])
        self._fields[name] = lambda: blank
        self._blank.append(name)

    def _conflict(self) -> None:
        name = self._some()
        before, after = self._fields[name], self._any()

        def either() -> str:
            return self._chance.choice([before, after])()

        self._fields[name] = either

    def _rename(self) -> None:
        name = self._some()
        renamed = name.swapcase() if name.swapcase() != name else f"{name}R"
        self._fields[renamed] = self._fields[name]
        if self._chance.random() < 0.6 and len(self._fields) > 1:
            del self._fields[name]

    def _dotted(self) -> None:
        name = self._chance.choice(DOTTED)
        self._fields[name] = self._any()
        head, dot, tail = name.partition(".")
        if dot and self._chance.random() < 0.5:
            value = self._any()
            self._fields[head] = lambda: self._object([(tail, value)])

    def _empty_key(self) -> None:
        value = self._any()
        deep = self._chance.random() < 0.5
        self._fields[""] = (lambda: self._object([("", value)])) if deep else value

    def _unicode(self) -> None:
        self._fields[self._chance.choice(NAMES)] = self._any()

    def _deep(self) -> None:
        """Let a field be deeper than columns go."""
        name, inner = self._some(), self._any()
        before, levels = self._fields[name], self._chance.choice([30, 31, 32, 100])

        def deep() -> str:
            return '{"d": ' * levels + inner() + "}" * levels

        def either() -> str:
            return self._chance.choice([before, deep])()

        self._fields[name] = either

    def _no_object(self) -> None:
        """Let the batch have a document that is no object, or an empty one."""
