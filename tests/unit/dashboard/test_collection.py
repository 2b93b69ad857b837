"""What the page of a collection answers, without a browser."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from builders import NOON
from fastapi import FastAPI
from forms import Browser, browser
from platform_stand_ins import StandInLake, StandInSearcher, found, grant, table

from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.dashboard.app import add_dashboard
from penstock.dashboard.policy import Addresses
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable
from penstock.metadata.records import CollectionRecord
from penstock.search import Page, SearchRequest

SHOP = CollectionId("main", "shop")


@pytest.fixture
def shop(here: Platform) -> Platform:
    here.store.create_collection(CollectionRecord(id=SHOP, created_at=NOON))
    return here


@pytest.fixture
def reader(app: FastAPI, shop: Platform) -> Browser:
    return browser(app, grant(shop.store, "read"))


@pytest.fixture
def admin(app: FastAPI, shop: Platform) -> Browser:
    return browser(app, grant(shop.store, "admin"))


def searcher(here: Platform) -> StandInSearcher:
    assert isinstance(here.searcher, StandInSearcher)
    return here.searcher


def test_a_token_for_no_collection_is_not_made(admin: Browser, shop: Platform) -> None:
    tokens = len(shop.store.tokens("main"))

    for name in ("nowhere", "No%20Name", "%3Cb%3E"):
        assert admin.post(f"/collections/{name}/token").status_code == 404
    assert len(shop.store.tokens("main")) == tokens


def test_an_event_is_led_to_whatever_its_id(reader: Browser, shop: Platform) -> None:
    searcher(shop).events = [found(b"{}", event_id="a/b?c=%2F")]

    page = reader.get("/collections/shop").text

    assert 'href="/collections/shop/events/a%2Fb%3Fc%3D%252F"' in page


def test_a_hostile_payload_is_text(reader: Browser, shop: Platform) -> None:
    bad = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    searcher(shop).events = [found(json.dumps({"name": bad}).encode(), event_id=bad)]

    answer = reader.get("/collections/shop?since=all&col=name&col=payload&col=event_id")

    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


def test_what_is_shown_of_a_payload_is_bounded(reader: Browser, shop: Platform) -> None:
    searcher(shop).events = [found(b'{"a": "' + b"x" * 300_000 + b'", "b": [1, 2]}')]

    answer = reader.get("/collections/shop?since=all&col=b&col=payload")

    assert len(answer.text) < 60_000


def test_a_search_that_cannot_be_read_is_pointed_at(reader: Browser, shop: Platform) -> None:
    answer = reader.get("/collections/shop?q=total:%3E")

    assert answer.status_code == 422
    assert "total:&gt;\n       ^" in answer.text
    assert 'aria-invalid="true"' in answer.text


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("since=yesterday", "From: expected a time"),
        ("since=2026-11-22&until=2026-11-21", "Until: has to be later than the beginning"),
        ("cursor=nonsense", "cursor"),
    ],
)
def test_what_an_address_cannot_mean_is_told_beside_the_search(
    reader: Browser, shop: Platform, address: str, told: str
) -> None:
    searcher(shop).events = [found()]

    answer = reader.get(f"/collections/shop?{address}")

    assert answer.status_code in (200, 422)
    assert told in answer.text


def test_the_first_event_of_an_empty_collection_is_taught_with_the_real_address(
    reader: Browser, admin: Browser, shop: Platform
) -> None:
    searcher(shop).events = []
    assert reader.get("/collections/shop/first").status_code == 204

    text = reader.get("/collections/shop").text
    assert "http://127.0.0.1:8080/v1/events/shop" in text
    assert "127.0.0.1:9000" in text
    assert "Make one and fill it in" not in text

    assert "Make one and fill it in" in admin.get("/collections/shop").text
    made = admin.post("/collections/shop/token").text
    [record] = [one for one in shop.store.tokens("main") if one.collection == "shop"]
    assert record.scopes == ("ingest",)
    assert f"Bearer {record.hint}" in made
    assert "$TOKEN" not in made


def test_a_reader_changes_nothing(reader: Browser, shop: Platform) -> None:
    searcher(shop).events = [found()]

    assert reader.post("/collections/shop/token").status_code == 403
    assert reader.post("/collections/shop/searches", name="late", q="a:1").status_code == 403
    assert reader.post("/collections/shop/searches/late/delete").status_code == 403
    assert shop.store.saved_searches("main") == []


def test_a_collection_that_is_not_there_is_told_so(reader: Browser) -> None:
    assert reader.get("/collections/nowhere").status_code == 404


def test_a_search_is_saved_opened_replaced_and_deleted(admin: Browser, shop: Platform) -> None:
    searcher(shop).events = [found()]
    fields = {"q": "total:>3", "since": "now-1h", "col": "total"}

    assert admin.post("/collections/shop/searches", name="Late today", **fields).status_code == 422
    answer = admin.post("/collections/shop/searches", name="late_today", **fields)
    assert answer.status_code == 303
    [saved] = shop.store.saved_searches("main")
    assert (saved.query, saved.since, saved.order) == ("total:>3", "now-1h", "newest")

    again = admin.post("/collections/shop/searches", name="late_today", q="b:1")
    assert again.status_code == 422
    assert "tick the box" in again.text
    assert (
        admin.post(
            "/collections/shop/searches", name="late_today", q="b:1", replace="on"
        ).status_code
        == 303
    )
    [saved] = shop.store.saved_searches("main")
    assert saved.query == "b:1"
    assert 'href="/collections/shop?q=b%3A1"' in admin.get("/collections/shop").text

    asked = admin.post("/collections/shop/searches/late_today/delete", q="c:1", col="total")
    assert "Delete the saved search late_today?" in asked.text
    assert 'href="/collections/shop?q=c%3A1&amp;col=total" data-leaves' in asked.text
    assert shop.store.saved_searches("main") == [saved]
    gone = admin.post("/collections/shop/searches/late_today/delete", sure="yes", q="c:1")
    assert (gone.status_code, gone.headers["location"]) == (303, "/collections/shop?q=c%3A1")
    assert shop.store.saved_searches("main") == []


def test_values_of_fields_narrow_the_search(reader: Browser, shop: Platform) -> None:
    searcher(shop).events = [found()]

    text = reader.get("/collections/shop/facets?q=a:1+OR+b:2&facet=carrier").text

    hrefs = [
        dict(parse_qsl(urlsplit(one).query))
        for one in re.findall(r'class="add" href="([^"]+)"', text.replace("&amp;", "&"))
    ]
    assert hrefs[0] == {"q": "(a:1 OR b:2) carrier:UA", "facet": "carrier"}
    assert (
        "(a:1 OR b:2) NOT carrier:UA".replace(" ", "+")
        .replace(":", "%3A")
        .replace("(", "%28")
        .replace(")", "%29")
        in text
    )


def test_the_histogram_leads_to_each_of_its_bars(reader: Browser, shop: Platform) -> None:
    answer = reader.get("/collections/shop/histogram?q=a:1")

    assert answer.status_code == 200
    assert "only these" in answer.text


def test_completion_is_that_of_the_api(reader: Browser, shop: Platform) -> None:
    told = reader.get("/collections/shop/complete?q=carr&at=4").json()

    assert told["suggestions"][0]["text"].startswith("carrier")


def test_a_search_without_a_table_has_no_statement(reader: Browser, shop: Platform) -> None:
    answer = reader.get("/collections/shop/statement?q=a:1")

    assert answer.status_code == 422
    assert "there is no table" in answer.text


def test_a_statement_is_opened_in_the_editor(reader: Browser, shop: Platform) -> None:
    lake = shop.lake
    assert isinstance(lake, StandInLake)
    lake.views[SHOP] = table(SHOP, rows=1, mark=1)

    page = reader.get("/collections/shop/statement?q=source:http").text
    [link] = re.findall(r'href="(/sql\?[^"]*)"', page)

    assert re.search(r"<textarea[^>]*>\s*SELECT", reader.get(html.unescape(link)).text)


class Away(StandInSearcher):
    """An engine that does not answer."""

    def search(self, asked: SearchRequest) -> Page:
        raise EngineUnavailable("the lake does not answer")


def test_a_search_is_kept_while_an_engine_is_away(here: Platform) -> None:
    """What somebody typed for a minute must not be gone because the lake was for a second."""
    away = replace(here, searcher=Away())
    away.store.create_collection(CollectionRecord(id=SHOP, created_at=NOON))
    made = create_app(away)
    add_dashboard(made, Addresses())
    reader = browser(made, grant(here.store, "read"))

    answer = reader.get("/collections/shop?q=total:%3E50")

    assert answer.status_code == 503
    assert "the lake does not answer" in answer.text
    assert 'value="total:&gt;50"' in answer.text


def test_events_that_could_not_become_rows_are_told_to_who_waits_for_the_first(
    reader: Browser, shop: Platform
) -> None:
    """Else the page says for ever that nothing came."""
    searcher(shop).number = 1

    for path in ("/collections/shop", "/collections/shop/first"):
        page = reader.get(path).text
        assert "1 event came, and could not become a row" in re.sub("<[^>]*>", "", page)
        assert 'href="/collections/shop/quarantine"' in page
