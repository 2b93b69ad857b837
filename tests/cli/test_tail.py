"""`penstock tail` as a process: shown, forwarded, broken off and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from cli_home import hears_ctrl_c
from lakes import landing, new_lake
from metadata_builders import collection
from platform_stand_ins import grant, platform
from receiving import Reply, Request, receiving
from served import served
from served import until as until_within

from lakehouse.sql import open_engine
from penstock.api import tail as tails
from penstock.api.app import create_app
from penstock.api.tail import Pace
from penstock.buffer.memory import MemoryLog
from penstock.cli.forward import WINDOW
from penstock.search.live import Following

QUICK = Pace(heartbeat=0.3, access=0.2, leaving=0.05)


def until(true: Callable[[], bool]) -> None:
    """Wait until it is so; a command takes a while to start."""
    until_within(true, 120.0)


class Home:
    """A platform that can be taken away, and commands on a home of their own."""

    def __init__(self, folder: Path, here: Any) -> None:
        self.folder, self.here = folder, here
        self.log = here.buffer
        self.token = grant(here.store, "read")
        self.sent: list[str] = []

    def send(self, *payloads: bytes, **more: Any) -> None:
        for payload in payloads:
            one = event(payload, id=f"e{len(self.sent)}", received_at=NOON, **more)
            self.log.append(FLIGHTS, [one]).result()
            self.sent.append(one.id)

    def land(self) -> None:
        while landing(self.log, self.here.lake).land_once(FLIGHTS):
            pass

    @contextmanager
    def tail(self, url: str, *words: str) -> Iterator[Command]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environ |= {"PENSTOCK_API": url, "PENSTOCK_TOKEN": self.token}
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "tail", "flights", *words, "--home",
             str(self.folder / "dev")],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=hears_ctrl_c,  # noqa: PLW1509 - one system call
        )  # fmt: skip
        try:
            yield Command(process)
        finally:
            process.kill()
            process.wait()

    def joined(self) -> None:
        """Wait until a tail knows where it begins: what comes from then on is shown."""
        feeds = self.here.live._feeds
        until(
            lambda: any(
                isinstance(who, Following) for feed in [*feeds.values()] for who in [*feed._wakes]
            )
        )

    def left(self) -> None:
        until(lambda: self.here.live.feeds == 0)


class Command:
    """A running command, and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(process.stderr, self.errors)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, into: list[str]) -> None:
        with stream:
            into += (line.decode().rstrip("\n") for line in stream)

    def ends(self, number: int | None = None) -> int:
        """Send it a signal, if one is given; answer its exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(120)
        for thread in self._threads:
            thread.join()
        return code


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(tails, "Pace", lambda: QUICK)
    engine = open_engine(tmp_path / "sql", memory="500MB", threads=1)
    here = platform(tmp_path, buffer=MemoryLog(), lake=new_lake(tmp_path), engine=engine)
    here.store.create_collection(collection())
    yield Home(tmp_path, here)
    here.store.close()
    engine.close()


def test_events_are_shown_until_ctrl_c(home: Home) -> None:
    with served(create_app(home.here)) as url, home.tail(url, "a:1", "--json") as command:
        home.joined()
        home.send(b'{"a": 1}', b'{"a": 2}', b'{"a": 1, "b": "\xc3\xa9"}')
        until(lambda: len(command.lines) == 2)

        assert command.ends(signal.SIGINT) == 0
        assert [json.loads(line)["payload"] for line in command.lines] == [
            '{"a": 1}',
            '{"a": 1, "b": "é"}',
        ]
        assert command.errors == []
        home.left()


def test_a_tail_may_end_by_itself_and_begin_in_the_past(home: Home) -> None:
    home.send(b"{}", b"{}")
    home.land()
    home.send(b"{}")
    words = ("--since", "2025-11-24", "--limit", "3", "--json")
    with served(create_app(home.here)) as url, home.tail(url, *words) as command:
        assert command.ends() == 0
        assert [json.loads(line)["event_id"] for line in command.lines] == home.sent


def test_what_came_while_the_platform_was_away_is_shown(home: Home) -> None:
    with ExitStack() as running:
        app = create_app(home.here)
        url = running.enter_context(served(app))
        command = running.enter_context(home.tail(url, "--json"))
        home.joined()
        home.send(b"1")
        until(lambda: len(command.lines) == 1)
        home.here.leaving.set()
        until(lambda: any("trying again" in line for line in command.errors))
        home.send(b"2")
        home.land()
        home.send(b"3")
        home.here.leaving.clear()
        until(lambda: len(command.lines) == 3)
        assert command.ends(signal.SIGTERM) == 0

    assert [json.loads(line)["event_id"] for line in command.lines] == home.sent
    assert any("connected again" in line for line in command.errors)


def test_what_cannot_be_followed_ends_the_command(home: Home) -> None:
    with served(create_app(home.here)) as url:
        with home.tail(url, "(a", "--json") as command:
            assert command.ends() == 2
            assert json.loads(command.errors[-1])["position"] is not None
        with home.tail("http://127.0.0.1:9", "--json") as command:
            assert command.ends() == 1


def test_each_event_is_posted_as_a_replay_would(home: Home) -> None:
    with (
        served(create_app(home.here)) as url,
        receiving() as far,
        home.tail(url, "--forward", far.url, "--json") as command,
    ):
        home.joined()
        home.send(b'{"a":  1}', headers=(("x-shop", b"web"), ("authorization", b"secret")))
        home.send(bytes(range(256)), content_type=None)
        until(lambda: len(command.lines) == 2)
        assert command.ends(signal.SIGINT) == 0

    first, second = far.requests
    assert (first.body, second.body) == (b'{"a":  1}', bytes(range(256)))
    assert first.header("x-shop") == "web"
    assert first.header("content-type") == "application/json"
    assert first.header("authorization") is None
    assert first.header("penstock-event-id") == "e0"
    assert first.header("penstock-collection") == "main.flights"
    assert first.header("penstock-attempt") == "1"
    assert json.loads(command.lines[0]) == {
        "event_id": "e0",
        "delivered": True,
        "attempts": 1,
        "status": 200,
        "reason": None,
    }


def test_what_is_not_taken_is_tried_again_and_then_told(home: Home) -> None:
    tries: Counter[str | None] = Counter()

    def answer(request: Request) -> Reply:
        who = request.header("penstock-event-id")
        tries[who] += 1
        if who == "e0":
            return Reply(500 if tries[who] < 3 else 200)
        return Reply(400 if who == "e1" else 503)

    with served(create_app(home.here)) as url, receiving() as far:
        far.answer = answer
        words = ("--forward", far.url, "--attempts", "3", "--limit", "3", "--json")
        with home.tail(url, *words) as command:
            home.joined()
            home.send(b"1", b"2", b"3")
            assert command.ends() == 1

    assert tries == {"e0": 3, "e1": 1, "e2": 3}
    assert [json.loads(line)["delivered"] for line in command.lines] == [True, False, False]
    assert [json.loads(line)["attempts"] for line in command.lines] == [3, 1, 3]


def test_while_nobody_listens_events_wait(home: Home) -> None:
    """A service that is started again must not cost events their attempts."""
    with served(create_app(home.here)) as url:
        with receiving() as far:
            place, port = far.url, far.port
        words = ("--forward", place, "--attempts", "1", "--limit", "2", "--json")
        with home.tail(url, *words) as command:
            home.joined()
            home.send(b"1", b"2")
            until(lambda: any("nobody listens" in line for line in command.errors))
            with receiving(port=port) as far:
                assert command.ends() == 0
                assert [one.body for one in far.requests] == [b"1", b"2"]


@pytest.mark.parametrize("seed", range(2))
def test_a_command_that_is_killed_misses_nothing_and_repeats_a_few(home: Home, seed: int) -> None:
    """Started again and again while events come and land; the last one is asked for everything."""
    chance = random.Random(seed)
    ended = threading.Event()

    def keep_sending() -> None:
        while not ended.wait(0.002):
            home.send(b'{"n": %d}' % len(home.sent))
            if chance.random() < 0.01:
                home.land()

    with served(create_app(home.here)) as url, receiving() as far:
        words = ("--forward", far.url)
        with home.tail(url, *words):
            # From when on it was begun is written down at once.
            tails = home.folder / "dev" / "tails"
            until(lambda: any(file.suffix != ".new" for file in tails.glob("tail-*")))
        sending = threading.Thread(target=keep_sending)
        sending.start()
        try:
            for _ in range(3):
                before = len(far.requests)
                with home.tail(url, *words) as command:
                    until(lambda: len(far.requests) > before + 20)  # noqa: B023
                    time.sleep(chance.random() / 2)
                    command.ends(signal.SIGKILL)
        finally:
            ended.set()
            sending.join()
        with home.tail(url, *words):
            until(lambda: home.sent[-1] in {r.header("penstock-event-id") for r in far.requests})

    counts = Counter(request.header("penstock-event-id") for request in far.requests)
    assert set(counts) == set(home.sent)
    # The event that was on its way when it was killed, and those before it.
    assert sum(counts.values()) - len(counts) <= 4 * (WINDOW + 1)
