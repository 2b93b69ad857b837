"""The page of a collection, as somebody at a browser meets it."""

from __future__ import annotations

import json
import re

import pytest
from browsing import Site, Visitor
from builders import event
from playwright.sync_api import expect

from lakehouse.sql.tables import LakeTables
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Event
from penstock.search import SearchRequest

_MINUTE = 60_000_000
CARRIERS = ("UA", "AA", "DL", "B6")
SHOP = CollectionId("main", "departures")


def departures(count: int = 240) -> list[Event]:
    now = machine_clock()
    return [
        event(
            json.dumps(
                {
                    "carrier": CARRIERS[n % 7 % 4],
                    "origin": ("JFK", "EWR", "LGA")[n % 3],
                    "flight": 1000 + n,
                    "delay": (n * 7) % 90 - 12.5,
                    "cancelled": n % 31 == 0,
                    "note": "<b>held</b> & waiting" if n % 17 == 0 else None,
                    "legs": [{"to": "ORD"}, {"to": "SFO"}],
                }
            ).encode(),
            id=f"departure-{n}",
            received_at=now - (count - n) * _MINUTE * 5,
        )
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def filled(full: Site) -> Site:
    """Answer the installation with departures of the last 20 hours, landed."""
    full.collection(SHOP.name)
    send(full, *departures())
    full.land(SHOP)
    return full


def send(site: Site, *events: Event, to: CollectionId = SHOP) -> None:
    appender = open_appender(site.settings.log)
    appender.append(to, events).result(10)
    appender.close()


@pytest.fixture
def reader(filled: Site, visitor: Visitor) -> Visitor:
    visitor.sign_in()
    visitor.open("/collections/departures")
    visitor.ready()
    return visitor


def test_events_are_found_counted_and_narrowed(reader: Visitor) -> None:
    page = reader.page
    expect(page.locator("#events-body tr")).to_have_count(50)
    expect(page.locator("#bars canvas")).to_be_visible()
    facet = page.get_by_role("region", name="Values of carrier")
    expect(facet).to_be_visible()
    reader.look("collection")

    facet.get_by_role("link", name="UA", exact=True).click()
    expect(page.get_by_label("Search", exact=True)).to_have_value("carrier:UA")
    expect(page).to_have_url(re.compile(r"q=carrier%3AUA"))


def test_a_search_is_written_with_the_keyboard_and_completed(reader: Visitor) -> None:
    page = reader.page

    page.keyboard.press("/")
    page.keyboard.type("carr")
    options = page.get_by_role("listbox", name="What may stand here")
    expect(options.get_by_role("option").first).to_contain_text("carrier")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(options.get_by_role("option").filter(has_text="UA")).to_be_visible()
    page.keyboard.type("UA")
    expect(options.get_by_role("option").first).to_contain_text("UA")
    page.keyboard.press("Escape")
    expect(options).to_be_hidden()
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(r"q=carrier%3AUA$"))
    expect(page.locator("#bars figcaption")).to_contain_text("69 events found")
    assert page.evaluate("() => document.activeElement.id") == "q"
    page.reload()
    expect(page.get_by_label("Search", exact=True)).to_have_value("carrier:UA")
    reader.ready()
    page.keyboard.press("/")
    page.keyboard.press("End")
    page.keyboard.type(" origin:")
    expect(options.get_by_role("option").filter(has_text="JFK")).to_be_visible()
    # Last: axe leaves empty style attributes behind, which htmx would copy and the policy refuse.
    reader.look("collection-completion")


def test_what_cannot_be_read_is_pointed_at(reader: Visitor) -> None:
    page = reader.page
    page.get_by_label("Search", exact=True).fill("carrier:UA AND (delay:>40")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.press("End")
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert").filter(has_text="expected ')' for")).to_be_visible()
    reader.forgive(422)
    reader.look("collection-wrong")


def test_a_range_is_dragged_in_the_histogram(reader: Visitor) -> None:
    page = reader.page
    over = page.locator("#bars .u-over")
    expect(over).to_be_visible()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40, steps=4)
    page.mouse.up()

    expect(page).to_have_url(re.compile(r"since=20\d\d-.*&until=20\d\d-"))
    reader.ready()
    expect(page.locator("#events-body tr").first).to_be_visible()
    assert 15 < page.locator("#events-body tr").count() < 45


def test_new_events_show_up_on_top_and_wait_while_paused(reader: Visitor, filled: Site) -> None:
    page = reader.page
    page.get_by_role("button", name="Live").click()
    said = page.locator("[data-follow-said]")
    expect(said).to_have_text("0 new")

    def now(n: int) -> Event:
        body = json.dumps({"carrier": "NEW", "flight": n}).encode()
        return event(body, id=f"live-{n}", received_at=machine_clock())

    send(filled, now(1))
    expect(page.locator("#events-body tr").first).to_contain_text("NEW")
    expect(page.locator("#events-body tr")).to_have_count(51)
    page.get_by_role("button", name="Pause").click()
    send(filled, now(2), now(3))
    expect(said).to_contain_text("2 held back")
    expect(page.locator("#events-body tr")).to_have_count(51)
    reader.look("collection-live")
    page.get_by_role("button", name="Go on").click()
    expect(said).to_have_text("3 new")
    expect(page.locator("#events-body tr")).to_have_count(53)
    assert "live=1" in page.url
    page.get_by_role("button", name="Live").click()


def test_columns_are_chosen_and_stay_in_the_address(reader: Visitor) -> None:
    page = reader.page
    page.locator("#columns summary").click()
    for field in ("origin", "flight", "delay", "cancelled", "payload"):
        page.locator("#columns").get_by_role("checkbox", name=field, exact=False).first.uncheck()
    page.get_by_label("Another").fill("legs.to")
    page.get_by_role("button", name="Show these").click()

    expect(page.locator(".events-table thead th")).to_have_text(
        ["Received (UTC)", "carrier", "legs.to"]
    )
    expect(page.locator("#events-body tr", has_text="ORD, SFO").first).to_be_visible()
    page.reload()
    expect(page.locator(".events-table thead th")).to_have_count(3)


def test_the_search_is_a_statement_that_finds_the_same(reader: Visitor, filled: Site) -> None:
    page = reader.page
    reader.open("/collections/departures?q=carrier:UA+delay:%3E40+NOT+origin:JFK&since=all")
    page.get_by_role("link", name="As SQL").click()

    text = page.get_by_label("the statement", exact=True).text_content() or ""
    found = filled.here.sql.query(
        text, LakeTables(filled.here.lake, "main"), filled.here.sql_limits
    )
    asked = SearchRequest(collection=SHOP, query="carrier:UA delay:>40 NOT origin:JFK")
    searched = [one.event_id for one in filled.here.searcher.search(asked).events]
    assert found.rows["event_id"].to_pylist() == searched
    assert len(searched) > 5
    reader.ready()
    reader.look("collection-statement")


def test_a_search_is_saved_and_opened(reader: Visitor) -> None:
    page = reader.page
    reader.open("/collections/departures?q=delay:%3E60&since=now-6h")
    page.locator("#saved summary").click()
    page.get_by_label("Save what is looked for now as").fill("late")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page).to_have_url(re.compile("since=now-6h"))

    reader.open("/collections/departures")
    page.locator("#saved summary").click()
    reader.ready()
    reader.look("collection-saved")
    page.get_by_role("link", name="late", exact=True).click()
    expect(page.get_by_label("Search", exact=True)).to_have_value("delay:>60")
    page.locator("#saved summary").click()
    page.get_by_role("button", name="Delete late").click()
    reader.look("collection-forget")
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#saved summary")).to_have_text("Saved searches")


def test_an_empty_collection_teaches_and_sees_its_first_event(
    filled: Site, visitor: Visitor
) -> None:
    page = visitor.page
    fresh = filled.collection("fresh")
    visitor.sign_in()
    visitor.open("/collections/fresh")
    visitor.ready()
    visitor.look("collection-empty")

    page.get_by_role("button", name="Make one and fill it in").click()
    curl = page.get_by_label("curl to send an event", exact=True)
    expect(curl).to_contain_text("Bearer pst_")
    send(filled, event(b'{"hello": "world"}', received_at=machine_clock()), to=fresh)
    expect(page.get_by_text("The first event is here.")).to_be_visible()
    expect(curl).to_contain_text("Bearer pst_")
    visitor.look("collection-first")
    page.get_by_role("link", name="Show the collection").click()
    expect(page.locator("#events-body tr")).to_have_count(1)
