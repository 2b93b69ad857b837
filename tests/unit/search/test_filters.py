"""Filters change no answer: they leave out rows that cannot be found, and no others."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from indexing import Home
from query_corpus import EVENTS, READS, SEARCHES
from query_reference import NOW, Asked, Read, Searches, micros
from ugly_events import NUMBERS, TEXTS, UglyEvents

from lakehouse.catalog import main_table
from lakehouse.files import path_of
from lakehouse.listing import Listed, Listing
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import compact
from penstock.envelope import CollectionId, Event
from penstock.query import parse
from penstock.query.pruning import Token, digest, need_of, word_text
from penstock.query.sql import part_query
from penstock.query.text import lower
from penstock.search import SearchRequest, filling, filters, looking
from penstock.search.filters import Filters, positions
from penstock.search.keeping import Keeping
from penstock.search.spans import Piece


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


class Filtered:
    """A lake with a filter of each file, whose chunks are as small as they can be."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.home = Home(folder, engine, None)
        self.folder = folder / "filters"
        self.filters = Filters(self.folder)
        self.keeping = Keeping(
            self.home.lake,
            self.filters,
            engine,
            most_bytes=1 << 30,
            least_rows=1,
            least_chunk=1,
        )
        self.home.searcher = self.searching()

    def searching(self):
        return self.home.searching(None, filters=self.filters, clock=lambda: micros(NOW))

    def land(self, events: list[Event], *, files: int) -> None:
        size = -(-len(events) // files)
        for start in range(0, len(events), size):
            self.home.append(*events[start : start + size])
            self.home.land()

    def send(self, *payloads: str) -> list[str]:
        ids = self.home.send(*payloads)
        self.home.land()
        return ids

    @property
    def table(self) -> str:
        view = self.home.lake.view(FLIGHTS)
        assert view is not None
        return view.uuid

    def files(self) -> tuple[Listed, ...]:
        view = self.home.lake.view(FLIGHTS)
        assert view is not None
        listed = Listing(self.home.lake).files(view)
        assert listed is not None
        return listed

    def pieces(self, query: str) -> list[Piece]:
        need = need_of(parse(query, now=0).where, lambda word: [word])
        return self.filters.pieces(self.table, self.files(), need)

    def missed(self, asked: Asked, reads) -> list[str]:
        """Say where the answer is not that of the reference."""
        wanted = {read.event.id for read in reads if asked.holds(read)}
        request = SearchRequest(collection=FLIGHTS, query=asked.text, limit=1_000)
        found = [one.event_id for one in self.home.searcher.search(request).events]
        wrong = [] if sorted(found) == sorted(wanted) else [asked.text]
        if len(asked.text) % 3 == 0 and self.home.searcher.count(request) != len(wanted):
            wrong.append(f"the count of {asked.text}")
        return wrong


def random_searches(source: UglyEvents, reads: list[Read], seed: int, count: int) -> list[Asked]:
    maker = Searches(random.Random(seed), source.paths, [*TEXTS, *NUMBERS], reads)
    return [maker.search() for _ in range(count)]


def test_every_search_of_the_corpus_is_answered_as_without_filters(tmp_path, engine) -> None:
    """Words, values and opaque payloads are in filters just where searches look for them."""
    there = Filtered(tmp_path, engine)
    there.land(list(EVENTS), files=3)

    assert there.keeping.keep(FLIGHTS) == len(there.files()) >= 3
    assert [wrong for asked in SEARCHES[::3] for wrong in there.missed(asked, READS)] == []


@pytest.mark.parametrize("seed", [7, 8])
def test_random_searches_are_answered_as_without_filters(tmp_path, engine, seed: int) -> None:
    """What nobody thought of when the corpus was written."""
    there = Filtered(tmp_path, engine)
    source = UglyEvents(seed)
    corpus = source.events(60)
    reads = [Read(one, partition=0, offset=offset) for offset, one in enumerate(corpus)]
    there.land(corpus, files=3)
    there.keeping.keep(FLIGHTS)

    searches = random_searches(source, reads, seed, 25)
    assert [wrong for asked in searches for wrong in there.missed(asked, reads)] == []


@pytest.mark.parametrize(
    "forgotten", ["_texts", "_numbers", "_misfit_texts", "_misfit_paths", "_opaque", "_is_small"]
)
def test_a_filter_that_forgets_what_is_there_is_found_out(
    tmp_path, engine, monkeypatch, forgotten: str
) -> None:
    """The tests above would see it if a kind of leaf were not in filters."""
    there = Filtered(tmp_path, engine)
    there.land(list(EVENTS), files=2)
    was = getattr(filling, forgotten)
    nothing = filling.Sql("SELECT 0 AS chunk, 'nothing' AS v")
    if forgotten == "_misfit_paths":
        nothing = filling.Sql("SELECT 0::UBIGINT AS digest")
    if forgotten == "_is_small":
        nothing = filling.Sql("TRUE")
    listed = forgotten in ("_texts", "_numbers")
    monkeypatch.setattr(filling, forgotten, lambda *_, **__: [nothing] if listed else nothing)
    there.keeping.keep(FLIGHTS)

    assert was is not getattr(filling, forgotten)
    assert any(there.missed(asked, READS) for asked in SEARCHES)


def test_a_rare_word_is_looked_for_in_its_rows_only(tmp_path, engine) -> None:
    there = Filtered(tmp_path, engine)
    rare = None
    for number in range(4):
        ids = there.send(*[f'{{"s": "plenty of file{number} row{row}"}}' for row in range(20)])
        rare = ids[7] if number == 2 else rare
    there.keeping.keep(FLIGHTS)

    (one,) = there.pieces("file2 row7")
    assert one.rows == 1
    assert there.pieces("absent") == []
    assert sum(piece.rows for piece in there.pieces("plenty")) == 80
    assert there.home.find("file2 row7") == [rare]

    # Neither is read what cannot hold it: the other files may even be gone.
    for file in there.files():
        if file.path != one.file.path:
            Path(file.path.removeprefix("file://")).unlink()
    assert there.home.find("file2 row7") == [rare]
    assert there.home.searcher.count(SearchRequest(collection=FLIGHTS, query="absent")) == 0


def test_misfits_are_asked_for_only_where_there_are_some_at_the_path(
    tmp_path, engine, monkeypatch
) -> None:
    """Conditions on columns alone take half the time, and engines leave out row groups by them."""
    there = Filtered(tmp_path, engine)
    plain = there.send('{"n": 1, "s": "x"}', '{"n": 2}')
    mixed = there.send('{"n": "many", "s": "x"}', '{"n": 2}')
    there.keeping.keep(FLIGHTS)
    asked: list[bool] = []
    monkeypatch.setattr(
        looking,
        "part_query",
        lambda *args, misfits, **more: asked.append(misfits) or part_query(*args, **more),
    )

    def of(query: str) -> tuple[list[str], list[bool]]:
        asked.clear()
        # The tail, which is empty, is asked in no way.
        return there.home.find(query), sorted(asked)

    assert of("n:2") == ([mixed[1], plain[1]], [False, True])
    assert of("s:x") == ([mixed[0], plain[0]], [False])
    assert of("n:many") == ([mixed[0]], [True])
    assert of("_exists_:n") == ([*reversed(mixed), *reversed(plain)], [False, True])
    assert of("many") == ([mixed[0]], [True])
    assert of("NOT s:x AND n:>0") == ([mixed[1], plain[1]], [False, True])


def test_texts_that_are_spelt_in_one_way_are_compared_as_they_are(
    tmp_path, engine, monkeypatch
) -> None:
    """Putting a column in lower case takes as long as reading it."""
    there = Filtered(tmp_path, engine)
    first = there.send(
        '{"small": "is so", "code": "UA", "name": "Bergen", "far": "ÅL", "tags": ["AB", "C-1"]}',
        '{"small": "ænd so", "code": "B6 7", "name": "oslo", "tags": []}',
        '{"code": null, "n": 1}',
    )
    second = there.send('{"small": "is so", "code": "ua", "tags": ["D", "e"]}')
    there.keeping.keep(FLIGHTS)
    asked: list[dict[str, str]] = []

    def heard(*args, spelt, **more):
        asked.append({column.path: spelling for column, spelling in spelt})
        return part_query(*args, spelt=spelt, **more)

    monkeypatch.setattr(looking, "part_query", heard)

    def of(query: str) -> tuple[list[str], list[dict[str, str]]]:
        asked.clear()
        return there.home.find(query), asked

    assert of('small:"is SO"') == ([second[0], first[0]], [{"small": "small"}])
    assert of("small:Æ*") == ([first[1]], [{"small": "small"}])
    assert of("code:Ua") == ([second[0], first[0]], [{"code": "capital"}, {"code": "small"}])
    assert of('code:"b6 7"') == ([first[1]], [{"code": "capital"}])
    assert of("code:*6?7") == ([first[1]], [{"code": "capital"}, {"code": "small"}])
    assert of("code:æ*") == ([], [{"code": "capital"}, {"code": "small"}])
    assert of("name:bergen") == ([first[0]], [{}])
    assert of("far:ål") == ([first[0]], [{}])
    assert of("tags:C-1") == ([first[0]], [{"tags": "capital"}])
    assert of("tags:E") == ([second[0]], [{}])
    assert of("NOT code:UA AND n:1") == ([first[2]], [{"code": "capital"}])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(st.text("kK1ß\u212a", max_size=3), min_size=1, max_size=4), max_size=3),
    st.text("kK1ß\u212a", min_size=1, max_size=3),
)
def test_texts_are_found_however_they_are_spelt(
    tmp_path_factory, engine, files: list[list[str]], text: str
) -> None:
    """Where a letter has several capitals, or none, too."""
    there = Filtered(tmp_path_factory.mktemp("spelt"), engine)
    sent: list[tuple[str, str]] = []
    for texts in files:
        ids = there.send(*(json.dumps({"s": one}) for one in texts))
        sent += zip(ids, map(lower, texts), strict=True)
    there.keeping.keep(FLIGHTS)

    same = [i for i, one in sent if one == lower(text)]
    begun = [i for i, one in sent if one.startswith(lower(text))]
    assert there.home.find(f's:"{text}"') == same[::-1]
    assert there.home.find(f"s:{text}*") == begun[::-1]


def test_columns_that_are_spelt_in_many_ways_are_told_apart_in_few(
    tmp_path, engine, monkeypatch
) -> None:
    """Else each file would be asked by itself."""
    there = Filtered(tmp_path, engine)
    ids = [
        there.send(f'{{"a": "{a}", "b": "{b}"}}')[0]
        for a in ("x", "X", "xY")
        for b in ("x", "X", "xY")
    ]
    there.keeping.keep(FLIGHTS)
    asked: list[bool] = []
    monkeypatch.setattr(
        looking,
        "part_query",
        lambda *args, spelt, **more: (
            asked.append(bool(spelt)) or part_query(*args, spelt=spelt, **more)
        ),
    )

    assert there.home.find("a:x*") == ids[::-1]
    assert sorted(asked) == [False, True, True]
    asked.clear()
    assert there.home.find("a:x AND b:x*") == ids[5::-1]
    assert asked == [False]


def test_with_misfits_at_very_many_paths_a_file_may_have_them_at_any(
    tmp_path, engine, monkeypatch
) -> None:
    monkeypatch.setattr(filters, "MOST_PATHS", 1)
    there = Filtered(tmp_path, engine)
    there.send('{"a": 1, "b": 1, "c": 1}')
    found = there.send('{"a": "one", "b": "two"}')
    there.keeping.keep(FLIGHTS)

    known = [there.filters.of(there.table, file) for file in there.files()]
    assert [None if one is None else one.misfits for one in known] == [frozenset(), None]
    assert there.home.find("b:two") == found


def test_words_below_not_and_beside_or_leave_nothing_out(tmp_path, engine) -> None:
    there = Filtered(tmp_path, engine)
    first, second, third = there.send('{"s": "one"}', '{"s": "two"}', '{"n": 3}')
    there.keeping.keep(FLIGHTS)

    assert there.home.find("NOT one") == [third, second]
    assert there.home.find("one OR n:3") == [third, first]
    assert there.home.find("one OR n:>2") == [third, first]
    assert there.home.find("-one -two") == [third]


def test_events_that_no_filter_knows_yet_are_found(tmp_path, engine) -> None:
    """In a file that was landed since, and on the log."""
    there = Filtered(tmp_path, engine)
    (first,) = there.send('{"s": "word"}')
    there.keeping.keep(FLIGHTS)
    (second,) = there.send('{"s": "word"}')
    (third,) = there.home.send('{"s": "word"}')

    assert there.home.find("word") == [third, second, first]
    assert there.home.find("word", newest_first=False) == [first, second, third]


def test_a_damaged_filter_is_thrown_away_and_its_file_is_read(tmp_path, engine) -> None:
    """Bits that are gone would be events that are not found."""
    there = Filtered(tmp_path, engine)
    (only,) = there.send('{"s": "word"}')
    there.keeping.keep(FLIGHTS)
    (place,) = there.folder.glob("*/*")
    whole = place.read_bytes()
    body = whole.index(b"\n") + 1
    for damaged in (whole[:body] + bytes(len(whole) - body), whole[:-1], b"", b"{}\n"):
        place.write_bytes(damaged)
        there.filters = Filters(there.folder)
        there.home.searcher = there.searching()

        assert there.home.find("word") == [only]
        assert not place.exists()
    assert there.keeping.keep(FLIGHTS) == 0, "nothing changed since it was made"


def test_no_filter_is_open_when_nobody_asks_it(tmp_path, engine) -> None:
    """There is one for each data file, and a process is given some thousand handles."""
    there = Filtered(tmp_path, engine)
    ids = [there.send(f'{{"s": "word{number}"}}')[0] for number in range(3)]
    there.keeping.keep(FLIGHTS)

    assert [there.home.find(f"word{number}") for number in range(3)] == [[one] for one in ids]
    handles = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert [one for one in handles if one.is_relative_to(there.folder)] == []


@pytest.mark.parametrize("left", [None, 40], ids=["gone", "shorter"])
def test_a_filter_that_is_lost_while_it_is_known_is_done_without(
    tmp_path, engine, left: int | None
) -> None:
    """What was checked once is asked again and again."""
    there = Filtered(tmp_path, engine)
    (only,) = there.send('{"s": "word"}')
    there.keeping.keep(FLIGHTS)
    assert there.home.find("word") == [only]
    (place,) = there.folder.glob("*/*")
    if left is None:
        place.unlink()
    else:
        place.write_bytes(place.read_bytes()[:left])

    assert there.home.find("word") == [only]
    assert there.home.find("other") == []


def test_a_filter_goes_with_its_file(tmp_path, engine) -> None:
    """What is merged has a filter of its own; what is gone leaves none behind."""
    there = Filtered(tmp_path, engine)
    for number in range(6):
        there.send(f'{{"s": "word{number}"}}')
    there.keeping.keep(FLIGHTS)
    before = {one.name for one in there.folder.glob("*/*")}

    done = compact(there.home.lake, main_table(FLIGHTS), new_name=lambda: "merged", fewest=2)
    assert done.written
    there.keeping.keep(FLIGHTS)

    after = {one.name for one in there.folder.glob("*/*")}
    assert len(after) == len(there.files()) < len(before)
    assert not before & after
    assert len(there.home.find("word3")) == 1

    there.home.lake.catalog.drop_table(main_table(FLIGHTS))
    assert there.keeping.keep_all() == 0
    assert list(there.folder.iterdir()) == []


def test_a_file_that_cannot_be_read_keeps_no_filter_of_another_table(tmp_path, engine) -> None:
    """What an erased event left as bits would stay for as long as somebody else's file is ill."""
    there = Filtered(tmp_path, engine)
    first = CollectionId("main", "a_first")
    there.home.log.append(first, [event(b'{"s": "ill"}', id="x", received_at=NOON)]).result()
    while there.home.landing.land_once(first) is not None:
        pass
    view = there.home.lake.view(first)
    assert view is not None
    [ill] = Listing(there.home.lake).files(view) or ()
    Path(path_of(ill.path)).write_bytes(b"not Parquet")
    for number in range(2):
        there.send(f'{{"s": "word{number}"}}')

    assert there.keeping.keep_all() == 2
    before = set((there.folder / there.table).iterdir())
    assert compact(there.home.lake, main_table(FLIGHTS), new_name=lambda: "m", fewest=2).written
    assert there.keeping.keep_all() == 1
    assert not before & set((there.folder / there.table).iterdir())


def test_no_more_filters_are_made_than_may_be_kept(tmp_path, engine) -> None:
    there = Filtered(tmp_path, engine)
    for number in range(3):
        there.send(f'{{"s": "word{number}"}}')
    small = Keeping(
        there.home.lake, there.filters, engine, most_bytes=1, least_rows=1, least_chunk=1
    )

    assert small.keep(FLIGHTS) == 1
    assert small.keep(FLIGHTS) == 0
    assert len(there.home.find("word0")) == 1


def test_the_engine_sets_the_bits_that_are_looked_at(engine) -> None:
    """Positions are computed in SQL when a filter is made, and here when it is asked."""
    digests = [digest(word_text(f"word{n}")) for n in range(200)] + [0, (1 << 64) - 1]
    with engine.reader() as reader:
        for bits in (64, 97, 1 << 18):
            for number in digests:
                source = f"(SELECT 5 AS chunk, {number}::UBIGINT AS digest)"
                words = filling._words(reader, source, bits)
                there = {
                    bit
                    for bit in range(bits)
                    if int.from_bytes(words[bit * 8 : bit * 8 + 8], "little") == 1 << 5
                }
                assert there == set(positions(number, bits))
                if bits > 97:
                    break


def test_digests_are_those_of_the_engine(engine) -> None:
    with engine.reader() as reader:
        for text in ("", "wword", "tÆØÅ", "n-5", "w𞤀"):
            found = reader.rows("SELECT md5_number_lower(?) AS digest", [text])
            assert Token(found["digest"][0].as_py()) == Token(digest(text))
