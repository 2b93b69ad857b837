"""From a search to a finished replay, as somebody at a browser does it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from typing import Literal

from browsing import Site, Visitor, visiting
from builders import event
from metadata_builders import replay
from msgspec.structs import replace
from playwright.sync_api import expect
from receiving import Receiver, Reply, receiving

from penstock.buffer import Appender, open_appender
from penstock.clock import machine_clock
from penstock.envelope import Position
from penstock.guard import Guard
from penstock.metadata.home import ensure_system_collections
from penstock.metadata.records import Destination
from replay.files import About, Segments
from replay.ledger import ATTEMPTS, add_lines
from replay.progress import Attempts, Progress
from replay.run import Tools, run_replay

RUN = "0d2f5a5e-7c1d-4f6a-9a51-6f1f5f0c2b11"


class LogLedger:
    """Puts the rows on the log, as a door would."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        body = bytearray()
        for each in rows:
            add_lines(body, each)
        now = machine_clock()
        events = [
            event(line, id=f"{key}-{number}", received_at=now)
            for number, line in enumerate(bytes(body).splitlines())
        ]
        self._appender.append(ATTEMPTS, events).result(10)

    async def close(self) -> None:
        """Leave the log open."""


@contextmanager
def elsewhere() -> Iterator[Receiver]:
    """Answer a receiver that was made in another thread: in this one the browser has its loop."""
    with ThreadPoolExecutor(1) as thread:
        made = receiving()
        yield thread.submit(made.__enter__).result(10)
        thread.submit(made.__exit__, None, None, None).result(10)


@contextmanager
def sending(site: Site) -> Iterator[Receiver]:
    """Run every replay that is asked for, as Dagster would, to a receiver on this machine."""
    with ExitStack() as opened:
        receiver = opened.enter_context(elsewhere())
        receiver.answer = lambda request: Reply(410 if b'"total": 7}' in request.body else 202)
        appender = open_appender(site.settings.log)
        opened.callback(appender.close)
        guard = Guard((ip_network("127.0.0.0/8"),), (receiver.port,))
        tools = Tools(
            store=site.here.store,
            planner=site.here.planner,
            guard=guard,
            open_ledger=lambda: LogLedger(appender),
            wake=site.land,
            doors=(),
            clock=machine_clock,
        )
        before = site.here.launch
        threads: list[threading.Thread] = []

        def launch(replay_id: str) -> str:
            thread = threading.Thread(
                target=run_replay, args=(replay_id, tools), kwargs={"holder": "run", "run_id": RUN}
            )
            thread.start()
            threads.append(thread)
            return RUN

        object.__setattr__(site.here, "launch", launch)
        object.__setattr__(site.here, "guard", guard)
        ensure_system_collections(site.here.store, now=machine_clock())
        try:
            yield receiver
        finally:
            object.__setattr__(site.here, "launch", before)
            for record in site.here.store.open_replays():
                site.here.store.wish(record.team, record.id, "cancel", machine_clock())
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()


def test_events_are_planned_sent_and_accounted_for_with_the_keyboard_alone(
    visitor: Visitor,
) -> None:
    """The number that somebody said yes to is the one that is sent, and the one in the books."""
    with sending(visitor.site) as receiver:
        visitor.sign_in()
        make_destination(visitor, receiver)
        planned = plan(visitor)
        follow(visitor)
        numbers = books(visitor)

    sent = {one.header("penstock-event-id") for one in receiver.requests[1:]}
    assert len(sent) == numbers["matched"] == planned
    assert numbers["delivered"] + numbers["failed"] + numbers["skipped"] == planned
    assert numbers["failed"] > 0
    go(visitor, "r")
    row = visitor.page.get_by_role("row", name="billing was down")
    expect(row).to_contain_text("finished")
    visitor.look("replays")


def test_a_continuous_replay_is_started_and_says_how_far_behind_it_is(visitor: Visitor) -> None:
    """It has no end to look forward to: what somebody looks for is that nothing is behind."""
    page = visitor.page
    with sending(visitor.site) as receiver:
        visitor.site.here.store.add_destination(
            Destination(team="main", name="follower", url=receiver.url, created_at=machine_clock())
        )
        visitor.sign_in()
        visitor.open("/replays/new?collection=flights&query=total:<40&destination=follower")
        page.get_by_label("Go on with every match").check()
        press(visitor, "Make the plan")
        expect(page.get_by_text("What came last, as it would be sent")).to_be_visible()
        visitor.look("replay-continuous-new")
        page.get_by_label("Received from").fill("2020-01-01")
        press(visitor, "Plan again")
        expect(page.get_by_role("status").filter(has_text="that match so far")).to_be_visible()
        visitor.look("replay-continuous-plan")
        press(visitor, "Send every match to follower")
        expect(page.get_by_text("continuous", exact=True)).to_be_visible()
        expect(page.get_by_text("everything that came was looked at")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("button", name="Retry what failed")).to_be_visible()
        visitor.ready()
        visitor.look("replay-continuous")
        numbers = books(visitor)
        assert numbers["delivered"] + numbers["failed"] == numbers["matched"] > 0
        visitor.open("/replays")
        expect(page.get_by_role("row", name="follower")).to_contain_text("nothing behind")
        visitor.look("replays-continuous")


def go(visitor: Visitor, key: str) -> None:
    visitor.ready()
    visitor.page.keyboard.press("g")
    visitor.page.keyboard.press(key)
    visitor.page.wait_for_load_state()
    visitor.ready()


def press(visitor: Visitor, name: str, *, role: Literal["button", "link"] = "button") -> None:
    """Reach something by its name, and press Enter on it."""
    visitor.page.get_by_role(role, name=name, exact=True).first.focus()
    visitor.page.keyboard.press("Enter")


def make_destination(visitor: Visitor, receiver: Receiver) -> None:
    page = visitor.page
    go(visitor, "e")
    expect(page.get_by_role("heading", name="No destinations yet")).to_be_visible()
    visitor.look("destinations-empty")
    press(visitor, "New destination", role="link")
    expect(page.get_by_role("heading", name="New destination")).to_be_visible()
    visitor.ready()
    visitor.look("destination-new")
    page.keyboard.press("/")
    as_it_is = ""
    rate, method = as_it_is, as_it_is
    for text in ("here", receiver.url, rate, method, "Authorization", "Bearer s3cret"):
        page.keyboard.type(text)
        page.keyboard.press("Tab" if text != "Bearer s3cret" else "Enter")
    expect(page.get_by_text("here is made")).to_be_visible()
    visitor.ready()
    assert "s3cret" not in page.content()
    press(visitor, "Test here")
    expect(page.get_by_text("took the event")).to_be_visible()
    assert receiver.requests[0].header("authorization") == "Bearer s3cret"
    visitor.look("destinations")


def plan(visitor: Visitor) -> int:
    """Plan and start a replay; answer how many events the plan said."""
    page = visitor.page
    go(visitor, "r")
    expect(page.get_by_role("heading", name="No replays yet")).to_be_visible()
    visitor.look("replays-empty")
    press(visitor, "New replay", role="link")
    expect(page.get_by_role("heading", name="New replay")).to_be_visible()
    visitor.ready()
    visitor.look("replay-new")
    page.get_by_label("Collection", exact=True).select_option("flights")
    page.keyboard.press("/")
    page.keyboard.type("total:<")
    press(visitor, "Make the plan")
    expect(page.locator("#query-error")).to_contain_text("at character")
    visitor.forgive(422)
    visitor.look("replay-new-wrong")
    assert page.evaluate("() => document.activeElement.id") == "query"
    page.keyboard.press("Control+End")
    page.keyboard.type("40")
    page.get_by_label("Sends a second at most").fill("10")
    press(visitor, "Make the plan")
    said = page.get_by_role("status").filter(has_text="sends exactly")
    expect(said).to_be_visible()
    visitor.look("replay-plan")
    planned = int((said.locator("strong").first.text_content() or "").split()[0])
    page.get_by_label("Why").fill("billing was down from 8 to 9")
    page.keyboard.press("Enter")
    return planned


def follow(visitor: Visitor) -> None:
    """Pause the replay, let it go on faster, and wait for its end."""
    page = visitor.page
    expect(page.get_by_text("The books so far")).to_be_visible()
    visitor.ready()
    expect(page.locator(".plot canvas")).to_be_visible()
    press(visitor, "Pause")
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=20_000)
    visitor.look("replay-paused")
    page.get_by_label("Sends a second at most").fill("500")
    page.keyboard.press("Enter")
    expect(page.get_by_text("goes on at this pace")).to_be_visible()
    press(visitor, "Resume")
    end = page.get_by_role("heading", name="The books", exact=True)
    expect(end).to_be_visible(timeout=20_000)
    expect(page.get_by_text("finished", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Change the pace")).to_have_count(0)
    table = page.get_by_role("region", name="Failures by reason")
    expect(table).to_contain_text("answered 410", timeout=20_000)
    visitor.ready()
    visitor.look("replay-finished")


def books(visitor: Visitor) -> dict[str, int]:
    """Answer the numbers of the books by their names."""
    names = visitor.page.locator(".equation dt").all_text_contents()
    values = visitor.page.locator(".equation dd").all_text_contents()
    return {n.strip("=+ "): int(v) for n, v in zip(names, values, strict=True)}


def test_each_kind_has_a_form_of_its_own(visitor: Visitor) -> None:
    visitor.sign_in()
    for kind in ("kafka", "rabbitmq", "sqs", "tunnel"):
        visitor.open(f"/destinations/new?kind={kind}")
        visitor.look(f"destination-new-{kind}")


def test_a_file_a_change_and_a_transform_are_seen_as_they_will_be(visitor: Visitor) -> None:
    """What is wrong stands at its field; what is changed or missing is said before it counts."""
    here, page = visitor.site.here, visitor.page
    visitor.sign_in()
    visitor.open("/destinations/new?kind=file")
    page.get_by_label("Name", exact=True).fill("archive")
    page.get_by_label("Address").fill("file://../orders")
    page.get_by_role("button", name="Make the destination").click()
    expect(page.locator("#url-error")).to_contain_text("write the address as file://NAME")
    visitor.forgive(422)
    visitor.look("destination-new-file-wrong")
    page.get_by_label("Address").fill("file://orders")
    page.get_by_role("button", name="Make the destination").click()
    expect(page.get_by_text("file://orders").first).to_be_visible()

    here.store.add_destination(
        Destination(
            team="main",
            name="changing",
            url="https://changing.example/",
            headers=(("Authorization", "Bearer s3cret"),),
            created_at=machine_clock(),
        )
    )
    visitor.open("/destinations/changing/change")
    visitor.look("destination-change")
    page.get_by_label("Secret that signs").fill("s3cret")
    page.get_by_role("button", name="Change it").click()
    expect(page.locator("#signing-error")).to_contain_text("give the option signing")
    visitor.forgive(422)
    visitor.look("destination-change-wrong")

    visitor.open("/replays/new?collection=orders&query=total:1&destination=archive")
    page.get_by_text("Change what is sent").click()
    page.get_by_label("Steps, one a line").fill("mask total\nset env = 'staging'")
    page.get_by_role("button", name="Make the plan").click()
    expect(page.locator("pre.change ins").first).to_be_visible()
    visitor.look("replay-plan-transform")

    assert here.files is not None
    segments = Segments(here.files / "f1", About("main", "orders", "ndjson"))
    segments.append({Position(0, 1): b"{}\n"})
    segments.close()
    progress = Progress(delivered=118, failed=2).as_dict()
    done = replace(replay("f1", state="finished", destination="archive"), progress=progress)
    here.store.create_replay(done)
    visitor.open("/replays/f1")
    expect(page.get_by_text("The file is without the 2 events that failed")).to_be_visible()
    visitor.look("replay-file")


def test_an_endpoint_that_is_compared_is_asked_for_in_the_form(visitor: Visitor) -> None:
    """Which of the two decides is said where they are named, and what is wrong where it stands."""
    page = visitor.page
    visitor.sign_in()
    visitor.open("/destinations/new")
    page.get_by_label("Name", exact=True).fill("rewrite")
    page.get_by_label("Address", exact=True).fill("https://old.example/events")
    page.get_by_text("Another endpoint to compare with").click()
    page.get_by_label("Its address").fill("https://user:pw@new.example/events")
    page.get_by_label("What has to be the same").select_option("status and body")
    page.get_by_role("button", name="Make the destination").click()
    expect(page.locator("#compare_url-error")).to_be_visible()
    visitor.forgive(422)
    visitor.look("destination-new-compared-wrong")
    page.get_by_label("Its address").fill("https://new.example/events")
    page.get_by_role("button", name="Make the destination").click()
    expect(page.get_by_text("rewrite is made")).to_be_visible()
    visitor.look("destinations-compared")


def test_a_replay_is_made_without_script_and_cancelled(visitor: Visitor) -> None:
    """A page that only works with its modules is one that a proxy can break."""
    here = visitor.site.here
    here.store.add_destination(
        Destination(
            team="main",
            name="nowhere",
            url="https://nowhere.example/",
            created_at=machine_clock(),
        )
    )
    browser = visitor.page.context.browser
    assert browser is not None
    with visiting(browser, visitor.site, java_script_enabled=False) as plain:
        plain.open("/replays/new?collection=orders&query=total:1&destination=nowhere")
        plain.page.get_by_label("Token", exact=True).fill(plain.site.admin)
        plain.page.get_by_role("button", name="Sign in").click()
        plain.page.get_by_role("button", name="Make the plan").click()
        expect(plain.page.get_by_role("heading", name="The plan")).to_be_visible()
        plain.page.get_by_role("button", name="Send").click()
        expect(plain.page.get_by_text("requested")).to_be_visible()
        plain.page.get_by_role("button", name="Pause").click()
        expect(plain.page.get_by_text("paused", exact=True).first).to_be_visible()
    visitor.sign_in()
    visitor.open("/replays")
    visitor.page.get_by_role("row", name="nowhere").get_by_role("link").first.click()
    visitor.page.wait_for_url("**/replays/*")
    visitor.ready()
    visitor.page.get_by_role("button", name="Cancel…").click()
    expect(visitor.page.get_by_role("heading", name="Cancel this replay?")).to_be_visible()
    visitor.look("replay-cancel")
    visitor.page.get_by_role("button", name="Stop it for good").click()
    expect(visitor.page.get_by_text("cancelled", exact=True).first).to_be_visible()


def test_who_may_not_replay_is_told_so(visitor: Visitor) -> None:
    visitor.sign_in(visitor.site.reader)

    visitor.open("/replays")

    expect(visitor.page.get_by_role("alert").last).to_contain_text("needs a token with the scope")
    visitor.forgive(403)
