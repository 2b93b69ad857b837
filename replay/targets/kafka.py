"""Replay to Kafka: one record per event, by an idempotent producer.

A `send` is one batch: all its records are given to the producer, which may still be busy with the
batch before. It reports on those that it could not deliver, and lets go of the others once they
are. When a record is to be tried again, the time of a batch is over, or its call is cancelled, what
the producer still has is taken back from its queues, and so reported, and the producer is thrown
away. So a partition gets a beginning of what was given, and nothing behind an event whose outcome
is `Retry`: the promise of `ordered`. One case is left: a broker that refuses records for want of a
right or of the topic, and takes those behind them because, in the few milliseconds until the
refusal is heard here, somebody granted the right or made the topic. (The client could exclude it,
but would then end with every record that is too large, too.)

The client is a C library that resolves names and opens sockets by itself, and goes where the
cluster's metadata says. The guard is kept around it:

- the brokers named by the destination are looked up here; without TLS the client is given the
  addresses that passed, with TLS the names (certificates are issued for them);
- metadata is asked for first, over a connection of our own (`replay.targets.kafka_metadata`); every
  broker that the cluster advertises has to pass, with all addresses of its name, before the client
  is made. (Asked through the client it is too late: it connects to an advertised broker as soon as
  it has heard of it, tried.)
- twice a second the client says which brokers it knows, and one that did not pass ends it.

What is left: between a look-up here and the client's own a name server may change its mind, and a
cluster may advertise another broker and the client connect to it before the next look. Neither
answers to anybody but the client, and no event goes to a broker that does not speak Kafka.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any, Literal

import msgspec

from penstock.envelope import CollectionId, Micros
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Guard, GuardedResolver, Lookup, system_lookup
from replay.events import Events, Headers
from replay.targets import (
    GONE,
    NO_CONNECTION,
    NO_HOST,
    NO_TLS,
    NOT_CONFIRMED,
    NOT_LET_IN,
    NOT_TRUSTED,
    REFUSED,
    TOO_LARGE,
    Delivered,
    Failed,
    Message,
    Outcome,
    Parcel,
    Retry,
    needs,
    parcels_of,
)
from replay.targets.added import CONTENT_TYPE, Added, has_type
from replay.targets.kafka_metadata import UNKNOWN_TOPIC, Login, NotLetIn, Told, ask_cluster
from replay.targets.places import KafkaOptions, KafkaPlace, Timestamps

try:
    from confluent_kafka import KafkaError, KafkaException, Producer
except ImportError as error:
    raise needs("confluent-kafka", "kafka") from error

BATCH = 5_000
CONNECT_SECONDS = 5.0
_SLICE_SECONDS = 0.05
_LOOK_MS = 500
_LAST_SECONDS = 1.0
# Records that are given before reports are served.
_SERVED = 500

# A batch of several events is never larger than what the topic takes (brokers take 1 MiB by
# default), so that a batch which is found too large was an event that stood alone.
_BATCH_BYTES = 512 << 10
_MOST_BYTES = 100 << 20

_REFUSED_EVENT = Failed("the destination refused the event")
_NO_PARTITION = Failed("the topic has no such partition")
_NOT_CARRIED = Failed("Kafka cannot carry this event's headers")
_NOT_KAFKA = Retry("the answer is not Kafka's; a listener with TLS needs the option tls")
_NOT_TAKEN = Retry("the destination did not take the event")
_DELIVERED = Delivered(None)
_ANY_PARTITION = -1
_NOW = 0
_LAST_PARTITION = 2**31 - 1
_KNOWN_NAMES = 1_000

_Headers = list[tuple[str, bytes | str]]
_Record = tuple[bytes, bytes | None, _Headers | None, int, int]
"""Payload, key, headers, partition, time in milliseconds."""

_OUTCOMES: dict[int, Outcome] = {
    KafkaError.MSG_SIZE_TOO_LARGE: TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: TOO_LARGE,
    KafkaError.INVALID_MSG: _REFUSED_EVENT,
    KafkaError.INVALID_RECORD: _REFUSED_EVENT,
    KafkaError._UNKNOWN_PARTITION: _NO_PARTITION,  # noqa: SLF001 - the client's own spelling
    KafkaError.UNKNOWN_TOPIC_OR_PART: GONE,
    KafkaError._UNKNOWN_TOPIC: GONE,  # noqa: SLF001
    KafkaError.TOPIC_AUTHORIZATION_FAILED: NOT_LET_IN,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: NOT_LET_IN,
    KafkaError.SASL_AUTHENTICATION_FAILED: NOT_LET_IN,
    KafkaError._AUTHENTICATION: NOT_LET_IN,  # noqa: SLF001
    KafkaError._SSL: NO_TLS,  # noqa: SLF001
    KafkaError._TRANSPORT: NO_CONNECTION,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: NO_CONNECTION,  # noqa: SLF001
    KafkaError._RESOLVE: NO_HOST,  # noqa: SLF001
    KafkaError._PURGE_QUEUE: NOT_CONFIRMED,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT: NOT_CONFIRMED,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT: NOT_CONFIRMED,  # noqa: SLF001
    KafkaError._TIMED_OUT: NO_CONNECTION,  # noqa: SLF001
}


class KafkaTarget:
    """Produces events to one topic. Opens nothing before the first `send`."""

    most = BATCH
    ordered = True

    def __init__(
        self,
        place: KafkaPlace,
        options: KafkaOptions,
        login: tuple[str, str] | None,
        *,
        guard: Guard,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 30.0,
        own_topics: str = "penstock.",
        lookup: Lookup = system_lookup,
    ) -> None:
        """Refuse, as `BadRequest`, a topic that begins as those of Penstock's own log do."""
        refuse_own_topic(place.topic, own_topics)
        self._place = place
        self._options = options
        self._login = login
        self._guard = guard
        self._lookup = lookup
        self._added = Added(replay_id, collection, headers, marked=marked)
        self._names: set[str] = set()
        self._seconds = timeout
        self._connect_seconds = min(timeout, CONNECT_SECONDS)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="replay to Kafka")
        self._producer: _Guarded | None = None
        self._opening = asyncio.Lock()
        self._to_give: set[_Batch] = set()

    def check(self, message: Message) -> Failed | None:
        """Look at the headers' names; the client would cut one at its first NUL."""
        return None if self._carries(message.event.headers) else _NOT_CARRIED

    def _carries(self, headers: Headers) -> bool:
        known = self._names
        for name, _ in headers:
            if name not in known:
                if "\0" in name or (not name.isprintable() and not _is_text(name)):
                    return False
                if len(known) < _KNOWN_NAMES:
                    known.add(name)
        return True

    async def examine(self) -> str | None:
        """Ask the cluster for its brokers and the topic, and whether we may write to it."""
        found = await self._look()
        if not isinstance(found, Told):
            return "there is no such topic" if found is GONE else found.reason
        return "this user may not write to the topic" if found.may_write is False else None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Give all of them to the producer, and wait until it has let go of each."""
        async with self._opening:  # so that none overtakes the one that opens
            refusal = await self._open() if self._producer is None else None
        if self._producer is None:
            return [refusal or NOT_CONFIRMED] * len(messages)
        batch = _Batch(messages, self._producer, time.monotonic() + self._seconds)
        self._to_give.add(batch)
        loop = asyncio.get_running_loop()
        try:
            while not await loop.run_in_executor(self._threads, self._bring_on, batch):
                pass
        except asyncio.CancelledError:
            self._to_give.discard(batch)
            batch.producer.stopped = True
            raise
        return batch.outcomes

    async def close(self) -> None:
        """Take back what was not sent, and let go of every connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopped = True
            # A send that was cancelled has the thread until it has seen that it was.
            await asyncio.get_running_loop().run_in_executor(self._threads, producer.close)
        self._threads.shutdown(wait=False)

    # Opening

    async def _open(self) -> Retry | None:
        """Have a producer whose brokers all passed; answer why there is none."""
        found = await self._look()
        if not isinstance(found, Told):
            return found
        bootstrap = await self._bootstrap()
        if not isinstance(bootstrap, str):
            return bootstrap
        # As the client spells them.
        allowed = {_name(host, port) for host, port in found.brokers}
        self._producer = _Guarded(
            self._settings(bootstrap),
            frozenset({*allowed, *bootstrap.split(",")}),
            min(_BATCH_BYTES, found.most_bytes * 9 // 10) if found.most_bytes else _BATCH_BYTES,
        )
        return None

    async def _look(self) -> Told | Retry:
        """Ask one of the brokers; all that it advertises have passed then."""
        refusal = NO_CONNECTION
        for broker in self._place.brokers:
            try:
                async with asyncio.timeout(self._connect_seconds):
                    told = await ask_cluster(
                        broker,
                        self._place.topic,
                        guard=self._guard,
                        lookup=self._lookup,
                        tls=self._tls(),
                        login=self._login and Login(self._options.sasl, *self._login),
                    )
                    await self._check_advertised(told.brokers)
            except (AddressRefused, OSError, ValueError, NotLetIn) as error:
                refusal = _outcome_of_look(error)
                continue
            if told.topic_error:
                return GONE if told.topic_error == UNKNOWN_TOPIC else NOT_LET_IN
            return told
        return refusal

    async def _check_advertised(self, brokers: Sequence[tuple[str, int]]) -> None:
        """Raise `AddressRefused` if one of them, or an address of its name, does not pass."""
        resolver = GuardedResolver(self._guard, self._lookup)
        for host, port in brokers:
            broker = self._guard.place(_name(host, port), default_port=port)
            await resolver.resolve(broker.host, broker.port)

    async def _bootstrap(self) -> str | Retry:
        """Answer where the client begins, each address of it allowed; or why not."""
        places = []
        resolver = GuardedResolver(self._guard, self._lookup)
        for broker in self._place.brokers:
            try:
                answers = await resolver.resolve(broker.host, broker.port)
            except AddressRefused:
                return REFUSED
            except OSError:
                continue
            if self._options.tls:
                places.append(broker.url)
            else:
                places += [_name(answer["host"], broker.port) for answer in answers]
        return ",".join(places) if places else NO_HOST

    def _tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cadata=self._options.ca) if self._options.tls else None

    def _settings(self, bootstrap: str) -> dict[str, Any]:
        options = self._options
        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": "penstock-replay",
            "socket.connection.setup.timeout.ms": round(CONNECT_SECONDS * 1000),
            "log_level": 0,
        }
        protocol = "SSL" if options.tls else "PLAINTEXT"
        if self._login is not None:
            protocol = "SASL_SSL" if options.tls else "SASL_PLAINTEXT"
            settings["sasl.mechanism"] = options.sasl
            settings["sasl.username"], settings["sasl.password"] = self._login
        settings["security.protocol"] = protocol
        if options.ca is not None:
            settings["ssl.ca.pem"] = options.ca
        return settings

    # Sending

    def _bring_on(self, batch: _Batch) -> bool:
        """Give a batch, if it is not yet, and serve reports until another one is to be given.

        Answers whether the batch came to its end. Runs in the thread of this target.
        """
        producer = batch.producer
        if batch in self._to_give:
            self._to_give.discard(batch)
            if producer.closed:  # because of a batch in front of it
                batch.outcomes = [producer.refusal] * len(batch.messages)
                return True
            self._give(batch)
        while batch.pending() and producer.goes_on(batch.deadline):
            if self._to_give:
                return False
        if batch.pending() or producer.is_of_no_use():
            if self._producer is producer:
                self._producer = None
            producer.close()
            batch.end()
        return True

    def _give(self, batch: _Batch) -> None:
        """Put the records of a batch into the producer's queue; say of which it is not in it.

        Every event goes through the body of this loop: with calls in it, sending takes a third
        longer.
        """
        producer, outcomes = batch.producer, batch.outcomes
        topic, produce, serve = self._place.topic, producer.produce, producer.serve
        hold = batch.hold()
        records = chain.from_iterable(map(self._records, parcels_of(batch.messages)))
        for number, (payload, key, headers, partition, time_) in enumerate(records):
            if headers is None:
                outcomes[number] = _NOT_CARRIED
                continue
            report = _Report(hold, number)
            full = True
            while full:
                try:
                    # By place, because names cost the client's binding a third of the call.
                    produce(topic, payload, key, partition, report, None, time_, headers)
                    full = False
                except KafkaException as error:
                    outcomes[number] = _OUTCOMES.get(error.args[0].code(), _NOT_TAKEN)
                    full = False
                except BufferError:
                    full = True
                # What the client's binding raises while an error is handled keeps that one.
                if full and not producer.goes_on(batch.deadline):
                    outcomes[number] = NOT_CONFIRMED
                    break
            if number % _SERVED == 0:
                serve(0)

    def _records(self, parcel: Parcel) -> Iterator[_Record]:
        """Make the records of a parcel: the events' own headers, their content type, the replay's.

        Its headers are None where the client cannot carry them.
        """
        events, part = parcel.events, slice(parcel.start, parcel.stop)
        partitions: Iterable[int] = repeat(_ANY_PARTITION)
        if self._options.partition == "kept":
            partitions = map(_partition_of, events.metadata[part])
        return zip(
            events.payloads[part],
            events.keys[part],
            self._headers(parcel.attempt, events, part),
            partitions,
            times_of(self._options.timestamps, events, part),
            strict=False,
        )

    def _headers(self, attempt: int, events: Events, part: slice) -> Iterator[_Headers | None]:
        added = self._added.columns(attempt, events.ids[part], events.received_at[part])
        plain: _Headers = []
        known: str | None = None
        for own, content_type, ours in zip(
            events.headers[part], events.content_types[part], added, strict=True
        ):
            if own:
                yield self._with_own(own, content_type, ours)
                continue
            if content_type != known:
                known = content_type
                plain = [] if known is None else [(CONTENT_TYPE, known)]
            yield [*plain, *ours]

    def _with_own(
        self, own: Headers, content_type: str | None, added: Sequence[tuple[str, str]]
    ) -> _Headers | None:
        if not self._carries(own):
            return None
        pairs: _Headers = [*self._added.kept(own)]
        if content_type is not None and not has_type(pairs):
            pairs.append((CONTENT_TYPE, content_type))
        return [*pairs, *added]


class _Hold(msgspec.Struct, weakref=True):
    """What the reports of a batch share; it lives as long as the client has one of them."""

    producer: _Guarded
    outcomes: list[Outcome]


class _Report(msgspec.Struct, gc=False):
    """Is called with the error if one of the events of a batch was not delivered.

    One stands in the client's queue for each event: the collector need not look at them.
    """

    hold: _Hold
    number: int

    def __call__(self, error: KafkaError, _: object) -> None:
        """Say what became of it."""
        self.hold.outcomes[self.number] = self.hold.producer.outcome_of(error)


class _Batch:
    """The messages of one `send`, and what came of them: what is not reported was delivered.

    The client calls the report of an event that failed, and drops that of one that arrived. So a
    batch is pending until nothing holds its reports any more. To be told of each that arrived
    would take 1 us.
    """

    def __init__(self, messages: Sequence[Message], producer: _Guarded, deadline: float) -> None:
        self.messages = messages
        self.producer = producer
        self.deadline = deadline
        self.outcomes: list[Outcome] = [_DELIVERED] * len(messages)
        self._held: Callable[[], _Hold | None] = lambda: None

    def hold(self) -> _Hold:
        """Answer what every report of this batch has to hold."""
        hold = _Hold(self.producer, self.outcomes)
        self._held = weakref.ref(hold)
        return hold

    def pending(self) -> bool:
        """Say whether the client has an event of it still."""
        return self._held() is not None

    def end(self) -> None:
        """Say of events that the producer could not even report that they may be lost."""
        if self.pending():
            self.outcomes = [NOT_CONFIRMED if o is _DELIVERED else o for o in self.outcomes]
        if self.producer.strange:
            self.outcomes = [REFUSED if o == NOT_CONFIRMED else o for o in self.outcomes]


class _Broker(msgspec.Struct):
    nodename: str
    source: str


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


class _Guarded:
    """A producer that is given up as soon as it knows a broker that did not pass."""

    def __init__(self, settings: dict[str, Any], allowed: frozenset[str], batch_bytes: int) -> None:
        self.strange = False
        self.stopped = False
        self.closed = False
        self.refusal = NOT_CONFIRMED
        """What came of those that are taken back: what came of the first to be tried again."""
        self._broken = False
        self._allowed = allowed
        self._decoder = msgspec.json.Decoder(_Statistics)
        self._producer = Producer(
            {
                **settings,
                "enable.idempotence": True,
                "delivery.report.only.error": True,
                # The time is ours: when it is over, everything is taken back at once, so that
                # nothing is delivered behind what was not.
                "message.timeout.ms": 0,
                "topic.metadata.propagation.max.ms": round(CONNECT_SECONDS * 1000),
                "linger.ms": 5,
                "batch.size": max(batch_bytes, 1),
                "message.max.bytes": _MOST_BYTES,
                "partitioner": "murmur2_random",  # as Java's clients place a key
                "statistics.interval.ms": _LOOK_MS,
                "stats_cb": self._look,
            }
        )

        self.produce = self._producer.produce

    def goes_on(self, deadline: float) -> bool:
        """Serve reports for a while; answer whether it makes sense to go on."""
        # Not `flush`: while it waits, the client's own thread turns in circles.
        self.serve(_SLICE_SECONDS)
        return not self.stopped and not self.is_of_no_use() and time.monotonic() < deadline

    def serve(self, seconds: float) -> None:
        """Have reports called, waiting so long for the first."""
        self._call(self._producer.poll, seconds)

    def is_of_no_use(self) -> bool:
        """Say whether it has to be thrown away, with all that it still has."""
        return self.strange or self.closed or self._broken or self.refusal is not NOT_CONFIRMED

    def outcome_of(self, error: KafkaError) -> Outcome:
        """Answer what an error means; if that is to try again, nothing more is to be delivered."""
        outcome = _OUTCOMES.get(error.code(), _NOT_TAKEN)
        if outcome is NOT_CONFIRMED:
            return self.refusal
        if isinstance(outcome, Retry) and self.refusal is NOT_CONFIRMED:
            self.refusal = outcome
        return outcome

    def close(self) -> None:
        """Take everything back, have it reported, and let go of every connection."""
        self.closed = True
        # What waits goes first: the library would number it anew, and may send it, as soon as
        # something that is on its way is taken back.
        self._producer.purge(in_flight=False)
        self._producer.purge()
        self._call(self._producer.flush, _LAST_SECONDS)

    def _call(self, serve: Callable[[float], object], seconds: float) -> None:
        try:
            serve(seconds)
        except KafkaException:
            # An idempotent producer that lost its place is of no more use. Its reports come still.
            self._broken = True

    def _look(self, text: str) -> None:
        known = {
            each.nodename
            for each in self._decoder.decode(text).brokers.values()
            if each.source != "internal"
        }
        self.strange = self.strange or not known <= self._allowed


def refuse_own_topic(topic: str, own: str) -> None:
    """Raise `BadRequest` for a topic of Penstock's own log.

    Only doors write those: an event beside them would be taken for an accepted one.
    """
    if topic.startswith(own):
        raise BadRequest(f"topics that begin with {own!r} are Penstock's own log").at("url")


def _outcome_of_look(error: Exception) -> Retry:
    match error:
        case AddressRefused():
            return REFUSED
        case NotLetIn():
            return NOT_LET_IN
        case socket.gaierror():
            return NO_HOST
        case ssl.SSLCertVerificationError():
            return NOT_TRUSTED
        case ssl.SSLError():
            return NO_TLS
        case OSError():
            return NO_CONNECTION
        case _:
            return _NOT_KAFKA


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _partition_of(metadata: Mapping[str, str]) -> int:
    number = metadata.get("partition", "")
    if number.isascii() and number.isdecimal():
        return min(int(number), _LAST_PARTITION)
    return _ANY_PARTITION


def times_of(timestamps: Timestamps, events: Events, part: slice) -> Iterable[int]:
    """Answer the times of records, in milliseconds since 1970, or 0 for the client's own."""
    if timestamps == "fresh":
        return repeat(_NOW)
    return map(_milliseconds_of, events.event_times[part], events.received_at[part])


def _milliseconds_of(event_time: Micros | None, received_at: Micros) -> int:
    return max(received_at if event_time is None else event_time, 1000) // 1000


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
