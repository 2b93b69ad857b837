"""A browser for tests, a platform with data behind it, and how a page is looked at."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from axe_playwright_python.sync_playwright import Axe
from builders import event
from engines.kit import fetch_debian
from platform_stand_ins import grant
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from served import served

from assets.stats import count_from_lake
from assets.stores import Stores
from penstock.api.app import create_app
from penstock.api.dagster import Dagster
from penstock.api.platform import Platform
from penstock.api.serve import opened
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.dashboard.app import add_dashboard, addresses_of
from penstock.envelope import CollectionId
from penstock.metadata.records import CollectionRecord
from penstock.metadata.rotation import ensure_key
from penstock.settings import Settings, load_settings

SCREENS = Path(__file__).parents[1] / "build" / "screens"
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_MINUTE = 60_000_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Answer the one browser of a test run, Debian's; who may install it gets it by this."""
    path = shutil.which("chromium-browser") or "/usr/bin/chromium"
    fetch_debian("chromium", Path(path))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Site:
    """An installation that is served, with tokens to sign in with."""

    url: str
    here: Platform
    settings: Settings
    admin: str
    reader: str

    def collection(self, name: str) -> CollectionId:
        """Make a collection of the first team."""
        id_ = CollectionId("main", name)
        self.here.store.create_collection(CollectionRecord(id=id_, created_at=machine_clock()))
        return id_

    def land(self, *collections: CollectionId) -> None:
        """Bring everything that is on the log into the lake."""
        stores = Stores(self.settings)
        for collection in collections:
            stores.landing().land_once(collection)
            count_from_lake(stores.stats, stores.lake, collection, clock=machine_clock)
        stores.store.close()
        stores.buffer.close()


@contextmanager
def site(home: Path, *, filled: bool) -> Iterator[Site]:
    """Serve a platform on real embedded stores; `filled` with orders, flights and bad payloads."""
    settings = load_settings(home, {})
    dagster = Dagster("http://dagster.test", transport=httpx.MockTransport(_nobody))
    if filled:
        _send(settings)
    else:
        open_appender(settings.log).close()
    ensure_key(settings, chance=secrets.token_bytes)
    with opened(settings, dagster) as here:
        app = create_app(here)
        add_dashboard(app, addresses_of(settings))
        with served(app, lifespan="off") as url:
            made = Site(url, here, settings, grant(here.store, "admin"), grant(here.store, "read"))
            if filled:
                names = ("flights", "orders", "not_yet")
                made.land(*[made.collection(name) for name in names][:2])
            yield made


def _nobody(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nothing there")


def _send(settings: Settings) -> None:
    now = machine_clock()
    appender = open_appender(settings.log)
    for name, often in (("flights", 3), ("orders", 1)):
        payloads = [
            b"{not json" if n % 40 == 7 else json.dumps({"id": n, "total": n % 90}).encode()
            for n in range(often * 120)
        ]
        events = [
            event(
                payload,
                id=f"{name}-{n}",
                received_at=now - 65 * _MINUTE + n * 60 * _MINUTE // len(payloads) + n % 7,
            )
            for n, payload in enumerate(payloads)
        ]
        appender.append(CollectionId("main", name), events).result(10)
    appender.close()


@dataclass
class Visitor:
    """Somebody at the browser."""

    page: Page
    site: Site
    said: list[str]
    """What the console complained about, and every request that went elsewhere."""

    def sign_in(self, token: str | None = None) -> None:
        """Follow the link that `penstock up` prints."""
        self.page.goto(f"{self.site.url}/sign-in#{token or self.site.admin}")
        self.page.wait_for_url(f"{self.site.url}/")
        self.ready()

    def open(self, path: str) -> None:
        """Open a page of the site."""
        self.page.goto(self.site.url + path)

    def forgive(self, status: int) -> None:
        """Take as meant that the console complained about an answer of this status."""
        about = [one for one in self.said if str(status) in one]
        assert about != []
        self.said[:] = [one for one in self.said if one not in about]

    def ready(self) -> None:
        """Wait until the page's modules run."""
        self.page.wait_for_selector("html[data-ready]")

    def look(self, name: str) -> None:
        """Keep a picture in each theme and width, and let axe find nothing serious in any."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            for theme in ("light", "dark"):
                self.page.emulate_media(color_scheme=theme)
                self.settle()
                self.page.screenshot(
                    path=SCREENS / f"{name}-{size}-{theme}.png",
                    full_page=True,
                    # Hiding it leaves style attributes, and a swap that copies one is told.
                    caret="initial",
                )
                assert serious(self.page) == [], f"axe on {name}, {size}, {theme}"
            assert not wider_than_screen(self.page), f"{name} scrolls sideways on a {size}"
        self.page.set_viewport_size({"width": 1280, "height": 860})

    def settle(self) -> None:
        """Wait until what a change of size or theme started is drawn."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r, 60)))")


@contextmanager
def visiting(browser: Browser, site: Site, **context: Any) -> Iterator[Visitor]:
    """Open a window with no memory; the block fails if a page complained or asked elsewhere."""
    with window(browser, site.url, **context) as (page, said):
        yield Visitor(page, site, said)


@contextmanager
def window(browser: Browser, url: str, **context: Any) -> Iterator[tuple[Page, list[str]]]:
    """Open a window for a site; the block fails if a page complained or asked elsewhere."""
    made: BrowserContext = browser.new_context(**context)
    said: list[str] = []

    def only_here(route: Any) -> None:
        if route.request.url.startswith(url):
            route.continue_()
        else:
            said.append(f"asked {route.request.url}")
            route.abort()

    made.route("**/*", only_here)
    page = made.new_page()
    page.set_default_timeout(8_000)
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page, said
    finally:
        made.close()
    assert said == [], said


def serious(page: Page) -> list[str]:
    """Answer what axe finds that keeps somebody from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def wider_than_screen(page: Page) -> bool:
    """Say whether the page as a whole scrolls sideways."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth > innerWidth + 1"))


def later(true: Any, seconds: float = 8.0) -> None:
    """Wait until it is so, while the browser goes on."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.02)
