"""From the text of a search to its tree."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import BadQuery
from penstock.query import Fact, Query, parse
from penstock.query.tree import (
    And,
    Bound,
    Column,
    Equals,
    Everything,
    Exists,
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
    TextBound,
    TextRange,
    Time,
    TimeRange,
    Wild,
    Words,
)

NOW = 1_764_000_000_000_000
DAY = 86_400_000_000
NOVEMBER_22 = 1_795_305_600_000_000

F = Payload(("f",))
A, B, C = (Words(None, (word,)) for word in "abc")


def tree(text: str) -> Node:
    return parse(text, now=NOW).where


def equals(text: str, field=F) -> Equals:
    return Equals(field, text, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Everything()),
        ("  \n ", Everything()),
        ("*", Everything()),
        ("word", Words(None, ("word",))),
        ("Straße", Words(None, ("straße",))),
        ("33", Words(None, ("33",), 33.0)),
        ("app-1.log", Words(None, ("app", "1", "log"))),
        ('"Two  words"', Words(None, ("two", "words"))),
        ('"-5"', Words(None, ("5",), -5.0)),
        ("a b", And((A, B))),
        ("a AND b", And((A, B))),
        ("a OR b", Or((A, B))),
        ("a b OR c", Or((And((A, B)), C))),
        ("a OR b c", Or((A, And((B, C))))),
        ("a (b OR c)", And((A, Or((B, C))))),
        ("NOT a", Not(A)),
        ("-a", Not(A)),
        ("+a", A),
        ("NOT NOT a", Not(Not(A))),
        ("a NOT b -c", And((A, Not(B), Not(C)))),
        ("(((a)))", A),
        ("(a)(b)", And((A, B))),
        ("a and b", And((A, Words(None, ("and",)), B))),
        ("\\AND", Words(None, ("and",))),
    ],
)
def test_words_and_what_joins_them(text: str, expected: Node) -> None:
    """Blank means AND, which binds closer than OR."""
    assert tree(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f:v", equals("v")),
        ("f: v", equals("v")),
        ('f:"v w"', equals("v w")),
        (r'f:"say \"hi\""', equals('say "hi"')),
        ('f:""', equals("")),
        ("f:40", Equals(F, "40", 40.0, None)),
        ("f:-5", Equals(F, "-5", -5.0, None)),
        ("f:02134", equals("02134")),
        ("f:true", Equals(F, "true", None, True)),
        ('f:"False"', Equals(F, "False", None, False)),
        ("f:http://x.y/z", equals("http://x.y/z")),
        (r"f:a\*b", equals("a*b")),
        ('f:"a*b"', equals("a*b")),
        (r"f:\(x\)", equals("(x)")),
        ("f:~word", Words(F, ("word",))),
        ('f:~"Two words"', Words(F, ("two", "words"))),
        ("f:~33", Words(F, ("33",))),
        ("f:al*", Like(F, ("al", Wild.ANY))),
        ("f:*x?z", Like(F, (Wild.ANY, "x", Wild.ONE, "z"))),
        (r"f:a\?*", Like(F, ("a?", Wild.ANY))),
        ("f:*", Exists(F)),
        ("_exists_:f", Exists(F)),
        ("f:[* TO *]", Exists(F)),
        ("f:null", IsNull(F)),
        ('f:"null"', equals("null")),
        ("f:NULL", equals("NULL")),
        ("f:>32", NumberRange(F, Bound(32.0, False), None)),
        ("f:>= 32", NumberRange(F, Bound(32.0, True), None)),
        ("f: <1e3", NumberRange(F, None, Bound(1000.0, False))),
        ("f:<=-1", NumberRange(F, None, Bound(-1.0, True))),
        ("f:[1 TO 5}", NumberRange(F, Bound(1.0, True), Bound(5.0, False))),
        ('f:{ "1" TO * ]', NumberRange(F, Bound(1.0, False), None)),
        (
            "f:[2026-11-01 TO 2026-11-30T12:00Z}",
            TextRange(
                F, TextBound("2026-11-01", "", True), TextBound("2026-11-30T12:00", "Z", False)
            ),
        ),
        ("f:2026-11-01", equals("2026-11-01")),
        ("f.length():2", Length(F, Bound(2.0, True), Bound(2.0, True))),
        ("f[].length(): >2", Length(F, Bound(2.0, False), None)),
        ("f.length():[1 TO 3]", Length(F, Bound(1.0, True), Bound(3.0, True))),
        ("f:(a OR b)", Or((equals("a"), equals("b")))),
        (
            "f:(a -b >3)",
            And((equals("a"), Not(equals("b")), NumberRange(F, Bound(3.0, False), None))),
        ),
        ("f: (NOT v)", Not(equals("v"))),
        ("-f:v", Not(equals("v"))),
        ("f:v OR g:*", Or((equals("v"), Exists(Payload(("g",)))))),
    ],
)
def test_values_of_a_field(text: str, expected: Node) -> None:
    """Each form of the language's page."""
    assert tree(text) == expected


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("total", Payload(("total",))),
        ("data.total", Payload(("total",))),
        ("client.payload.total", Payload(("total",))),
        ("data.data.total", Payload(("data", "total"))),
        ("data", Payload(())),
        ("client.payload", Payload(())),
        ("data.", Payload(("",))),
        ("client.other", Payload(("client", "other"))),
        ("batch.other", Payload(("batch", "other"))),
        ("source", Column("source")),
        ("data.source", Payload(("source",))),
        ("source.name", Payload(("source", "name"))),
        ("batch.info.source", Column("source")),
        ("batch.info.request_id", Column("event_id")),
        ("log_offset", Column("log_offset")),
        ("metadata.topic", Metadata("topic")),
        ("client.metadata.kafka.key", Metadata("kafka.key")),
        ("metadata", Metadata(None)),
        ("headers.X-Request-ID", Header("x-request-id")),
        ("headers", Header(None)),
        ("quarantine.reason", Quarantine("reason")),
        ("quarantine.other", Payload(("quarantine", "other"))),
        (r"a\.b.c\ d.e\:f", Payload(("a.b", "c d", "e:f"))),
        (r"data\.total", Payload(("data.total",))),
        ("items[].sku", Payload(("items", "sku"))),
        (r"items\[\]", Payload(("items[]",))),
        ("é", Payload(("é",))),
        ("Total", Payload(("Total",))),
    ],
)
def test_what_a_name_means(text: str, field) -> None:
    """A bare name of the envelope is the envelope's; `data.` forces the payload."""
    assert tree(f"_exists_:{text}") == tree(f"{text}:*") == Exists(field)


@pytest.mark.parametrize("name", ["received_at", "batch.info.date_human"])
@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        (":2026-11-22", NOVEMBER_22, NOVEMBER_22 + DAY),
        (":>2026-11-22", NOVEMBER_22 + DAY, None),
        (":>=2026-11-22", NOVEMBER_22, None),
        (":<2026-11-22", None, NOVEMBER_22),
        (":<=2026-11-22", None, NOVEMBER_22 + DAY),
        (":[2026-11-22 TO 2026-11-23]", NOVEMBER_22, NOVEMBER_22 + 2 * DAY),
        (":{2026-11-22 TO 2026-11-24}", NOVEMBER_22 + DAY, NOVEMBER_22 + 2 * DAY),
        (":[2026-11-22T00:00:00Z TO *]", NOVEMBER_22, None),
        (':"2026-11-22 00:00"', NOVEMBER_22, NOVEMBER_22 + DAY // 1440),
        (":>now-15m", NOW - 900_000_000 + 1, None),
    ],
)
def test_times(name: str, text: str, start: int | None, end: int | None) -> None:
    """A coarse date stands for its whole span, at either end of a range."""
    assert tree(name + text) == TimeRange(Time("received_at"), start, end)


def test_modifiers_say_what_to_show() -> None:
    """Batch's users wrote them; its manual has both spellings of one."""
    asked = parse("a ${ORDER_BY f.g AND SORT ASC AND LIMIT 10}", now=NOW)
    same = parse("a ${LIMIT 10 AND ORDER f.g AND SORT ASC}", now=NOW)
    unique = parse("${UNIQUE f}", now=NOW)

    assert (asked.where, asked.order_by, asked.descending, asked.limit, asked.unique) == (
        A,
        Payload(("f", "g")),
        False,
        10,
        None,
    )
    assert same == Query(same.text, A, asked.order_by, False, 10)
    assert (unique.where, unique.unique, unique.limit) == (Everything(), F, None)


def test_a_query_says_what_it_has_to_read_payloads_for() -> None:
    """That is slow, and those who wait for it should be told."""
    assert parse("a f:1", now=NOW).facts == frozenset()
    assert parse("a NOT (f:null OR b)", now=NOW).facts == {Fact.NULLS}
    assert parse("f.length():2 f:null", now=NOW).facts == {Fact.NULLS, Fact.LENGTHS}
    assert parse("source:http", now=NOW).reads_payload is False
    assert parse("source:http word", now=NOW).reads_payload is True


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("(a", 2, "expected ')' for the '(' at character 1"),
        ("a)", 1, "there is no '(' for this ')'"),
        ("a OR", 4, "expected a condition after OR"),
        ("OR a", 0, "expected a condition before OR"),
        ("a AND OR b", 6, "expected a condition before OR"),
        ("NOT", 3, "expected a condition after NOT"),
        ("()", 1, "expected a condition inside"),
        ("a - b", 3, "right after '-'"),
        ("f:", 2, "expected a value after 'f:'"),
        ("f: AND b", 3, "AND itself needs quotes"),
        ("f:()", 3, "expected a condition inside"),
        ("f:(g:x)", 4, "another field cannot stand"),
        ("f:(a b", 6, "expected ')'"),
        (":x", 0, "expected the name of a field"),
        ('"a":x', 3, "expected the field without quotes"),
        ("[1 TO 5]", 0, "a range needs a field"),
        ("{1 TO 5]", 0, "a range needs a field"),
        (">5", 0, "a comparison needs a field"),
        ("a ]", 2, "write a backslash before a bracket"),
        ("f:[1 5]", 5, "expected TO"),
        ("f:[1 TO", 7, "expected a value"),
        ("f:[1 TO 5", 9, "expected ']' or '}' for the '[' at 3"),
        ("f:[1 TO 5]x", 10, "expected a blank"),
        ("f:[a TO 5]", 3, "expected a number, or a date"),
        ("f:[1 TO 2026-11-01]", 3, "expected a date, as at the other end"),
        ("f:>", 3, "expected a value"),
        ("f:>*", 2, "expected a value after '>'"),
        ("f:>now-1d", 3, "expected a number, or a date"),
        ("source:>x", 8, "expected a number"),
        ("source:null", 7, "only fields of the payload can be null"),
        ("event_time:~x", 11, "expected a time"),
        ("received_at:al*", 12, "expected a time"),
        ("received_at:[2026-13 TO *]", 13, "expected a time"),
        ("f.length():x", 11, "expected a number of elements"),
        ("f.length():[* TO *]", 11, "expected a number at one end"),
        ("headers.length():1", 0, "expected a field of the payload before .length()"),
        ("wor*", 3, "a wildcard stands in the whole value of a field"),
        ("f:" + "*a" * 21, 42, "expected at most 20 wildcards in a value"),
        ('f:~"' + "a " * 201 + '"', 3, "expected at most 200 words in a row"),
        ("f:~wo?d", 5, "a wildcard stands in the whole value of a field"),
        ("%%", 0, "expected a letter or a digit"),
        ('f:~" "', 3, "expected a letter or a digit"),
        ("f:~", 3, "expected a word"),
        ('"abc', 0, "expected a closing quote"),
        ('a"b"', 1, "expected a blank"),
        ("f:a(b)", 3, "expected a blank"),
        ("f:\\", 2, "expected a character behind the backslash"),
        ("a\\", 1, "expected a character behind the backslash"),
        ("!a", 0, "expected NOT"),
        ("a && b", 2, "expected AND"),
        ("a || b", 2, "expected OR"),
        ("_exists_:", 9, "expected the name of a field"),
        ("${LIMIT 0}", 8, "expected a number of events"),
        ("${LIMIT 1 AND LIMIT 2}", 14, "expected LIMIT once"),
        ("${SORT UP}", 7, "expected ASC or DESC"),
        ("${ORDER_BY}", 10, "expected the name of a field"),
        ("${X}", 2, "expected ORDER_BY, SORT, LIMIT or UNIQUE"),
        ("${LIMIT 1 LIMIT 2}", 10, "expected AND or '}'"),
        ("a ${LIMIT 1} b", 13, "expected the end of the search"),
        ("a \ud800", 2, "not half a surrogate"),
        ("(" * 60 + "a", 50, "at most 50 levels"),
        ("NOT " * 60 + "a", 200, "at most 50 levels"),
        ("a " * 201, 400, "at most 200 conditions"),
        ("a" * 10_001, 10_000, "at most 10,000 characters"),
    ],
)
def test_an_error_says_what_was_expected_and_where(text: str, position: int, expected: str) -> None:
    """Whoever reads it should know what to change, and at which character."""
    with pytest.raises(BadQuery) as refused:
        parse(text, now=NOW)

    assert expected in refused.value.expected
    assert refused.value.position == position


PIECES = [
    *("a", "b", "f:", "f.g:", "data.", "received_at:", "event_time:", "headers.x:", "_exists_:"),
    *(" ", " ", " ", "AND", "OR", "NOT", "-", "+", "(", ")", "[", "]", "{", "}", " TO ", "*", "?"),
    *(
        '"',
        "\\",
        ":",
        "~",
        ">",
        ">=",
        "<",
        "<=",
        "1",
        "-5",
        "2026-11-22",
        "now-1d",
        "now/d",
        "null",
    ),
    *(
        "true",
        ".length():",
        "[]",
        "${",
        "ORDER_BY",
        "SORT",
        "LIMIT",
        "UNIQUE",
        "DESC",
        "é",
        "\u2028",
    ),
    *("\x00", "😀", "!", "&&", "||", "/", "^", "$", "İ", "\t", "\n", "'", "%", "Σ"),
]


def read_or_refused(text: str) -> bool:
    """Say whether the text is a search; a refusal has to point into the text."""
    refused = refusal_of(text)
    if refused is None:
        return True
    assert 0 <= refused.position <= len(text)
    assert refused.expected
    assert refused.pointer()
    return False


def refusal_of(text: str) -> BadQuery | None:
    try:
        parse(text, now=NOW)
    except BadQuery as refusal:
        return refusal
    return None


def test_whatever_is_typed_is_read_or_refused() -> None:
    """Never another exception, and never one that points beside the text."""
    chance = random.Random(1)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(4_000)]

    read = sum(read_or_refused(text) for text in texts)

    assert 100 < read < 3_900


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Half surrogates and control characters included."""
    read_or_refused(text)


@pytest.mark.parametrize(
    ("text", "position", "shown"),
    [
        ("carrier:>", 9, "carrier:>\n         ^"),
        ("a\nb (\nc", 4, "b (\n  ^"),
        ("日本 (", 3, "日本 (\n     ^"),
        ("e\u0301\t(", 4, "e\u0301 (\n   ^"),
        ("x" * 200, 100, f"…{'x' * 60}{'x' * 60}…\n{' ' * 61}^"),
        ("\x1b[1m(", 4, " [1m(\n    ^"),
    ],
)
def test_a_caret_stands_below_the_character(text: str, position: int, shown: str) -> None:
    """Whatever the line looks like: broken, long, wide, with what terminals obey."""
    assert BadQuery(text, position, "expected a condition").pointer() == shown
