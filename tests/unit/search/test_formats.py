"""Searches over payloads that are not JSON: the same before and after they landed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from avros import FIRST, THIRD, single, text
from builders import FLIGHTS, NOON, event
from descriptors import SHOP, Item, Order
from lakes import landing, new_lake

from lakehouse.sql import Engine, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.schema.convert import Rules
from penstock.schema.formats.avro import Avro
from penstock.schema.formats.plain import Plain
from penstock.schema.formats.protobuf import Protobuf
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB")
    yield engine
    engine.close()


class Home:
    """A log, a lake and the search over both, of one format."""

    def __init__(self, folder: Path, engine: Engine, rules: Rules) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.landing = landing(self.log, self.lake, rules=rules)
        self.searcher = EmbeddedSearcher(
            self.lake, self.log, engine, rules=lambda _: rules, clock=lambda: NOON + 60_000_000
        )
        self.numbers = count()

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            name = f"e{next(self.numbers)}"
            self.log.append(FLIGHTS, [event(payload, id=name)]).result()

    def find(self, query: str, view: str = "main") -> list[str]:
        request = SearchRequest(
            collection=FLIGHTS,
            query=query,
            view=view,
            newest_first=False,  # type: ignore[arg-type]
        )
        return [found.event_id for found in self.searcher.search(request).events]


def test_messages_are_found_by_their_fields_before_and_after_they_landed(
    tmp_path: Path, engine: Engine
) -> None:
    """The tail goes through landing's own conversion; a search must not know a difference."""
    home = Home(tmp_path, engine, Rules(decoder=Protobuf(SHOP, message="shop.Order")))
    first = Order(id=1, total=5.0, state=1, items=[Item(sku="red shoe")], labels={"x": 2.0})
    home.send(first.SerializeToString(), Order(id=2, state=9).SerializeToString(), b"\xff")
    searches = {
        "id:>1": ["e1"],
        "state:PAID": ["e0"],
        "state:9": ["e1"],
        "shoe": ["e0"],
        'items.sku:"red shoe" AND labels.x:2': ["e0"],
        "total:0": ["e1"],
        "": ["e0", "e1"],
    }

    for _ in range(2):
        assert {query: home.find(query) for query in searches} == searches
        assert home.find("quarantine.reason:not_protobuf", view="quarantine") == ["e2"]
        while home.landing.land_once(FLIGHTS) is not None:
            pass


def test_values_of_avro_are_found_by_the_names_of_the_newest_schema(
    tmp_path: Path, engine: Engine
) -> None:
    """Whichever version they were written by, landed or not."""
    decoder = Avro([text(FIRST), text(THIRD)], framing="single-object")
    home = Home(tmp_path, engine, Rules(decoder=decoder))
    made = {"value": 5.5, "site": "Alert", "unit": "K", "by": {"name": "acme", "no": 1}}
    home.send(single(FIRST, {"value": 5, "place": "Jan Mayen"}), single(THIRD, made), b"\xc3\x01")
    searches = {
        "value:>5": ["e1"],
        "value:5": ["e0"],
        'site:"Jan Mayen"': ["e0"],
        "place:Mayen": [],
        "by.no:7 AND unit:C": ["e0"],
        "acme": ["e1"],
        "": ["e0", "e1"],
    }

    for _ in range(2):
        assert {query: home.find(query) for query in searches} == searches
        assert home.find("quarantine.reason:not_avro", view="quarantine") == ["e2"]
        while home.landing.land_once(FLIGHTS) is not None:
            pass


def test_plain_events_are_found_by_their_text_and_their_envelope(
    tmp_path: Path, engine: Engine
) -> None:
    home = Home(tmp_path, engine, Rules(decoder=Plain()))
    home.send(b"a line of text", b'{"a": 1}', b"\xff")

    for _ in range(2):
        assert home.find("line") == ["e0"]
        assert home.find("a:1") == []
        assert home.find("event_id:e2") == ["e2"]
        assert home.find("") == ["e0", "e1", "e2"]
        while home.landing.land_once(FLIGHTS) is not None:
            pass
