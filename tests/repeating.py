"""Senders that repeat themselves, over every way in, and the checker of what became of it.

Every event has a number, which its payload says, and is sent once to five times. Which copies share
a request, and in what order they come, follows from a seed. The checker believes the payload alone:
how an id is made of a request is what it is to find out.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import grpc
import httpx
from door_builders import TOKEN

from ingest_api.proto import records_pb2, services_pb2, services_pb2_grpc
from lakehouse import Lake
from lakehouse.catalog import main_table
from penstock.envelope import CollectionId

MOST_COPIES = 5
PER_REQUEST = 60
_LINES = 20
_NOON_MILLIS = 1_764_000_000_000


@dataclass(frozen=True, slots=True)
class Sending:
    """One request: which way it goes, and the numbers of its events, some of them twice."""

    way: str
    numbers: tuple[int, ...]


Way = Callable[["Doors", Sequence[int]], None]


class Doors:
    """The two doors of one process, and a collection to send to."""

    def __init__(self, http: str, grpc_address: str, collection: str = "flights") -> None:
        self._collection = collection
        self.turns = count()
        self._http = httpx.Client(
            base_url=http, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=60
        )
        self._channel = grpc.insecure_channel(grpc_address)
        self._relay = services_pb2_grpc.GRPCCollectorStub(self._channel)

    def close(self) -> None:
        """Hang up."""
        self._http.close()
        self._channel.close()

    def send(self, sending: Sending) -> None:
        """Send one request; it has to be accepted, all of it."""
        WAYS[sending.way](self, sending.numbers)

    def post(self, body: bytes, content_type: str, **headers: str) -> None:
        """Post to the HTTP door."""
        answer = self._http.post(
            f"/v1/events/{self._collection}",
            content=body,
            headers={"Content-Type": content_type} | headers,
        )
        if answer.status_code != httpx.codes.ACCEPTED:
            raise AssertionError(f"{answer.status_code}: {answer.text}")

    def relay(self, method: str, request: Any) -> None:
        """Call the gRPC door."""
        metadata = (("batch-token", TOKEN), ("penstock-collection", self._collection))
        answer = getattr(self._relay, method)(request, metadata=metadata, timeout=60)
        if answer.num_records_processed != len(request.records):
            raise AssertionError(str(answer))


def payload(number: int) -> bytes:
    """Answer the payload of an event; its way in may wrap it."""
    return b'{"n": %d, "leg": "%d"}' % (number, number % 7)


def number_of(stored: bytes) -> int:
    """Answer which event a stored payload is."""
    document = json.loads(stored)
    return int(document.get("data", document)["n"])


def _one(doors: Doors, numbers: Sequence[int]) -> None:
    """Send each with an idempotency key of its own, and each time to another partition."""
    for number in numbers:
        headers = {"Idempotency-Key": f"one-{number}", "Penstock-Key": f"{next(doors.turns) % 16}"}
        doors.post(payload(number), "application/json", **headers)


def _lines(doors: Doors, numbers: Sequence[int]) -> None:
    """Send lines with one key for all of them."""
    body = b"\n".join(payload(number) for number in numbers)
    doors.post(body, "application/x-ndjson", **{"Idempotency-Key": f"lines-{numbers[0]}"})


def _cloud(doors: Doors, numbers: Sequence[int]) -> None:
    """Send CloudEvents, whose ids are unique by source only."""
    elements = [
        b'{"specversion": "1.0", "id": "%d", "source": "/%d", "type": "leg", "data": %s}'
        % (number // 2, number % 2, payload(number))
        for number in numbers
    ]
    body = b"[" + b", ".join(elements) + b"]"
    doors.post(body, "application/cloudevents-batch+json")


def _kafka(doors: Doors, numbers: Sequence[int]) -> None:
    """Send what a relay read from a topic, with its coordinates."""
    records = [
        records_pb2.KafkaSinkRecord(
            topic="legs",
            partition=number % 4,
            offset=number // 4,
            timestamp=_NOON_MILLIS + number,
            value=payload(number),
        )
        for number in numbers
    ]
    doors.relay("AddKafkaRecord", services_pb2.KafkaSinkRecordRequest(records=records))


def _sqs(doors: Doors, numbers: Sequence[int]) -> None:
    """Send what a queue delivers again until it is acknowledged: its message ids stay."""
    records = [
        records_pb2.SQSRecord(messageid=f"m{number}", body=payload(number)) for number in numbers
    ]
    doors.relay("AddSQSRecord", services_pb2.SQSRecordRequest(records=records))


def _amqp(doors: Doors, numbers: Sequence[int]) -> None:
    """Send messages with the ids of their publishers, one for each exchange and routing key."""
    records = [
        records_pb2.AMQPSinkRecord(
            exchange="legs",
            routing_key=f"to.{number % 3}",
            message_id=f"{number // 3}",
            body=payload(number),
        )
        for number in numbers
    ]
    doors.relay("AddAMQPRecord", services_pb2.AMQPRecordRequest(records=records))


WAYS: dict[str, Way] = {
    "one": _one,
    "lines": _lines,
    "cloud": _cloud,
    "kafka": _kafka,
    "sqs": _sqs,
    "amqp": _amqp,
}

SHARES = {"one": 3, "lines": 26, "cloud": 20, "kafka": 20, "sqs": 16, "amqp": 15}
"""Of a hundred events, how many go each way."""


def schedule(events: int, seed: int) -> list[Sending]:
    """Answer the requests that send so many events once to five times, in their order."""
    chance = random.Random(seed)
    queues: list[list[Sending]] = []
    first = 0
    for way, share in SHARES.items():
        # Lots of lines are whole.
        numbers = range(first, first + events * share // 100 // _LINES * _LINES)
        first = numbers.stop
        queues.append(_HOW.get(way, _scattered)(way, numbers, chance))
    queues.append(_scattered("sqs", range(first, events), chance))
    # As many senders at once: each in its own order.
    turns = [queue for queue in queues for _ in queue]
    chance.shuffle(turns)
    return [queue.pop(0) for queue in turns]


def _scattered(way: str, numbers: Sequence[int], chance: random.Random) -> list[Sending]:
    """Each copy comes at any time, also twice in one request."""
    copies = [n for n in numbers for _ in range(chance.randint(1, MOST_COPIES))]
    chance.shuffle(copies)
    size = 1 if way == "one" else PER_REQUEST
    return [Sending(way, part) for part in _parts(copies, size)]


def _in_lots(way: str, numbers: Sequence[int], chance: random.Random) -> list[Sending]:
    """Send a body again as it was."""
    lots = [lot for lot in _parts(numbers, _LINES) for _ in range(chance.randint(1, MOST_COPIES))]
    chance.shuffle(lots)
    return [Sending(way, lot) for lot in lots]


def _by_a_relay(way: str, numbers: Sequence[int], chance: random.Random) -> list[Sending]:
    """Let a relay die between the log and the commit of its offset: it goes back to the last."""
    parts = list(_parts(numbers, PER_REQUEST))
    sent = [0] * len(parts)
    sendings = []
    at = committed = 0
    while at < len(parts):
        sendings.append(Sending(way, parts[at]))
        sent[at] += 1
        at += 1
        if chance.random() < 0.5 and max(sent[committed:at]) < MOST_COPIES:
            at = committed
        elif chance.random() < 0.5:
            committed = at
    return sendings


_HOW = {"lines": _in_lots, "kafka": _by_a_relay}


def _parts(numbers: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(numbers), size):
        yield tuple(numbers[start : start + size])


# What became of them


class Row(NamedTuple):
    """A row of the table: which event it is, what it says of itself, where it was on the log."""

    number: int
    event_id: str
    duplicate_of: str | None
    reused: bool
    place: tuple[str, int, int]


def rows_of(lake: Lake, collection: CollectionId) -> list[Row]:
    """Read the table itself."""
    table = lake.table(main_table(collection))
    names = ("payload", "event_id", "duplicate_of", "metadata")
    places = ("log_id", "log_partition", "log_offset")
    found = table.scan(selected_fields=names + places).to_arrow().to_pylist() if table else []
    return [
        Row(
            number_of(row["payload"]),
            row["event_id"],
            row["duplicate_of"],
            ("penstock_id", "reused") in (row["metadata"] or ()),
            (row["log_id"], row["log_partition"], row["log_offset"]),
        )
        for row in found
    ]


def faults(sent: Counter[int], rows: Sequence[Row], duplicates: int) -> list[str]:
    """Answer what is wrong with the rows; `sent` says how often each event was acknowledged.

    `duplicates` is how many of them repeat others, as the table says.
    """
    wrong = []
    if len({row.place for row in rows}) < len(rows):
        wrong.append("a position is there twice")
    copies: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        copies[row.number].append(row)
    for number in sorted(sent.keys() | copies.keys()):
        wrong += _faults_of(number, sent[number], copies[number])
    found = sum(row.duplicate_of is not None for row in rows)
    if found != duplicates:
        wrong.append(f"{duplicates} duplicates are counted, {found} are there")
    return wrong


def _faults_of(number: int, sent: int, rows: Sequence[Row]) -> Iterator[str]:
    if len(rows) != sent:
        yield f"{number}: sent {sent} times, {len(rows)} rows"
    shown = [row for row in rows if row.duplicate_of is None]
    if len(shown) > 1:
        yield f"{number}: shown {len(shown)} times"
    if rows and not shown:
        yield f"{number}: every copy points at a duplicate"
    for row in rows:
        if shown and row.duplicate_of not in (None, shown[0].event_id):
            yield f"{number}: a copy points at {row.duplicate_of}"
        if row.reused:
            yield f"{number}: taken for another event with its id"
        # Of two partitions the first to land counts; within one, the first on the log.
        if shown and row.place[:2] == shown[0].place[:2] and row.place < shown[0].place:
            yield f"{number}: a copy comes before the row that is shown"
