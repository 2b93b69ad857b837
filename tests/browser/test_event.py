"""One event, and the schema and settings of its collection, as somebody at a browser meets them."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest
from browsing import Site, Visitor
from builders import event
from playwright.sync_api import expect

from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Event
from replay.ledger import ATTEMPTS

SECOND = 1_000_000
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def shop(full: Site) -> CollectionId:
    """Orders with every kind of fate: fitting, with misfits, sent twice, broken, replayed."""
    shop = full.collection("shop")
    start = machine_clock() - 600 * SECOND
    appender = open_appender(full.settings.log)
    appender.append(shop, [order(n, start) for n in range(40)]).result(10)
    full.land(shop)
    odd = {"id": "forty-one", "total": 12.5, "note": HOSTILE, "paid": "no", "a.b": [1, None]}
    appender.append(
        shop,
        [
            event(
                json.dumps(odd),
                id=f'odd/{HOSTILE}?a="1"#x',
                received_at=start + 41 * SECOND,
                event_time=start + 38 * SECOND,
                headers=(("x-request-id", b"7f3a"), ("x-bytes", b"\xff\x00"), (HOSTILE, b"v")),
                metadata={"topic": "shop.orders", "partition": "3", "offset": "1290"},
                key=b"customer-9",
                source="kafka",
            ),
            event(b"{not json", id="broken", received_at=start + 42 * SECOND),
            order(7, start + 60 * SECOND),
            event(bytes(range(256)) * 20, id="image", content_type="image/png"),
        ],
    ).result(10)
    appender.append(ATTEMPTS, [attempt(n, row) for n, row in enumerate(ledger(start))]).result(10)
    appender.close()
    full.land(shop, ATTEMPTS)
    return shop


def order(number: int, start: int) -> Event:
    payload = {
        "id": number,
        "total": number * 3,
        "paid": number % 3 == 0,
        "customer": {"id": f"c{number % 5}", "city": "Zürich", "vip": None},
        "items": [{"sku": f"s-{n}", "count": n + 1, "price": 2.5 * n} for n in range(3)],
    }
    return event(
        json.dumps(payload, ensure_ascii=False),
        id=f"order-{number}",
        received_at=start + number * SECOND,
        named=True,
    )


def ledger(start: int) -> list[dict[str, object]]:
    def row(replay: str, attempt: int, outcome: str | None, at: int, **more: object):
        return {
            "replay": replay,
            "epoch": 1,
            "event_id": "order-20",
            "team": "main",
            "collection": "shop",
            "partition": 0,
            "offset": 20,
            "last": 20,
            "attempt": attempt,
            "kind": "intent" if outcome is None else "outcome",
            "at": f"2026-11-22T08:{at:02}:00.000000Z",
            "destination": "billing",
            "who": "anna",
            **({"outcome": outcome} if outcome else {}),
            **more,
        }

    return [
        row("aaaa000011112222", 1, None, 0),
        row("aaaa000011112222", 1, "retry", 1, status=503, latency_ms=812.5, reason="HTTP 503"),
        row("aaaa000011112222", 2, None, 2),
        row("aaaa000011112222", 2, "delivered", 3, status=200, latency_ms=41.2),
        row("bbbb000011112222", 1, None, 4),
        row("bbbb000011112222", 1, "failed", 5, status=422, latency_ms=18.0, reason="HTTP 422"),
    ]


def attempt(number: int, row: dict[str, object]) -> Event:
    return event(json.dumps(row), id=f"attempt-{number}", received_at=machine_clock())


def test_an_event_is_understood_at_a_glance(visitor: Visitor, shop: CollectionId) -> None:
    visitor.sign_in()

    visitor.open("/collections/shop/events/order-20")

    page = visitor.page
    expect(page.get_by_role("region", name="Typed row")).to_contain_text("Zürich")
    received = page.get_by_role("region", name="Who received it")
    expect(received.get_by_role("row", name="aaaa0000")).to_contain_text("delivered")
    expect(received.get_by_role("row", name="bbbb0000")).to_contain_text("422")
    near = page.get_by_role("region", name="Around it on the log")
    expect(near.get_by_role("link")).to_have_count(10)
    visitor.look("event")

    near.get_by_role("link", name="order-21").click()
    expect(page.locator(".event-id")).to_contain_text("order-21")


def test_a_hostile_event_is_shown_and_does_nothing(visitor: Visitor, shop: CollectionId) -> None:
    """Whoever sends events chooses what stands on this page, in the session of who reads it."""
    visitor.sign_in()
    visitor.page.on("dialog", lambda _: visitor.said.append("a payload ran"))
    visitor.open("/collections/shop/events/image")

    visitor.page.get_by_role("link", name="odd/").click()

    page = visitor.page
    expect(page.get_by_role("region", name="Payload")).to_contain_text(HOSTILE)
    misfits = page.get_by_role("region", name="Misfits")
    expect(misfits).to_contain_text("text, and the column holds whole numbers of 64 bits")
    expect(page.get_by_role("region", name="Metadata")).to_contain_text("shop.orders")
    expect(page.get_by_role("region", name="Where it came from")).to_contain_text("3 s before")
    visitor.look("event-misfits")


def test_an_event_is_opened_whatever_its_id_is(visitor: Visitor, full: Site) -> None:
    """The browser takes its part in what becomes of a path: it reads some ids as a folder above."""
    odd = full.collection("odd")
    ids = ("..", "a\nb", "%2E%2E", "a/../b", " ", "x" * 1024)
    with closing(open_appender(full.settings.log)) as appender:
        now = machine_clock() - 600 * SECOND
        events = [event(b"{}", id=one, received_at=now + n) for n, one in enumerate(ids)]
        appender.append(odd, events).result(10)
    full.land(odd)
    visitor.sign_in()

    for n, one in enumerate(reversed(ids)):
        visitor.open("/collections/odd")
        visitor.page.locator("tbody th[scope=row] a").nth(n).click()

        shown = visitor.page.locator(".event-id code")
        expect(shown).to_have_text("a\\nb" if one == "a\nb" else one)
        around = visitor.page.get_by_role("region", name="Around it on the log")
        expect(around.get_by_role("link")).to_have_count(len(ids) - 1)


def test_a_payload_is_shown_in_each_way_by_keyboard(visitor: Visitor, shop: CollectionId) -> None:
    visitor.sign_in()
    visitor.open("/collections/shop/events/order-20")
    visitor.ready()
    page = visitor.page

    page.locator("#as-raw").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Payload, as sent")).to_contain_text('"city": "Zürich"')
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Payload, as bytes")).to_contain_text("5a c3 bc 72")
    expect(page).to_have_url(re.compile(r"as=hex$"))
    visitor.look("event-bytes")

    with page.expect_download() as loading:
        page.get_by_role("link", name="Download payload").click()
    assert loading.value.suggested_filename == "order-20.json"


def test_a_quarantined_event_says_why_and_where(visitor: Visitor, shop: CollectionId) -> None:
    visitor.sign_in()

    visitor.open("/collections/shop/events/broken")

    expect(visitor.page.get_by_text("It is no row: invalid_json")).to_be_visible()
    expect(visitor.page.get_by_label("Where the payload is wrong")).to_contain_text("not json")
    visitor.look("event-quarantined")


def test_the_schema_is_shown_and_another_contract_tried(
    visitor: Visitor, shop: CollectionId
) -> None:
    visitor.sign_in()
    visitor.open("/collections/shop/schema")
    visitor.ready()
    page = visitor.page
    columns = page.get_by_role("table", name="Fields and their columns")
    expect(columns.get_by_role("row", name="customer")).to_contain_text("object")
    visitor.look("schema")

    page.get_by_label("Contract", exact=True).select_option("quarantine")
    page.get_by_role("button", name="Try it").press("Enter")
    expect(page.get_by_text("tried under quarantine")).to_be_visible()
    page.get_by_role("button", name="What would a rebuild change?").press("Enter")
    expect(page.get_by_role("table", name="Columns that would change")).to_contain_text("double")
    visitor.look("schema-rebuild")


def test_a_setting_says_what_it_does_and_is_changed_by_keyboard(
    visitor: Visitor, full: Site
) -> None:
    full.collection("kept")
    visitor.sign_in()
    visitor.open("/collections/kept/settings")
    visitor.ready()
    page = visitor.page

    page.get_by_label("Days").fill("90")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Keep rows 90 days?")).to_be_visible()
    expect(page.get_by_text("the next upkeep drops nothing")).to_be_visible()
    visitor.look("settings-change")
    page.get_by_role("button", name="Keep them 90 days").press("Enter")

    expect(page.get_by_text("Rows are kept 90 days.")).to_be_visible()
    page.get_by_label("Payloads are").select_option("protobuf")
    visitor.look("settings")


def test_what_a_collection_without_columns_shows(visitor: Visitor, full: Site) -> None:
    full.collection("blank")
    visitor.sign_in(full.reader)

    visitor.open("/collections/blank/schema")
    expect(visitor.page.get_by_text("No columns yet")).to_be_visible()
    visitor.look("schema-empty")
    visitor.open("/collections/blank/settings")
    expect(visitor.page.get_by_text("one with the scope admin changes them")).to_be_visible()
    visitor.look("settings-reader")
