"""A Kafka cluster as a log sees it: where it is, what it is told, which topics there are.

Nothing but the files beside this one knows the client library. What a call to the cluster
raises is of `penstock.errors`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from penstock.buffer import Keeping
from penstock.buffer.kafka_silence import Renewed
from penstock.buffer.kafka_trouble import Trouble
from penstock.envelope import CollectionId, Extent, parse_collection
from penstock.errors import BadName, BadRequest, BadSetting, LogUnavailable

_T = TypeVar("_T")
_Client = TypeVar("_Client")

DEFAULT_PREFIX = "penstock"

LARGEST_BYTES = 17 << 20
"""The largest record: a whole HTTP body as one event, with its headers."""

_REPLICAS = 3
_IN_SYNC = 2

# How long anything but an append may take, one try of it, and how long between two.
PATIENCE_SECONDS = 5.0
_TRY_SECONDS = 1.5
_PAUSE_SECONDS = 0.05
_LOOK_SECONDS = 0.005

# They keep the promises of the log: nobody may turn them off.
_OURS = frozenset({
    "acks", "auto.offset.reset", "bootstrap.servers", "delivery.timeout.ms", "enable.auto.commit",
    "enable.gapless.guarantee", "enable.idempotence", "enable.partition.eof", "group.id",
    "isolation.level", "message.send.max.retries", "request.required.acks", "retries",
    "transactional.id",
})  # fmt: skip

# Of a topic that was just made, of a leader that just changed: it passes in a moment.
_PASSING = frozenset({
    KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR, KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.PREFERRED_LEADER_NOT_AVAILABLE, KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip

NO_TOPIC = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - public, but named so
})  # fmt: skip


# What a client says of a call when it has no connection, or knows no leader, whatever the reason.
_NOT_REACHED = frozenset({
    KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._NOENT,  # noqa: SLF001 - public, but named so
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """What the URL of a log says."""

    servers: str
    prefix: str = DEFAULT_PREFIX
    replication: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def group(self) -> str:
        """The group whose offsets tell lag tools how far landing is."""
        return f"{self.prefix}.landing"

    def topic(self, collection: CollectionId) -> str:
        """Name the topic of a collection."""
        return f"{self.prefix}.{collection}"

    def collections(self, topics: Iterable[str]) -> list[CollectionId]:
        """Answer the collections whose topics are among these, sorted."""
        start = f"{self.prefix}."
        found = []
        for topic in topics:
            if topic.startswith(start) and topic.count(".", len(start)) == 1:
                try:
                    found.append(parse_collection(topic.removeprefix(start)))
                except BadName:
                    continue
        return sorted(found)

    def client(self, trouble: Trouble, **more: Any) -> dict[str, Any]:
        """Answer the settings of a client of this cluster, which tells its troubles there."""
        return {
            "client.id": "penstock",
            "allow.auto.create.topics": False,
            # A broker that was away is asked again soon: appends fail after seconds.
            "reconnect.backoff.max.ms": 1_000,
            "logger": trouble,
            **more,
            **self.properties,
            "bootstrap.servers": self.servers,
        }


def read_place(url: str) -> Place:
    """Read ``kafka://host:port,host:port/PREFIX?config=/file&replication_factor=3``.

    Raises `BadSetting`, without what may be secret.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise BadSetting("log_url names a user; put sign-in into the file that ?config= names")
    if not parts.netloc:
        raise BadSetting("log_url names no broker; use kafka://host:9092/penstock")
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    file, copies = asked.pop("config", None), asked.pop("replication_factor", None)
    if asked:
        raise BadSetting(
            f"log_url says {', '.join(sorted(asked))}; Kafka knows config and replication_factor"
        )
    if copies is not None and (not copies.isdigit() or not int(copies)):
        raise BadSetting(f"replication_factor is {copies!r}, which is no number of copies")
    prefix = parts.path.strip("/") or DEFAULT_PREFIX
    if not all(c.isascii() and (c.isalnum() or c in "._-") for c in prefix):
        raise BadSetting(f"{prefix!r} cannot begin the name of a topic")
    return Place(
        parts.netloc,
        prefix,
        int(copies) if copies else None,
        _properties(Path(file)) if file else {},
    )


def _properties(file: Path) -> dict[str, str]:
    """Read a properties file of librdkafka; no message says a value."""
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise BadSetting(f"log_url: {file} cannot be read: {error.strerror}") from error
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise BadSetting(f"{file}, line {number}: expected name=value")
        found[name.strip()] = value.strip()
    if taken := sorted(_OURS & found.keys()):
        raise BadSetting(f"{file}: {', '.join(taken)} cannot be set, the log depends on it")
    return found


def made(kind: Callable[[dict[str, Any]], _T], settings: dict[str, Any]) -> _T:
    """Make a client; raise `BadSetting` for settings that it does not take."""
    try:
        return kind(settings)
    except KafkaException as error:
        told = error.args[0].str()
        if not told.startswith("No such configuration property"):
            # It may quote a value: only the names are said.
            named = ", ".join(sorted(name for name in settings if name in told))
            told = f"the value of {named or 'one of them'} is refused"
        raise BadSetting(f"the settings of the Kafka client: {told}") from None


def is_of_broker(error: KafkaError) -> bool:
    """Say whether a broker said so, and not the client by itself."""
    code: int = error.code()
    return code >= 0


def unavailable(error: KafkaError) -> LogUnavailable:
    """Say that the cluster does not do what it was asked."""
    return LogUnavailable(f"Kafka does not answer as it should: {error.name()}")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that there is; `id` is never given to another."""

    id: str
    partitions: int


class Cluster:
    """Asks a cluster about topics, and makes them. Threads may share it.

    Everything raises `LogUnavailable` when the cluster does not answer within seconds.
    """

    def __init__(self, place: Place, admins: Callable[[], AdminClient] | None = None) -> None:
        """Ask nothing yet. `admins` is for tests."""
        self.place = place
        self.trouble = Trouble()
        self._admin = Renewed(admins or self._new_admin)
        self._group = Renewed(self._new_group)

    def _new_admin(self) -> AdminClient:
        return made(AdminClient, self.place.client(self.trouble))

    def _new_group(self) -> Consumer:
        """Make a consumer that never joins the group it asks about.

        The admin client asks about groups, too, but once the broker that coordinates them was away
        it never answers again, or aborts the process (librdkafka 2.16).
        """
        more = {"group.id": self.place.group, "enable.auto.commit": False}
        return made(Consumer, self.place.client(self.trouble, **more))

    @cached_property
    def id(self) -> str:
        """The cluster's identity."""
        found: str = self._metadata().cluster_id
        return found

    def topics(self) -> Mapping[str, int]:
        """Answer how many partitions each topic of this log has."""
        found = self._metadata().topics
        start = f"{self.place.prefix}."
        return {name: len(one.partitions) for name, one in found.items() if name.startswith(start)}

    def copies(self) -> Mapping[str, int]:
        """Answer how many copies each topic of this log has, where it has the fewest."""
        start = f"{self.place.prefix}."
        return {
            name: min((len(part.replicas) for part in one.partitions.values()), default=0)
            for name, one in self._metadata().topics.items()
            if name.startswith(start)
        }

    def brokers(self) -> int:
        """Answer how many brokers there are."""
        return len(self._metadata().brokers)

    def topic(self, name: str) -> Topic | None:
        """Answer the topic, None if there is none of that name."""
        return self.described([name]).get(name)

    def described(self, names: Collection[str]) -> dict[str, Topic]:
        """Answer those of the topics that there are."""

        def ask(admin: AdminClient) -> dict[str, Topic]:
            answers = admin.describe_topics(
                TopicCollection(list(names)), request_timeout=_TRY_SECONDS
            )
            found = {}
            for name, answer in answers.items():
                try:
                    told = _answer_of(answer)
                except KafkaException as error:
                    if error.args[0].code() not in NO_TOPIC:
                        raise
                else:
                    # As Kafka's own tools write it.
                    text = str(told.topic_id).replace("+", "-").replace("/", "_")
                    found[name] = Topic(text, len(told.partitions))
            return found

        return self._asked(self._admin, ask) if names else {}

    def extents(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, Extent]]:
        """Answer what partitions of topics hold for readers; left out and raised as in `ends`."""
        places = _places(partitions)

        def ask(admin: AdminClient) -> dict[str, dict[int, Extent]]:
            # Both are under way before one is waited for.
            first = _offsets_asked(admin, places, OffsetSpec.earliest())
            last = _offsets_asked(admin, places, OffsetSpec.latest())
            starts, ends = _told(first), _told(last)
            found = {
                topic: {number: Extent(starts[topic][number], end) for number, end in some.items()}
                for topic, some in ends.items()
                if topic in starts
            }
            if not found:
                raise TimeoutError
            return found

        return self._asked(self._admin, ask) if places else {}

    def ends(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        """Answer where partitions of topics end for readers.

        A topic of which a partition has no answer is left out, unless that is so of all of them:
        then it is raised.
        """
        places = _places(partitions)

        def ask(admin: AdminClient) -> dict[str, dict[int, int]]:
            return _told(_offsets_asked(admin, places, OffsetSpec.latest()))

        return self._asked(self._admin, ask) if places else {}

    def epochs(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Answer the newest leader epoch of each of these partitions, -1 where there is none."""

        def ask(admin: AdminClient) -> dict[tuple[str, int], int]:
            told = admin.list_offsets(
                {TopicPartition(*place): OffsetSpec.latest() for place in places},
                request_timeout=_TRY_SECONDS,
            )
            found = {}
            for place, answer in told.items():
                one = _answer_of(answer)
                _offset(one)
                epoch: int | None = one.leader_epoch
                found[place.topic, place.partition] = -1 if epoch is None else epoch
            return found

        return self._asked(self._admin, ask) if places else {}

    def make(self, topic: str, *, partitions: int, keeping: Keeping) -> None:
        """Make the topic; that another was faster is no error."""
        copies = self.place.replication or min(_REPLICAS, self.brokers())
        config = {
            "retention.ms": str(keeping.hours * 3_600_000),
            "max.message.bytes": str(LARGEST_BYTES),
            "unclean.leader.election.enable": "false",
            "cleanup.policy": "delete",
        }
        if copies >= _REPLICAS:
            config["min.insync.replicas"] = str(_IN_SYNC)
        asked = NewTopic(topic, partitions, copies, config=config)
        try:
            self._asked(
                self._admin,
                lambda admin: _answer_of(admin.create_topics([asked])[topic]),
            )
        except _Refused as refused:
            if refused.code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def grow(self, topic: str, partitions: int) -> None:
        """Give the topic more partitions."""
        asked = NewPartitions(topic, partitions)
        try:
            self._asked(
                self._admin,
                lambda admin: _answer_of(admin.create_partitions([asked])[topic]),
            )
        except _Refused as refused:
            # Another process was faster; whoever asked looks again.
            if refused.code != KafkaError.INVALID_PARTITIONS:
                raise

    def commit(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Tell lag tools how far landing is."""
        places = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        try:
            # To wait for its answer would take as long as a broker that hangs: look instead.
            self._group.get().commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            raise unavailable(error.args[0]) from error
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.committed({topic: offsets})[topic] != offsets:
            if time.monotonic() > deadline:
                raise LogUnavailable("Kafka does not keep how far landing is")
            time.sleep(_LOOK_SECONDS)

    def committed(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        """Answer how far landing said it is."""
        places = _places(partitions)

        def ask(group: Consumer) -> dict[str, dict[int, int]]:
            group.poll(0)  # what it logs waits for that
            found = group.committed(places, timeout=_TRY_SECONDS)
            offsets: dict[str, dict[int, int]] = {topic: {} for topic in partitions}
            for one in found:
                if one.error:
                    raise KafkaException(one.error)
                offsets[one.topic][one.partition] = max(0, one.offset)
            return offsets

        return self._asked(self._group, ask) if places else {}

    def _metadata(self) -> Any:
        return self._asked(self._admin, lambda admin: admin.list_topics(timeout=_TRY_SECONDS))

    def _asked(self, client: Renewed[_Client], question: Callable[[_Client], _T]) -> _T:
        """Answer the client's answer, asked again while what is wrong passes by itself."""
        begun = time.monotonic()
        while True:
            try:
                answer = question(client.get())
            except TimeoutError:
                reason = None
            except KafkaException as error:
                reason = error.args[0]
            else:
                client.heard()
                self.trouble.forget()
                return answer
            # Not while an error is handled, whichever it is: what the client's binding raises then
            # keeps that one, and with it every frame, and the client, for ever (tried with 2.16).
            self._weigh(reason, client, begun)
            time.sleep(_PAUSE_SECONDS)

    def _weigh(self, reason: KafkaError | None, client: Renewed[_Client], begun: float) -> None:
        """Raise what is wrong with a question, unless it may be asked again."""
        if reason is None or reason.code() in _NOT_REACHED:
            self._look_around(client, begun)
            return
        if is_of_broker(reason):
            client.heard()
        if reason.code() in NO_TOPIC:
            raise _Missing(reason)
        if reason.code() not in _PASSING:
            raise _Refused(reason)
        if time.monotonic() > begun + PATIENCE_SECONDS:
            raise unavailable(reason)

    def _look_around(self, client: Renewed[_Client], begun: float) -> None:
        """Learn anew which brokers there are; raise `LogUnavailable` where none says so in time.

        The client goes on to ask the controller and the leaders that it has heard of, for minutes
        also when they are gone (tried).
        """
        left, answered = begun + PATIENCE_SECONDS - time.monotonic(), True
        admin = self._admin.get()
        try:
            admin.list_topics(timeout=max(left, _PAUSE_SECONDS))
        except KafkaException:
            answered = False
        if answered:
            self._admin.heard()
            if left > 0:
                return
        admin.poll(0)  # hands over what the client has to tell
        del admin  # who catches what is raised keeps this frame
        if not answered:
            self._admin.unheard(begun)
        if client is not self._admin:
            client.unheard(begun)
        raise LogUnavailable(self.trouble.told("Kafka does not answer"))


def _offsets_asked(
    admin: AdminClient, places: Sequence[TopicPartition], spec: OffsetSpec
) -> Mapping[TopicPartition, Any]:
    asked: Mapping[TopicPartition, Any] = admin.list_offsets(
        dict.fromkeys(places, spec),
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=_TRY_SECONDS,
    )
    return asked


def _places(partitions: Mapping[str, Iterable[int]]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, some in partitions.items() for number in some]


def _told(asked: Mapping[TopicPartition, Any]) -> dict[str, dict[int, int]]:
    """Answer the offsets by topic, without topics that lack one; raise if that leaves none."""
    found: dict[str, dict[int, int]] = {place.topic: {} for place in asked}
    reason: KafkaError | None = None
    for place, answer in asked.items():
        try:
            offset = _offset(_answer_of(answer))
        except TimeoutError:
            found.pop(place.topic, None)
        except KafkaException as error:
            reason = error.args[0]
            found.pop(place.topic, None)
        else:
            if place.topic in found:
                found[place.topic][place.partition] = offset
    if not found:
        raise TimeoutError if reason is None else KafkaException(reason)
    return found


def _answer_of(asked: Any) -> Any:
    """Answer what came of a question to the admin client.

    What is raised is not what `asked` holds: that would keep every frame in which it is, and the
    client, until the collector comes by.
    """
    failure = asked.exception(_TRY_SECONDS)
    if failure is not None:
        raise type(failure)(*failure.args)
    return asked.result()


def _offset(told: Any) -> int:
    """Answer the offset; the client makes one up for a leader that did not answer (tried)."""
    offset: int = told.offset
    if offset < 0:
        raise TimeoutError
    return offset


class _Refused(LogUnavailable):
    """The cluster said no."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(str(unavailable(error)))
        self.code = error.code()


class _Missing(_Refused):
    """There is no such topic or partition."""


class KafkaKeeper:
    """Makes the topics of collections; see `Keeper`."""

    def __init__(self, place: Place, keeping: Keeping) -> None:
        self._cluster = Cluster(place)
        self._keeping = keeping

    def ensure(self, collection: CollectionId, *, partitions: int | None = None) -> int:
        """Make the collection's topic, or give it more partitions; see `Keeper.ensure`."""
        found = self._have(
            collection, new=partitions or self._keeping.partitions, least=partitions or 1
        )
        if partitions is not None and found > partitions:
            raise BadRequest(f"{collection} has {found} partitions; that cannot become less")
        return found

    def restore(self, collection: CollectionId, partitions: int) -> int:
        """Make the collection's topic as it was, or as large; see `Keeper.restore`."""
        return self._have(collection, new=partitions, least=partitions)

    def _have(self, collection: CollectionId, *, new: int, least: int) -> int:
        """Answer how many partitions the topic has: `new` if it was missing, `least` if fewer."""
        name = self._cluster.place.topic(collection)
        deadline = time.monotonic() + PATIENCE_SECONDS
        made_already = False
        while True:
            topic = self._cluster.topic(name)
            if topic is None and not made_already:
                self._cluster.make(name, partitions=new, keeping=self._keeping)
                made_already = True
            elif topic is not None and topic.partitions >= least:
                return topic.partitions
            elif topic is not None and not made_already:
                self._cluster.grow(name, least)
                made_already = True
            if time.monotonic() > deadline:
                raise LogUnavailable(f"Kafka has not made the topic of {collection} yet")
            time.sleep(_PAUSE_SECONDS)

    def warning(self) -> str | None:
        """Say so where a position does not survive the loss of a broker."""
        for name, copies in sorted(self._cluster.copies().items()):
            if copies < _REPLICAS:
                return f"{name} has {_copies(copies)}: acknowledged events are lost with a disk"
        copies = self._cluster.place.replication or min(_REPLICAS, self._cluster.brokers())
        if copies < _REPLICAS:
            return f"a new collection gets {_copies(copies)} of its events: lost with a disk"
        return None

    def close(self) -> None:
        """Hold nothing: connections end with the object."""


def _copies(number: int) -> str:
    return "one copy" if number == 1 else f"{number} copies"
