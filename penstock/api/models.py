"""What goes over the wire. Every field of an answer is written down here; what is not, is not told.

A request with a field that is not listed is refused. Times are RFC 3339 with microseconds, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    WithJsonSchema,
)

from assets.accounting import PartitionBooks, Standing, troubles
from assets.contract import Trial
from assets.remedies import command_for
from assets.retention import Due
from penstock.api.values import base64_of, text_of
from penstock.envelope import Micros
from penstock.errors import Stopped
from penstock.metadata.records import (
    CollectionRecord,
    Contract,
    Destination,
    Kind,
    SchemaVersion,
    Scope,
    State,
    TokenRecord,
    Wish,
)
from penstock.problem import problem, slug
from penstock.schema.formats import Format, FormatName, Framing
from penstock.schema.shape import count_columns
from penstock.search import Found

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def rfc3339(time: Micros) -> str:
    """Write a time with all six digits, so that texts sort like times."""
    moment = _EPOCH + timedelta(microseconds=time)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def micros(text: object) -> Micros:
    """Read a time; raise `ValueError` for one that could be meant in two ways."""
    if not isinstance(text, str):
        raise ValueError("write a time as 2026-11-22T08:30:00Z")  # noqa: TRY004 - pydantic's error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a time as 2026-11-22T08:30:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone: 2026-11-22T08:30:00Z")
    return (moment - _EPOCH) // _MICROSECOND


_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})
TimeIn = Annotated[Micros, BeforeValidator(micros), _SCHEMA]
TimeOut = Annotated[Micros, PlainSerializer(rfc3339, return_type=str), _SCHEMA]

ShortText = Annotated[str, Field(max_length=200)]
LongText = Annotated[str, Field(max_length=10_000)]


class Asked(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """What a caller is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemTold(BaseModel):
    """Every error. A search that cannot be read also has `query`, and the `position` in it."""

    type: str = Field(examples=["urn:penstock:not-found"])
    title: str
    status: int
    detail: str = Field(description="What to do, in a sentence.")


def example(**values: Any) -> ConfigDict:
    """Answer the configuration of a model that has these values as its example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


# Collections


class FormatAsked(Asked):
    """What the payloads of a collection are."""

    model_config = example(name="protobuf", descriptor="CiQKC2EucHJvdG8…", message="shop.Order")

    name: FormatName
    descriptor: Annotated[str, Field(max_length=1 << 20)] | None = Field(
        default=None,
        description="A FileDescriptorSet in base64; without it, the one the collection has.",
    )
    message: ShortText | None = Field(
        default=None, description="The full name of the message that a payload is."
    )
    envelope: Literal["deep", "shallow"] = Field(
        default="deep", description="Shallow: a field of bytes of the message holds another one."
    )
    payload_field: Annotated[int, Field(ge=1, lt=1 << 29, strict=True)] | None = Field(
        default=None, description="The number of that field."
    )
    payload_message: ShortText | None = Field(
        default=None, description="The full name of the message in it."
    )
    avro_schema: Annotated[str, Field(max_length=1 << 20)] | None = Field(
        default=None,
        description="The newest schema, as the text of an .avsc file; earlier ones stay known.",
    )
    framing: Framing | None = Field(
        default=None,
        description="What is before a value of Avro: nothing (datum), the fingerprint of its "
        "schema (single-object), or 00 and its id in a registry (confluent).",
    )
    registry: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="The address of a schema registry, for the framing confluent."
    )
    registry_secret: LongText | None = Field(
        default=None, description="What it asks for: user:password, or a token; never told."
    )


class FormatTried(FormatAsked):
    """A format, and the past events to try it on."""

    model_config = example(name="avro", avro_schema='{"type": "record", …', sample=1000)

    since: TimeIn | None = Field(default=None, description="Received at this time or later.")
    until: TimeIn | None = Field(default=None, description="Received before this time.")
    sample: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="Try about so many events only, spread over the time."
    )


class FormatTold(Told):
    """What the payloads of a collection are."""

    name: FormatName
    descriptor_digest: str | None = Field(
        description="SHA-256 of the descriptor set, without comments, or of the schemas of Avro."
    )
    message: str | None
    payload_field: int | None
    payload_message: str | None
    framing: Framing | None
    versions: int | None = Field(description="How many schemas of Avro were uploaded.")
    registry: str | None
    registry_secret: bool = Field(description="Whether there is one.")
    changed_at: TimeOut | None

    @staticmethod
    def of(format: Format) -> FormatTold:  # noqa: A002 - the field's name
        """Tell about a format."""
        return FormatTold(
            name=format.name,
            descriptor_digest=format.schema,
            message=format.message,
            payload_field=format.payload_field,
            payload_message=format.payload_message,
            framing=format.framing,
            versions=format.versions,
            registry=format.registry,
            registry_secret=format.secret,
            changed_at=format.changed_at,
        )


KeepDays = Annotated[int, Field(ge=1, le=99_999, strict=True)]


class NewCollection(Asked):
    """A collection to be made."""

    model_config = example(name="flights", token=True)

    name: str
    contract: Contract = "evolve"
    format: FormatAsked | None = Field(
        default=None, description="What its payloads are; without it JSON."
    )
    notes: LongText = ""
    allow_loops: StrictBool = Field(
        default=False, description="Take events back that a replay took from this collection."
    )
    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = Field(
        default=None, description="Log partitions; without it as many as the setting says."
    )
    keep_days: KeepDays | None = Field(
        default=None, description="Days that rows are kept at the least; without it for ever."
    )
    token: StrictBool = Field(
        default=False, description="Also make an ingest token that is bound to the collection."
    )


class KeptDays(Asked):
    """How long the rows of a collection are kept."""

    model_config = example(days=90)

    days: KeepDays | None = Field(description="Whole days at the least; null is for ever.")
    dry_run: StrictBool = Field(
        default=False, description="Change nothing; answer what would be dropped."
    )


class Grown(Asked):
    """How many partitions a collection's log shall have."""

    model_config = example(partitions=4)

    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)]


class ContractAsked(Asked):
    """What a collection shall do with leaves that have no column."""

    model_config = example(contract="freeze")

    contract: Contract


class ContractTried(ContractAsked):
    """A contract, and the past events to try it on."""

    model_config = example(contract="quarantine", since="2026-11-22T08:30:00Z")

    since: TimeIn | None = Field(default=None, description="Received at this time or later.")
    until: TimeIn | None = Field(default=None, description="Received before this time.")
    sample: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="Try about so many events only, spread over the time."
    )


class CauseTold(Told):
    """Why events would not be rows with a column for each leaf."""

    outcome: Literal["misfit", "dropped", "quarantine"]
    stage: str | None = Field(description="Of quarantine.")
    reason: str
    path: str | None = Field(description="The leaf without a column, if that is the reason.")
    events: int
    examples: list[str] = Field(description="Ids of the first ones, three at most.")


class TrialTold(Told):
    """What past events would become; a line of progress until it is `done`.

    `events` is the sum of `whole`, `misfits`, `dropped` and `quarantined`.
    """

    contract: Contract
    wanted: int = Field(description="How many events there are to be tried, about.")
    events: int = Field(description="How many were tried.")
    whole: int = Field(description="Rows with a column for each leaf.")
    misfits: int = Field(description="Rows with leaves beside their columns.")
    dropped: int = Field(description="Rows with leaves that only the payload has.")
    quarantined: int
    columns: list[ChangeTold] = Field(description="The columns that would come.")
    causes: list[CauseTold] = Field(description="The most frequent first; 1,000 at most.")
    uncounted: int = Field(description="Events with a cause that is not among them.")
    done: bool

    @staticmethod
    def of(trial: Trial) -> TrialTold:
        """Tell about a trial."""
        told = asdict(trial)
        told["columns"] = [{**change, "before": None, "why": None} for change in told["columns"]]
        return TrialTold.model_validate(told)


class Collection(Told):
    """A collection."""

    name: str
    created_at: TimeOut
    paused: bool
    contract: Contract
    format: FormatTold
    notes: str
    allow_loops: bool
    partitions: int
    keep_days: int | None

    @staticmethod
    def of(record: CollectionRecord) -> Collection:
        """Tell about a record."""
        return Collection(**_collection(record))


class CreatedCollection(Collection):
    """A collection just made. `token` is shown this once."""

    token: str | None

    @staticmethod
    def with_token(record: CollectionRecord, token: str | None) -> CreatedCollection:
        """Tell about a record, and the token made with it."""
        return CreatedCollection(**_collection(record), token=token)


def _collection(record: CollectionRecord) -> dict[str, Any]:
    return {
        "name": record.id.name,
        "created_at": record.created_at,
        "paused": record.paused,
        "contract": record.contract,
        "format": FormatTold.of(record.format),
        "notes": record.notes,
        "allow_loops": record.allow_loops,
        "partitions": record.partitions,
        "keep_days": record.keep_days,
    }


class DayDue(Told):
    """A day that is due: what its files hold, quarantine included."""

    day: date
    rows: int
    bytes: int


class Keeping(Told):
    """How long rows are kept, and what the next upkeep drops because of it.

    `pinned_by` are replays (and other names) that have pinned some of it: they keep it.
    """

    name: str
    keep_days: int | None
    days: list[DayDue]
    pinned_by: list[str]

    @staticmethod
    def of(record: CollectionRecord, keep_days: int | None, due: Due | None) -> Keeping:
        """Tell about a record and what is due."""
        return Keeping(
            name=record.id.name,
            keep_days=keep_days,
            days=[
                DayDue(day=one.day, rows=one.rows, bytes=one.bytes)
                for one in (due.days if due else ())
            ],
            pinned_by=list(due.pinned_by) if due else [],
        )


class ColumnTold(Told):
    """A discovered column: its path in the payload, and its Iceberg type."""

    path: str
    type: str
    since: TimeOut | None = Field(description="When it came, if the history knows.")
    event_id: str | None = Field(description="The first event that had it.")
    filled: int | None = Field(description="Rows that have a value, if asked for and counted.")


class ChangeTold(Told):
    """What one version changed; `event_id` is the first event that brought it.

    A column that was retyped or removed says what it was `before`, and `why`.
    """

    path: str = Field(description="The column; empty for what concerns all of them.")
    what: str = Field(description="`added`, `full` (no room for more) or `contract`, for example.")
    type: str | None = Field(description="The column's type since, or the new contract.")
    before: str | None = Field(description="The type, or the contract, until then.")
    event_id: str | None
    why: str | None = Field(description="Why it changed, where no event did it.")


class VersionTold(Told):
    """One change of the columns; versions count from 1."""

    version: int
    at: TimeOut
    changes: list[ChangeTold]

    @staticmethod
    def of(record: SchemaVersion) -> VersionTold:
        """Tell about a record."""
        return VersionTold(
            version=record.version,
            at=record.at,
            changes=[
                ChangeTold(
                    path=str(change["path"]),
                    what=str(change["what"]),
                    type=_text_or_none(change.get("type")),
                    before=_text_or_none(change.get("before")),
                    event_id=_text_or_none(change.get("event_id")),
                    why=_text_or_none(change.get("why")),
                )
                for change in record.changes
            ],
        )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


class Schema(Told):
    """The columns that the collection's events have now, and how they came."""

    columns: list[ColumnTold]
    versions: list[VersionTold]
    rows: int | None = Field(description="How many there are, if `fill` was asked for.")


class PartitionTold(Told):
    """One partition of the log: offsets kept, from `start` to `end` (exclusive), and the mark."""

    partition: int
    start: int
    end: int
    mark: int
    waiting: int = Field(description="Events that the table has not absorbed yet.")
    lost: int = Field(description="Events that are gone, as an operator has stated.")

    @staticmethod
    def of(books: PartitionBooks) -> PartitionTold:
        """Tell about a partition."""
        return PartitionTold(
            partition=books.partition,
            start=books.start,
            end=books.end,
            mark=books.mark,
            waiting=books.waiting,
            lost=books.lost,
        )


class BooksTold(Told):
    """What was accepted, and what became of it: `accepted` is the sum of `parts`."""

    accepted: int
    parts: dict[str, int] = Field(
        description="Landed, duplicates, quarantined (and open), closed, waiting, and what else is."
    )
    difference: int = Field(description="Accepted events that are nowhere; 0 in sound books.")
    sentence: str


class StopTold(Told):
    """Why landing of the collection has stopped, and the command that goes on from there."""

    name: str = Field(description="The name of the error.")
    detail: str
    command: str | None = Field(description="Null where no command can help.")


class OneStatus(Told):
    """How far landing is, and what there is."""

    name: str
    paused: bool
    partitions: list[PartitionTold]
    waiting: int
    rows: int
    duplicates: int = Field(description="Rows that repeat another one.")
    quarantined: int = Field(description="Events in quarantine that are open.")
    closed: int = Field(description="Events in quarantine that were released or discarded.")
    columns: int
    snapshot_id: str | None = Field(description="Text: it is too large for JavaScript's numbers.")
    books: BooksTold
    stop: StopTold | None
    troubles: list[str] = Field(description="A sentence for each thing that needs somebody.")
    lake_lag_seconds: float | None = Field(
        description="Age of the oldest event that has not landed, 0 if all have; null: not known."
    )
    search_lag_seconds: float | None = Field(
        description="Likewise of the search index; null without one, or if it does not answer."
    )
    search_waiting: int = Field(description="Landed events that the index does not have.")
    last_event_at: TimeOut | None = Field(description="When the newest known event was received.")

    @staticmethod
    def of(
        record: CollectionRecord,
        standing: Standing,
        *,
        retention: Micros | None,
        newest: Micros | None,
    ) -> OneStatus:
        """Tell how a collection stands; `newest` is for a log that holds no event any more."""
        books, table = standing.books, standing.books.table
        return OneStatus(
            name=record.id.name,
            paused=record.paused,
            partitions=[PartitionTold.of(one) for one in books.partitions],
            waiting=books.waiting,
            rows=books.parts["landed"] + books.parts["duplicates"],
            duplicates=books.parts["duplicates"],
            quarantined=books.parts["quarantined"],
            closed=books.parts["closed"],
            columns=count_columns(table.shape) if table is not None else 0,
            snapshot_id=str(table.snapshot_id) if table and table.snapshot_id else None,
            books=BooksTold(
                accepted=books.accepted,
                parts=dict(books.parts),
                difference=books.difference,
                sentence=books.sentence,
            ),
            stop=None if standing.stop is None else _stop(record, standing.stop),
            troubles=troubles(standing, retention),
            lake_lag_seconds=_seconds(standing.lake_lag),
            search_lag_seconds=_seconds(standing.search_lag),
            search_waiting=standing.search_waiting,
            last_event_at=newest if standing.newest is None else standing.newest,
        )


def _stop(record: CollectionRecord, stop: Stopped) -> StopTold:
    return StopTold(
        name=slug(problem(stop).title),
        detail=str(stop),
        command=command_for(record.id, stop),
    )


def _seconds(time: Micros | None) -> float | None:
    return None if time is None else time / 1_000_000


# The whole


class Status(Told):
    """The whole installation, as far as this team may see it."""

    version: str
    team: str
    now: TimeOut
    collections: list[OneStatus]
    replays: dict[str, int] = Field(description="How many of the newest replays are in each state.")


class AdapterHealth(Told):
    """Whether one store or engine responds, and how long it took to say so."""

    responds: bool
    seconds: float
    reason: str | None


class Health(Told):
    """Whether the platform can do its work, adapter by adapter."""

    status: Literal["ok", "unavailable"]
    version: str
    adapters: dict[str, AdapterHealth]


# Tokens


class NewToken(Asked):
    """A token to be made."""

    model_config = example(name="dashboard", scopes=["read"])

    name: ShortText
    scopes: list[Scope] = Field(min_length=1)
    collection: str | None = Field(
        default=None, description="Bind an ingest token to this collection."
    )
    expires_at: TimeIn | None = None


class Token(Told):
    """A token without its text; `hint` is how it begins."""

    id: str
    name: str
    scopes: list[Scope]
    collection: str | None
    hint: str
    created_at: TimeOut
    expires_at: TimeOut | None
    revoked_at: TimeOut | None

    @staticmethod
    def of(record: TokenRecord) -> Token:
        """Tell about a record."""
        return Token(**_token(record))


class RevokedToken(Token):
    """A token just revoked, and which doors refuse it by now.

    `doors` is null where nobody could be asked. One that has not confirmed does not reach its
    cache; it refuses the token `within_seconds` after it does again, at the latest.
    """

    doors: dict[str, bool] | None
    within_seconds: float

    @staticmethod
    def at(record: TokenRecord, doors: Mapping[str, bool] | None, lag: float) -> RevokedToken:
        """Tell about a record, and the doors."""
        told = None if doors is None else dict(doors)
        return RevokedToken(**_token(record), doors=told, within_seconds=lag)


class CreatedToken(Token):
    """A token just made. `token` is its text, shown this once."""

    token: str

    @staticmethod
    def with_text(record: TokenRecord, text: str) -> CreatedToken:
        """Tell about a record, and its text."""
        return CreatedToken(**_token(record), token=text)


def _token(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": list(record.scopes),
        "collection": record.collection,
        "hint": record.hint,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }


# Destinations


class NewDestination(Asked):
    """A destination to be made. Header values may be credentials: they are never told again."""

    model_config = example(
        name="billing",
        url="https://billing.example/events",
        headers=[["Authorization", "Bearer …"]],
    )

    name: str
    kind: Kind | None = Field(default=None, description="Left out: as the URL's scheme says.")
    url: str
    headers: list[tuple[ShortText, LongText]] = Field(default=[], max_length=50)
    options: dict[str, Any] = Field(default={}, description="What the kind has; see the reference.")
    secret: LongText | None = Field(
        default=None,
        description="Kafka, RabbitMQ: user:password. SQS: KEY_ID:SECRET_KEY[:SESSION].",
    )


class DestinationTold(Told):
    """A destination; of its headers only the names, and whether there is a secret."""

    name: str
    kind: Kind
    url: str
    headers: list[str]
    options: dict[str, Any]
    secret: bool
    created_at: TimeOut

    @staticmethod
    def of(record: Destination) -> DestinationTold:
        """Tell about a record."""
        return DestinationTold(
            name=record.name,
            kind=record.kind,
            url=record.url,
            headers=[name for name, _ in record.headers],
            options=record.options,
            secret=record.secret is not None,
            created_at=record.created_at,
        )


class Tried(Told):
    """What a destination made of one small event, or of a look where none is sent for a test."""

    delivered: bool = Field(description="It took the event, or is ready to take events.")
    sent: bool = Field(description="An event was sent. Only to HTTP: the others can be asked.")
    status: int | None = Field(description="The HTTP status it answered with, if it answered.")
    reason: str | None = Field(description="Why it was not delivered.")
    seconds: float


# Search


class Looked(Asked):
    """What to look for."""

    model_config = example(query="dep_delay:>120 AND origin:JFK")

    query: LongText = Field(default="", description="Nothing finds everything.")
    since: TimeIn | None = Field(default=None, description="Received at this time or later.")
    until: TimeIn | None = Field(default=None, description="Received before this time.")
    view: Literal["main", "quarantine"] = "main"
    duplicates: Literal["fold", "include", "only"] = Field(
        default="fold",
        description="Leave out events that repeat others, show them too, or show them alone.",
    )
    closed: bool = Field(
        default=False,
        description="In the quarantine, show events too that were released or discarded.",
    )


class LookedForEvents(Looked):
    """What to look for, and which page of it to show."""

    model_config = example(query="dep_delay:>120 AND origin:JFK", limit=20)

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=100_000)
    order: Literal["newest", "oldest"] = "newest"


class LookedForBars(Looked):
    """What to look for, and in how many steps to count it."""

    model_config = example(query="dep_delay:>120", bars=24)

    bars: int = Field(default=60, ge=1, le=1000)


class NotText(Told):
    """Bytes that are no UTF-8 text."""

    base64: str


class Misfit(Told):
    """A leaf of the payload that has no column: its path, and its value as JSON text."""

    path: str
    value: str


class EventTold(Told):
    """An event as it was received. Bytes that are no UTF-8 text are in the `…_base64` fields."""

    event_id: str
    received_at: TimeOut
    event_time: TimeOut | None
    source: str
    content_type: str | None
    key: str | None
    key_base64: str | None
    headers: list[tuple[str, str | NotText]]
    metadata: dict[str, str]
    payload: str | None
    payload_base64: str | None
    log_partition: int
    log_offset: int
    duplicate_of: str | None = Field(description="The event that this one repeats.")
    misfits: list[Misfit]
    stage: str | None = Field(description="In quarantine: what could not be done with it.")
    reason: str | None
    detail: str | None
    attempts: int | None

    @staticmethod
    def of(found: Found) -> EventTold:
        """Tell about an event."""
        key = None if found.key is None else text_of(found.key)
        payload = text_of(found.payload)
        return EventTold(
            event_id=found.event_id,
            received_at=found.received_at,
            event_time=found.event_time,
            source=found.source,
            content_type=found.content_type,
            key=key,
            key_base64=base64_of(found.key) if found.key is not None and key is None else None,
            headers=[(name, _text_or_not(value)) for name, value in found.headers],
            metadata=dict(found.metadata),
            payload=payload,
            payload_base64=base64_of(found.payload) if payload is None else None,
            log_partition=found.log_partition,
            log_offset=found.log_offset,
            duplicate_of=found.duplicate_of,
            misfits=[Misfit(path=path, value=value) for path, value in found.misfits],
            stage=found.stage,
            reason=found.reason,
            detail=found.detail,
            attempts=found.attempts,
        )


def _text_or_not(content: bytes) -> str | NotText:
    text = text_of(content)
    return NotText(base64=base64_of(content)) if text is None else text


class PageTold(Told):
    """Some of the events found; `cursor` asks for the next ones, null where there are none."""

    events: list[EventTold]
    cursor: str | None
    unsearched: int = Field(
        description="Acknowledged events that were not looked at, because too many wait to land."
    )
    tail_rows: int = Field(description="Events looked at that have not landed yet.")
    reads_payloads: bool = Field(description="The query needs every payload, which is slow.")
    index_away: bool = Field(
        description="The search index did not answer; the lake was read instead, which is slow."
    )
    folded: int | None = Field(
        description="Events left out because they repeat others; told with the first page only."
    )
    seconds: float


class CountTold(Told):
    """How many events are found."""

    count: int
    seconds: float


class BarTold(Told):
    """The events received from `start` on, up to the next bar."""

    start: TimeOut
    count: int


class HistogramTold(Told):
    """The events found over time; empty bars between others are there too."""

    bars: list[BarTold]
    step_seconds: float
    seconds: float


# Statistics


class StepTold(Told):
    """The events received from `start` on, up to the next step."""

    start: TimeOut
    events: int = Field(description="All that have landed, those in quarantine included.")
    bytes: int = Field(description="Of their payloads.")
    quarantined: int = Field(description="Those that went to quarantine, open or closed by now.")
    duplicates: int = Field(description="Those that repeat another one.")
    lag_seconds: float | None = Field(
        description="The longest that an event waited, among the batches that landed in the step."
    )


class StatsTold(Told):
    """A collection over time; steps in which nothing happened are there too."""

    steps: list[StepTold]
    step_seconds: int
    uncounted: int = Field(description="Positions of the log that landed and are not counted yet.")


# SQL


class Statement(Asked):
    """One SELECT or EXPLAIN."""

    model_config = example(statement="SELECT data.origin, count(*) FROM flights GROUP BY 1")

    statement: str = Field(max_length=100_000)


class SqlAnswer(Told):
    """The rows of a statement; types are Arrow's.

    Bytes are text where they are UTF-8, else an object with `base64`.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="There were more rows than are told.")
    seconds: float


# Replays


class ReplayAsked(Asked):
    """Which events go where, and how. What is left out has the default of the documentation."""

    model_config = example(collection="flights", query="origin:JFK", destination="billing")

    collection: str
    query: LongText = ""
    destination: str
    since: TimeIn | None = Field(default=None, description="Received at this time or later.")
    until: TimeIn | None = Field(default=None, description="Received before this time.")
    view: Literal["main", "quarantine"] = "main"
    order: Literal["log", "key"] = "key"
    rate: float | None = Field(default=None, description="Sends per second at most.")
    concurrency: int = Field(default=32, description="Sends at the same time.")
    max_events: int | None = Field(default=None, description="Send the first so many only.")
    headers: Literal["add", "verbatim"] = "add"
    retries: int = Field(default=10, description="Attempts after the first.")
    timeout: float = Field(default=30.0, description="Seconds that one attempt may take.")
    pause_after: int | None = Field(
        default=None, description="Failed attempts in a row that pause the replay."
    )
    dry_run: StrictBool = Field(default=False, description="Do everything but send.")


class PlanEvent(Told):
    """The first or the last event of a plan."""

    event_id: str
    received_at: str
    partition: int
    offset: int


class PlanReach(Told):
    """What a plan takes from one partition of the log: `start` to `end` (exclusive)."""

    partition: int
    start: int
    end: int
    events: int


class PlanTold(Told):
    """Exactly what a replay would send, on one snapshot."""

    count: int
    bytes: int
    to_send: int = Field(description="`count`, or `max_events` if that is less.")
    first: PlanEvent | None
    last: PlanEvent | None
    earliest: str | None
    latest: str | None
    spans: list[PlanReach]
    estimated_seconds: float
    warnings: list[str]
    snapshot_id: str | None


class NewReplay(ReplayAsked):
    """A replay to be made."""

    model_config = example(
        collection="flights", query="origin:JFK", destination="billing", rate=500
    )

    confirm: int | None = Field(
        default=None,
        description="How many events you expect; asked for when a replay would send very many.",
    )


class ReplayProgress(Told):
    """How far a replay is."""

    delivered: int
    failed: int
    skipped: int
    unknown: int
    repeated: int
    attempts: int
    bytes: int
    last_failure: str | None
    waiting: str | None


class ReplayTold(Told):
    """A replay: what was asked, what was planned, how far it is."""

    id: str
    collection: str
    query: str
    since: TimeOut | None
    until: TimeOut | None
    destination: str
    options: dict[str, Any]
    state: State
    wish: Wish | None
    plan: PlanTold | None
    progress: ReplayProgress
    error: str | None
    created_at: TimeOut
    started_at: TimeOut | None
    finished_at: TimeOut | None
    run_id: str | None


class ReplayBooks(Told):
    """The account of a replay.

    matched = delivered + failed + skipped + unknown + waiting; at the end `waiting` is 0.
    """

    matched: int
    delivered: int
    failed: int
    skipped: int
    unknown: int
    waiting: int
    repeated: int
    attempts: int
