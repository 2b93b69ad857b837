"""`penstock quarantine` against a platform, a door and a lake that are really there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from cli_home import Penstock
from door_builders import ADMIN, FailingLog, client_on, door_on, token_record
from lakes import landing, new_lake
from platform_stand_ins import platform
from releasing import books, closings, land_all
from served import served

from lakehouse import Lake
from lakehouse.sql import open_engine
from penstock.api.app import create_app
from penstock.api.door import DoorRoute
from penstock.buffer.memory import MemoryLog
from penstock.cli.home import Running, write_running
from penstock.metadata.records import CollectionRecord
from penstock.schema.convert import Rules
from penstock.search.embedded import EmbeddedSearcher

BOM = b"\xef\xbb\xbf"


class LoggedDoor(FailingLog):
    """The writing side of a door whose events are on a log that can be landed."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self._log = log

    def append(self, collection, events) -> Future:  # type: ignore[no-untyped-def,type-arg]
        """Append to the log."""
        return self._log.append(collection, events)


@dataclass
class Home:
    folder: Path
    lake: Lake
    log: MemoryLog

    def land(self) -> None:
        land_all(landing(self.log, self.lake))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    log, lake = MemoryLog(), new_lake(tmp_path)
    payloads = [b'{"n": 0}', BOM + b'{"n": 1}', b'{"n": NaN, "s": "\x1b[31m"}', BOM + b'{"x": 3}']
    log.append(
        FLIGHTS,
        [event(p, id=f"e{n}", received_at=NOON + n) for n, p in enumerate(payloads)],
    ).result()
    with ExitStack() as stack:
        engine = open_engine(tmp_path / "sql", memory="300MB")
        stack.callback(engine.close)
        door = stack.enter_context(served(client_on(door_on(LoggedDoor(log))).app, lifespan="off"))
        route = DoorRoute(door)
        stack.callback(route.close)
        made = platform(
            folder,
            lake=lake,
            buffer=log,
            searcher=EmbeddedSearcher(
                lake, log, engine, rules=lambda _: Rules(), clock=lambda: NOON
            ),
            release_door=route.with_token,
        )
        stack.callback(made.store.close)
        made.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON))
        made.store.add_token(token_record(ADMIN, "admin", scopes=("admin",)))
        api = stack.enter_context(served(create_app(made), lifespan="off"))
        write_running(
            folder,
            Running(
                supervisor=os.getpid(),
                door=door,
                grpc="",
                platform=api,
                dagster="",
                token=ADMIN,
            ),
        )
        yield Home(folder, lake, log)


def test_an_empty_quarantine_says_how_events_come_there(penstock: Penstock, home: Home) -> None:
    said = penstock("quarantine", "list", home=home.folder)

    assert (said.code, said.out) == (0, "")
    assert "penstock send" in said.err


def test_look_try_release_and_discard(penstock: Penstock, home: Home) -> None:
    """The whole story, as somebody types it."""
    home.land()

    said = penstock("quarantine", "list", home=home.folder)
    assert "flights  3 open" in said.out
    assert "gate: invalid_json  3" in said.out
    assert "█" in said.out
    [listed] = penstock("quarantine", "list", "--json", home=home.folder).json()
    assert (listed["open"], listed["causes"][0]["bars"]) == (3, [3])

    said = penstock("quarantine", "show", "flights", "e2", home=home.folder)
    assert "wrong at byte 6" in said.out
    assert r'{"n": NaN, "s": "\x1b[31m"}' in said.out
    assert "\x1b" not in said.out

    flags = ("flights", "*", "--transform", "bom")
    said = penstock("quarantine", "repair", *flags, home=home.folder)
    assert said.out.count("becomes a row") == 2
    assert "x: 3 (new column)" in said.out
    assert "2 of 3 would become rows; nothing was changed" in said.err
    assert books(home.lake).open.total() == 3

    said = penstock("quarantine", "repair", *flags, "--release", home=home.folder)
    assert "2 released, 1 held back" in said.out
    assert "held e2: gate: invalid_json" in said.out
    home.land()
    assert books(home.lake).rows == Counter(["e0", "e1", "e3"])
    again = penstock("quarantine", "release", *flags, "--json", home=home.folder).json()
    assert (again["released"], again["closed"], len(again["held"])) == (0, 2, 1)
    said = penstock("quarantine", "show", "flights", "e1", home=home.folder)
    assert "released 2025" in said.out
    assert "by admin (admin)" in said.out

    said = penstock(
        "quarantine", "discard", "flights", "event_id:e2", "--why", "junk", home=home.folder
    )
    assert said.out == "1 discarded\n"
    assert [c["why"] for c in closings(home.lake) if c["state"] == "discarded"] == ["junk"]
    assert "junk" in penstock("quarantine", "show", "flights", "e2", home=home.folder).out
    said = penstock("quarantine", "list", home=home.folder)
    assert (said.out, "3 events were closed" in said.err) == ("", True)
    works = penstock("quarantine", "works", "flights", "--json", home=home.folder).json()
    told = sorted((one["state"], one["count"], one["why"], one["by"]) for one in works)
    assert told == [
        ("discarded", 1, "junk", "admin (admin)"),
        ("released", 2, None, "admin (admin)"),
    ]
    assert "junk" in penstock("quarantine", "works", "flights", home=home.folder).out


def test_a_whole_payload_and_the_raw_bytes(penstock: Penstock, home: Home, tmp_path: Path) -> None:
    home.land()
    file = tmp_path / "right.json"
    file.write_bytes(b'{"n": 2}')

    said = penstock("quarantine", "show", "flights", "e1", "--payload", home=home.folder)
    assert said.out.encode() == BOM + b'{"n": 1}'
    words = ("flights", "event_id:e2", "--payload", str(file), "--release-id", "fix-7")
    said = penstock("quarantine", "release", *words, home=home.folder)
    assert "1 released, 0 held back (release fix-7)" in said.out
    home.land()

    assert books(home.lake).rows == Counter(["e0", "e2"])
    [closing] = closings(home.lake)
    assert closing["release"] == "fix-7"


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "payload=x"),
        ("--transform", "rot13"),
        ("--replace", "a"),
        ("--replace", "=>b"),
        ("--replace-pattern", "(=>b"),
        ("--replace", r"\d=>b"),
    ],
)
def test_a_repair_that_cannot_be_read_is_wrong_use(
    penstock: Penstock, home: Home, words: tuple[str, ...]
) -> None:
    assert penstock("quarantine", "repair", "flights", "*", *words, home=home.folder).code == 2


def test_modifiers_and_unknown_names_are_refused(penstock: Penstock, home: Home) -> None:
    home.land()
    query = "* ${ORDER_BY n AND LIMIT 1}"

    assert penstock("quarantine", "release", "flights", query, home=home.folder).code == 2
    assert penstock("quarantine", "show", "flights", "e0", home=home.folder).code == 1
    assert penstock("quarantine", "list", "ships", home=home.folder).code == 1
