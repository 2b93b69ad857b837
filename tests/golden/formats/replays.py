"""What replays send, keep and tell: to destinations, to their own processes, in files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import pyarrow as pa
from builders import FLIGHTS, NOON, event
from door_builders import SHIPS, TOKEN, FailingLog, client_on, door_on
from far_sides import HERE, sent
from lakes import landing, new_lake
from pamqp import frame
from pamqp.header import ContentHeader
from platform_stand_ins import LOG_ID, plan
from receiving import Reply, Request, receiving

from golden.formats.given import (
    EVENTS,
    Consumed,
    Format,
    Record,
    events_in,
    in_lines,
    of_lines,
    told,
)
from ingest_api.enveloped import enveloped as envelopes_in
from lakehouse.sql import open_engine
from penstock.buffer.kafka_codec import Records
from penstock.buffer.memory import MemoryLog
from penstock.cli.replay import plan_in
from penstock.cli.send import with_envelopes
from penstock.contract.replays import SavedPlan
from penstock.envelope import Enveloped, Event, Position
from penstock.guard import Guard
from penstock.lines import enveloped, read_line
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
from replay.attempted import WORD, Attempted
from replay.doorway import Doorway
from replay.events import one_event
from replay.files import About, Segments, folder_of, lines_of, written
from replay.ledger import ATTEMPTS, add_lines
from replay.progress import Attempt, Attempts
from replay.request import read_request
from replay.saved import content_of, kept_as, read
from replay.targets import Delivered, Failed, Message, Parcel, Retry, Skipped, Target
from replay.targets.kafka import KafkaTarget
from replay.targets.opening import open_target
from replay.targets.rabbitmq import RabbitTarget
from replay.targets.rabbitmq import headers_of as headers_of_table
from replay.targets.sending import Answered, Begin, Frames, Handed, outcome_of, parts_of
from replay.targets.sqs import headers_of as headers_of_attributes
from replay.targets.sqs import payload_of

REPLAY = "9f2c1a0b"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ATTEMPT = 2

# What a replay says of each of the events, in the order of buses.
ADDED: tuple[tuple[tuple[str, bytes], ...], ...] = tuple(
    (
        ("penstock-replay-id", b"9f2c1a0b"),
        ("penstock-event-id", name),
        ("penstock-collection", b"main.flights"),
        ("penstock-attempt", b"2"),
        ("penstock-received-at", at),
    )
    for name, at in (
        (b"e-1", b"2025-11-24T16:00:00.000000Z"),
        (b"e-2", b"2025-11-24T16:00:00.000001Z"),
    )
)
OWN = (("X-Shop", b"north"), ("x-raw", b"\xff\x00"))
PAYLOADS = ('{"n": 1, "city": "Zürich", "at": {"gate": "A 1"}}'.encode(), b"\x00\x01\n")
ENVELOPED = [
    Enveloped(
        payload=PAYLOADS[0],
        id="e-1",
        content_type="application/json",
        key=b"k1",
        headers=(*OWN, *ADDED[0]),
        metadata={"topic": "orders", "partition": "3"},
        event_time=NOON - 1_500_000,
    ),
    Enveloped(payload=PAYLOADS[1], id="e-2", headers=ADDED[1]),
]


def _opened(kind: Kind, url: str, *, port: int = 0, files: Path | None = None, **of: Any) -> Target:
    """Open a destination for the replay whose events are written here."""
    return open_target(
        Destination(team="main", name="d1", kind=kind, url=url, created_at=NOON, **of),
        guard=Guard((HERE,), (port,)),
        replay_id=REPLAY,
        collection=FLIGHTS,
        clock=lambda: NOON + 60_000_000,
        files=files,
        doorway=Doorway(f"http://127.0.0.1:{port}", lambda _: TOKEN),
    )


def _taken(
    kind: Kind,
    url: str,
    answer: Callable[[Request], Reply] = lambda _: Reply(),
    *,
    events: Sequence[Event] = EVENTS,
    **of: Any,
) -> list[Request]:
    """Send the events to who takes them by HTTP; answer the requests that came, without a port."""
    with receiving(answer) as receiver:
        target = _opened(kind, url.format(receiver.port), port=receiver.port, **of)
        outcomes = sent(target, events, attempt=ATTEMPT)
        assert {type(one) for one in outcomes} == {Delivered}
        port = b":%d" % receiver.port
        return [
            Request(
                one.method,
                one.path,
                tuple((name, text.replace(port, b"")) for name, text in one.headers),
                one.body.replace(port + b"/", b"/"),
                one.connection,
            )
            for one in receiver.requests
        ]


# HTTP: signed, with a header of the destination's own. The payload is at the end of each request.
TEXTS = (EVENTS[0], msgspec.structs.replace(EVENTS[1], payload=b"no JSON"))
_BETWEEN = b"\n=====\n"


def _write_http() -> bytes:
    own = (("Authorization", "Bearer hidden"), ("X-Where", "{event.partition}/{event.offset}"))
    requests = _taken(
        "http",
        "http://127.0.0.1:{}/in",
        events=TEXTS,
        headers=own,
        options={"signing": "standard"},
        secret=SECRET,
    )
    return _BETWEEN.join(
        b"\n".join(
            [
                f"{one.method} {one.path}".encode(),
                *(name + b": " + text for name, text in one.headers),
                b"",
                one.body,
            ]
        )
        for one in requests
    )


def _read_http(data: bytes) -> object:
    """Answer what a door stores of each request, and what it says where the events came from."""
    log, found = FailingLog(), []
    client = client_on(door_on(log))
    for request in data.split(_BETWEEN):
        head, _, body = request.partition(b"\n\n")
        pairs = [line.split(b": ", 1) for line in head.split(b"\n")[1:]]
        headers = [(name.lower(), text) for name, text in pairs if name != b"Authorization"]
        for where in (SHIPS, FLIGHTS):
            said = asyncio.run(client.call(body, f"/v1/events/{where}", headers=headers))
            found.append(None if said is None else said.status)
    return found, [msgspec.structs.replace(one, received_at=NOON) for one in log.events]


# Kafka


def _write_kafka() -> bytes:
    target = cast(
        KafkaTarget,
        _opened(
            "kafka",
            "kafka://broker.example:9092/orders",
            options={"partition": "kept", "timestamps": "original"},
        ),
    )
    records = []
    for number, one in enumerate(EVENTS):
        message = Message(one, Position(0, number), ATTEMPT)
        [made] = target._records(_parcel(message))
        payload, key, headers, partition, milliseconds = made
        assert headers is not None
        pairs = [(name, text if isinstance(text, str) else told(text)) for name, text in headers]
        records.append(
            Record(
                topic="orders",
                partition=partition,
                milliseconds=milliseconds,
                key=None if key is None else told(key),
                value=told(payload),
                headers=pairs,
            )
        )
    asyncio.run(target.close())
    return in_lines(records)


def _parcel(message: Message) -> Parcel:
    return Parcel(one_event(message.position, message.event), 0, 1, message.attempt)


def _read_kafka(data: bytes) -> object:
    """Answer what a log on Kafka makes of records that are not its own."""
    records = Records()
    records.add([Consumed(one, n) for n, one in enumerate(of_lines(data))], max_bytes=1 << 20)
    return [event for _, event in events_in(records.batch(LOG_ID, 0))]


# RabbitMQ: the frame of each message that says everything but its body.


def _write_rabbit() -> bytes:
    target = cast(RabbitTarget, _opened("rabbitmq", "amqp://broker.example/"))
    frames = []
    for number, one in enumerate(EVENTS):
        properties = target.properties(Message(one, Position(0, number), ATTEMPT))
        assert not isinstance(properties, Failed)
        header = ContentHeader(body_size=len(one.payload), properties=properties)
        frames.append(frame.marshal(header, 1))
    return b"".join(frames)


def _read_rabbit(data: bytes) -> object:
    found = []
    while data:
        size, _, header = frame.unmarshal(data)
        assert isinstance(header, ContentHeader)
        of = header.properties
        found.append((of.message_id, of.content_type, headers_of_table(of.headers or {})))
        data = data[size:]
    return found


# SQS: of a FIFO queue, which has a group and an id of each message.


def _write_sqs() -> bytes:
    done = msgspec.json.encode({"Successful": [{"Id": str(n)} for n in range(len(EVENTS))]})
    [request] = _taken(
        "sqs",
        "sqs+http://127.0.0.1:{}/0123/orders.fifo",
        lambda _: Reply(body=done),
        options={"region": "here"},
        secret="key:secret",
    )
    return f"{request.header('x-amz-target')}\n".encode() + request.body


def _read_sqs(data: bytes) -> object:
    found = []
    for entry in msgspec.json.decode(data.partition(b"\n")[2])["Entries"]:
        attributes = {
            name: one.get("StringValue") or msgspec.convert(one["BinaryValue"], bytes)
            for name, one in entry["MessageAttributes"].items()
        }
        payload = payload_of(entry["MessageBody"], attributes.get("penstock-encoding"))
        found.append((payload, headers_of_attributes(attributes.items())))
    return found


# A collection, and files: the lines that are written, and those that somebody sends.

LINES = b"""\
{"payload":{"n": 1}}

{"id":"e-1","received_at":"2025-11-24T16:00:00Z","event_time":"2025-11-24T15:59:58.500000Z",\
"source":"http","content_type":"text/plain","key":{"base64":"/wA="},\
"headers":[["X-Shop","north"],["x-raw",{"base64":"/wA="}]],"metadata":{"topic":"orders"},\
"payload_base64":"AAEK"}
"""


def _write_collection() -> bytes:
    done = b'{"accepted":%d}' % len(EVENTS)
    [request] = _taken("collection", "collection://ships", lambda _: Reply(202, body=done))
    return request.body


def _read_envelopes(data: bytes) -> object:
    return list(envelopes_in(data, most=10, max_event_bytes=1_000))


def _write_file() -> bytes:
    with TemporaryDirectory() as folder:
        target = _opened("file", "file://orders", files=Path(folder))
        assert sent(target, EVENTS, attempt=ATTEMPT) == [Delivered(None)] * len(EVENTS)
        return (folder_of(Path(folder), REPLAY) / "000001.segment").read_bytes()


def _read_file(data: bytes) -> object:
    with TemporaryDirectory() as folder:
        (Path(folder) / "000001.segment").write_bytes(data)
        return [enveloped(read_line(line)) for line in lines_of(Path(folder))]


ABOUT = About("main", "orders", "parquet")


def _write_about() -> bytes:
    with TemporaryDirectory() as folder:
        with closing(Segments(Path(folder), ABOUT)) as segments:
            segments.append({Position(0, 0): b"{}\n"})
        return (Path(folder) / "about.json").read_bytes()


def _read_about(data: bytes) -> object:
    with TemporaryDirectory() as folder:
        (Path(folder) / REPLAY).mkdir()
        (Path(folder) / REPLAY / "about.json").write_bytes(data)
        return written(Path(folder), REPLAY).about


# A plan in a file

REQUEST = read_request(
    {
        "collection": "flights",
        "query": "city:Zürich",
        "since": "2025-11-24",
        "destination": "d1",
        "rate": 50,
        "transform": ["remove debug"],
        "max_events": 7,
    },
    team="main",
)
UNTIL = NOON + 7 * 86_400_000_000
PLAN = msgspec.structs.replace(plan(REQUEST), pin=kept_as(REPLAY, UNTIL))


def _write_plan() -> bytes:
    to = Destination(team="main", name="d1", url="https://d1.example/in", created_at=NOON)
    values = content_of(REQUEST, PLAN, to, id=REPLAY, planned_by="ops (t1)", until=UNTIL)
    return (SavedPlan.model_validate(values).model_dump_json(indent=2) + "\n").encode()


def _read_plan(data: bytes) -> object:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_bytes(data)
        saved = read(plan_in(file).model_dump(exclude_unset=True), team="main")
    return saved.id, saved.until, saved.request, saved.plan, saved.to


# The ledger

ROW = Attempt(
    replay=REPLAY,
    epoch=3,
    event_id="e-0",
    team="main",
    collection="flights",
    partition=0,
    offset=7,
    attempt=1,
    kind="intent",
    at="2025-11-24T16:00:00.000000Z",
    destination="d1",
    who="run 1",
    log_id=LOG_ID,
    transform="5f2c6d3e",
    last=7,
)
ROWS: tuple[Attempts, ...] = (
    Attempts(ROW, ["e-1", "e-3"], [8, 10]),
    Attempts(
        msgspec.structs.replace(
            ROW, kind="outcome", outcome="delivered", status=200, latency_ms=12.5
        ),
        ["e-1"],
        [8],
    ),
    Attempts(
        msgspec.structs.replace(
            ROW,
            kind="outcome",
            outcome="failed",
            event_id="e-3",
            offset=10,
            last=10,
            status=422,
            reason="answered 422",
            latency_ms=3.0,
            transform=None,
        )
    ),
)


def _write_ledger() -> bytes:
    body = bytearray()
    for rows in ROWS:
        add_lines(body, rows)
    return bytes(body)


def _read_ledger(data: bytes) -> object:
    """Answer the offsets of what arrived, and of what is left to be tried again, as SQL has it."""
    with TemporaryDirectory() as folder:
        log, lake = MemoryLog(), new_lake(Path(folder))
        log.append(ATTEMPTS, [event(line) for line in data.splitlines()])
        while landing(log, lake).land_once(ATTEMPTS):
            pass
        view = lake.view(ATTEMPTS)
        assert view is not None
        assert view.snapshot_id is not None
        with closing(open_engine(Path(folder) / "sql", memory="200MB", threads=1)) as engine:
            ledger = Attempted(engine, view, view.snapshot_id, collection=FLIGHTS, log_id=LOG_ID)
            return _offsets(ledger.arrived("d1")), _offsets(ledger.left(REPLAY))


def _offsets(words: pa.Table) -> list[int]:
    return [
        row["word"] * WORD + bit
        for row in words.to_pylist()
        for bit in range(WORD)
        if row["bits"] >> bit & 1
    ]


# What is said between a replay and the processes that send for it

BEGIN = Begin(
    destination=Destination(
        team="main",
        name="d1",
        url="https://d1.example/in",
        headers=(("Authorization", "Bearer hidden"),),
        options={"signing": "standard"},
        secret=SECRET,
        credentials={"client_secret": "hidden"},
        created_at=NOON,
        rate=50.0,
    ),
    networks=("127.0.0.1/32",),
    ports=(8443,),
    replay_id=REPLAY,
    collection=FLIGHTS,
    headers="add",
    marked=True,
    timeout=30.0,
)
HANDED = [Handed(1, 12.5, Message(EVENTS[0], Position(3, 17), 1)),
          Handed(2, 13.0, Message(EVENTS[1], Position(3, 18), 2))]  # fmt: skip
OUTCOMES = [
    Delivered(202, "answered 202 there, 409 here"),
    Retry("answered 503", 503, 2.5),
    Failed("answered 422", 422),
    Skipped(),
]


class _Line(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: Any) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return False


def _in_frames(said: Sequence[bytes]) -> bytes:
    async def main() -> bytes:
        frames, line = Frames(lambda _: None, lambda: None), _Line()
        frames.connection_made(line)
        for one in said:
            frames.say(one)
        await asyncio.sleep(0)
        return line.data

    return asyncio.run(main())


def _frames_in(data: bytes) -> list[bytes]:
    async def main() -> list[bytes]:
        heard: list[bytes] = []
        frames = Frames(heard.append, lambda: None)
        frames.data_received(data[:7])
        frames.data_received(data[7:])
        return heard

    return asyncio.run(main())


def _read_handed(data: bytes) -> object:
    begin, *handed = _frames_in(data)
    return msgspec.msgpack.decode(begin, type=Begin), [
        msgspec.msgpack.decode(one, type=Handed) for one in handed
    ]


def _read_answered(data: bytes) -> object:
    ready, *answered = _frames_in(data)
    return ready, [outcome_of(msgspec.msgpack.decode(one, type=Answered)) for one in answered]


# What is read in what went to destinations


def _posted(number: int, signature: bytes) -> tuple[tuple[str, bytes], ...]:
    """Answer the headers of a request behind the event's own."""
    replay, name, collection, attempt, at = ADDED[number]
    return (
        *(replay, collection, attempt, at, name),
        ("x-where", b"0/%d" % number),
        ("webhook-id", name[1]),
        ("webhook-timestamp", b"1764000060"),
        ("webhook-signature", b"v1," + signature),
    )


POSTED = (
    [202, 409, 202, 409],
    [
        Event(
            id="e-1",
            received_at=NOON,
            payload=PAYLOADS[0],
            source="http",
            content_type="application/json",
            headers=(
                ("x-shop", b"north"),
                *_posted(0, b"kO7fjS6sJw/+4kqDwAItc2gbbVIivaMh1eP+4wLG7zw="),
            ),
            named=True,
        ),
        Event(
            id="e-2",
            received_at=NOON,
            payload=b"no JSON",
            source="http",
            headers=_posted(1, b"lPtzZNLdfy1fmmxcUKmKXRc6l6jv7xvWI9aVugZUU+U="),
            named=True,
        ),
    ],
)
"""Another collection takes it with its id; the one that it was taken from does not."""

CONSUMED = [
    Event(
        id="orders-3-0",
        received_at=NOON - 1_500_000,
        payload=PAYLOADS[0],
        source="kafka",
        key=b"k1",
        headers=(*OWN, ("content-type", b"application/json"), *ADDED[0]),
        metadata={"topic": "orders", "partition": "3", "offset": "0"},
    ),
    Event(
        id="orders--1-1",
        received_at=NOON,
        payload=PAYLOADS[1],
        source="kafka",
        headers=ADDED[1],
        metadata={"topic": "orders", "partition": "-1", "offset": "1"},
    ),
]

# A table of AMQP is written by name.
DELIVERED = [
    ("e-1", "application/json", sorted([*OWN, ("penstock-key", b"k1"), *ADDED[0]])),
    ("e-2", None, sorted(ADDED[1])),
]
RECEIVED = [
    (
        PAYLOADS[0],
        [*OWN, ("penstock-key", b"k1"), ("content-type", b"application/json"), *ADDED[0]],
    ),
    (PAYLOADS[1], [("penstock-encoding", b"base64"), *ADDED[1]]),
]
LINES_SENT = [
    Enveloped(payload=b'{"n": 1}'),
    Enveloped(
        payload=PAYLOADS[1],
        id="e-1",
        content_type="text/plain",
        key=b"\xff\x00",
        headers=OWN,
        metadata={"topic": "orders"},
        event_time=NOON - 1_500_000,
    ),
]

FORMATS = (
    Format("replay-http.txt", _write_http, _read_http, POSTED),
    Format("replay-kafka.ndjson", _write_kafka, _read_kafka, CONSUMED),
    Format("replay-rabbitmq.hex", _write_rabbit, _read_rabbit, DELIVERED),
    Format("replay-sqs.txt", _write_sqs, _read_sqs, RECEIVED),
    Format("replay-collection.hex", _write_collection, _read_envelopes, ENVELOPED),
    Format("replay-file.ndjson", _write_file, _read_file, ENVELOPED),
    Format("replay-file-about.json", _write_about, _read_about, ABOUT),
    Format("send-envelopes.hex", lambda: with_envelopes(LINES, 0), _read_envelopes, LINES_SENT),
    Format(
        "plan.json",
        _write_plan,
        _read_plan,
        (
            REPLAY,
            UNTIL,
            REQUEST,
            PLAN,
            {"kind": "http", "url": "https://d1.example/in", "options": {}},
        ),
    ),
    Format("ledger.ndjson", _write_ledger, _read_ledger, ([7, 8], [10])),
    Format(
        "sender-handed.hex",
        lambda: _in_frames([msgspec.msgpack.encode(one) for one in (BEGIN, *HANDED)]),
        _read_handed,
        (BEGIN, HANDED),
    ),
    Format(
        "sender-answered.hex",
        lambda: _in_frames(
            [b"", *(msgspec.msgpack.encode(parts_of(n, one)) for n, one in enumerate(OUTCOMES))]
        ),
        _read_answered,
        (b"", OUTCOMES),
    ),
)
