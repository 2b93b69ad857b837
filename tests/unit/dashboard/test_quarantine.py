from __future__ import annotations

import html
import re
from datetime import datetime
from typing import Any

import httpx
import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from forms import Browser, browser
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_stand_ins import StandInSearcher, found, grant

from penstock.api import quarantine
from penstock.api.platform import Platform
from penstock.contract.base import micros
from penstock.contract.quarantine import DoneTold, HeldTold, ReleaseAsked
from penstock.dashboard.difference import beginning, difference, readable
from penstock.dashboard.forms import Form
from penstock.dashboard.quarantine import Which, bars_of, repair_of
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.metadata.records import CollectionRecord

HOSTILE = b'{"<script>alert(1)</script>": NaN, "b": "\x1b[31m"}'
PAGE = "/collections/flights/quarantine"


@pytest.fixture
def held(here: Platform) -> StandInSearcher:
    """Answer a quarantine with one event, whose payload and id are hostile."""
    here.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON))
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    searcher.events = [
        found(
            HOSTILE,
            event_id='a/b?<b>"',
            stage="gate",
            reason="invalid_json",
            detail="NaN is no number (byte 32) <i>",
            attempts=1,
        )
    ]
    searcher.number = 1
    return searcher


def visitor(app: FastAPI, here: Platform, *scopes: Any) -> Browser:
    made = browser(app)
    made.sign_in(grant(here.store, *scopes))
    return made


def test_nothing_of_a_payload_or_an_id_becomes_markup(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    admin = visitor(app, here, "admin")
    pages = [
        admin.get(PAGE),
        admin.get(f"{PAGE}/events/a%2Fb%3F%3Cb%3E%22"),
        admin.post(f"{PAGE}/try", q="x<b>"),
        admin.post(f"{PAGE}/discard", q="x<b>", why="<b>"),
    ]

    for page in pages:
        assert page.status_code == 200
        assert not re.search(r"<script>|<b>|<i>", page.text)


def test_the_place_is_marked_in_the_payload(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    page = visitor(app, here, "read").get(f"{PAGE}/events/a%2Fb%3F%3Cb%3E%22")

    assert "Wrong at byte 32" in page.text
    assert re.search(r"<mark>.</mark>", page.text)


def test_who_only_reads_may_try_and_not_release(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    reader = visitor(app, here, "read")

    shown = reader.get(PAGE).text
    assert "Try on five" in shown
    assert "/release" not in shown
    assert reader.post(f"{PAGE}/try").status_code == 200
    assert reader.post(f"{PAGE}/release", sure="yes").status_code == 403
    assert reader.post(f"{PAGE}/discard", why="x", sure="yes").status_code == 403


def test_what_penstock_wrote_for_itself_is_not_offered_to_be_released(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    """Nobody but Penstock sends to its collections: the buttons led to an error."""
    own = CollectionId(SYSTEM_TEAM, "changes")
    here.store.create_collection(CollectionRecord(id=own, created_at=NOON))
    path = "/collections/penstock_system.changes"
    admin = visitor(app, here, "admin")

    one = admin.get(f"{path}/quarantine/events/a%2Fb%3F%3Cb%3E%22").text
    many = admin.get(f"{path}/quarantine").text
    tried = admin.post(f"{path}/quarantine/try", transform="trim").text

    assert "nobody releases or discards" in one
    assert "nobody releases or discards" in many
    for page in (one, many, tried):
        assert "/quarantine/try" in page
        assert "/quarantine/release" not in page
        assert "/quarantine/discard" not in page
    for verb in ("release", "discard"):
        answer = admin.post(f"{path}/quarantine/{verb}", sure="yes", why="a test")
        assert answer.status_code == 422
        assert "nobody&#39;s to release" in answer.text


def test_nothing_is_released_or_discarded_before_somebody_is_sure(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    admin = visitor(app, here, "admin")

    asked = admin.post(f"{PAGE}/release", q="quarantine.stage:gate", transform="nan")
    assert "Release 1 event?" in asked.text
    assert 'name="transform" value="nan"' in asked.text
    assert "closed here" not in asked.text

    why = admin.post(f"{PAGE}/discard")
    assert why.status_code == 422
    assert "Say why" in why.text


def test_what_goes_through_many_goes_on_page_by_page_and_adds_up(
    app: FastAPI, here: Platform, held: StandInSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of each page has the form for the next: nothing runs on in secret."""
    pages = [
        DoneTold(
            release="r7",
            done=499,
            held=[HeldTold(event_id="<b>", why="gate")],
            closed=0,
            waiting=0,
            cursor="next",
        ),
        DoneTold(release="r7", done=3, held=[], closed=2, waiting=0, cursor=None),
    ]
    asked: list[ReleaseAsked] = []

    def release(_c: str, wanted: ReleaseAsked, *_others: object) -> DoneTold:
        asked.append(wanted)
        return pages[len(asked) - 1]

    monkeypatch.setattr(quarantine, "release_events", release)
    admin = visitor(app, here, "admin")

    going = admin.post(f"{PAGE}/release", q="a", transform="nan", sure="yes", found="505").text
    assert "Go on" in going
    assert "<b>" not in going
    form = going.partition('hx-trigger="load')[2].partition("</form>")[0]
    fields = re.findall(r'name="(\w+)" value="([^"]*)"', form)
    carried = {name: html.unescape(value) for name, value in fields if name != "csrf"}
    done = admin.post(f"{PAGE}/release", **carried).text

    assert [(one.query, one.release, one.cursor) for one in asked] == [
        ("a", None, None),
        ("a", "r7", "next"),
    ]
    assert [[step.do for step in one.repair.steps] for one in asked] == [["nan"], ["nan"]]
    assert "502 released as release" in done
    assert "&lt;b&gt;" in done
    assert "Go on" not in done


def test_what_is_wrong_with_a_search_is_pointed_at(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    wrong = visitor(app, here, "admin").get(f"{PAGE}?since=yesterday")

    assert wrong.status_code == 422
    assert "write a time as" in wrong.text


def test_an_empty_quarantine_teaches(app: FastAPI, here: Platform) -> None:
    here.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON))
    reader = visitor(app, here, "read")

    assert "penstock send flights" in reader.get(PAGE).text
    assert "penstock send flights" in reader.get("/quarantine").text
    assert reader.get("/collections/nowhere/quarantine").status_code == 404


def test_a_payload_is_downloaded_as_a_file_byte_for_byte(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    """A payload shown by its own type would be a page of ours with somebody else's script."""
    answer: httpx.Response = visitor(app, here, "read").get(f"{PAGE}/raw/a%2Fb%3F%3Cb%3E%22")

    assert answer.content == HOSTILE
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_payload_that_nobody_edited_keeps_its_bytes() -> None:
    """A field of text changes the ends of lines; they are not what somebody repaired."""
    payload = b'{"a": 1,\r\n"b": NaN}'
    form = Form({"payload": ['{"a": 1,\n"b": NaN}'], "transform": ["nan"]})

    assert repair_of(form, payload)[1] == {"steps": [{"do": "nan"}]}
    edited = Form({"payload": ['{"a": 1}']})
    assert repair_of(edited, payload)[1] == {
        "steps": [{"do": "payload", "payload_base64": "eyJhIjogMX0="}]
    }


def test_a_form_says_the_same_repair_again() -> None:
    form = Form(
        {
            "transform": ["bom", "nan"],
            "how": ["replace", "pattern"],
            "find": ["a", ""],
            "put": ["", "b"],
            "content_type": ["text/plain"],
        }
    )
    carried, repair = repair_of(form)
    again: dict[str, list[str]] = {}
    for name, value in carried:
        again.setdefault(name, []).append(value)

    assert repair_of(Form(again)) == (carried, repair)
    assert repair["steps"] == [
        {"do": "bom"},
        {"do": "nan"},
        {"do": "replace", "find": "a", "put": ""},
    ]


@given(st.text(max_size=400), st.text(max_size=400))
@settings(max_examples=60, deadline=None)
def test_a_difference_holds_both_texts(before: str, after: str) -> None:
    pieces = difference(before, after)

    if any(piece.kind == "cut" for piece in pieces):
        return
    old = "".join(piece.text for piece in pieces if piece.kind in ("same", "gone"))
    new = "".join(piece.text for piece in pieces if piece.kind in ("same", "new"))
    assert (old, new) == (before, after)


def test_a_difference_of_huge_payloads_is_small_and_shows_the_change() -> None:
    rest = "x y " * 100_000
    pieces = difference(f"{rest}NaN{rest}", f"{rest}null{rest}")

    assert ("gone", "NaN") in pieces
    assert ("new", "null") in pieces
    assert sum(len(piece.text) for piece in pieces) < 1_000


def test_what_has_no_shape_is_made_visible() -> None:
    assert readable("\ufeff{\x1b\u202e é\n".encode()) == "\\ufeff{\\u001b\\u202e é\n"
    assert readable(b"caf\xe9") == "caf\\xe9"
    assert beginning("é".encode() * 1_000, 5) == "éééé…"


def test_bars_stand_upon_each_other_and_all_are_seen() -> None:
    from penstock.contract.base import moment
    from penstock.contract.quarantine import CausesTold, QuarantineCauseTold

    causes = [
        QuarantineCauseTold(
            stage="gate",
            reason=f"r{n}",
            count=sum(bars),
            first=moment(NOON),
            last=moment(NOON),
            bars=bars,
        )
        for n, bars in enumerate([[1_000, 0], [1, 1], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0]])
    ]
    told = CausesTold(
        collection="a",
        open=1_007,
        closed=0,
        start=moment(NOON),
        step_seconds=60.0,
        causes=causes,
    )

    first, second = bars_of(told)
    # The sixth cause and all behind it share a colour.
    assert first.counts == (1_000, 1, 1, 1, 1, 2)
    assert sum(second.counts) == 1
    assert all(block.height >= 2 and block.y >= 0 for block in first.blocks)
    for below, above in zip(first.blocks, first.blocks[1:], strict=False):
        assert below.y == pytest.approx(above.y + above.height, abs=0.02)


def test_the_page_of_one_event_means_that_one_alone(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    """Texts of a search do not differ by case, and an id may come twice: those are others."""
    page = visitor(app, here, "admin").get(f"{PAGE}/events/a%2Fb%3F%3Cb%3E%22").text
    fields = dict(re.findall(r'name="(since|until)" value="([^"]*)"', page))

    assert micros(datetime.fromisoformat(fields["since"])) == NOON
    assert micros(datetime.fromisoformat(fields["until"])) == NOON + 1


def test_a_chosen_time_stays_chosen(app: FastAPI, here: Platform, held: StandInSearcher) -> None:
    held.cursor = "next"
    page = visitor(app, here, "read").get(f"{PAGE}?hours=24").text

    assert '<option value="24" selected>' in page
    older = re.search(r'href="([^"]*cursor=next)"', page)
    assert older is not None
    assert "hours=24" in older[1]
    narrowed = Which(since="2026-11-22T08:30:00Z", hours="24").narrowed("quarantine.reason:a")
    assert narrowed == "?since=2026-11-22T08%3A30%3A00Z&hours=24&q=quarantine.reason%3Aa"


def test_a_reason_that_is_too_long_is_told_so(
    app: FastAPI, here: Platform, held: StandInSearcher
) -> None:
    said = visitor(app, here, "admin").post(f"{PAGE}/discard", why="x" * 1_001).text

    assert "at most 1000 characters" in said
