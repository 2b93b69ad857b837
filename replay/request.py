"""What a replay is asked to do: which events, where to, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from penstock.envelope import (
    SYSTEM_TEAM,
    CollectionId,
    Micros,
    check_name,
    parse_collection,
)
from penstock.errors import BadRequest, Rejected, about
from penstock.metadata.records import ReplayRecord
from replay.transform import LONGEST_STEP, MOST_STEPS, read_transform

View = Literal["main", "quarantine"]
Order = Literal["log", "key"]
HeaderMode = Literal["add", "verbatim"]
Timing = Literal["received", "event"]

_S = TypeVar("_S", bound=msgspec.Struct)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_QUERY = 10_000
_LONGEST_DESTINATION = 100


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a replay sends. `rate`, `speed`, `gap` and `concurrency` may change while it runs."""

    view: View = "main"
    """The collection's table, or its quarantine."""

    duplicates: Literal["fold", "include"] = "fold"
    """Leave out events that repeat others, as a search does, or send them, too."""

    order: Order = "key"
    """``log``: one event at a time, in log order. ``key``: that for the events of each key, with
    keys side by side; events without a key have no order."""

    rate: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """Sends per second at most, retries included; null for no limit."""

    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """1 keeps the time that was between events, 10 sends them in a tenth of it; 0 sends as fast
    as the rest allows."""

    gap: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """With a speed: the longest silence between two events, in seconds; null leaves silences."""

    timing: Timing = "received"
    """With a speed: by the time of receipt, or by the ``event``'s own where it has one."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000)] = 32
    """Sends at the same time; with ``order: log`` always 1."""

    max_events: Annotated[int, Meta(ge=1)] | None = None
    """Send the first so many matches only; the others are counted as skipped."""

    headers: HeaderMode = "add"
    """``add`` the five ``penstock-…`` headers, or send ``verbatim`` what was received."""

    transform: Annotated[
        tuple[Annotated[str, Meta(max_length=LONGEST_STEP)], ...], Meta(max_length=MOST_STEPS)
    ] = ()
    """What is changed in each event on its way, step by step; see `replay.transform`."""

    retries: Annotated[int, Meta(ge=0, le=100)] = 10
    """Attempts after the first, for failures that may pass."""

    timeout: Annotated[float, Meta(gt=0, le=300)] = 30.0
    """Seconds that one attempt may take."""

    pause_after: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Failed attempts in a row, over all events, that pause the replay. Null: twice the
    concurrency, and at least 10, so that one bad moment of a destination is no reason."""

    dry_run: bool = False
    """Do everything but send."""

    missing: bool = False
    """Leave out events that the destination has acknowledged in any replay."""

    continuous: bool = False
    """Go on with every match that lands later, until it is cancelled. It begins with what was
    received at `since`; without that, with what is accepted after it was asked for."""

    retry_of: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    """Of a retry: the replay of which it sends what failed, or what nobody knows the outcome of.
    Its query is then told and not asked."""

    def __post_init__(self) -> None:
        """Refuse what says nothing of a replay without an end."""
        if self.continuous:
            _refuse_of_continuous(
                max_events=self.max_events,
                missing=self.missing,
                speed=self.speed,
                retry_of=self.retry_of,
            )

    def at_once(self) -> int:
        """Answer how many sends may be under way together."""
        return 1 if self.order == "log" else self.concurrency

    def tempo(self) -> tuple[float, float | None, Timing]:
        """Answer what decides when events are due."""
        return self.speed, self.gap, self.timing

    def patience(self) -> int:
        """Answer how many failed attempts in a row pause the replay."""
        return self.pause_after or max(10, 2 * self.at_once())

    def waits_after(self) -> int | None:
        """Answer after how many failures in a row, that may pass, events wait for better times.

        None where they do not. It is less than an event has attempts: a destination that is away
        makes none of them fail for good.
        """
        if not self.continuous or self.pause_after is not None:
            return None
        return max(2, min(10, self.retries))


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events of one collection go to one destination of the same team.

    `since` (inclusive) and `until` (exclusive) bound the time of receipt.
    """

    team: str
    collection: str
    query: Annotated[str, Meta(max_length=_LONGEST_QUERY)] = ""
    since: Micros | None = None
    until: Micros | None = None
    destination: Annotated[str, Meta(min_length=1, max_length=_LONGEST_DESTINATION)]
    options: Options = msgspec.field(default_factory=Options)

    def __post_init__(self) -> None:
        """Refuse what the types cannot: names, an empty time range."""
        if self.team != SYSTEM_TEAM:
            check_name(self.team, what="team")
        check_name(self.collection, what="collection")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise BadRequest("the replay's time range is empty: since is not before until").at(
                "until"
            )
        if self.options.continuous:
            _refuse_of_continuous(until=self.until)
            if self.team == SYSTEM_TEAM:
                said = "what replays write themselves is not replayed continuously"
                raise BadRequest(said).at("collection")

    @property
    def id(self) -> CollectionId:
        """The collection, with its team."""
        return CollectionId(self.team, self.collection)

    @property
    def from_now_on(self) -> bool:
        """Whether nothing is taken of what there is already."""
        return self.options.continuous and self.since is None

    def digest(self) -> str:
        """Answer a hash of everything that decides which messages are sent, and in what form.

        A plan is resumed only under the digest it was made for. What may change while a replay
        runs (rate, speed, concurrency, patience with failures) is not part of it.
        """
        options = self.options
        deciding: list[object] = [
            self.team,
            self.collection,
            self.query,
            self.since,
            self.until,
            self.destination,
            options.view,
            options.order,
            options.max_events,
            options.headers,
            options.dry_run,
        ]
        # Plans of earlier releases were made for requests that did not say it.
        if options.duplicates != "fold":
            deciding.append(options.duplicates)
        if options.missing:
            deciding.append("missing")
        if options.retry_of is not None:
            deciding += ["retry_of", options.retry_of]
        if options.continuous:
            deciding.append("continuous")
        if options.transform:
            deciding.append(list(options.transform))
        return hashlib.sha256(msgspec.json.encode(deciding)).hexdigest()


def read_request(
    values: Mapping[str, Any],
    *,
    team: str,
) -> ReplayRequest:
    """Read a request as people write it; raise `BadRequest` or `BadName` saying what is wrong.

    `values` has ``collection``, ``destination``, and may have ``query``, ``since``, ``until``
    (RFC 3339 text or microseconds since 1970) and the fields of `Options`, all on one level.
    """
    inner = {name: value for name, value in values.items() if name in Options.__struct_fields__}
    outer = {name: value for name, value in values.items() if name not in inner}
    if "team" in outer:
        raise BadRequest("the team of a replay is the caller's, it cannot be given").at("team")
    if "options" in outer:
        raise BadRequest("options are given beside the query, not in a field of their own").at(
            "options"
        )
    collection = outer.pop("collection", None)
    if not isinstance(collection, str):
        raise BadRequest("a replay needs the name of a collection").at("collection")
    with about("collection"):
        asked = parse_collection(collection, team=team)
        if asked.team != team:
            raise BadRequest("a replay reads the caller's own team only")
    times = {
        name: read_time(outer.pop(name), what=name)
        for name in ("since", "until")
        if outer.get(name) is not None
    }
    outer.update(team=team, collection=asked.name, options=inner, **times)
    request = _converted(outer, ReplayRequest)
    read_transform(request.options.transform)
    return request


@contextmanager
def about_options() -> Iterator[None]:
    """Let what is refused of an option meanwhile be about that field of ``options``."""
    try:
        yield
    except Rejected as error:
        if error.field.partition(".")[0] in Options.__struct_fields__:
            error.at("options")
        raise


def read_options(values: Mapping[str, Any]) -> Options:
    """Read options alone; raise `BadRequest` saying what is wrong."""
    return _converted(dict(values), Options)


def request_of(record: ReplayRecord) -> ReplayRequest:
    """Answer what the row of a replay asks for; raise `BadRequest` if no version understands it."""
    return _converted(
        {
            "team": record.team,
            "collection": record.collection,
            "query": record.query,
            "since": record.since,
            "until": record.until,
            "destination": record.destination,
            "options": record.options,
        },
        ReplayRequest,
    )


def record_of(
    request: ReplayRequest,
    *,
    id: str,  # noqa: A002
    now: Micros,
    asked_by: str | None = None,
    why: str | None = None,
    start_at: Micros | None = None,
) -> ReplayRecord:
    """Answer the row of a new replay, in state ``requested``."""
    return ReplayRecord(
        id=id,
        team=request.team,
        collection=request.collection,
        query=request.query,
        since=request.since,
        until=request.until,
        destination=request.destination,
        options=msgspec.to_builtins(request.options),
        created_at=now,
        asked_by=asked_by,
        why=why,
        start_at=start_at,
    )


def read_time(value: object, *, what: str) -> Micros:
    """Read RFC 3339 text, a date (its first moment, UTC), or whole microseconds since 1970.

    `what` is the field that has it.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise _no_time(what) from error
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)
    raise _no_time(what)


def _no_time(what: str) -> BadRequest:
    return BadRequest(f"{what} is no time: write 2026-11-22T13:00:00Z").at(what)


def moment_of(micros: Micros) -> datetime:
    """Answer a time as Python has it."""
    return _EPOCH + timedelta(microseconds=micros)


def rfc3339(micros: Micros) -> str:
    """``2025-11-24T16:00:00.000001Z``: always six digits, so that texts sort as times do."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_to_the_second(seconds)}.{rest:06}Z"


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    """Three times are written per event sent, and a date takes 5 us to write."""
    return moment_of(seconds * 1_000_000).replace(tzinfo=None).isoformat()


def _refuse_of_continuous(**given: object) -> None:
    """Raise `BadRequest` for what a replay that goes on for ever cannot be asked."""
    for name, value in given.items():
        if value:
            raise BadRequest(
                f"a continuous replay goes on until it is cancelled: leave out {name}, or send "
                "what there is in a replay of its own"
            ).at(name)


def _converted(values: Mapping[str, Any], kind: type[_S]) -> _S:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        said, field = placed(error)
        # Options stand on one level with the rest, for who asks.
        field = field.removeprefix("options").removeprefix(".")
        if not field:
            raise BadRequest(f"the replay cannot be read: {said}") from error
        raise BadRequest(f"{field} cannot be used: {said}").at(field) from error


def placed(error: msgspec.ValidationError) -> tuple[str, str]:
    """Answer what is wrong with values, and the field that has it, ``''`` for all of them."""
    said, _, place = str(error).partition(" - at `$")
    field = place.rstrip("`").removeprefix(".").partition("[")[0]
    return said[:1].lower() + said[1:], field
