"""The first ten minutes: from `penstock up` on an empty home to a replay that has arrived."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from browsing import serious, window
from installing import Installation, installation
from playwright.sync_api import Browser, Page, expect

from penstock.cli.receiver import digest

ARRIVES = 60_000
"""Milliseconds that Dagster may take to start a run on a busy machine."""

_CLIPBOARD = ["clipboard-read", "clipboard-write"]
_NAME = """() => {
  const one = document.activeElement;
  const label = one.labels?.[0]?.textContent ?? "";
  return (one.getAttribute("aria-label") ?? (label || one.textContent)).trim();
}"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Answer what `penstock up` makes of an empty home, with nothing set."""
    with installation(tmp_path_factory.mktemp("newcomer") / "home", networks=None) as made:
        yield made


class Mouse:
    """Somebody who points and types; everything they do counts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.done: list[str] = []

    def click(self, name: str) -> None:
        self.done.append(f"click {name}")
        self.page.get_by_role("main").locator("a, button").get_by_text(name).or_(
            self.page.get_by_role("button", name=name)
        ).first.click()

    def type(self, label: str, text: str) -> None:
        self.done.append(f"type into {label}")
        self.page.get_by_label(label, exact=True).fill(text)

    def press(self, key: str) -> None:
        self.done.append(f"press {key}")
        self.page.keyboard.press(key)

    def in_terminal(self, command: str) -> None:
        self.done.append("paste into a terminal")
        subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=60)


class Keyboard(Mouse):
    """Somebody without a mouse: goes on with Tab until it is there."""

    def reach(self, name: str) -> None:
        """Press Tab until what has this name is in focus, and can be seen to be."""
        for _ in range(120):
            if self.page.evaluate(_NAME).startswith(name):
                outline = "() => getComputedStyle(document.activeElement).outlineStyle"
                assert self.page.evaluate(outline) != "none", f"the focus on {name} is not seen"
                return
            self.page.keyboard.press("Tab")
        pytest.fail(f"Tab does not come to {name}")

    def click(self, name: str) -> None:
        self.reach(name)
        self.page.keyboard.press("Enter")

    def type(self, label: str, text: str) -> None:
        self.reach(label)
        self.page.keyboard.type(text)


def arrived(here: Installation) -> int:
    """Answer how often the receiver was sent the event of the page, byte for byte."""
    sent = digest(b'{"hello": "world"}')
    return sum(payloads[sent] for payloads in list(here.receiver.payloads.values()))


def walk(hands: Mouse, here: Installation, *, name: str) -> None:
    """Create a collection, send to it as its page says, find the event and replay it."""
    page = hands.page
    page.goto(here.cli("dashboard").split()[-1])
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()
    page.wait_for_selector("html[data-ready]")
    before = arrived(here)

    if isinstance(hands, Keyboard):
        page.keyboard.press("/")
    hands.type("Name of the collection", name)
    hands.click("Create the collection")
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    assert serious(page) == []
    # To load it again shows the collection, and makes no other token.
    assert page.url.endswith(f"/collections/{name}")
    hands.click("Copy curl to send an event")
    hands.in_terminal(page.evaluate("() => navigator.clipboard.readText()"))

    expect(page.get_by_text("The first event is here.")).to_be_visible()
    hands.click("Show the collection")
    search = page.locator("[data-search]")
    expect(search).to_be_visible()
    page.wait_for_selector("html[data-ready]")
    if isinstance(hands, Keyboard):
        page.keyboard.press("/")
        page.keyboard.type("hello:world")
    else:
        hands.done.append("type into the search")
        search.fill("hello:world")
    hands.press("Enter")
    # Until then this is the page before, which shows one event, too.
    expect(page).to_have_url(re.compile("q=hello"))
    expect(page.get_by_text("1 event, ")).to_be_visible()

    hands.click("Replay these")
    label = page.locator("label[for=address]").inner_text()
    page.wait_for_selector("html[data-ready]")
    hands.type(label, f"http://127.0.0.1:{here.receiver.port}/hook")
    hands.click("Make the plan")
    expect(page.get_by_text("exactly 1 event")).to_be_visible(timeout=ARRIVES)
    hands.click("Send 1 event to")
    expect(page.get_by_text("finished").first).to_be_visible(timeout=ARRIVES)

    deadline = time.monotonic() + 10
    while arrived(here) == before:
        assert time.monotonic() < deadline, "the event did not come"
        time.sleep(0.05)
    assert arrived(here) == before + 1


def test_a_newcomer_replays_the_first_event_in_fewer_than_twelve_steps(
    here: Installation, browser: Browser
) -> None:
    with window(browser, here.platform, permissions=_CLIPBOARD) as (page, _):
        hands = Mouse(page)
        walk(hands, here, name="orders")

    assert len(hands.done) < 12, hands.done


def test_the_same_is_done_by_keyboard_alone(here: Installation, browser: Browser) -> None:
    with window(browser, here.platform, permissions=_CLIPBOARD) as (page, _):
        walk(Keyboard(page), here, name="by_keyboard")
