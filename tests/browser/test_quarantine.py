"""Quarantine, as somebody at a browser meets it: why, one event, a repair tried, released."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import pytest
from browsing import Site, Visitor, visiting
from builders import event
from playwright.sync_api import Browser, expect
from served import served

from penstock.api.app import create_app
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.dashboard.app import add_dashboard, addresses_of
from penstock.envelope import CollectionId, Event

READINGS = CollectionId("main", "readings")
GAUGES = CollectionId("main", "gauges")
_MINUTE = 60_000_000
HOSTILE = b'{"id": 1, "<script>alert(1)</script>": NaN, "note": "<img src=x onerror=alert(2)>"}'


class Appender(Protocol):
    def append(self, collection: CollectionId, events: Sequence[Event]) -> Future[object]: ...


@dataclass
class Door:
    """Takes released events to the log, received now."""

    appender: Appender

    def send(self, collection: CollectionId, events: Sequence[Event]) -> Sequence[str | None]:
        now = machine_clock()
        received = [msgspec.structs.replace(one, received_at=now) for one in events]
        self.appender.append(collection, received).result(10)
        return [None] * len(events)


def bad() -> Iterator[bytes]:
    """Yield payloads that say they are JSON and are not, each in one of five ways."""
    for n in range(60):
        match n % 12:
            case 0 | 5 | 7:
                yield b'{"sensor": "s%d", "value": NaN, "place": "hall %d"}' % (n, n)
            case 1 | 4:
                yield b'\xef\xbb\xbf{"sensor": "s%d", "value": %d}' % (n, n)
            case 2:
                yield b'{"sensor": "caf\xe9 %d", "value": %d}' % (n, n)
            case 3:
                yield b'{"sensor": "s%d", "value": 1' % n
            case _:
                yield b'{"sensor": "s%d", "value": %d.5}' % (n, n)


@pytest.fixture(scope="module")
def site(full: Site) -> Iterator[Site]:
    """Another dashboard over the filled installation, with a door that appends to its log."""
    appender = open_appender(full.settings.log)
    now = machine_clock()
    events = [
        event(payload, id=f"reading-{n}", received_at=now - (90 - n) * _MINUTE)
        for n, payload in enumerate(bad())
    ]
    events.append(event(HOSTILE, id="hos/tile?<b>", received_at=now - 5 * _MINUTE))
    for collection in (READINGS, GAUGES):
        full.collection(collection.name)
        appender.append(collection, events).result(10)
        full.land(collection)
    here = replace(full.here, release_door=lambda _: Door(appender))
    app = create_app(here)
    add_dashboard(app, addresses_of(full.settings))
    with served(app, lifespan="off") as url:
        yield replace(full, url=url, here=here)
    appender.close()


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Visitor]:
    with visiting(browser, site) as made:
        expect.set_options(timeout=8_000)
        made.sign_in()
        yield made


def test_causes_lead_to_one_event_that_is_repaired_by_hand(person: Visitor) -> None:
    page = person.page
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", name="Quarantine", exact=True)).to_be_visible()
    person.look("quarantine-all")
    person.open("/collections/readings/quarantine")
    expect(page.get_by_role("row", name="gate: invalid_json").first).to_contain_text("36")
    person.look("quarantine")

    person.open("/collections/readings/quarantine/events/reading-3")
    expect(page.get_by_role("heading", name="Wrong at byte 27")).to_be_visible()
    person.look("quarantined")
    page.get_by_label("Payload", exact=True).fill('{"sensor": "s3", "value": 1}')
    page.get_by_role("button", name="Try it").click()
    expect(page.locator(".change ins")).to_have_text("}")
    page.get_by_role("button", name="Release it so…").click()
    page.get_by_role("button", name="Release the event").click()

    expect(page.get_by_role("heading", name="Releasing: finished")).to_be_visible()
    person.site.land(READINGS)
    person.open("/collections/readings/quarantine/events/reading-3")
    expect(page.get_by_text("It became the row at")).to_be_visible()
    person.look("quarantined-closed")


def test_what_was_opened_stays_open_while_the_page_renews_itself(person: Visitor) -> None:
    """Whoever reads a table for more than five seconds would open it again and again."""
    page = person.page
    person.open("/collections/readings/quarantine")
    page.get_by_text("Over time as a table").click()
    page.evaluate("() => { document.getElementById('over-time').dataset.before = ''; }")

    expect(page.locator("#over-time:not([data-before])")).to_have_attribute("open", "")


def test_many_are_repaired_released_and_the_rest_discarded_by_keyboard(person: Visitor) -> None:
    person.open("/collections/gauges/quarantine")
    page = person.page
    page.locator("#repairing summary").focus()
    page.keyboard.press("Enter")
    page.locator("input[value=bom]").focus()
    page.keyboard.press("Space")
    page.locator("input[value=nan]").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator(".work .notice")).to_contain_text("would become rows")
    expect(page.locator(".change ins").first).to_have_text("null")
    person.look("quarantine-tried")
    page.get_by_role("button", name="Release all that become rows so").press("Enter")
    expect(page.get_by_role("heading", name="Release 36 events?")).to_be_visible()
    person.look("quarantine-ask")
    page.get_by_role("button", name="Release 36 events").press("Enter")
    expect(page.locator(".work .notice")).to_contain_text("26 released")
    person.look("quarantine-done")
    person.site.land(GAUGES)

    person.open("/collections/gauges/quarantine")
    page.locator("#discarding summary").press("Enter")
    page.get_by_label("Reason").fill("sent by a test")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Discard 10 events").press("Enter")
    expect(page.locator(".work .notice")).to_contain_text("10 discarded")
    person.open("/collections/gauges/quarantine")
    expect(page.get_by_role("heading", name="Nothing is open in quarantine")).to_be_visible()
    expect(page.get_by_role("row", name="discarded")).to_contain_text("sent by a test")
    person.look("quarantine-empty")


def test_an_empty_installation_teaches(newcomer: Visitor) -> None:
    newcomer.sign_in()
    newcomer.open("/quarantine")
    expect(newcomer.page.get_by_text("Nothing is in quarantine")).to_be_visible()
    newcomer.look("quarantine-none")
