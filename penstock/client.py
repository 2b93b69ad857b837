"""A typed client of the platform's API: one method per route.

Answers are plain dataclasses with times as `datetime` in UTC; written as JSON they are what the API
said. Errors are those of `penstock.errors`, made again from what the API tells about them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

import httpx
import msgspec

from penstock import errors
from penstock.errors import EngineUnavailable, PenstockError

TIMEOUT_SECONDS = 90.0
"""Longer than any answer may take: the API itself ends SQL after `sql_seconds`."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Format:
    """What the payloads of a collection are, and since when if it was something else before."""

    name: str
    descriptor_digest: str | None
    message: str | None
    payload_field: int | None
    payload_message: str | None
    framing: str | None
    versions: int | None
    registry: str | None
    registry_secret: bool
    changed_at: datetime | None


class FormatOptions(TypedDict, total=False):
    """What a format needs beside its name; what is left out is what the collection has.

    `descriptor` is a serialised FileDescriptorSet, `avro_schema` the text of the newest schema.
    """

    descriptor: bytes | None
    message: str | None
    envelope: str
    payload_field: int | None
    payload_message: str | None
    avro_schema: str | None
    framing: str | None
    registry: str | None
    registry_secret: str | None


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection. `token` is there only right after it was made, if one was asked for."""

    name: str
    created_at: datetime
    paused: bool
    contract: str
    format: Format
    notes: str
    allow_loops: bool
    partitions: int
    keep_days: int | None = None
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class DayDue:
    """A day that is due: what its files hold, quarantine included."""

    day: date
    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long rows are kept, what the next upkeep drops, and what keeps some of it."""

    name: str
    keep_days: int | None
    days: list[DayDue]
    pinned_by: list[str]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A discovered column: its path in the payload, its type, and the event that brought it.

    `filled` rows have a value, if that was asked for and files count it.
    """

    path: str
    type: str
    since: datetime | None = None
    event_id: str | None = None
    filled: int | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one version changed; `event_id` is the first event that brought it.

    A column that was retyped or removed says what it was `before`, and `why`.
    """

    path: str
    what: str
    type: str | None
    before: str | None = None
    event_id: str | None
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Version:
    """One change of a collection's columns; versions count from 1."""

    version: int
    at: datetime
    changes: list[Change]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why past events would not be rows with a column for each leaf, and ids of the first ones.

    `outcome` says what becomes of them: a `misfit`, a `dropped` leaf, or `quarantine`.
    """

    outcome: str
    stage: str | None
    reason: str
    path: str | None
    events: int
    examples: list[str]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What past events would become under a contract; how far it is, until it is `done`.

    `events` of `wanted` were tried: `whole` rows, rows with `misfits`, rows with `dropped` leaves,
    and `quarantined` ones.
    """

    contract: str
    wanted: int
    events: int
    whole: int
    misfits: int
    dropped: int
    quarantined: int
    columns: list[Change]
    causes: list[Cause]
    uncounted: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A collection's columns now, and how they came."""

    columns: list[Column]
    versions: list[Version]
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Partition:
    """What one partition of the log keeps (`end` is exclusive), and what has landed of it."""

    partition: int
    start: int
    end: int
    mark: int
    waiting: int
    lost: int


@dataclass(frozen=True, kw_only=True)
class Books:
    """What was accepted, and what became of it: the sum of `parts`, but for the difference."""

    accepted: int
    parts: dict[str, int]
    difference: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why landing of a collection has stopped, and the command that goes on from there."""

    name: str
    detail: str
    command: str | None


@dataclass(frozen=True, kw_only=True)
class CollectionStatus:
    """How far landing is with a collection, and what it holds."""

    name: str
    paused: bool
    partitions: list[Partition]
    waiting: int
    rows: int
    duplicates: int
    quarantined: int
    closed: int
    columns: int
    snapshot_id: str | None
    books: Books
    stop: Stop | None
    troubles: list[str]
    lake_lag_seconds: float | None
    search_lag_seconds: float | None
    search_waiting: int
    last_event_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The whole installation, as far as this team may see it."""

    version: str
    team: str
    now: datetime
    collections: list[CollectionStatus]
    replays: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class AdapterHealth:
    """Whether one store or engine responds, and how long it took."""

    responds: bool
    seconds: float
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether the platform can do its work, adapter by adapter."""

    status: str
    version: str
    adapters: dict[str, AdapterHealth]


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token. `token`, its text, is there only right after it was made."""

    id: str
    name: str
    scopes: list[str]
    collection: str | None
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class RevokedToken(Token):
    """A token just revoked; `doors` says which of them refuse it by now, None if nobody knows.

    The others do `within_seconds` after they reach their cache again.
    """

    doors: dict[str, bool] | None = None
    within_seconds: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A destination; of its headers only the names, and whether it has a secret."""

    name: str
    kind: str
    url: str
    headers: list[str]
    options: dict[str, Any]
    secret: bool
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a destination made of one small event, or of a look where none was `sent`."""

    delivered: bool
    sent: bool
    status: int | None
    reason: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FoundEvent:
    """An event as it was received. Bytes that are no UTF-8 text are in the ``…_base64`` fields."""

    event_id: str
    received_at: datetime
    event_time: datetime | None = None
    source: str
    content_type: str | None = None
    key: str | None = None
    key_base64: str | None = None
    headers: list[tuple[str, str | dict[str, str]]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    payload: str | None = None
    payload_base64: str | None = None
    log_partition: int
    log_offset: int
    duplicate_of: str | None = None
    misfits: list[dict[str, str]] = field(default_factory=list)
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None

    def payload_bytes(self) -> bytes:
        """Answer the payload as it was received."""
        if self.payload_base64 is not None:
            return base64.b64decode(self.payload_base64)
        return (self.payload or "").encode()


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the events found; `cursor` asks for the next ones, None where there are none.

    `unsearched` acknowledged events were not looked at, because too many wait to land.
    """

    events: list[FoundEvent]
    cursor: str | None
    unsearched: int
    tail_rows: int
    reads_payloads: bool
    index_away: bool = False
    folded: int | None = None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many events a search finds."""

    count: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The events received from `start` on, up to the next bar."""

    start: datetime
    count: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Events found over time; a bar that would be empty is there too."""

    bars: list[Bar]
    step_seconds: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class QuarantineCause:
    """The open events of one cause; `bars` counts them for each step of time."""

    stage: str
    reason: str
    count: int
    first: datetime
    last: datetime
    bars: list[int]


@dataclass(frozen=True, kw_only=True)
class Causes:
    """Why landed events are in quarantine; the bars of each cause begin at `start`."""

    collection: str
    open: int
    closed: int
    start: datetime | None
    step_seconds: float
    causes: list[QuarantineCause]


@dataclass(frozen=True, kw_only=True)
class PayloadPlace:
    """Where a payload is wrong, and what is around it, escaped."""

    byte: int | None
    path: str | None
    before: str
    after: str
    before_cut: int
    after_cut: int


@dataclass(frozen=True, kw_only=True)
class Closed:
    """How a quarantined event was closed: `released`, `discarded`, or a `copy` of another."""

    state: str
    at: datetime
    by: str
    why: str | None = None
    release: str | None = None
    to_partition: int | None = None
    to_offset: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A quarantined event, where it is wrong, and how it was closed; None: it is open."""

    event: FoundEvent
    place: PayloadPlace
    closed: Closed | None


@dataclass(frozen=True, kw_only=True)
class RepairTrial:
    """What an event would become after a repair."""

    event_id: str
    received_at: datetime
    row: bool
    stage: str | None
    reason: str | None
    detail: str | None
    content_type: str | None
    payload: str | None
    payload_base64: str | None
    columns: list[dict[str, str]]
    misfits: list[dict[str, str]]
    new_columns: list[str]


@dataclass(frozen=True, kw_only=True)
class TriedRepair:
    """A repair tried on some events; `cursor` asks for the next ones."""

    trials: list[RepairTrial]
    closed: int
    waiting: int
    cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Worked:
    """What one page of a release or discard did: `done` events, and those `held` back, with why."""

    release: str | None
    done: int
    held: list[dict[str, str]]
    closed: int
    waiting: int
    cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """The events received from `start` on, up to the next step."""

    start: datetime
    events: int
    bytes: int
    quarantined: int
    duplicates: int
    lag_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Stats:
    """A collection over time; `uncounted` events have landed and are not in it yet."""

    steps: list[Step]
    step_seconds: int
    uncounted: int


@dataclass(frozen=True, kw_only=True)
class SqlAnswer:
    """The rows a statement answered; `truncated` when there were more than are told."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a replay would send: exact, because it is counted on one pinned snapshot."""

    plan: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay: what was asked, what was planned, and how far it is."""

    id: str
    collection: str
    query: str
    since: datetime | None
    until: datetime | None
    destination: str
    options: dict[str, Any]
    state: str
    wish: str | None
    plan: dict[str, Any] | None
    progress: dict[str, Any]
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_id: str | None


class Client:
    """The platform at `base_url`, as the holder of `token` sees it. Threads may share it.

    Raises `EngineUnavailable` where nothing answers, and for every other refusal the error that
    the platform told of.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        transport: httpx.BaseTransport | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._base = base_url
        # trust_env off: a token must not go to whatever proxy the environment names.
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"},
            transport=transport,
            timeout=timeout,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()

    # The whole

    def status(self) -> Status:
        """Answer the team's collections with their lag, and its replays by state."""
        return self._get("/api/v1/status", Status)

    def health(self) -> Health:
        """Answer which adapters respond; needs no token. Raises nothing for a sick platform."""
        response = self._send("GET", "/healthz")
        return _decode(response, Health)

    def metrics(self) -> str:
        """Answer the platform's metrics as Prometheus reads them."""
        return self._checked("GET", "/metrics").text

    def collection_metrics(self) -> str:
        """Answer the books and lag of the team's collections as Prometheus reads them."""
        return self._checked("GET", "/api/v1/metrics").text

    # Collections

    def collections(self) -> list[Collection]:
        """List the team's collections by name."""
        return self._get("/api/v1/collections", list[Collection])

    def create_collection(
        self,
        name: str,
        *,
        contract: str = "evolve",
        format: str = "json",  # noqa: A002 - the field's name
        notes: str = "",
        allow_loops: bool = False,
        partitions: int | None = None,
        keep_days: int | None = None,
        token: bool = False,
    ) -> Collection:
        """Make a collection, with an ingest token bound to it if `token`."""
        body = {
            "name": name,
            "contract": contract,
            "format": {"name": format},
            "notes": notes,
            "allow_loops": allow_loops,
            "partitions": partitions,
            "keep_days": keep_days,
            "token": token,
        }
        return self._post("/api/v1/collections", Collection, body)

    def collection(self, name: str) -> Collection:
        """Answer a collection."""
        return self._get(_path("collections", name), Collection)

    def grow_collection(self, name: str, partitions: int) -> Collection:
        """Give a collection's log more partitions."""
        return self._post(
            _path("collections", name, "grow"), Collection, {"partitions": partitions}
        )

    def set_contract(self, name: str, contract: str) -> Collection:
        """Say what becomes of leaves without a column, from the next batch that lands on."""
        return self._post(
            _path("collections", name, "contract"), Collection, {"contract": contract}
        )

    def try_contract(
        self,
        name: str,
        contract: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        sample: int | None = None,
    ) -> Iterator[Trial]:
        """Yield how far a trial of the contract on past events is, and its result as the last one.

        Nothing is changed by it.
        """
        body = _asked(contract=contract, since=since, until=until, sample=sample)
        yield from self._trial(_path("collections", name, "contract", "try"), body)

    def _trial(self, path: str, body: dict[str, object]) -> Iterator[Trial]:
        trial: Trial | None = None
        for line in _lines(self._stream(path, body, "application/x-ndjson")):
            trial = msgspec.json.decode(line, type=Trial)
            yield trial
        if trial is None or not trial.done:
            raise EngineUnavailable(f"the trial at {self._base} broke off")

    def set_format(
        self,
        name: str,
        format: str,  # noqa: A002 - the field's name
        **options: Unpack[FormatOptions],
    ) -> Collection:
        """Say what a collection's payloads are from now on; see `FormatOptions`."""
        return self._post(
            _path("collections", name, "format"), Collection, _format_asked(format, options)
        )

    def try_format(
        self,
        name: str,
        format: str,  # noqa: A002 - the field's name
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        sample: int | None = None,
        **options: Unpack[FormatOptions],
    ) -> Iterator[Trial]:
        """Yield how far a trial of the format on past events is, and its result as the last one.

        Nothing is changed by it.
        """
        body = {
            **_format_asked(format, options),
            **_asked(since=since, until=until, sample=sample),
        }
        yield from self._trial(_path("collections", name, "format", "try"), body)

    def keep_collection(self, name: str, days: int | None, *, dry_run: bool = False) -> Keeping:
        """Keep a collection's rows so many days, None for ever; with `dry_run` only look."""
        body = {"days": days, "dry_run": dry_run}
        return self._post(_path("collections", name, "keep"), Keeping, body)

    def pause_collection(self, name: str) -> Collection:
        """Let doors refuse the collection's events."""
        return self._post(_path("collections", name, "pause"), Collection)

    def resume_collection(self, name: str) -> Collection:
        """Let doors accept the collection's events again."""
        return self._post(_path("collections", name, "resume"), Collection)

    def schema(self, name: str, *, fill: bool = False) -> Schema:
        """Answer a collection's columns and how they came; with `fill` also how full they are."""
        path = _path("collections", name, "schema")
        return self._get(f"{path}?fill=true" if fill else path, Schema)

    def collection_status(self, name: str) -> CollectionStatus:
        """Answer how far landing is with a collection, its books, and what is wrong with it."""
        return self._get(_path("collections", name, "status"), CollectionStatus)

    def collection_stats(
        self,
        name: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step_seconds: int | None = None,
    ) -> Stats:
        """Answer how many events came over time; without `since`, in the last day."""
        asked = _asked(since=since, until=until, step=step_seconds)
        path = _path("collections", name, "stats")
        return self._get(f"{path}?{urlencode(asked)}" if asked else path, Stats)

    # Search

    def search(
        self,
        collection: str,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        order: str = "newest",
        view: str = "main",
        duplicates: str = "fold",
        closed: bool = False,
    ) -> Page:
        """Answer the first events found, or those after `cursor`."""
        body = _asked(
            query=query,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            order=order,
            view=view,
            duplicates=duplicates,
            closed=closed,
        )
        return self._post(_path("collections", collection, "search"), Page, body)

    def search_all(
        self,
        collection: str,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        order: str = "newest",
        view: str = "main",
        duplicates: str = "fold",
        closed: bool = False,
        page: int = 500,
    ) -> Iterator[FoundEvent]:
        """Yield every event found, asking for a page at a time; all are from one moment."""
        cursor = None
        while True:
            found = self.search(
                collection,
                query,
                since=since,
                until=until,
                limit=page,
                cursor=cursor,
                order=order,
                view=view,
                duplicates=duplicates,
                closed=closed,
            )
            yield from found.events
            cursor = found.cursor
            if cursor is None:
                return

    def count(
        self,
        collection: str,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        view: str = "main",
        duplicates: str = "fold",
        closed: bool = False,
    ) -> Count:
        """Answer how many events are found."""
        body = _asked(
            query=query,
            since=since,
            until=until,
            view=view,
            duplicates=duplicates,
            closed=closed,
        )
        return self._post(_path("collections", collection, "count"), Count, body)

    def histogram(
        self,
        collection: str,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bars: int = 60,
        view: str = "main",
        duplicates: str = "fold",
        closed: bool = False,
    ) -> Histogram:
        """Answer the events found over time, in at most about `bars` steps."""
        body = _asked(
            query=query,
            since=since,
            until=until,
            bars=bars,
            view=view,
            duplicates=duplicates,
            closed=closed,
        )
        return self._post(_path("collections", collection, "histogram"), Histogram, body)

    def event(self, collection: str, event_id: str) -> FoundEvent:
        """Answer one event by its id."""
        return self._get(_path("collections", collection, "events", event_id), FoundEvent)

    # Quarantine

    def quarantine(
        self,
        collection: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bars: int | None = None,
    ) -> Causes:
        """Answer why the landed events of a collection are in quarantine, over time."""
        asked = _asked(since=since, until=until, bars=bars)
        path = _path("collections", collection, "quarantine")
        return self._get(f"{path}?{urlencode(asked)}" if asked else path, Causes)

    def quarantined(self, collection: str, event_id: str) -> Quarantined:
        """Answer a quarantined event, and where its payload is wrong."""
        path = _path("collections", collection, "quarantine", "events", event_id)
        return self._get(path, Quarantined)

    def try_repair(
        self,
        collection: str,
        query: str = "",
        *,
        repair: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 5,
        cursor: str | None = None,
    ) -> TriedRepair:
        """Answer what the first open events would become after a repair; changes nothing."""
        body = _asked(
            query=query, repair=repair, since=since, until=until, limit=limit, cursor=cursor
        )
        return self._post(_path("collections", collection, "quarantine", "try"), TriedRepair, body)

    def release(
        self,
        collection: str,
        query: str = "",
        *,
        repair: Mapping[str, object] | None = None,
        release: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Worked]:
        """Send quarantined events to the log again, repaired; yield what each page of them did.

        All of it may be repeated, after an error too: each event becomes a row once.
        """
        body = _asked(query=query, repair=repair, release=release, since=since, until=until)
        for page in self._worked(collection, "release", body):
            body["release"] = page.release
            yield page

    def discard(
        self,
        collection: str,
        query: str = "",
        *,
        why: str,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Worked]:
        """Take quarantined events out of the list; yield what each page of them did."""
        body = _asked(query=query, why=why, since=since, until=until)
        yield from self._worked(collection, "discard", body)

    def _worked(self, collection: str, verb: str, body: dict[str, object]) -> Iterator[Worked]:
        while True:
            page = self._post(_path("collections", collection, "quarantine", verb), Worked, body)
            yield page
            if page.cursor is None:
                return
            body["cursor"] = page.cursor

    # SQL

    def sql(self, statement: str) -> SqlAnswer:
        """Answer a SELECT or EXPLAIN over the team's collections."""
        return self._post("/api/v1/sql", SqlAnswer, {"statement": statement})

    def sql_csv(self, statement: str) -> Iterator[bytes]:
        """Yield the answer of a statement as CSV, in pieces."""
        yield from self._stream("/api/v1/sql", {"statement": statement}, "text/csv")

    # Tokens

    def tokens(self) -> list[Token]:
        """List the team's tokens, revoked ones included, oldest first."""
        return self._get("/api/v1/tokens", list[Token])

    def create_token(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        collection: str | None = None,
        expires_at: datetime | None = None,
    ) -> Token:
        """Make a token; its text is in the answer, and nowhere afterwards."""
        body = _asked(name=name, scopes=list(scopes), collection=collection, expires_at=expires_at)
        return self._post("/api/v1/tokens", Token, body)

    def revoke_token(self, token_id: str) -> RevokedToken:
        """Make a token worthless."""
        return _decode(self._checked("DELETE", _path("tokens", token_id)), RevokedToken)

    # Destinations

    def destinations(self) -> list[Destination]:
        """List the team's destinations by name."""
        return self._get("/api/v1/destinations", list[Destination])

    def create_destination(
        self,
        name: str,
        url: str,
        *,
        kind: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        options: Mapping[str, object] | None = None,
        secret: str | None = None,
    ) -> Destination:
        """Make a destination; without `kind` the URL's scheme says what it is."""
        body = {
            "name": name,
            "url": url,
            "headers": [list(pair) for pair in headers],
            "options": dict(options or {}),
            **({} if kind is None else {"kind": kind}),
            **({} if secret is None else {"secret": secret}),
        }
        return self._post("/api/v1/destinations", Destination, body)

    def destination(self, name: str) -> Destination:
        """Answer a destination."""
        return self._get(_path("destinations", name), Destination)

    def delete_destination(self, name: str) -> None:
        """Forget a destination."""
        self._checked("DELETE", _path("destinations", name))

    def try_destination(self, name: str) -> Tried:
        """Send one small event to an HTTP destination; look whether another would take events."""
        return self._post(_path("destinations", name, "test"), Tried)

    # Replays

    def plan_replay(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        since: datetime | None = None,
        until: datetime | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Plan:
        """Answer what a replay would send, without sending it."""
        body = _asked(
            collection=collection,
            query=query,
            destination=destination,
            since=since,
            until=until,
            **dict(options or {}),
        )
        return Plan(plan=self._post("/api/v1/replays/plan", dict[str, Any], body))

    def create_replay(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        since: datetime | None = None,
        until: datetime | None = None,
        options: Mapping[str, object] | None = None,
        confirm: int | None = None,
    ) -> Replay:
        """Ask for a replay. A large one needs `confirm`, the count that its plan answered."""
        body = _asked(
            collection=collection,
            query=query,
            destination=destination,
            since=since,
            until=until,
            **dict(options or {}),
        )
        if confirm is not None:
            body["confirm"] = confirm
        return self._post("/api/v1/replays", Replay, body)

    def replays(self) -> list[Replay]:
        """List the team's newest replays, newest first."""
        return self._get("/api/v1/replays", list[Replay])

    def replay(self, replay_id: str) -> Replay:
        """Answer a replay."""
        return self._get(_path("replays", replay_id), Replay)

    def pause_replay(self, replay_id: str) -> Replay:
        """Ask a replay to stop sending for now."""
        return self._post(_path("replays", replay_id, "pause"), Replay)

    def resume_replay(self, replay_id: str) -> Replay:
        """Ask a replay to go on."""
        return self._post(_path("replays", replay_id, "resume"), Replay)

    def cancel_replay(self, replay_id: str) -> Replay:
        """Ask a replay to stop for good."""
        return self._post(_path("replays", replay_id, "cancel"), Replay)

    def replay_report(self, replay_id: str) -> dict[str, Any]:
        """Answer the books of a replay: matched = delivered + failed + skipped."""
        return self._get(_path("replays", replay_id, "report"), dict[str, Any])

    # How it is sent

    def _get(self, path: str, kind: type[_T]) -> _T:
        return _decode(self._checked("GET", path), kind)

    def _post(self, path: str, kind: type[_T], body: object = None) -> _T:
        return _decode(self._checked("POST", path, body), kind)

    def _checked(self, method: str, path: str, body: object = None) -> httpx.Response:
        response = self._send(method, path, body)
        if not response.is_success:
            raise told(response)
        return response

    def _send(self, method: str, path: str, body: object = None) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _stream(self, path: str, body: object, accept: str) -> Iterator[bytes]:
        headers = {"Content-Type": "application/json", "Accept": accept}
        content = msgspec.json.encode(body)
        try:
            with self._http.stream("POST", path, content=content, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise told(response)
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> EngineUnavailable:
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"{self._base} did not answer in time")
        return EngineUnavailable(f"no platform answers at {self._base}: {error}")


def told(response: httpx.Response) -> PenstockError:
    """Make the error again that a problem tells of.

    It has its class and its sentence; of its other facts only `retry_after`, and where a query
    could not be read.
    """
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    detail = str(problem.get("detail") or f"the platform answered {response.status_code}")
    if "query" in problem and "position" in problem:
        position = int(problem["position"])
        expected = detail.removesuffix(f", at character {position + 1}")
        return errors.BadQuery(str(problem["query"]), position, expected)

    kind = _kind(str(problem.get("type", "")), response.status_code)
    if issubclass(kind, errors.Unavailable):
        wait = response.headers.get("Retry-After", "1")
        return kind(detail, retry_after=int(wait) if wait.isdecimal() else 1)
    # Past the class's own __init__, which would make another sentence of its facts.
    error = kind.__new__(kind)
    Exception.__init__(error, detail)
    return error


_BY_STATUS: Mapping[int, type[PenstockError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.WrongState,
    413: errors.TooLarge,
    429: errors.Overloaded,
    500: PenstockError,
}
_SERVER_ERROR = 500


def _kind(type_: str, status: int) -> type[PenstockError]:
    name = type_.removeprefix("urn:penstock:").replace("-", "")
    for kind in _every(PenstockError):
        if kind.__name__.lower() == name:
            return kind
    fallback = EngineUnavailable if status > _SERVER_ERROR else errors.BadRequest
    return _BY_STATUS.get(status, fallback)


def _every(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _every(below)


def _decode(response: httpx.Response, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        raise EngineUnavailable(
            f"what answers at {response.url} is no Penstock of this version: {error}"
        ) from error


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _path(*parts: str) -> str:
    # Dots too: a part that is ".." would be taken for the folder above.
    quoted = (quote(part, safe="").replace(".", "%2E") for part in parts)
    return "/api/v1/" + "/".join(quoted)


def _format_asked(name: str, options: FormatOptions) -> dict[str, object]:
    descriptor = options.get("descriptor")
    given = _asked(**options)
    if descriptor is not None:
        given["descriptor"] = base64.b64encode(descriptor).decode()
    return {"name": name, **given}


def _asked(**values: object) -> dict[str, object]:
    """Leave out what was not given; write times as the API reads them."""
    return {
        name: _time(value) if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
