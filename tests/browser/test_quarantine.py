"""Quarantine, as somebody at a browser meets it: why, one event, a repair tried, released."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import pytest
from browsing import Site, Visitor, later, visiting
from builders import event
from playwright.sync_api import Browser, expect
from served import served

from penstock.api.app import create_app
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.dashboard.app import add_dashboard, addresses_of
from penstock.envelope import CollectionId, Event

READINGS = CollectionId("main", "readings")
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
    full.collection("readings")
    appender.append(READINGS, events).result(10)
    full.land(READINGS)
    here = replace(full.here, release_door=lambda _: Door(appender))
    app = create_app(here)
    add_dashboard(app, addresses_of(full.settings))
    with served(app, lifespan="off") as url:
        yield replace(full, url=url, here=here)
    appender.close()


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Visitor]:
    with visiting(browser, site) as made:
        made.sign_in()
        yield made


def test_causes_are_seen_over_all_collections_and_lead_to_their_events(person: Visitor) -> None:
    person.page.keyboard.press("g")
    person.page.keyboard.press("q")
    expect(person.page.get_by_role("heading", name="Quarantine", exact=True)).to_be_visible()
    person.look("quarantine-all")

    person.page.get_by_role("link", name="readings").click()
    expect(person.page.get_by_role("heading", name="Quarantine of readings")).to_be_visible()
    person.look("quarantine")

    person.page.get_by_role("row", name="wrong").first.get_by_role("link").click()


def test_look(person: Visitor) -> None:
    person.open("/collections/readings/quarantine")
    page = person.page
    page.locator("#repairing summary").click()
    page.get_by_label("nan", exact=False).check()
    page.get_by_label("bom", exact=False).check()
    page.get_by_role("button", name="Try on five").click()
    expect(page.get_by_text("would become rows")).to_be_visible()
    person.look("quarantine-tried")
    page.get_by_role("button", name="Release all that become rows so").click()
    expect(page.get_by_role("heading", name="Release ")).to_be_visible()
    person.look("quarantine-ask")
    person.open("/collections/readings/quarantine/events/reading-3")
    person.look("quarantined")
