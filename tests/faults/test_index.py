"""The index breaks, lags, lies or is away: searches stay right, and it comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from balance import compare
from builders import FLIGHTS, NOON
from evidence.sheet import found, happened
from indexing import DAY, ENGINES, Home, fresh_index, index_url
from lakes import MAIN

from assets import searchable
from assets.landing import Trouble
from assets.searchable import Beside, Indexed, catch_up
from lakehouse.retention import drop_days
from lakehouse.sql import Engine, open_engine
from penstock import faults
from penstock.errors import EngineUnavailable
from penstock.faults import Injected
from penstock.search import indexed
from penstock.search.elastic import ElasticIndex

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


@pytest.fixture(params=sorted(ENGINES))
def index(request: pytest.FixtureRequest) -> Iterator[ElasticIndex]:
    with fresh_index(request.param) as index:
        yield index


@pytest.fixture
def home(tmp_path: Path, sql: Engine, index: ElasticIndex) -> Home:
    return Home(tmp_path, sql, index)


@pytest.fixture(autouse=True)
def _whole() -> Iterator[None]:
    yield
    faults.arm(None)


def names(home: Home) -> list[str]:
    assert home.index is not None
    return sorted(home.index.ids(FLIGHTS))


def searched(home: Home, query: str = "k:*") -> list[str]:
    """Answer what is found, and that all ways of asking agree."""
    found = home.find_all(query, limit=50)
    assert home.count(query) == len(found)
    return found


@pytest.mark.breaks("the indexer, before its mark")
@pytest.mark.parametrize("point", ["index_stored", "index_refreshed"])
def test_an_indexer_that_is_killed_before_its_mark_changes_no_answer(home, point: str) -> None:
    """Its documents are there and not yet counted: they must not be found beside the lake's."""
    sent = home.send(*('{"k": 1}' for _ in range(30)))
    home.land()
    faults.arm(f"{point}:1:raise")
    with pytest.raises(Injected):
        home.fill()
    happened("deaths")
    home.index.refresh(names(home))
    between = searched(home)
    faults.arm(None)

    told = dict.fromkeys(sent)
    found(search=compare(told, ((one, None) for one in between)))
    assert between == sent[::-1]
    assert home.fill() == 30
    after = searched(home)
    found(search=compare(told, ((one, None) for one in after)))
    assert after == sent[::-1]


def test_an_index_that_was_deleted_is_noticed_and_made_again(home) -> None:
    """By somebody who tidies up; the mark still says that everything is there."""
    sent = home.send('{"k": 1}', '{"k": 2}')
    sent += home.send('{"k": 3}', at=NOON + DAY)
    home.land()
    home.fill()
    home.index.drop(names(home)[:1])

    assert home.page("k:*").index_away
    assert searched(home) == sent[::-1]
    more = home.send('{"k": 4}', at=NOON + DAY)
    home.land()
    assert home.fill() == 4
    assert searched(home) == [*more, *sent[::-1]]
    assert not home.page("k:*").index_away
    assert len({name.rpartition("-")[2] for name in names(home)}) == 1


def test_an_index_that_was_deleted_is_not_made_by_the_next_document(home, monkeypatch) -> None:
    """It would have that one document and be taken for the whole."""
    home.send('{"k": 1}')
    home.land()
    home.fill()
    home.send('{"k": 2}')
    home.land()
    check, dropped = home.indexing._check, []

    def check_and_delete(*asked) -> None:
        check(*asked)
        if not dropped:
            dropped.extend(names(home))
            home.index.drop(dropped)

    monkeypatch.setattr(home.indexing, "_check", check_and_delete)

    assert home.fill() == 2
    assert set(names(home)).isdisjoint(dropped)
    assert searched(home) == ["e1", "e0"]
    assert not home.page("k:*").index_away


def test_a_mark_that_is_lost_is_no_loss(home) -> None:
    """Without it nobody knows what is in the index, so that it is begun anew."""
    sent = home.send('{"k": 1}', '{"k": 2}')
    home.land()
    home.fill()
    before = names(home)
    home.index.drop([home.index._marks])
    home.index._has_marks = False

    assert searched(home) == sent[::-1]
    assert home.fill() == 2
    assert home.indexing.sweep(FLIGHTS) == 1
    assert set(names(home)).isdisjoint(before)
    assert searched(home) == sent[::-1]


def test_a_collection_is_indexed_again_beside_the_index_in_use(home) -> None:
    """Searches are right at every step, whether it comes to its end or is killed."""
    sent = home.send(*('{"k": 1}' for _ in range(25)))
    home.land()
    home.fill()
    old = names(home)
    home.indexing = home.indexing_with(home.index, span=10)

    steps = home.indexing.reindex(FLIGHTS)
    next(steps)
    steps.close()
    assert searched(home) == sent[::-1]
    sent += home.send('{"k": 1}')
    home.land()
    home.fill()
    faults.arm("index_swapped:1:raise")
    with pytest.raises(Injected):
        rows = sum(step.rows for step in home.indexing.reindex(FLIGHTS))
    faults.arm(None)
    assert searched(home) == sent[::-1]
    rows = sum(step.rows for step in home.indexing.reindex(FLIGHTS))

    assert rows == 26
    assert set(names(home)).isdisjoint(old)
    assert len(names(home)) == 1
    assert searched(home) == sent[::-1]
    assert home.fill() == 0


def test_two_that_index_at_once_lose_and_double_nothing(home) -> None:
    """A run that was believed dead goes on beside its successor."""
    sent = home.send(*('{"k": 1}' for _ in range(120)))
    home.land()
    others = [home.indexing_with(home.index, span=10) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda i=i: list(catch_up(i, [FLIGHTS], clock=lambda: NOON)))
        for i in others
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    home.fill()

    assert searched(home) == sent[::-1]
    (name,) = names(home)
    assert home.index.state(FLIGHTS).state.marks == {0: 120}
    status, found = home.index._ask("GET", f"/{name}/_count")
    assert (status, found["count"]) == (200, 120)


def test_searches_are_right_while_events_are_sent_landed_and_indexed(home) -> None:
    """Every event that was acknowledged before a search is in it, and once."""
    sent: list[str] = []
    over = threading.Event()
    failed: list[Exception] = []

    def repeat(work: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - it is told below
            failed.append(error)

    workers = [threading.Thread(target=repeat, args=(work,)) for work in (home.land, home.fill)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(25):
            sent += home.send('{"k": 1}', '{"k": 2}')
            assert home.find("k:*", limit=1_000) == sent[::-1]
            assert home.count("k:1") == len(sent) // 2
    finally:
        over.set()
        for worker in workers:
            worker.join(60)
    assert not failed


def test_old_days_are_dropped_and_read_in_the_lake(home) -> None:
    """What the index does not keep is found all the same."""
    old = home.send('{"k": 1}', at=NOON - 2 * DAY)
    new = home.send('{"k": 2}')
    home.land()
    home.fill()
    assert len(names(home)) == 2
    home.indexing = home.indexing_with(home.index, days=1)

    assert home.indexing.retain(FLIGHTS) == 1
    assert home.indexing.retain(FLIGHTS) == 0
    assert len(names(home)) == 1
    assert searched(home) == [*new, *old]
    late = home.send('{"k": 3}', at=NOON - 3 * DAY)
    home.land()
    assert home.fill() == 0
    assert searched(home) == [*new, *old, *late]
    assert sum(step.rows for step in home.indexing.reindex(FLIGHTS)) == 1
    assert searched(home) == [*new, *old, *late]


def test_a_day_that_the_table_dropped_is_not_found_in_the_index(home, monkeypatch) -> None:
    """A search that asked how far the index is, and took its cut when the day had gone.

    The index would find what it is certain of; what it has to look up is not there any more.
    """
    home.send('{"k": 1}', '{"k": "a, b"}', at=NOON - 2 * DAY)
    new = home.send('{"k": 2}')
    home.land()
    home.fill()

    drop_days(home.lake, MAIN, before=NOON // DAY)

    assert len(names(home)) == 2
    assert searched(home) == new
    assert searched(home, "k:1") == searched(home, 'k:"a, b"') == []
    # Made again beside it from a table that had the day still, it would have it once more.
    assert sum(step.rows for step in home.indexing.reindex(FLIGHTS)) == 1
    assert searched(home) == new


def test_the_index_of_a_table_that_was_rolled_back_is_not_asked(home, monkeypatch) -> None:
    """It would find what the table no longer has."""
    home.send('{"k": 1}')
    home.land()
    home.fill()
    known = home.index.state(FLIGHTS)
    ahead = type(known.state)(
        **{f: getattr(known.state, f) for f in known.state.__struct_fields__} | {"marks": {0: 5}}
    )
    home.index.write(FLIGHTS, ahead, known)
    sent = home.send('{"k": 2}', '{"k": 3}')

    assert searched(home) == ["e2", "e1", "e0"]
    home.land()
    assert home.fill() == 3
    assert searched(home) == [*sent[::-1], "e0"]


# An engine that is away, busy or refuses


class Front:
    """An HTTP server in front of the engine, that answers some requests itself."""

    def __init__(self, address: str) -> None:
        self.answers: Callable[[str, bytes], tuple[int, object] | None] = lambda _p, _b: None
        self.seen: list[str] = []
        place = urlsplit(address)
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                front.seen.append(f"{self.command} {self.path}")
                made = front.answers(self.path, body)
                if made is not None:
                    self.reply(made[0], json.dumps(made[1]).encode())
                    return
                headers = {
                    name: self.headers[name]
                    for name in ("accept", "content-type")
                    if name in self.headers
                }
                with closing(HTTPConnection(place.hostname, place.port)) as behind:
                    behind.request(self.command, self.path, body or None, headers)
                    answer = behind.getresponse()
                    self.reply(answer.status, answer.read())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("x-elastic-product", "Elasticsearch")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def front(index: ElasticIndex, home: Home) -> Iterator[Front]:
    """Put a server in front of the engine of the home."""
    name = "opensearch" if index._place.endswith(ENGINES["opensearch"][-5:]) else "elasticsearch"
    front = Front(ENGINES[name])
    through = ElasticIndex(
        index_url(name, front.address, index._prefix), seconds=5.0, wait=lambda _: None
    )
    home.index = through
    home.indexing = home.indexing_with(through)
    home.searcher = home.searching(through)
    yield front
    through.close()
    front.close()


def test_an_engine_that_is_too_busy_gets_the_rest_later(home, front) -> None:
    """Some documents of a request may have been stored, and the others not."""
    sent = home.send(*(f'{{"k": {n}}}' for n in range(20)))
    home.land()
    rounds = 0

    def busy(path: str, body: bytes) -> tuple[int, object] | None:
        nonlocal rounds
        if "/_bulk" not in path:
            return None
        rounds += 1
        if rounds == 1:
            return 429, {"error": {"type": "es_rejected_execution_exception"}, "status": 429}
        if rounds == 2:
            return 200, {"errors": True, "took": 1}
        if rounds == 3:
            items = [
                {"create": {"status": 429, "error": {"type": "es_rejected_execution_exception"}}}
            ] * (body.count(b"\n") // 2)
            return 200, {"errors": True, "items": items}
        return None

    front.answers = busy

    assert home.fill() == 20
    assert searched(home) == sent[::-1]


def test_an_engine_that_stays_busy_leaves_the_mark_where_it_is(home, front) -> None:
    """What was not stored must not be taken for stored."""
    sent = home.send('{"k": 1}')
    home.land()
    front.answers = lambda path, _: (429, {"status": 429}) if "_bulk" in path else None

    with pytest.raises(EngineUnavailable):
        home.fill()
    assert searched(home) == sent
    front.answers = lambda _p, _b: None
    assert home.fill() == 1


def test_a_refused_document_is_found_like_any_other(home, front) -> None:
    """It stands in the index without its terms, and who searches reads its event."""
    sent = home.send('{"k": "good"}', '{"k": "bad"}', '{"k": "fine"}')
    home.land()

    def refuse(path: str, body: bytes) -> tuple[int, object] | None:
        if "/_bulk" not in path or b"k=bad" not in body:
            return None
        if "items" not in path:
            return 200, {"errors": True, "took": 1}
        documents = body.split(b"\n")[1::2]
        return 200, {
            "errors": True,
            "items": [
                {"create": {"status": 400, "error": {"type": "document_parsing_exception"}}}
                if b"k=bad" in document
                else {"create": {"status": 429, "error": {"type": "busy"}}}
                for document in documents
            ],
        }

    front.answers = refuse
    done = home.indexing.index_once(FLIGHTS)

    assert (done.rows, done.refused) == (3, 1)
    assert searched(home) == sent[::-1]
    assert searched(home, "k:bad") == [sent[1]]
    assert searched(home, "NOT k:good") == [sent[2], sent[1]]
    assert searched(home, "k:b*") == [sent[1]]
    assert searched(home, "k:good") == [sent[0]]


def test_a_request_that_is_too_large_is_sent_in_parts(home, front) -> None:
    """A proxy in front of the engine has a limit of its own; one document may be over it."""
    sent = home.send(*(f'{{"k": "{"x" * (100 * n)}"}}' for n in range(10)))
    home.land()
    front.answers = lambda path, body: (413, {}) if "_bulk" in path and len(body) > 1_000 else None
    done = home.indexing.index_once(FLIGHTS)

    assert done.rows == 10
    assert 0 < done.refused < 10
    assert searched(home) == sent[::-1]
    assert searched(home, f"k:{'x' * 900}") == [sent[9]]


def test_a_refresh_that_missed_a_shard_moves_no_mark(home, front) -> None:
    """What is stored is not searchable by that."""
    sent = home.send('{"k": 1}')
    home.land()
    front.answers = lambda path, _: (
        (200, {"_shards": {"total": 1, "successful": 0, "failed": 1}})
        if "_refresh" in path
        else None
    )

    with pytest.raises(EngineUnavailable):
        home.fill()
    assert searched(home) == sent


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"error": {"type": "cluster_block_exception"}}),
        (500, {"error": {"type": "boom"}}),
        (401, {"error": {"type": "security_exception"}}),
        (200, {"responses": [{"status": 200, "timed_out": True,
                              "_shards": {"total": 1, "successful": 1}}] * 2}),
        (200, {"responses": [{"status": 200, "timed_out": False,
                              "_shards": {"total": 2, "successful": 1}}] * 2}),
    ],
    ids=["blocked", "broken", "signed out", "too slow", "a shard is missing"],
)  # fmt: skip
def test_without_the_engine_the_lake_answers_and_says_so(home, front, answer) -> None:
    """Half an answer would be worse than a slow one."""
    sent = home.send('{"k": 1}', '{"k": 2}')
    home.land()
    home.fill()
    front.answers = lambda path, _: answer if "_msearch" in path else None
    page = home.page("k:*")

    assert [one.event_id for one in page.events] == sent[::-1]
    assert page.index_away
    front.seen.clear()
    assert home.find("k:1") == sent[:1]
    assert front.seen == [], "it is left alone for a while"


def test_an_engine_comes_back(home, front, monkeypatch) -> None:
    """Nobody has to do anything about it."""
    monkeypatch.setattr(indexed, "REST_SECONDS", 0.0)
    home.send('{"k": 1}')
    home.land()
    home.fill()
    front.answers = lambda _p, _b: (503, {})
    assert home.page("k:*").index_away
    front.answers = lambda _p, _b: None

    assert not home.page("k:*").index_away


def test_indexing_beside_a_landing_never_disturbs_it(home, front, monkeypatch) -> None:
    """It says what is wrong, and catches up when the engine is back."""
    monkeypatch.setattr(searchable, "_REST_SECONDS", 0.1)
    sent = home.send('{"k": 1}', '{"k": 2}')
    home.land()
    front.answers = lambda _p, _b: (503, {})
    with Beside(home.indexing, clock=lambda: NOON) as beside:
        beside.landed(FLIGHTS)
        assert isinstance(next(awaited(beside)), Trouble)
        front.answers = lambda _p, _b: None
        (done,) = [one for one in awaited(beside) if isinstance(one, Indexed)]

    assert done.rows == 2
    assert home.fill() == 0
    assert searched(home) == sent[::-1]


def awaited(beside: Beside) -> Iterator[Indexed | Trouble]:
    """Answer what is told, until a span was indexed."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for one in beside.told():
            yield one
            if isinstance(one, Indexed):
                return
        time.sleep(0.02)


def test_a_run_that_ends_indexes_what_it_landed(home) -> None:
    """The next one may be an hour away."""
    home.send('{"k": 1}')
    home.land()
    with Beside(home.indexing, clock=lambda: NOON) as beside:
        beside.landed(FLIGHTS)

    assert [done.rows for done in beside.told()] == [1]


def test_a_row_that_left_the_table_is_not_looked_for(home) -> None:
    """Its document is still there; the lake says what there is."""
    sent = home.send('{"k": 1}', '{"k": 2}', '{"k": 3}')
    home.land()
    home.fill()
    home.lake.table(MAIN).delete("log_offset == 1")

    assert home.find("k:*") == [sent[2], sent[0]]
    assert not home.page("k:*").index_away


def test_two_that_make_an_index_again_at_once_end_with_one(home) -> None:
    """Somebody was impatient and asked for it twice."""
    sent = home.send(*('{"k": 1}' for _ in range(60)))
    home.land()
    home.fill()
    failed: list[Exception] = []

    def again() -> None:
        try:
            list(home.indexing_with(home.index, span=10).reindex(FLIGHTS))
        except Exception as error:  # noqa: BLE001 - it is told below
            failed.append(error)

    threads = [threading.Thread(target=again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not failed
    assert searched(home) == sent[::-1]
    assert not home.page("k:*").index_away
    home.fill()
    home.indexing.sweep(FLIGHTS)
    assert len(names(home)) == 1
    assert searched(home) == sent[::-1]
