"""The steps of a transform: what they make of an event, what is refused, and that nothing leaks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from builders import event
from hypothesis import given
from hypothesis import strategies as st

from penstock.envelope import Event, Position
from penstock.errors import BadRequest
from replay.transform import ADDED_HEADER, MASK, Transform, read_transform
from replay.transform.document import Unchangeable
from replay.transform.expression import MOST_BYTES

HERE = Position(0, 7)
SECRET = b"of the installation"


def changed(sent: Event | bytes, *steps: str, mark: bool = False) -> Event:
    sent = sent if isinstance(sent, Event) else event(sent)
    return read_transform(steps, secret=lambda: SECRET, mark=mark).changed(sent, HERE)


def made(payload: bytes, *steps: str) -> bytes:
    return changed(payload, *steps).payload


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("mask card", b'{"card":"***","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'),
        ("mask user", b'{"card":"41","user":"***","lines":[{"sku":"x"}]}'),
        ("mask user.id", b'{"card":"41","user":{"id":"***","mail":"a@b"},"lines":[{"sku":"x"}]}'),
        ("mask lines.sku", b'{"card":"41","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"***"}]}'),
        ("mask lines[].sku", b'{"card":"41","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"***"}]}'),
        ("mask data.card", b'{"card":"***","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'),
        ("remove user", b'{"card":"41","lines":[{"sku":"x"}]}'),
        ("rename user to who", b'{"card":"41","who":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'),
        ("set card = 'x'", b'{"card":"x","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'),
        ("set card = user.id", b'{"card":7,"user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'),
        (
            "remove card where user.id == `7`",
            b'{"user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}',
        ),
        ("remove card where user.id == `8`", None),
        ("mask absent", None),
        ("rename absent to card", None),
    ],
)
def test_a_step_changes_what_it_names(step: str, after: bytes | None) -> None:
    before = b'{"card":"41","user":{"id":7,"mail":"a@b"},"lines":[{"sku":"x"}]}'

    assert made(before, step) == (after or before)


def test_steps_see_what_those_before_them_left() -> None:
    """So nothing copies what was masked."""
    assert made(b'{"a":"41"}', "mask a", "set b = a") == b'{"a":"***","b":"***"}'
    # Also where a step before the mask has looked at it.
    looked = made(b'{"a":"41"}', "mask a where a == '41'", "set b = a", "set c = key where b")
    assert looked == b'{"a":"***","b":"***","c":null}'
    assert made(b'{"a":"41"}', "set b = a", "mask a") == b'{"a":"***","b":"41"}'


@pytest.mark.parametrize(
    "number",
    ["12345678901234567890123", "0.10", "1e400", "-0.0", "3.14159265358979323846", "1E5"],
)
def test_numbers_are_sent_with_the_digits_they_came_with(number: str) -> None:
    """An amount that became a float is another amount."""
    before = b'{"total":%s,"x":1}' % number.encode()

    assert made(before, "remove x") == b'{"total":%s}' % number.encode()
    assert json.loads(
        made(before, "set copy = total", "set all = [total]", "set text = to_string(total)"),
        parse_float=str,
        parse_int=str,
    ) == {"total": number, "x": "1", "copy": number, "all": [number], "text": number}


def test_numbers_of_an_expression_keep_their_digits_too() -> None:
    assert made(b"{}", "set a = `1.10`") == b'{"a":1.10}'
    assert made(b'{"t":"12345678901234567890.10"}', "set t = to_number(t)") == (
        b'{"t":12345678901234567890.10}'
    )


def test_a_pseudonym_is_equal_for_equal_values_and_tells_nothing() -> None:
    """Receivers join by it; without the secret nobody finds the value by trying all of them."""
    lines = ["mask a as hash", "mask b as hash", "mask headers.x as hash", "mask key as hash"]
    sent = event(b'{"a":"\\u0041b","b":"Ab"}', headers=(("X", b"Ab"),), key=b"Ab")
    told = changed(sent, *lines)

    values = {*json.loads(told.payload).values(), told.headers[0][1].decode(), told.key.decode()}
    assert len(values) == 1
    [value] = values
    assert len(value) == 32
    other = read_transform(lines, secret=lambda: b"another").changed(sent, HERE)
    assert json.loads(other.payload)["a"] != value


def test_the_secret_is_asked_for_only_where_it_is_needed() -> None:
    """An installation without a key can do everything else."""

    def none() -> bytes:
        raise AssertionError

    assert read_transform(["mask a"], secret=none)
    with pytest.raises(AssertionError):
        read_transform(["mask a as hash"], secret=none)


def test_headers_and_the_key_are_changed_likewise() -> None:
    sent = event(
        b'{"n":1.50}',
        key=b"k",
        headers=(("X-A", b"1"), ("x-a", b"2"), ("B", b"\xff"), ("c", b"3")),
    )

    assert changed(sent, "mask headers.x-a").headers == (
        *(("X-A", b"***"), ("x-a", b"***"), ("B", b"\xff"), ("c", b"3")),
    )
    assert changed(sent, "remove headers.X-A").headers == (("B", b"\xff"), ("c", b"3"))
    assert changed(sent, "rename headers.b to C").headers == (
        *(("X-A", b"1"), ("x-a", b"2"), ("C", b"\xff")),
    )
    assert changed(sent, "set headers.x-a = n").headers == (
        *(("X-A", b"1.50"), ("B", b"\xff"), ("c", b"3")),
    )
    assert changed(sent, "set headers.X-New = key").headers[-1] == ("X-New", b"k")
    assert changed(sent, "set headers.c = absent").headers == sent.headers[:3]
    assert changed(sent, "set key = headers.c").key == b"3"
    assert changed(sent, "set key = absent").key is None
    assert changed(sent, "remove key").key is None
    assert changed(sent, "mask key").key == b"***"
    assert changed(event(b"{}"), "mask key").key is None


def test_an_event_says_that_it_was_changed_and_by_what() -> None:
    """Unless the replay is verbatim; an older such header is another transform's."""
    sent = event(b'{"a":1}', headers=(("Penstock-Transform", b"old"), ("b", b"2")))
    transform = read_transform(["mask a"])

    assert transform.changed(sent, HERE).headers == (
        *(("b", b"2"), (ADDED_HEADER, transform.id.encode())),
    )
    assert changed(sent, "mask a", mark=False).headers == sent.headers
    assert read_transform(["mask a"]).id == transform.id != read_transform(["mask b"]).id


@pytest.mark.parametrize("payload", [b"plain", b"", b"\xff", b'{"a":NaN}', b'{"card":"41"'])
def test_what_cannot_be_read_is_not_sent_as_it_was(payload: bytes) -> None:
    with pytest.raises(Unchangeable, match="no JSON"):
        changed(payload, "mask card")
    assert changed(event(payload, key=b"41"), "mask key").key == b"***", "it is not looked into"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("set a.b = 'x'", "no object"),
        ("set b = join(a, a)", "cannot be computed"),
        ("set b = a where a > 'x'", None),
        ("set b = sum(list)", "cannot be computed"),
        ("set headers.x = 'a\\nb'", None),
        ("set headers.x = long", "control characters"),
        ("set b = join(sep, many)", "too much"),
        ("set b = many[*].[@, @, @, @]", "too much"),
    ],
)
def test_what_cannot_be_computed_fails_with_a_reason_that_tells_no_value(
    step: str, why: str | None
) -> None:
    payload = json.dumps(
        {
            "a": "41110000",
            "list": ["41110000"],
            "long": "41\n11",
            "sep": "41110000" * 1_000,
            "many": ["41110000" * 10] * 5_000,
        }
    ).encode()
    if why is None:
        changed(payload, step)
        return
    with pytest.raises(Unchangeable, match=why) as found:
        changed(payload, "mask absent", step)

    assert str(found.value).startswith("step 2 of the transform")
    assert "4111" not in str(found.value)
    assert found.value.__cause__ is None


@pytest.mark.parametrize(
    ("step", "at", "why"),
    [
        ("", 1, "begins with one of mask"),
        ("drop a", 1, "begins with one of mask"),
        ("mask", 5, "place is missing"),
        ("  mask  ", 9, "place is missing"),
        ("mask a b", 8, "as hash"),
        ("mask a as sha256", 8, "as hash"),
        ("mask lines[*].a", 11, "no pattern"),
        ("mask *.a", 6, "no pattern"),
        ("mask a..b", 6, "key of the path is empty"),
        ("mask a.", 6, "key of the path is empty"),
        ("mask data", 6, "as a whole"),
        ("mask event_id", 6, "data.event_id"),
        ("mask metadata.topic", 6, "data.metadata.topic"),
        ("mask headers", 6, "data.headers"),
        ("mask headers.a:b", 6, "cannot be changed"),
        ("remove a b", 10, "more than it takes"),
        ("rename a", 9, "rename PLACE to NAME"),
        ("rename a b", 10, "rename PLACE to NAME"),
        ("rename a to", 12, "name is missing"),
        ("rename a to b c", 15, "more than it takes"),
        ("rename a to b.c", 13, "one key, not a path"),
        ("rename key to b", 8, "cannot be changed"),
        ("rename headers.a to b:c", 21, "no header"),
        ("set a", 6, "set PLACE = EXPRESSION"),
        ("set a = ", 9, "Incomplete"),
        ("set a = b c", 11, "Unexpected token"),
        ("set a = nothing(b)", 8, "no function nothing"),
        ("set a = [b, b] | [@, @]", 8, "without end"),
        ("set a = 'x' where b c", 21, "Unexpected token"),
        ("mask a where", 8, "as hash"),
        ("set a = " + "!" * 1_500 + "b", 8, "nested too deep"),
        ("mask " + "a" * 2_000, 1, "longer than"),
    ],
)
def test_a_step_that_is_wrong_is_refused_with_its_place(step: str, at: int, why: str) -> None:
    """When it is asked for, and not in a run that nobody looks at."""
    with pytest.raises(BadRequest, match=f"step 2 of the transform, character {at}: .*{why}"):
        read_transform(["mask a", step])


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_what_is_nested_too_deep_is_not_sent_as_it_was(depth: int) -> None:
    """Wherever Python ends, nothing of it falls through."""
    deep = b'{"card":' + b"[" * depth + b'{"card":4111}' + b"]" * depth + b"}"

    told = tried(read_transform(["mask card.card"], mark=False), event(deep, id="e1"))

    assert not leaks("4111", told)
    assert isinstance(told, Unchangeable) == (depth > 100)


def test_there_are_so_many_steps_and_no_more() -> None:
    with pytest.raises(BadRequest, match="51 steps; 50"):
        read_transform(["mask a"] * 51)


def test_words_within_texts_are_texts() -> None:
    assert made(b"{}", "set a = 'x where y'") == b'{"a":"x where y"}'
    assert made(b'{"a b":1}', r"remove a\ b") == b"{}"
    assert made(b'{"a=b":1}', r"remove a\=b") == b"{}"
    assert made(b'{"*":1}', r"remove \*") == b"{}"
    assert made(b'{"a.b":1,"a":{"b":2}}', r"mask a\.b") == b'{"a.b":"***","a":{"b":2}}'


def test_expressions_know_the_names_of_a_search() -> None:
    sent = event(b'{"key":"inner","n":1}', key=b"outer", headers=(("X-A", b"1"),), id="e1")

    told = changed(
        sent,
        'set all = [key, data.key, n, data.n, headers."x-a", event_id, log_offset]',
    )
    assert json.loads(told.payload)["all"] == ["outer", "inner", 1, 1, "1", "e1", 7]


_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
SECRETS = st.text(alphabet="0123456789", min_size=12, max_size=12).map(lambda n: f"4111{n}")
PLACES = ["card", "user.card", "lines.card", "headers.card", "key"]
HARMLESS = [
    *("set copy = card", "set copy = to_string(@)", "set headers.copy = user.card"),
    *("set copy = [data, headers, key]", "set copy = join('', lines[*].card)"),
    *("rename card to other", "rename user to who", "set key = headers.card"),
    *("set copy.a = lines", "remove absent", "set copy = sort(lines)", "set card.x = 'a'"),
    "set copy = sum(lines[*].card)",
]


def holding(secret: str, shape: str) -> Event:
    """Answer an event that has the secret wherever it is masked, written in an odd way or two."""
    odd = "".join(f"\\u{ord(character):04x}" for character in secret)
    text = {
        "plain": """{"card":"S","user":{"card":"S"},"lines":[{"card":"S"}]}""",
        "twice": """{"card":1,"card":"S","user":{"card":"S","card":0},"lines":[]}""",
        "escaped": """{"\\u0063ard":"O","user":[[{"card":"O"}]],"lines":[{"card":S}]}""",
        "nested": """{"card":{"a":["S"]},"user":{"card":[S]},"lines":[[{"card":"S"}]]}""",
        "broken": """{"card":"S","user":{"card":"S"}""",
        "plain text": "card S",
        "list": """[{"card":"S"}]""",
    }[shape]
    return event(
        text.replace("S", secret).replace("O", odd).encode(),
        id="e1",
        key=secret.encode(),
        headers=(("Card", secret.encode()), ("card", secret.encode())),
    )


SHAPES = ["plain", "twice", "escaped", "nested", "broken", "plain text", "list"]


def leaks(secret: str, told: Event | Exception) -> bool:
    """Say whether anything of the secret is in what a target gets, or in what is said of it."""
    if isinstance(told, Exception):
        return secret in repr(told) or secret in repr(told.__cause__)
    seen = b"\n".join([told.payload, told.key or b"", *(v for _, v in told.headers)]).decode()
    return secret in seen or secret in _ESCAPE.sub(lambda found: chr(int(found[1], 16)), seen)


def tried(transform: Transform, sent: Event) -> Event | Unchangeable:
    try:
        return transform.changed(sent, HERE)
    except Unchangeable as error:
        return error


@given(
    SECRETS,
    st.sampled_from(SHAPES),
    st.sampled_from(["", " as hash"]),
    st.lists(st.sampled_from(HARMLESS), max_size=4),
)
def test_what_is_masked_is_nowhere_in_what_a_target_gets(
    secret: str, shape: str, how: str, more: Sequence[str]
) -> None:
    """Whatever else is done, however the event is written, and also where a step fails."""
    steps = [*(f"mask {place}{how}" for place in PLACES), *more]

    told = tried(read_transform(steps, secret=lambda: SECRET), holding(secret, shape))

    assert not leaks(secret, told)


MUTANTS = {
    "masks come last": lambda steps: [*steps[5:], *steps[:5]],
    "one place is forgotten": lambda steps: [*steps[1:]],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_leak_is_seen(mutant: str) -> None:
    """The check above finds what it is there for."""
    steps = MUTANTS[mutant]([*(f"mask {place}" for place in PLACES), "set copy = card"])

    assert leaks(
        "4111222233334444", tried(read_transform(steps), holding("4111222233334444", "plain"))
    )


def test_an_event_that_falls_through_is_seen() -> None:
    """What could not be masked, sent as it was received."""
    assert leaks("4111222233334444", holding("4111222233334444", "broken"))


def test_masks_are_the_same_text_for_all() -> None:
    assert MASK.encode() in made(b'{"a":1}', "mask a")


@given(st.integers(1, 200))
def test_an_expression_answers_to_a_bound(count: int) -> None:
    """A hundred times a large event would fill the memory of whoever sends."""
    text = json.dumps({"a": "x" * 100_000}).encode()
    steps: list[Any] = [f"set b = [{', '.join(['a'] * count)}]"]

    told = tried(read_transform(steps), event(text))

    assert isinstance(told, Unchangeable) == (count * 100_003 > MOST_BYTES)
