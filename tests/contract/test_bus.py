"""What every bus promises. A new kind joins by one line in `URLS`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from engines.fresh import fresh_database, fresh_name
from engines.places import HOST, PASSWORD, RABBITMQ, USER
from engines.rabbitmq import RabbitMQ
from own_engines import own_engine
from ready_store import ready_store

from penstock.bus import LONGEST, MOST_WAITING, Bus, open_bus
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata.store import Store, open_store

Open = Callable[[], Bus]

URLS: dict[str, Callable[[], str]] = {
    "embedded": lambda: "",
    "postgresql": lambda: "",
    "rabbitmq": lambda: f"{RABBITMQ}?exchange={fresh_name('bus')}",
}
KINDS = [
    pytest.param("embedded"),
    pytest.param("postgresql", marks=pytest.mark.engines),
    pytest.param("rabbitmq", marks=pytest.mark.engines),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str) -> str:
    return URLS[kind]()


@pytest.fixture
def metadata(kind: str, tmp_path: Path) -> Iterator[str]:
    """Answer the address of the metadata in which the embedded bus keeps its messages."""
    if kind == "postgresql":
        with fresh_database() as address:
            yield address
    else:
        ready_store(tmp_path).close()
        yield f"sqlite:///{tmp_path / 'metadata.db'}"


@pytest.fixture
def store(metadata: str) -> Iterator[Store]:
    store = open_store(metadata)
    yield store
    store.close()


@pytest.fixture
def another(url: str, store: Store) -> Iterator[Open]:
    """Open the bus as another process does."""
    opened: list[Bus] = []

    def open_one() -> Bus:
        opened.append(open_bus(url, lambda: store))
        return opened[-1]

    yield open_one
    for bus in opened:
        bus.close()


@pytest.fixture
def bus(another: Open) -> Bus:
    return another()


def soon(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_everybody_who_subscribed_hears_of_it(bus: Bus, another: Open) -> None:
    here: list[str] = []
    there: list[str] = []
    bus.subscribe("known", here.append)
    another().subscribe("known", there.append)
    bus.subscribe("known", here.append)

    another().publish("known", "7")

    assert soon(lambda: (here, there) == (["7", "7"], ["7"]))


def test_other_topics_are_not_heard(bus: Bus, another: Open) -> None:
    """A door that wakes for every replay would do so for nothing."""
    heard: list[str] = []
    bus.subscribe("known", heard.append)
    other = another()
    for topic in ("replay", "known.more", "*", "#"):
        other.publish(topic, "not for you")
    other.publish("known", "for you")

    assert soon(lambda: heard == ["for you"])


def test_who_comes_late_hears_nothing_old(bus: Bus, another: Open) -> None:
    """A replay that starts looks at its row; an old wish for it would be granted twice."""
    early: list[str] = []
    late: list[str] = []
    bus.subscribe("replay", early.append)
    bus.publish("replay", "r1")
    assert soon(lambda: early == ["r1"])

    another().subscribe("replay", late.append)
    bus.publish("replay", "r2")

    assert soon(lambda: (early, late) == (["r1", "r2"], ["r2"]))


def test_who_has_left_hears_nothing_and_the_others_go_on(bus: Bus) -> None:
    gone: list[str] = []
    here: list[str] = []
    bus.subscribe("known", here.append)
    bus.subscribe("known", gone.append).close()
    bus.publish("known", "1")

    assert soon(lambda: here == ["1"])
    assert gone == []


def test_any_name_arrives_as_it_was(bus: Bus) -> None:
    names = ["größe", "日本", "a b\nc", "", "x" * LONGEST, "🐟" * LONGEST]
    heard: list[str] = []
    bus.subscribe("ünïcode", heard.append)
    for name in names:
        bus.publish("ünïcode", name)

    assert soon(lambda: heard == names)


def test_what_is_no_name_is_refused(bus: Bus) -> None:
    """Payloads have no business here."""
    with pytest.raises(ValueError, match="at most"):
        bus.publish("known", "x" * (LONGEST + 1))


def test_ten_thousand_messages_arrive_in_the_order_of_their_publisher(
    bus: Bus, another: Open
) -> None:
    heard: list[str] = []
    bus.subscribe("known", heard.append)
    mine = another()
    for number in range(MOST_WAITING):
        mine.publish("known", str(number))

    assert soon(lambda: len(heard) >= MOST_WAITING, seconds=60.0)
    assert heard == [str(number) for number in range(MOST_WAITING)]


def test_a_slow_listener_loses_the_oldest_and_keeps_nobody_waiting(bus: Bus, another: Open) -> None:
    """Memory must not depend on how long somebody is busy."""
    slow: list[str] = []
    quick: list[str] = []
    busy = threading.Event()

    def take_slowly(text: str) -> None:
        busy.wait(60)
        slow.append(text)

    bus.subscribe("known", take_slowly)
    bus.subscribe("known", quick.append)
    mine = another()
    for number in range(MOST_WAITING + 500):
        mine.publish("known", str(number))
        if number % 1_000 == 0:
            assert soon(lambda: len(quick) >= number - 500, seconds=30.0)  # noqa: B023 - asked at once
    assert soon(lambda: len(quick) == MOST_WAITING + 500, seconds=30.0)
    busy.set()

    assert soon(lambda: bool(slow) and slow[-1] == str(MOST_WAITING + 499))
    assert len(slow) <= MOST_WAITING + 1


def test_a_listener_that_stumbles_hears_of_the_next_one(bus: Bus) -> None:
    heard: list[str] = []

    def take(text: str) -> None:
        if text == "bad":
            raise ZeroDivisionError
        heard.append(text)

    bus.subscribe("known", take)
    with structlog.testing.capture_logs():
        bus.publish("known", "bad")
        bus.publish("known", "good")

        assert soon(lambda: heard == ["good"])


def test_a_bus_that_carries_messages_says_so(bus: Bus) -> None:
    """Also one that has not been used yet: that is how a doctor finds it."""
    bus.ping()


ECHO = """
import sys, threading
from penstock.bus import open_bus
from penstock.metadata.store import open_store
store = open_store(sys.argv[2])
bus = open_bus(sys.argv[1], lambda: store)
done = threading.Event()
def take(text):
    bus.publish("answer", text + "!")
    if text == "end":
        done.set()
bus.subscribe("question", take)
print("ready", flush=True)
done.wait(60)
bus.close()
"""


def test_two_processes_talk(bus: Bus, url: str, metadata: str) -> None:
    heard: list[str] = []
    bus.subscribe("answer", heard.append)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ECHO, url, metadata],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        bus.publish("question", "one")
        bus.publish("question", "end")

        assert soon(lambda: heard == ["one!", "end!"])
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_raised_while_nobody_carries_messages_and_it_is_said_once(
    tmp_path: Path,
) -> None:
    """A replay that cannot be paused a second earlier is no reason to refuse the pause."""
    broken = tmp_path / "metadata.db"
    broken.write_bytes(b"no database" * 1_000)
    for url in ("", "amqp://user:hidden@127.0.0.1:9/%2F"):
        bus = open_bus(url, lambda: open_store(f"sqlite:///{broken}"))
        with structlog.testing.capture_logs() as lines:
            begun = time.monotonic()
            subscription = bus.subscribe("known", print)
            for number in range(5):
                bus.publish("known", str(number))
            assert time.monotonic() - begun < 5.0
            assert soon(lambda: bool(lines))
            time.sleep(0.3)
            with pytest.raises(EngineUnavailable) as told:
                bus.ping()
            subscription.close()
            bus.close()

        assert "hidden" not in str(told.value)
        assert [line["event"] for line in lines] == ["messages are not carried"]
        assert "hidden" not in str(lines)


@pytest.mark.engines
@pytest.mark.xdist_group("own engines")
def test_after_the_broker_was_away_messages_are_carried_again(tmp_path: Path) -> None:
    """Nobody starts a door or a replay anew because a broker was."""
    with own_engine(RabbitMQ, tmp_path) as broker:
        url = f"amqp://{USER}:{PASSWORD}@{HOST}:{broker.port}/%2F"
        here, there = (open_bus(url, lambda: pytest.fail("not asked")) for _ in range(2))
        heard: list[str] = []
        here.subscribe("known", heard.append)
        there.publish("known", "before")
        assert soon(lambda: heard == ["before"])

        with structlog.testing.capture_logs() as lines:
            broker.stop()
            assert soon(lambda: len(lines) == 2)
            begun = time.monotonic()
            late: list[str] = []
            here.subscribe("replay", late.append)
            there.publish("known", "away")
            waited = time.monotonic() - begun
            broker.start()
            # Those who listen come back at another moment than those who send.

            def carried() -> bool:
                there.publish("known", "after")
                there.publish("replay", "r1")
                time.sleep(0.1)
                return "after" in heard and bool(late)

            assert soon(carried)

        assert waited < 1.0
        assert set(heard) - {"away"} == {"before", "after"}
        assert [line["event"] for line in lines] == [
            *["messages are not carried"] * 2,
            *["messages are carried again"] * 2,
        ]
        here.close()
        there.close()


@pytest.mark.parametrize(
    "url", ["redis://localhost", "amqp://", "amqp://user:hidden@host:port/", "amqp://h/?exchange"]
)
def test_an_address_that_cannot_be_used_is_told_at_once(url: str) -> None:
    with pytest.raises(BadSetting, match="bus_url") as told:
        open_bus(url, lambda: pytest.fail("not asked"))

    assert "hidden" not in str(told.value)
