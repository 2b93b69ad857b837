"""What every log promises, whatever keeps it: `penstock.buffer.Appender` and `Buffer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from builders import FLIGHTS, NOON, event

from penstock.buffer import (
    Appender,
    Buffer,
    Glance,
    Keeping,
    Portion,
    open_appender,
    open_buffer,
    start_of,
)
from penstock.buffer.embedded import EmbeddedAppender, EmbeddedBuffer
from penstock.buffer.memory import MemoryLog
from penstock.codec import LOG_SCHEMA
from penstock.envelope import CollectionId, Event, Extent, Mark, Micros, Position
from penstock.errors import LogChanged, LogTruncated, LogUnavailable

ORDERS = CollectionId("shop", "orders")
MINUTES: Micros = 60_000_000


class Trims(Protocol):
    def trim(self, now: Micros) -> int: ...


@dataclass
class Log:
    """A log under test, with what the tests need beside the two promises."""

    appender: Appender
    buffer: Buffer
    trims: Trims | None = None
    other: str = "1-00000000"
    """The fingerprint of a record that never was."""

    def append(self, *payloads: str, to: CollectionId = FLIGHTS) -> list[Position | Exception]:
        events = [event(payload) for payload in payloads]
        return list(self.appender.append(to, events).result(timeout=20))

    def trim(self, now: Micros) -> int:
        assert self.trims
        return self.trims.trim(now)

    def start(self, of: CollectionId = FLIGHTS) -> Mark:
        return start_of(self.buffer.log_id(of), 0)

    def read(
        self,
        mark: Mark | None = None,
        *,
        of: CollectionId = FLIGHTS,
        end: int = 1 << 60,
        max_bytes: int = 1 << 30,
    ) -> Portion:
        return self.buffer.read(of, mark or self.start(of), end=end, max_bytes=max_bytes)


def memory(_folder: Path) -> Log:
    log = MemoryLog()
    return Log(log, log, log)


def embedded(folder: Path) -> Log:
    appender = EmbeddedAppender(folder / "log")
    return Log(appender, EmbeddedBuffer(folder / "log"), appender)


def embedded_in_small_segments(folder: Path) -> Log:
    """Each group has a segment of its own: what holds within one has to hold across them."""
    appender = EmbeddedAppender(folder / "log", segment_bytes=1)
    return Log(appender, EmbeddedBuffer(folder / "log"), appender)


def kafka(_folder: Path) -> Log:
    return kafka_log(partitions=1)


def kafka_of_four(_folder: Path) -> Log:
    return kafka_log(partitions=4)


def kafka_log(*, partitions: int) -> Log:
    """Make a log on the broker that all tests share, under a name of its own."""
    from engines.fresh import fresh_name
    from engines.places import KAFKA

    url = f"kafka://{KAFKA}/{fresh_name()}"
    keeping = Keeping(partitions=partitions, hours=1)
    # A later leader epoch than there ever was.
    return Log(open_appender(url, keeping=keeping), open_buffer(url), other="7")


ON_KAFKA = pytest.param(kafka, marks=pytest.mark.engines)
ON_KAFKA_OF_FOUR = pytest.param(kafka_of_four, marks=pytest.mark.engines)


def closing(make: Callable[[Path], Log], folder: Path) -> Iterator[Log]:
    log = make(folder)
    yield log
    log.appender.close()
    log.buffer.close()


@pytest.fixture(params=[memory, embedded, embedded_in_small_segments, ON_KAFKA])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """Answer a log whose collections have one partition."""
    yield from closing(request.param, tmp_path)


@pytest.fixture(params=[memory, embedded, ON_KAFKA, ON_KAFKA_OF_FOUR])
def any_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """Answer a log whose collections may have several partitions."""
    yield from closing(request.param, tmp_path)


def payloads(portion: Portion) -> list[str]:
    return [payload.decode() for payload in portion.rows.column("payload").to_pylist()]


def offsets(portion: Portion) -> list[int]:
    return portion.rows.column("log_offset").to_pylist()


# What was appended


def test_positions_count_through_a_collection(log: Log) -> None:
    """A position is the proof of an event: one that is given twice hides an event."""
    assert log.append("a", "b") == [Position(0, 0), Position(0, 1)]
    assert log.append("c") == [Position(0, 2)]


def test_events_are_read_in_the_order_they_were_appended(log: Log) -> None:
    """Replay promises log order."""
    sent = [f"{call}.{number}" for call in range(5) for number in range(3)]
    for call in range(5):
        log.append(*sent[call * 3 : call * 3 + 3])

    portion = log.read()

    assert payloads(portion) == sent
    assert offsets(portion) == list(range(15))


def test_calls_that_wait_together_keep_their_order(log: Log) -> None:
    """Calls of one group share frames; each still gets its own positions."""
    calls = [
        log.appender.append(to, [event(f"{number}a"), event(f"{number}b")])
        for number in range(40)
        for to in (FLIGHTS, ORDERS)
    ]
    for future in calls:
        future.result(timeout=20)

    for place, of in enumerate((FLIGHTS, ORDERS)):
        assert payloads(log.read(of=of)) == [f"{n}{x}" for n in range(40) for x in "ab"]
        answers = [future.result() for future in calls[place::2]]
        assert answers == [[Position(0, 2 * n), Position(0, 2 * n + 1)] for n in range(40)]


def test_an_acknowledged_event_is_readable_at_once(log: Log) -> None:
    """A search must find what was acknowledged a moment ago."""
    for number in range(50):
        log.append(str(number))
        assert log.buffer.extents(FLIGHTS) == {0: Extent(0, number + 1)}


EVERYTHING = event(
    b"\x00\xff{not json",
    id="an id",
    received_at=NOON + 1,
    content_type="application/octet-stream",
    key=b"\x00key",
    headers=(("a", b"1"), ("A", b"\xff"), ("a", b"1"), ("", b"")),
    metadata={"topic": "t", "": "empty key", "ü": "ü"},
    event_time=-1,
    source="kafka",
    quarantine=True,
)
NOTHING = event(b"", id="", content_type=None, key=None)
EMPTY_KEY = event(b"x", key=b"")


def as_row(given: Event, log_id: str, offset: int) -> dict[str, object]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    time = None if given.event_time is None else epoch + timedelta(microseconds=given.event_time)
    return {
        "event_id": given.id,
        "received_at": epoch + timedelta(microseconds=given.received_at),
        "event_time": time,
        "source": given.source,
        "content_type": given.content_type,
        "key": given.key,
        "headers": [{"key": k, "value": v} for k, v in given.headers] or None,
        "metadata": list(given.metadata.items()) or None,
        "payload": given.payload,
        "log_id": log_id,
        "log_partition": 0,
        "log_offset": offset,
        "quarantine_wish": given.quarantine,
        "named": given.named,
    }


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([EVERYTHING], id="every field"),
        pytest.param([NOTHING], id="no field"),
        pytest.param([EVERYTHING, NOTHING, EMPTY_KEY, EVERYTHING], id="mixed"),
        pytest.param([event(b"{}" * (512 << 10), id="large")], id="1 MiB"),
    ],
)
def test_an_event_comes_back_as_it_was(log: Log, events: Sequence[Event]) -> None:
    """Byte identity: payload, key, headers with order and duplicates, and all the rest."""
    log.appender.append(FLIGHTS, events).result(timeout=20)

    rows = log.read().rows

    assert rows.schema == LOG_SCHEMA
    rows.validate(full=True)
    assert rows.to_pylist() == [
        as_row(given, log.buffer.log_id(FLIGHTS), offset) for offset, given in enumerate(events)
    ]


def test_different_calls_may_have_different_fields(log: Log) -> None:
    """Columns that one block folds to a single value are lists in the next."""
    events = [NOTHING, EVERYTHING, event("a"), EMPTY_KEY, event("b", source="grpc")]
    for each in events:
        log.appender.append(FLIGHTS, [each]).result(timeout=20)

    assert log.read().rows.to_pylist() == [
        as_row(given, log.buffer.log_id(FLIGHTS), offset) for offset, given in enumerate(events)
    ]


def test_an_empty_call_is_refused(log: Log) -> None:
    """There is no position to answer."""
    with pytest.raises(ValueError, match="at least one"):
        log.appender.append(FLIGHTS, [])


def test_an_event_that_cannot_be_stored_fails_alone(log: Log) -> None:
    """One caller's bad event must not cost the others theirs, nor stop the log."""
    good = [log.appender.append(FLIGHTS, [event("a")])]
    bad = log.appender.append(FLIGHTS, [event("b", id="\ud800")])
    good.append(log.appender.append(FLIGHTS, [event("c")]))

    assert isinstance(bad.exception(timeout=20), UnicodeEncodeError)
    assert [future.result(timeout=20) for future in good] == [[Position(0, 0)], [Position(0, 1)]]
    assert payloads(log.read()) == ["a", "c"]


def test_after_close_nothing_is_appended(log: Log) -> None:
    """A door that is closing must not acknowledge."""
    log.append("a")
    log.appender.close()

    future = log.appender.append(FLIGHTS, [event("b")])

    assert isinstance(future.exception(timeout=20), LogUnavailable)
    assert payloads(log.read()) == ["a"]


# Partitions, of which there may be several


def rows_of(log: Log) -> dict[Position, str]:
    """Read every partition to its end."""
    found: dict[Position, str] = {}
    for partition, extent in log.buffer.extents(FLIGHTS).items():
        mark = start_of(log.buffer.log_id(FLIGHTS), partition)
        while mark.next < extent.end:
            portion = log.read(mark, end=extent.end, max_bytes=100)
            for offset, payload in zip(offsets(portion), payloads(portion), strict=True):
                found[Position(partition, offset)] = payload
            mark = portion.mark
    return found


def test_every_position_holds_its_event(any_log: Log) -> None:
    """Positions are given out per partition; each has to be that of its own event."""
    futures = {}
    for call in range(30):
        names = [f"{call}.{number}" for number in range(call % 5 + 1)]
        keyed = [event(name, key=name.encode() if n % 2 else None) for n, name in enumerate(names)]
        futures[tuple(names)] = any_log.appender.append(FLIGHTS, keyed)

    expected = {
        position: name
        for names, future in futures.items()
        for name, position in zip(names, future.result(timeout=20), strict=True)
    }

    assert rows_of(any_log) == expected
    assert len(expected) == 90


def test_what_has_one_key_is_in_one_partition_in_order(any_log: Log) -> None:
    """Replay promises the order of each key."""
    for call in range(10):
        sent = [event(f"{key} {call}", key=key.encode()) for key in "abcdef"]
        any_log.appender.append(FLIGHTS, sent).result(timeout=20)

    rows = rows_of(any_log)

    for key in "abcdef":
        mine = [(place, payload) for place, payload in rows.items() if payload.startswith(key)]
        assert len({place.partition for place, _ in mine}) == 1
        assert [payload for _, payload in sorted(mine)] == [f"{key} {call}" for call in range(10)]


def test_repetitions_of_a_sender_come_to_one_partition(any_log: Log) -> None:
    """Who looks for duplicates looks in one place."""
    places = set()
    for _ in range(6):
        again = msgspec.structs.replace(event("x", id="order 17"), named=True)
        (position,) = any_log.appender.append(FLIGHTS, [again]).result(timeout=20)
        assert isinstance(position, Position)
        places.add(position.partition)

    assert len(places) == 1


def test_a_call_without_keys_stays_together(any_log: Log) -> None:
    """A batch that is scattered costs a request for each partition."""
    answers = [any_log.append(*"abcdefgh") for _ in range(8)]

    for answer in answers:
        assert len({place.partition for place in answer if isinstance(place, Position)}) == 1
    used = {place.partition for answer in answers for place in answer}  # type: ignore[union-attr]
    assert used == set(any_log.buffer.extents(FLIGHTS))


# Collections and extents


def test_a_log_without_records_has_no_collections(log: Log) -> None:
    """The first process to start may be a reader."""
    assert list(log.buffer.collections()) == []
    assert log.buffer.extents(FLIGHTS) == {0: Extent(0, 0)}
    assert log.buffer.released([FLIGHTS])[FLIGHTS] == {0: 0}
    assert log.read().rows.num_rows == 0
    assert log.read().mark == log.start()


def test_collections_are_apart(log: Log) -> None:
    """Teams must not see each other's events."""
    names = [CollectionId(f"team{number % 3}", f"c{number}") for number in range(60)]
    for round_ in range(3):
        futures = [log.appender.append(name, [event(f"{name} {round_}")]) for name in names]
        for future in futures:
            assert future.result(timeout=20) == [Position(0, round_)]

    assert list(log.buffer.collections()) == sorted(names)
    for name in names:
        assert log.buffer.extents(name) == {0: Extent(0, 3)}
        assert payloads(log.read(of=name)) == [f"{name} {round_}" for round_ in range(3)]


# Reading in portions


def test_a_read_stops_before_its_end(log: Log) -> None:
    """A span is `[mark, end)`: a search reads up to the end it froze."""
    log.append("a", "b", "c", "d", "e")

    portion = log.read(end=3)

    assert payloads(portion) == ["a", "b", "c"]
    assert portion.mark.next == 3
    assert log.read(portion.mark, end=3).rows.num_rows == 0
    assert log.read(portion.mark, end=1).mark == portion.mark


def test_a_read_goes_on_in_the_midst_of_a_frame(log: Log) -> None:
    """Marks need not fall between two calls of append."""
    log.append("a", "b", "c", "d", "e")
    log.append("f", "g")

    got, mark = [], log.start()
    for end in (2, 3, 6, 7):
        portion = log.read(mark, end=end)
        got.append(payloads(portion))
        mark = portion.mark

    assert got == [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        (1, [["aaaa"], ["bb"], ["", "cc"], ["dddd"], ["", "e"]]),
        (4, [["aaaa"], ["bb", "", "cc"], ["dddd"], ["", "e"]]),
        (5, [["aaaa", "bb"], ["", "cc", "dddd"], ["", "e"]]),
        (6, [["aaaa", "bb"], ["", "cc", "dddd"], ["", "e"]]),
        (100, [["aaaa", "bb", "", "cc", "dddd", "", "e"]]),
    ],
)
def test_a_read_stops_after_the_record_that_fills_it(
    log: Log, max_bytes: int, expected: list[list[str]]
) -> None:
    """Landing bounds its memory by bytes, and must always get on by at least one record."""
    log.append("aaaa", "bb", "")
    log.append("cc")
    log.append("dddd", "", "e")

    got, mark = [], log.start()
    while mark.next < 7:
        portion = log.read(mark, max_bytes=max_bytes)
        got.append(payloads(portion))
        mark = portion.mark

    assert got == expected


def test_portions_meet_and_cover(log: Log) -> None:
    """Whatever the sizes, each record is in exactly one portion."""
    for number in range(30):
        log.append(*(f"{number}-{n}" + "x" * (n * 37 % 300) for n in range(number % 7 + 1)))
    end = log.buffer.extents(FLIGHTS)[0].end

    for max_bytes in (1, 100, 1_000, 10_000):
        got, mark = [], log.start()
        while mark.next < end:
            portion = log.read(mark, max_bytes=max_bytes)
            got += offsets(portion)
            assert mark.next < portion.mark.next == got[-1] + 1
            mark = portion.mark
        assert got == list(range(end))


# Marks


def test_marks_of_the_same_place_are_equal(log: Log) -> None:
    """A mark is compared with the one another reader stored."""
    log.append("a", "b", "c")

    in_one = log.read(end=2).mark
    in_two = log.read(log.read(end=1).mark, end=2).mark

    assert in_one == in_two
    assert in_one.fingerprint


def test_a_mark_of_another_log_is_refused(log: Log) -> None:
    """With the log's folder lost, offsets are given out again: 100 events were skipped so."""
    log.append("a", "b")
    mark = log.read(end=1).mark

    with pytest.raises(LogChanged):
        log.read(Mark("11111111-1111-1111-1111-111111111111", 0, mark.next, mark.fingerprint))


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_mark_after_another_record_is_refused(log: Log, at: int) -> None:
    """The same log id and the same offsets, but other records: a restored backup."""
    log.append("a", "b", "c")
    log.append("d")
    log.append("e")
    mark = log.read(end=at).mark
    assert log.read(mark).mark.next == 5

    with pytest.raises(LogChanged):
        log.read(Mark(mark.log_id, 0, mark.next, log.other))
    with pytest.raises(LogChanged):
        log.buffer.release(FLIGHTS, [Mark(mark.log_id, 0, mark.next, log.other)])


def test_a_mark_ahead_of_the_log_is_refused(log: Log) -> None:
    """A log that lost its end would skip what it gets next."""
    log.append("a")
    mark = log.read().mark

    with pytest.raises(LogChanged):
        log.read(Mark(mark.log_id, 0, 2, mark.fingerprint))


def test_a_mark_of_a_partition_that_is_not_there_is_refused(any_log: Log) -> None:
    """It belongs to some other log."""
    any_log.append("a")
    there = any_log.buffer.extents(FLIGHTS)

    with pytest.raises(LogChanged):
        any_log.read(start_of(any_log.buffer.log_id(FLIGHTS), len(there)))


def test_a_mark_without_a_fingerprint_starts_anywhere(log: Log) -> None:
    """`tail` begins at the end, without having absorbed what is before."""
    log.append("a", "b", "c")

    assert payloads(log.read(Mark(log.buffer.log_id(FLIGHTS), 0, 2, ""))) == ["c"]


# Letting go


def test_released_offsets_are_kept_for_each_collection(log: Log) -> None:
    """Search and retention ask how far every store is."""
    log.append("a", "b")
    log.append("c", to=ORDERS)

    log.buffer.release(FLIGHTS, [log.read(end=1).mark])

    nobody = CollectionId("main", "nobody")
    assert log.buffer.released([FLIGHTS, ORDERS, nobody]) == {
        FLIGHTS: {0: 1},
        ORDERS: {0: 0},
        nobody: {0: 0},
    }
    assert log.buffer.released([]) == {}


def test_ends_of_many_collections_are_those_of_each(log: Log) -> None:
    """Landing and its sensor look at all of them again and again."""
    log.append("a", "b")
    log.append("c", to=ORDERS)
    nobody = CollectionId("main", "nobody")

    assert log.buffer.ends([FLIGHTS, ORDERS, nobody]) == {
        FLIGHTS: {0: 2},
        ORDERS: {0: 1},
        nobody: {0: 0},
    }
    assert log.buffer.ends([]) == {}


def test_what_is_kept_of_many_collections_is_what_is_kept_of_each(log: Log) -> None:
    """The books of hundreds are read at each look of Prometheus."""
    log.append("a", "b")
    log.append("c", to=ORDERS)
    nobody = CollectionId("main", "nobody")

    kept = log.buffer.kept([FLIGHTS, ORDERS, nobody])

    assert {one: (of.log_id, of.extents) for one, of in kept.items()} == {
        one: (log.buffer.log_id(one), log.buffer.extents(one)) for one in (FLIGHTS, ORDERS, nobody)
    }
    assert kept[FLIGHTS].extents == {0: Extent(0, 2)}
    assert log.buffer.kept([]) == {}


def test_glances_answer_when_the_first_record_of_each_span_was_received(log: Log) -> None:
    """As a read of each does, and a partition may be asked for more than once."""
    events = [event(name, received_at=NOON + number) for number, name in enumerate("abc")]
    log.appender.append(FLIGHTS, events).result(timeout=20)
    log.append("c", to=ORDERS)
    nobody = CollectionId("main", "nobody")
    first, all_ = log.read(end=1).mark, log.read().mark

    found = log.buffer.glance(
        [
            Glance(FLIGHTS, log.start(), 3),
            Glance(ORDERS, log.start(ORDERS), 1),
            Glance(FLIGHTS, first, 3),
            Glance(FLIGHTS, first, 1),
            Glance(FLIGHTS, all_, 3),
            Glance(FLIGHTS, all_, 9),
            Glance(FLIGHTS, Mark(log.buffer.log_id(FLIGHTS), 0, 2, ""), 3),
            Glance(nobody, log.start(nobody), 0),
        ]
    )

    assert found == [NOON, NOON, NOON + 1, None, None, None, NOON + 2, None]
    assert log.buffer.glance([]) == []


def test_a_glance_at_another_log_answers_what_a_read_would_raise(log: Log) -> None:
    """Status and metrics tell of a log that lost its end before landing meets it."""
    log.append("a", "b")
    log.append("c", to=ORDERS)
    here = log.buffer.log_id(FLIGHTS)
    wrong = [
        Mark(here, 0, 1, log.other),
        Mark(here, 0, 2, log.other),
        Mark(here, 0, 9, log.other),
        Mark("another", 0, 1, log.other),
    ]

    *found, well = log.buffer.glance(
        [*(Glance(FLIGHTS, mark, 2) for mark in wrong), Glance(ORDERS, log.start(ORDERS), 1)]
    )

    assert [isinstance(one, LogChanged) for one in found] == [True] * len(wrong)
    for mark, one in zip(wrong, found, strict=True):
        with pytest.raises(LogChanged) as raised:
            log.buffer.read(FLIGHTS, mark, end=2, max_bytes=1)
        assert str(raised.value) == str(one)
    assert well == NOON, "one that is wrong hides no other"


def test_releasing_less_takes_back(log: Log) -> None:
    """A table that was rolled back needs its records again."""
    log.append("a", "b")
    log.buffer.release(FLIGHTS, [log.read().mark])

    log.buffer.release(FLIGHTS, [log.read(end=1).mark])

    assert log.buffer.released([FLIGHTS])[FLIGHTS] == {0: 1}


class TestInSmallPieces:
    """Logs that forget what was released; Kafka forgets by age.

    The embedded log lets whole segments go, so these need a segment for each call.
    """

    @pytest.fixture(params=[memory, embedded_in_small_segments])
    def log(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
        yield from closing(request.param, tmp_path)

    def test_nothing_goes_before_it_was_released(self, log: Log) -> None:
        """A collection that nobody lands keeps its records."""
        for payload in "abc":
            log.append(payload)

        assert log.trim(0) == 0
        assert log.trim(10_000 * MINUTES) == 0
        assert payloads(log.read()) == ["a", "b", "c"]

    def test_what_was_released_goes_after_15_minutes(self, log: Log) -> None:
        """A search that began a moment ago still reads what was just landed."""
        for payload in ("ab", "c", "d"):
            log.append(*payload)
        mark = log.read(end=3).mark
        log.buffer.release(FLIGHTS, [mark])

        assert log.trim(0) == 0
        assert log.trim(15 * MINUTES - 1) == 0
        assert log.buffer.extents(FLIGHTS) == {0: Extent(0, 4)}
        assert log.trim(15 * MINUTES) == 2

        assert log.buffer.extents(FLIGHTS) == {0: Extent(3, 4)}
        assert payloads(log.read(mark)) == ["d"]
        assert log.append("e") == [Position(0, 4)]

    def test_a_mark_before_the_oldest_record_is_refused(self, log: Log) -> None:
        """Records that were never absorbed are gone: stop, do not skip."""
        for payload in ("ab", "c", "d"):
            log.append(*payload)
        first, second = log.read(end=1).mark, log.read(end=3).mark
        log.buffer.release(FLIGHTS, [second])
        log.trim(0)
        log.trim(15 * MINUTES)

        for mark in (log.start(), first):
            with pytest.raises(LogTruncated):
                log.read(mark)
        with pytest.raises(LogChanged):
            log.read(Mark(second.log_id, 0, 3, log.other))

    def test_only_what_is_released_whole_goes(self, log: Log) -> None:
        """The records of a call that is half absorbed are still needed."""
        for payload in ("a", "bc", "d"):
            log.append(*payload)
        log.buffer.release(FLIGHTS, [log.read(end=2).mark])
        log.trim(0)

        assert log.trim(15 * MINUTES) == 1
        assert log.buffer.extents(FLIGHTS) == {0: Extent(1, 4)}

    def test_taking_a_release_back_starts_the_time_anew(self, log: Log) -> None:
        """What a rolled back table needs again must not go because it was free once."""
        for payload in "abc":
            log.append(payload)
        log.buffer.release(FLIGHTS, [log.read(end=2).mark])
        log.trim(0)
        log.buffer.release(FLIGHTS, [log.start()])
        log.trim(10 * MINUTES)
        log.buffer.release(FLIGHTS, [log.read(end=2).mark])

        assert log.trim(20 * MINUTES) == 0
        assert log.trim(35 * MINUTES) == 2

    def test_a_collection_that_nobody_lands_holds_up_no_other(self, log: Log) -> None:
        """One deleted collection with a last event would otherwise fill the disk."""
        log.append("x", to=ORDERS)
        for payload in "abcd":
            log.append(payload)
        log.append("y", to=ORDERS)
        log.append("e")
        mark = log.read(end=3).mark
        log.buffer.release(FLIGHTS, [mark])
        log.trim(0)

        assert log.trim(15 * MINUTES) == 3
        assert log.trim(16 * MINUTES) == 0

        assert log.buffer.extents(FLIGHTS) == {0: Extent(3, 5)}
        assert payloads(log.read(mark)) == ["d", "e"]
        with pytest.raises(LogTruncated):
            log.read(log.start())
        assert log.buffer.extents(ORDERS) == {0: Extent(0, 2)}
        assert payloads(log.read(of=ORDERS)) == ["x", "y"]

        log.buffer.release(ORDERS, [log.read(of=ORDERS, end=1).mark])
        log.trim(20 * MINUTES)
        assert log.trim(35 * MINUTES) >= 1
        assert log.buffer.extents(ORDERS) == {0: Extent(1, 2)}
        assert payloads(log.read(mark)) == ["d", "e"]
