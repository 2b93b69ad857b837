"""The values of a field among the events found, and how many events have each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from indexing import Home
from query_reference import Read, lowered
from ugly_events import UglyEvents

from lakehouse.sql import Engine, open_engine
from penstock.errors import BadRequest
from penstock.query.parse import field_of, parse
from penstock.query.tree import Payload
from penstock.query.writing import condition_text, field_text, number_text
from penstock.search import Facet, FacetValue, SearchRequest
from penstock.search.looking import Definite, Looking, counting


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


@pytest.fixture
def home(tmp_path: Path, sql: Engine) -> Home:
    return Home(tmp_path, sql, None)


def facet(home: Home, field: str, query: str = "", *, most: int = 10, **asked) -> Facet:
    request = SearchRequest(collection=FLIGHTS, query=query, **asked)
    [found] = home.searcher.facets(request, [field_of(field)], most=most)
    return found


def counts(found: Facet) -> dict[object, int]:
    return {float(one.value) if one.number else one.value: one.count for one in found.values}


def test_values_are_counted_in_lake_and_tail_alike(home: Home) -> None:
    """Each part of the cut knows some of the events of a value only."""
    home.send('{"carrier": "UA"}', '{"carrier": "AA"}', '{"other": 1}')
    home.land()
    home.send('{"carrier": "UA"}', '{"carrier": "DL"}', '{"carrier": null}')

    assert facet(home, "carrier", most=2) == Facet(
        (FacetValue("UA", False, 2), FacetValue("AA", False, 1)), found=6, missing=2, others=1
    )
    assert facet(home, "carrier", "carrier:D*").found == 1


def test_a_value_is_the_same_in_a_column_and_beside_it(home: Home) -> None:
    """Where a value is stored must not be seen in the counts."""
    home.send('{"a": 1}', '{"a": 1.0}', '{"a": "x"}', '{"a": "X"}', '{"a": true}', '{"a": "True"}')
    home.land()
    home.send('{"a": "1"}', '{"a": -0.0}', '{"a": 0}')

    assert counts(facet(home, "a")) == {1.0: 2, 0.0: 2, "X": 2, "True": 2, "1": 1}


def test_an_event_counts_once_for_each_value_of_a_list(home: Home) -> None:
    """Five lines of one product are one event with it."""
    home.send(
        '{"lines": [{"sku": "a"}, {"sku": "a"}, {"sku": "b"}]}',
        '{"lines": [{"sku": "A"}, {"sku": 5}, {"sku": null}]}',
        '{"lines": []}',
        '{"lines": {"sku": "b"}}',
    )
    home.land()

    found = facet(home, "lines.sku")

    assert counts(found) == {"A": 2, "b": 2, 5.0: 1}
    assert (found.found, found.missing, found.others) == (4, 1, 0)


def test_envelope_headers_and_metadata_have_facets(home: Home) -> None:
    """Who sent them is asked as often as what they say."""
    home.append(
        event("{}", id="a", source="http", key=b"k", headers=(("X-Id", b"1"), ("x-id", b"2"))),
        event("{}", id="b", source="grpc", key=b"\xff", headers=(("x-id", b"1"),)),
        event("{}", id="c", source="http", metadata={"topic": "t"}, headers=(("x-id", b"\xff"),)),
    )

    assert counts(facet(home, "source")) == {"http": 2, "grpc": 1}
    assert counts(facet(home, "headers.X-ID")) == {"1": 2, "2": 1}
    assert facet(home, "headers.x-id").missing == 1
    assert counts(facet(home, "metadata.topic")) == {"t": 1}
    assert counts(facet(home, "key")) == {"k": 1}
    assert counts(facet(home, "log_offset")) == {0.0: 1, 1.0: 1, 2.0: 1}
    assert counts(facet(home, "quarantine.reason")) == {}


def test_the_quarantine_has_facets(home: Home) -> None:
    """Its payloads have no columns, and are what one looks at there."""
    deep = "[" * 200 + "]" * 200
    home.append(
        event("{nope", id="a", content_type="application/json"),
        event("{nope", id="b", content_type="application/json"),
        event(deep, id="c", content_type="application/json"),
        event('{"a": 1}', id="d"),
    )
    for _ in range(2):
        reasons = facet(home, "quarantine.reason", view="quarantine")
        assert sorted(one.count for one in reasons.values) == [1, 2]
        texts = facet(home, "data", "quarantine.stage:*", view="quarantine")
        assert texts.values[0] == FacetValue("{nope", False, 2)
        home.land()


def test_a_collection_without_events_has_empty_facets(home: Home) -> None:
    """The page of a new collection asks for them too."""
    home.send('{"a": 1}')
    home.land()

    assert facet(home, "a", "a:2") == Facet((), found=0, missing=0, others=0)
    assert facet(home, "nowhere") == Facet((), found=1, missing=1, others=0)
    with pytest.raises(BadRequest):
        facet(home, "a", most=0)


def test_queries_that_read_payloads_and_modifiers_have_facets(home: Home) -> None:
    """Whatever can be searched can be counted."""
    home.send('{"a": null, "b": 1}', '{"a": null, "b": 2}', '{"a": 3, "b": 2}')
    home.land()
    home.send('{"a": null, "b": 2}')

    assert counts(facet(home, "b", "a:null")) == {2.0: 2, 1.0: 1}
    assert counts(facet(home, "b", "* ${UNIQUE b}")) == {2.0: 3, 1.0: 1}
    assert counts(facet(home, "b", "1 OR 2")) == {2.0: 3, 1.0: 1}


def expected(reads: list[Read], path: str) -> tuple[Counter[object], int]:
    """Count from the leaves alone."""
    found: Counter[object] = Counter()
    missing = 0
    for read in reads:
        values = {
            ("true" if v else "false")
            if isinstance(v, bool)
            else lowered(v)
            if isinstance(v, str)
            else v + 0.0
            for p, v in read.leaves
            if p == path
        }
        found.update(values)
        missing += not values
    return found, missing


def test_fields_are_counted_in_one_reading(home) -> None:
    """Each field would read what all of them ask again."""
    home.send('{"a": 1, "b": "x"}', '{"a": 2, "b": "x", "c": [1, 2]}')
    home.land()
    asked: list[str] = []

    class Heard:
        def __init__(self, reader) -> None:
            self._reader = reader

        def __getattr__(self, name: str):
            return getattr(self._reader, name)

        def rows(self, text, parameters=()):
            asked.append(text)
            return self._reader.rows(text, parameters)

    fields = [Payload((name,)) for name in "abca"]
    request = SearchRequest(collection=FLIGHTS)
    search = counting(Definite(request, parse("", now=NOON), NOON, None), fields)
    cut = home.searcher.cuts.take(FLIGHTS, "main")
    with home.engine.reader() as reader:
        a, b, c, again = Looking(search, cut, Heard(reader), home.engine).facets(10)

    assert [text.count("iceberg_scan") for text in asked] == [1]
    assert (a.values, a.others) == ((FacetValue("1", True, 1), FacetValue("2", True, 1)), 0)
    assert (b.values, b.missing) == ((FacetValue("x", False, 2),), 0)
    assert ([v.value for v in c.values], c.missing) == (["1", "2"], 1)
    assert again == a


def test_of_no_event_every_field_is_told(home: Home) -> None:
    home.send('{"a": 1}')
    home.land()

    request = SearchRequest(collection=FLIGHTS, query="a:2")
    fields = [Payload(("a",)), Payload(("b",))]
    assert (
        home.searcher.facets(request, fields, most=3)
        == [Facet((), found=0, missing=0, others=0)] * 2
    )
    assert home.searcher.facets(request, [], most=3) == []


@pytest.mark.parametrize("seed", range(2))
def test_facets_are_what_the_leaves_say(home: Home, seed: int) -> None:
    """Columns, lists, misfits, opaque payloads: counted from what was sent, without any engine."""
    source = UglyEvents(seed)
    corpus = source.events(150)
    reads = [Read(one, partition=0, offset=n) for n, one in enumerate(corpus)]
    home.append(*corpus[:60])
    home.land()
    home.append(*corpus[60:110])
    home.land()
    home.append(*corpus[110:])

    with_values = 0
    frequent = Counter(path for read in reads for path, _ in read.leaves).most_common(10)
    paths = [path for path, _ in frequent]
    fields = [field_of(f"data.{path}" if path else "data") for path in paths]
    request = SearchRequest(collection=FLIGHTS)
    facets = home.searcher.facets(request, fields, most=1_000)
    for path, field, found in zip(paths, fields, facets, strict=True):
        wanted, missing = expected(reads, path)
        told = {float(v.value) if v.number else lowered(v.value): v.count for v in found.values}
        assert told == dict(wanted), path
        assert (found.found, found.missing, found.others) == (150, missing, 0), path
        assert field_of(field_text(field)) == field
        with_values += len(found.values) > 1
    assert with_values > 3


def test_a_value_is_found_by_the_search_it_stands_for(home: Home) -> None:
    """Whoever clicks on a value wants the events that were counted."""
    source = UglyEvents(9)
    home.append(*source.events(60))
    home.land()
    checked = 0
    for keys in source.paths[:10]:
        field = Payload(keys)
        [found] = home.searcher.facets(SearchRequest(collection=FLIGHTS), [field], most=3)
        for one in found.values:
            text = condition_text(field, one.value)
            assert text is not None
            count = home.count(text)
            assert count >= one.count, text
            checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-1.5, "-1.5"), (40.0, "40"), (1e300, "1e+300"), (float("-inf"), "-1e999")],
)
def test_numbers_are_written_as_searches_read_them(number: float, text: str) -> None:
    """Python writes infinities in a way of its own."""
    assert number_text(number) == text
    assert float(text) == number
