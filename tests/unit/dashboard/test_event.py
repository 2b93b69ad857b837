"""The page of an event, without a browser."""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote

import pytest
import ugly
from fastapi import FastAPI
from forms import Browser, browser
from metadata_builders import collection
from platform_stand_ins import StandInSearcher, found, grant

from penstock.api.platform import Platform
from penstock.contract.events import DeliveryTold
from penstock.dashboard.event import by_replay, shown
from penstock.dashboard.ids import in_path
from penstock.dashboard.payload import as_bytes, as_text, laid_out, visible, visible_in_line
from penstock.query import parse

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def searcher(here: Platform) -> StandInSearcher:
    here.store.create_collection(collection())
    assert isinstance(here.searcher, StandInSearcher)
    return here.searcher


@pytest.fixture
def reader(app: FastAPI, here: Platform, searcher: StandInSearcher) -> Browser:
    made = browser(app)
    made.sign_in(grant(here.store, "read"))
    return made


def lines(payload: bytes) -> list[str]:
    told = laid_out(payload)
    assert told is not None
    return ["".join(piece.text for piece in line.pieces) for line in told.lines]


def test_a_document_is_laid_out_with_every_digit_and_every_member() -> None:
    """What is shown and what was sent must be the same: a key that came twice, a long number."""
    assert lines(b'{"a":1.50,"a":12345678901234567890123,"b":[],"c":{"d":[true,{}]}}') == [
        "{",
        '"a": 1.50,',
        '"a": 12345678901234567890123,',
        '"b": [],',
        '"c": {',
        '"d": [',
        "true,",
        "{}",
        "]",
        "}",
        "}",
    ]


@pytest.mark.parametrize("payload", [b"{", b"\xff", b"NaN", b"", b"[" * 100_000, b" " * (5 << 20)])
def test_what_is_no_document_is_not_laid_out(payload: bytes) -> None:
    assert laid_out(payload) is None


def test_a_long_document_is_laid_out_up_to_a_line_and_says_so() -> None:
    told = laid_out(b"[" + b"1," * 5_000 + b"1]", most=10)

    assert told is not None
    assert (len(told.lines), told.more) == (10, True)


def test_keys_lead_to_searches_that_can_be_read() -> None:
    told = laid_out(
        b'{"a": {"b.c: d\\"": ["x y", -5, null]}, "n": null, "": "", "t": true, "key": 1}'
    )
    assert told is not None
    queries = [p.query for line in told.lines for p in line.pieces if p.query is not None]

    assert queries[0] == "a:*"
    assert "n:null" in queries
    assert "t:true" in queries
    assert "data.key:1" in queries
    for query in queries:
        parse(query, now=0)


def test_what_cannot_be_seen_is_written_out() -> None:
    """A mark that turns the direction makes a payload read as something else."""
    assert visible("a\u202eb\u200b\x00\x1b\ud800é\n") == "a\\u202eb\\u200b\\u0000\\u001b\\ud800é\n"
    assert visible_in_line("a\tb\n") == "a\\tb\\n"
    assert lines(b'"\\ud800\\u202e"') == ['"\\ud800\\u202e"']


def test_text_and_bytes_are_bounded() -> None:
    text, bytes_ = as_text(b"x" * 300_000), as_bytes(bytes(range(32)) * 200)

    assert text is not None
    assert (len(text[0]), text[1]) == (200_000, 100_000)
    assert (len(bytes_.lines), bytes_.more) == (256, 2_304)
    assert bytes_.lines[0] == ("00000000", bytes(range(16)).hex(" "), "." * 16)


def test_a_payload_is_shown_as_wanted_if_it_can_be() -> None:
    assert shown("", json=True, text=True) == "pretty"
    assert shown("raw", json=True, text=True) == "raw"
    assert shown("pretty", json=False, text=True) == "raw"
    assert shown("raw", json=False, text=False) == "hex"


def delivery(replay: str, attempt: int, outcome: str, minute: int) -> DeliveryTold:
    return DeliveryTold.model_validate(
        {
            "replay": replay,
            "destination": "billing",
            "who": "anna",
            "epoch": 1,
            "attempt": attempt,
            "outcome": outcome,
            "status": None,
            "latency_ms": None,
            "reason": None,
            "at": f"2026-11-22T08:{minute:02}:00Z",
        }
    )


def test_attempts_are_told_by_replay_the_newest_first() -> None:
    told = by_replay(
        [delivery("a", 1, "retry", 0), delivery("b", 1, "failed", 2), delivery("a", 2, "open", 1)]
    )

    assert [(one.replay, len(one.attempts), one.last.outcome) for one in told] == [
        ("b", 1, "failed"),
        ("a", 2, "open"),
    ]


def test_nothing_of_a_hostile_event_is_markup(reader: Browser, searcher: StandInSearcher) -> None:
    """Senders choose all of it, and it is shown in the session of who reads it."""
    text = HOSTILE.encode()
    searcher.events = [
        found(
            b'{"' + text + b'": "' + text + b'"}',
            event_id=f'"/><a href="x">{HOSTILE}',
            source=HOSTILE,
            content_type=HOSTILE,
            key=text,
            headers=((HOSTILE, text),),
            metadata={HOSTILE: HOSTILE},
            misfits=((HOSTILE, f'"{HOSTILE}"'),),
            duplicate_of=HOSTILE,
        )
    ]
    path = f"/collections/flights/events/{quote(searcher.events[0].event_id, safe='')}"

    for shown_as in ("pretty", "raw", "hex"):
        page = reader.get(f"{path}?as={shown_as}")

        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert '"/><a' not in page.text
        assert "&lt;script&gt;alert" in page.text

    beside = reader.get(path.replace("/events/", "/beside/"))
    assert beside.status_code == 200
    assert "<script>alert" not in beside.text
    assert "&lt;script&gt;alert" in beside.text


def test_what_is_beside_an_event_comes_after_it_and_is_a_page_without_script(
    reader: Browser, searcher: StandInSearcher
) -> None:
    """The event itself is what somebody opens the page for: it waits for no neighbour."""
    searcher.events = [found(event_id="a/b")]

    page = reader.get("/collections/flights/events/a%2Fb").text
    assert searcher.looked == ["a/b"]
    assert searcher.asked == []
    assert 'href="/collections/flights/beside/a/b"' in page.replace("%2F", "/")
    assert "Typed row" not in page

    beside = reader.get("/collections/flights/beside/a%2Fb").text
    assert searcher.looked == ["a/b"] * 2
    for title in ("Typed row", "Who received it", "Around it on the log"):
        assert f">{title}" in beside

    part = reader.get(
        "/collections/flights/beside/a%2Fb", **{"HX-Request": "true", "HX-Target": "beside"}
    ).text
    assert "<html" not in part
    assert ">Typed row" in part


def test_the_payload_comes_as_a_file_byte_for_byte(
    reader: Browser, searcher: StandInSearcher
) -> None:
    """As a page of its own type it would run in the session of who looks."""
    searcher.events = [found(b"<b>\xff", event_id='a/b"', content_type="text/html")]

    answer = reader.get("/collections/flights/payload/a%2Fb%22")

    assert answer.content == b"<b>\xff"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="a_b.txt"'
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_part_is_answered_alone_to_htmx(reader: Browser, searcher: StandInSearcher) -> None:
    searcher.events = [found(b"plain", content_type=None)]

    part = reader.get(
        "/collections/flights/events/e1", **{"HX-Request": "true", "HX-Target": "payload"}
    )

    assert "<html" not in part.text
    assert 'aria-label="Payload, as sent"' in part.text


def test_an_event_has_a_page_whatever_its_id_is(reader: Browser, searcher: StandInSearcher) -> None:
    """Links are made by us, and browsers take some for the folder above however they are quoted."""
    searcher.events = [found(event_id=one) for one in ugly.IDS]
    for one in ugly.IDS:
        path = f"/collections/flights/events/{in_path(one)}"
        page = reader.get(path)

        assert page.status_code == 200, one
        assert f"<code>{escape(visible_in_line(one))}</code>" in page.text, one
        for name in ("events", "beside", "payload"):
            [link] = set(re.findall(f'"(/collections/flights/{name}/[^"?]*)', page.text))
            assert not _ABOVE.search(link), one
            assert reader.get(link).status_code == 200, link
        assert searcher.looked == [one] * 4, "what was looked up is what was asked for"
        searcher.looked.clear()


_ABOVE = re.compile(r"/(\.|%2e){1,2}(/|$)", re.IGNORECASE)
"""What a browser takes out of a path, by https://url.spec.whatwg.org/#double-dot-path-segment."""


def test_an_event_that_is_not_there_is_said(reader: Browser) -> None:
    answer = reader.get("/collections/flights/events/nope")

    assert answer.status_code == 404
    assert "there is no event" in answer.text


def test_only_who_may_replay_is_offered_it(
    app: FastAPI, here: Platform, reader: Browser, searcher: StandInSearcher
) -> None:
    searcher.events = [found()]

    assert "Replay this one" not in reader.get("/collections/flights/events/e1").text
