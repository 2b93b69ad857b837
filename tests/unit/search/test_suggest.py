"""What is offered to somebody who is typing a search. In the texts ``|`` is the cursor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, event
from indexing import Home

from lakehouse.sql import Engine, open_engine
from penstock.query import parse
from penstock.query.complete import completing
from penstock.query.tree import Header, Metadata, Payload
from penstock.search import FacetValue, Known, KnownField, View
from penstock.search.suggest import LASTS, MOST, Suggesting, Suggestions, suggested

KNOWN = Known(
    [
        KnownField(Payload(("carrier",)), "string"),
        KnownField(Payload(("cargo", "weight")), "double"),
        KnownField(Payload(("source",)), "string"),
        KnownField(Payload(("dep delay",)), "long"),
        KnownField(Payload(("-m",)), "misfit"),
        KnownField(Header("x-request-id"), "header"),
        KnownField(Metadata("topic"), "metadata"),
    ],
    None,
)
VALUES = [
    FacetValue("UA", False, 9),
    FacetValue("San Francisco", False, 5),
    FacetValue("40", True, 3),
    FacetValue("-5", True, 2),
    FacetValue("united", False, 1),
    FacetValue("x" * 5_000, False, 1),
]


def offered(text: str, view: View = "main") -> list[str]:
    return [one.text for one in at(text, view).offered]


def at(text: str, view: View = "main") -> Suggestions:
    wanted = completing(text.replace("|", "", 1), text.index("|"))
    return suggested(wanted, KNOWN, VALUES, view)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("car|", ["carrier:", "cargo.weight:"]),
        ("CAR|", ["carrier:", "cargo.weight:"]),
        ("weig|", ["cargo.weight:"]),
        ("request|", ["headers.x-request-id:"]),
        ("headers.|", ["headers.x-request-id:"]),
        ("metadata|", ["metadata.topic:"]),
        ("client.metadata.|", ["client.metadata.topic:"]),
        ("dep|", ["dep\\ delay:"]),
        ("sour|", ["source:", "data.source:"]),
        ("data.so|", ["data.source:"]),
        ("client.payload.c|", ["client.payload.carrier:", "client.payload.cargo.weight:"]),
        ("batch.info.s|", ["batch.info.source:"]),
        ("_exists_:car|", ["carrier", "cargo.weight"]),
        ("carrier:UA ${ORDER_BY w|", ["cargo.weight"]),
        ("log_|", ["log_offset:", "log_partition:"]),
        ("quarantine|", []),
        ("carrier:|", ["UA", '"San Francisco"', "40", '"-5"', "united"]),
        ("carrier:u|", ["UA", "united"]),
        ("carrier:fran|", ['"San Francisco"']),
        ('carrier:"San F|', ['"San Francisco"']),
        ("carrier:>|", ['"-5"', "40"]),
        ("carrier:(UA OR 4|)", ["40"]),
        ("received_at:>|", ["now-15m", "now-1h", "now-24h", "now-7d", "now/d"]),
        ("event_time:[now-1|", ["now-15m", "now-1h"]),
        ("carrier:UA an|", ["AND"]),
        ("${S|", ["SORT"]),
        ("cargo.weight:[1 |", ["TO"]),
        ("nowhere.to.be.found|", []),
    ],
)
def test_what_is_offered(text: str, names: list[str]) -> None:
    """What begins as it was begun comes first, and what only contains it after."""
    assert offered(text) == names


def test_all_fields_and_words_are_offered_where_nothing_is_begun() -> None:
    """An empty box shows what there is."""
    found = offered("|")

    assert {"carrier:", "source:", "received_at:", "headers.x-request-id:"} <= set(found)
    assert found[-1] == "NOT"
    assert offered("carrier:UA |")[-3:] == ["AND", "OR", "NOT"]
    assert offered("quarantine|", "quarantine") == ["quarantine.reason:", "quarantine.stage:"]


def test_never_more_is_offered_than_can_be_looked_at() -> None:
    """A collection may have a thousand columns."""
    many = Known([KnownField(Payload((f"a{n}",)), "long") for n in range(1_000)], None)

    assert len(suggested(completing("", 0), many, ()).offered) == MOST
    assert len(suggested(completing("a", 1), many, ()).offered) == MOST


def test_whatever_is_offered_can_be_read() -> None:
    """An offer that makes an error is worse than none."""
    for text in ("|", "c|", "a:1 |", "data.|", "x:y carrier:|", "carrier:(UA |)", "carrier:>|"):
        whole, found = text.replace("|", "", 1), at(text)
        for one in found.offered:
            if one.kind == "word":
                continue
            written = whole[: found.start] + one.text + whole[found.end :]
            query = parse(written + ("*" if one.text.endswith(":") else ""), now=0)
            assert query.where


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


def test_a_collection_tells_its_fields_and_values(tmp_path: Path, sql: Engine) -> None:
    """Landed or not: columns, misfits, headers, metadata; and it is asked again after a while."""
    home = Home(tmp_path, sql, None)
    now = [0]
    suggesting = Suggesting(home.searcher, clock=lambda: now[0])

    def texts(query: str, view: View = "main") -> list[str]:
        found = suggesting.at(FLIGHTS, view, query, len(query))
        return [one.text for one in found.offered]

    assert texts("car") == []
    home.append(
        event('{"carrier": "UA", "late": 1}', id="a", headers=(("X-Id", b"1"),)),
        event('{"carrier": "UA", "late": {"deep": true}}', id="b", metadata={"topic": "t"}),
    )
    home.land()
    home.append(
        event('{"carrier": "AA", "cargo": 1}', id="c"),
        event("{nope", id="d", content_type="application/json"),
    )

    assert texts("car") == []
    now[0] += LASTS
    assert texts("car") == ["cargo:", "carrier:"]
    assert texts("late") == ["late:", "late.deep:"]
    assert texts("headers.") == ["headers.x-id:"]
    assert texts("metadata.") == ["metadata.topic:"]
    assert texts("carrier:") == ["UA", "AA"]
    assert texts("car", "quarantine") == ["cargo:", "carrier:"]
    assert texts("data:", "quarantine") == ['"{nope"']


def test_only_the_newest_events_are_looked_at(tmp_path: Path, sql: Engine) -> None:
    """With millions of them the answer has to come before the next key."""
    home = Home(tmp_path, sql, None)
    home.append(
        *(
            event('{"a": 1}', id=f"e{n}", received_at=n, headers=((f"h{n}", b""),))
            for n in range(40)
        )
    )
    home.land()

    known = home.searcher.known(FLIGHTS, "main", newest=10)

    assert known.since is not None
    assert 25 <= known.since <= 30
    assert {one.kind for one in known.fields} == {"long", "header"}
    assert len([one for one in known.fields if one.kind == "header"]) <= 15
