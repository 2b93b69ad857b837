"""What is on the log, here and on Kafka, and what doors go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import msgspec
import zstandard
from builders import FLIGHTS, NOON
from metadata_builders import collection, token

from golden.formats.given import EVENTS, Consumed, Format, Record, events_in, in_lines, of_lines
from golden.formats.given import told as as_told
from penstock.buffer import Keeping, frames, published
from penstock.buffer.frames import Tail
from penstock.buffer.kafka import KafkaAppender, read_place
from penstock.buffer.kafka_codec import Records
from penstock.buffer.published import Published
from penstock.cache.embedded import EmbeddedCache
from penstock.cache.parts import cut, put_together, read_head
from penstock.codec import Gathering, encode
from penstock.envelope import CollectionId, Position
from penstock.metadata.records import Known

LOG_ID = "5f2c6d3e-0000-4000-8000-00000000000a"
_ADDRESS, _DURABLE, _FIRST, _INCARNATION = 4_096, 2_048, 17, 3

ENDS = {FLIGHTS: Tail(17, 3, 0xDEADBEEF), CollectionId("other", "ships"): Tail(0, 1, 5)}
STATE = Published(UUID(LOG_ID), UUID(int=11), 6, 8_192, 4_096, 2)

KNOWN = Known(
    version=7,
    collections=(
        collection(),
        msgspec.structs.replace(
            collection(CollectionId("main", "ships"), paused=True, partitions=4),
            contract="freeze",
            notes="of Zürich",
            allow_loops=True,
            keep_days=30,
        ),
    ),
    tokens=(token(1), token(2, scopes=("read", "replay"), collection="flights", expires_at=NOON)),
)


def _frame(body: bytes, kind: int, which: CollectionId | None, first: int, events: int) -> bytes:
    header, _ = frames.pack_header(
        body,
        kind=kind,
        collection=which,
        address=_ADDRESS,
        durable=_DURABLE,
        incarnation=_INCARNATION,
        first=first,
        events=events,
        seed=frames.seed_of(LOG_ID),
    )
    return header + body


def _body(data: bytes) -> tuple[frames.Frame, memoryview]:
    frame = frames.parse_header(data, 0, _ADDRESS, frames.seed_of(LOG_ID))
    assert frame is not None
    body = frames.whole(frame, data)
    assert body is not None
    return frame, body


def _write_records() -> bytes:
    return _frame(encode(EVENTS), frames.RECORDS, FLIGHTS, _FIRST, len(EVENTS))


def _read_records(data: bytes) -> object:
    frame, body = _body(data)
    gathering = Gathering()
    gathering.add(body, frame.first, 0, frame.events)
    return frame.collection, frame.durable, events_in(gathering.batch(LOG_ID, 0))


def _write_head() -> bytes:
    return _frame(frames.pack_head(ENDS), frames.HEAD, None, 0, 0)


def _read_head(data: bytes) -> object:
    return frames.parse_head(_body(data)[1])


class _Producer:
    """Takes records and says that they arrived."""

    def __init__(self) -> None:
        self.given: list[Record] = []
        self._reports: list[Callable[[], None]] = []

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes | None,
        partition: int,
        reported: Callable[[None, Consumed], None],
        *,
        headers: list[tuple[str, bytes]],
    ) -> None:
        record = Record(
            topic=topic,
            partition=partition,
            key=None if key is None else as_told(key),
            value=as_told(value),
            headers=[(name, as_told(text)) for name, text in headers],
        )
        message = Consumed(record, len(self.given))
        self.given.append(record)
        self._reports.append(lambda: reported(None, message))

    def poll(self, timeout: float) -> int:
        while self._reports:
            self._reports.pop(0)()
        time.sleep(min(timeout, 0.001))
        return 0

    def purge(self, *, in_flight: bool = True) -> None:
        """Nothing is kept back."""

    def __len__(self) -> int:
        return len(self._reports)


def _write_kafka() -> bytes:
    producer: Any = _Producer()
    place = read_place("kafka://nobody.example:9092/penstock")
    appender = KafkaAppender(place, keeping=Keeping(), producers=lambda: producer)
    try:
        appender.knows(FLIGHTS, 4)
        appender.append(FLIGHTS, EVENTS).result(30)
    finally:
        appender.close()
    return in_lines(producer.given)


def _read_kafka(data: bytes) -> object:
    records = Records()
    records.add([Consumed(one, n) for n, one in enumerate(of_lines(data))], max_bytes=1 << 20)
    return [event for _, event in events_in(records.batch(LOG_ID, 0))]


def _write_known() -> bytes:
    with TemporaryDirectory() as folder:
        EmbeddedCache(folder).publish(lambda: KNOWN)
        return (Path(folder) / "known.json").read_bytes()


def _read_known(data: bytes) -> object:
    with TemporaryDirectory() as folder:
        (Path(folder) / "known.json").write_bytes(data)
        return EmbeddedCache(folder).read()


def _write_seen() -> bytes:
    with TemporaryDirectory() as folder:
        cache = EmbeddedCache(folder)
        cache.publish(lambda: KNOWN)
        cache.read()
        cache.seen("door-1")
        [file] = (Path(folder) / "doors").iterdir()
        return file.read_bytes()


def _read_seen(data: bytes) -> object:
    with TemporaryDirectory() as folder:
        cache = EmbeddedCache(folder)
        cache.publish(lambda: KNOWN)
        (Path(folder) / "doors").mkdir()
        (Path(folder) / "doors" / "one.json").write_bytes(data)
        return cache.doors()


def _write_parts() -> bytes:
    """Answer the head, and each part behind its name, unpacked: how it is packed is zstd's."""
    head, parts = cut(KNOWN)
    lines = [msgspec.json.encode(head)]
    for name, part in parts.items():
        lines += [name.encode(), zstandard.decompress(part), b""]
    return b"\n".join(lines)


def _read_parts(data: bytes) -> object:
    head, _, rest = data.partition(b"\n")
    found = [part.partition("\n") for part in rest.decode().split("\n\n") if part]
    parts = {name: zstandard.compress(body.rstrip("\n").encode()) for name, _, body in found}
    return put_together(read_head(head), parts, {})


FORMATS = (
    Format(
        "log-records.hex",
        _write_records,
        _read_records,
        (FLIGHTS, _DURABLE, [(Position(0, _FIRST + n), one) for n, one in enumerate(EVENTS)]),
    ),
    Format("log-head.hex", _write_head, _read_head, ENDS),
    Format(
        "log-durable.hex",
        lambda: published.pack_slot(STATE),
        lambda data: published.newest(data.ljust(2 * published.SLOT, b"\0"), LOG_ID),
        STATE,
    ),
    Format("log-kafka.ndjson", _write_kafka, _read_kafka, list(EVENTS)),
    Format("known.json", _write_known, _read_known, KNOWN),
    Format("known-parts.txt", _write_parts, _read_parts, KNOWN),
    Format("known-seen.json", _write_seen, _read_seen, {"door-1": True}),
)
