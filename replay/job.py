"""The Dagster job `replay`: fetches, calls, reports. Everything else is in the other files."""

# No postponed annotations here: Dagster reads the classes in them.

import gc
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from enum import Enum
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from lakehouse import Lake
from lakehouse.sql import Engine, open_engine
from penstock import faults
from penstock.buffer import Buffer
from penstock.bus import LAND, Bus
from penstock.cache import cache_of
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, Clock, CollectionId
from penstock.errors import PenstockError
from penstock.guard import Guard
from penstock.metadata.home import ensure_ledger_token, ensure_system_collections
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS
from penstock.metadata.store import Store
from penstock.settings import Settings, door_of
from replay.ledger import DoorLedger
from replay.plan import Planner
from replay.progress import read_progress, report
from replay.request import read_request, record_of
from replay.run import Tools, run_replay
from replay.targets.opening import log_topics

REPLAY = "replay"
REPLAY_TAG = "penstock/replay_id"
REPLAYS = dg.AssetKey("replays")

_TELL_SECONDS = 10.0
_LANES = "lane 0"


class View(Enum):
    """Which table of the collection."""

    main = "main"
    quarantine = "quarantine"


class Repeats(Enum):
    """What is done about events that repeat others."""

    fold = "fold"
    include = "include"


class Order(Enum):
    """In which order events are sent."""

    key = "key"
    log = "log"


class Headers(Enum):
    """What is added to the headers that were received."""

    add = "add"
    verbatim = "verbatim"


class Timing(Enum):
    """By which time of an event the next one waits."""

    received = "received"
    event = "event"


class ReplayConfig(dg.Config):
    """A replay that was asked for, by its id; or a new one, with everything else here.

    Credentials belong to the destination and are never written here.
    """

    replay_id: str | None = Field(
        default=None, description="A replay that was asked for. Leave it out to ask for a new one."
    )
    team: str = Field(default=DEFAULT_TEAM, description="Whose collection and destination.")
    collection: str | None = Field(default=None, description="Where the events are.")
    query: str = Field(default="", description="Which events, as in search. Empty: all of them.")
    destination: str | None = Field(default=None, description="The name of a destination.")
    since: str | None = Field(
        default=None, description="Received at this time or later: 2026-11-22T13:00:00Z."
    )
    until: str | None = Field(default=None, description="Received before this time.")
    view: View = Field(
        default=View.main, description="`main`: the collection's rows. `quarantine`: the others."
    )
    duplicates: Repeats = Field(
        default=Repeats.fold,
        description="`fold`: leave out events that repeat others. `include`: send them, too.",
    )
    order: Order = Field(
        default=Order.key,
        description="`key`: in order for each key, keys side by side. `log`: one at a time.",
    )
    rate: float | None = Field(
        default=None, description="Sends per second at most, retries included."
    )
    speed: float = Field(
        default=0.0, description="1: in the time it came in, 10: in a tenth. 0: as fast as it goes."
    )
    gap: float | None = Field(
        default=None, description="With a speed: the longest silence, in seconds."
    )
    timing: Timing = Field(
        default=Timing.received,
        description="With a speed: by the time of receipt, or the `event`'s own where it has one.",
    )
    concurrency: int = Field(default=32, description="Sends at the same time, with order `key`.")
    max_events: int | None = Field(default=None, description="Send the first so many only.")
    headers: Headers = Field(
        default=Headers.add,
        description="`add` the five penstock-… headers, or `verbatim` what was received.",
    )
    retries: int = Field(default=10, description="Attempts after the first.")
    timeout: float = Field(default=30.0, description="Seconds that one attempt may take.")
    pause_after: int | None = Field(
        default=None, description="Failed attempts in a row that pause the replay."
    )
    dry_run: bool = Field(default=False, description="Do everything but send.")

    def asked(self) -> dict[str, Any]:
        """Answer the request as `read_request` reads it."""
        given = self.model_dump(exclude={"replay_id", "team"}, exclude_none=True)
        return {name: v.value if isinstance(v, Enum) else v for name, v in given.items()}


class Landing(Protocol):
    """What lands a collection."""

    def land_once(self, collection: CollectionId) -> object | None:
        """Land one batch; None if nothing waits."""
        ...


class Stores(Protocol):
    """The stores of a home, as the resource `stores` opens them."""

    @property
    def settings(self) -> Settings:
        """The settings of the home."""
        ...

    @property
    def buffer(self) -> Buffer:
        """The reading side of the log."""
        ...

    @property
    def lake(self) -> Lake:
        """The tables."""
        ...

    @property
    def store(self) -> Store:
        """The metadata."""
        ...

    @property
    def bus(self) -> Bus:
        """The messages between processes."""
        ...

    def landing(self) -> Landing:
        """Answer what lands the collections of this home."""
        ...


@dg.op(description="Plan a replay, send it, and keep its books.")
def send(
    context: dg.OpExecutionContext, config: ReplayConfig, stores: dg.ResourceParam[Stores]
) -> None:
    """Bring a replay to its end, or to a pause; the run fails where the replay does."""
    faults.arm(os.environ.get(faults.VARIABLE))
    try:
        replay_id = config.replay_id or ask(stores.store, config, machine_clock)
        context.instance.add_run_tags(context.run_id, {REPLAY_TAG: replay_id})
        folder = stores.settings.home / "sql"
        opening = open_engine(folder, memory=stores.settings.sql_memory, s3=stores.settings.s3)
        with closing(opening) as engine, frozen():
            record = watched(context, replay_id, tools_of(stores, engine))
    except PenstockError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if record is None:
        context.log.info("another run sends this replay")
        return
    context.log_event(dg.AssetMaterialization(REPLAYS, metadata=figures(record)))
    context.log.info(sentence(record))
    if record.state == "failed":
        raise dg.Failure(record.error or "the replay failed", allow_retries=False)


@dg.job(
    name=REPLAY,
    executor_def=dg.in_process_executor,
    # A sensor starts a new run where one is wanted; Dagster's own retry would be a second one.
    tags={"dagster/max_retries": "0"},
    description="Sends again what a query finds: plan, send, ledger.",
)
def replay() -> None:
    """Send one replay."""
    send()


@contextmanager
def frozen() -> Iterator[None]:
    """Keep the collector away from everything that exists before the block.

    Dagster, PyIceberg and Arrow are two hundred thousand objects; walking them again and again took
    a tenth of the time of sending.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ask(store: Store, config: ReplayConfig, clock: Clock) -> str:
    """Write down a replay that was launched by hand, so that it is listed; answer its id."""
    request = read_request(config.asked(), team=config.team)
    store.collection(request.id)
    store.listed_destination(request.team, request.destination)
    record = record_of(request, id=secrets.token_hex(8), now=clock(), asked_by="Dagster")
    store.create_replay(record)
    return record.id


def watched(context: dg.OpExecutionContext, replay_id: str, tools: Tools) -> ReplayRecord | None:
    """Run the replay in a thread and tell Dagster how far it is.

    This thread stays free for Dagster's interrupts: they are raised wherever it is, and in the
    middle of a send that would be a crash.
    """
    stop = threading.Event()
    done = threading.Event()
    latest: list[ReplayRecord] = []
    results: list[ReplayRecord | None] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(
                run_replay(
                    replay_id,
                    tools,
                    holder=context.run_id,
                    run_id=context.run_id,
                    stop=stop,
                    told=lambda record: latest.__setitem__(slice(None), [record]),
                )
            )
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name=f"replay {replay_id}")
    thread.start()
    try:
        while not done.wait(_TELL_SECONDS):
            for record in latest:
                context.log.info(sentence(record))
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]
    return results[0]


def tools_of(stores: Stores, engine: Engine) -> Tools:
    """Answer what a replay of this home works with."""
    settings = stores.settings
    door = door_of(settings)
    token = ledger_token(stores)
    return Tools(
        store=stores.store,
        planner=Planner(stores.lake, stores.buffer, engine, clock=machine_clock),
        guard=Guard(settings.allow_networks, settings.allow_ports),
        open_ledger=lambda: DoorLedger(door, token),
        wake=waker(stores, machine_clock),
        doors=(door,),
        own_topics=log_topics(settings.log),
        clock=machine_clock,
        bus=stores.bus,
    )


def ledger_token(stores: Stores) -> str:
    """Answer the token of the ledger, and let the doors know of it if it is new."""
    store, settings = stores.store, stores.settings
    before = store.known().version
    ensure_system_collections(store, now=machine_clock())
    token = ensure_ledger_token(
        store, settings.home, now=machine_clock(), chance=secrets.token_bytes
    )
    if store.known().version != before:
        with closing(cache_of(settings)) as cache:
            cache.publish(store.known)
    return token


def waker(stores: Stores, clock: Clock) -> Callable[[CollectionId], None]:
    """Answer what lands a collection for a plan, unless a landing run is alive and does it.

    A landing run that is alive and does not get there is helped after all: two may land beside
    each other, and a plan is waiting.
    """
    asked: dict[CollectionId, int] = {}

    def wake(collection: CollectionId) -> None:
        asked[collection] = asked.get(collection, 0) + 1
        stores.bus.publish(LAND, str(collection))
        lease = stores.store.lease(_LANES)
        alive = lease is not None and clock() < lease.until
        if not alive or asked[collection] > _TRUST:
            stores.landing().land_once(collection)

    return wake


_TRUST = 3


def sentence(record: ReplayRecord) -> str:
    """Say how far a replay is."""
    progress = read_progress(record.progress)
    count = (record.plan or {}).get("count")
    of = f" of {count}" if count is not None else ""
    waiting = f"; {record.error or progress.waiting}" if record.error or progress.waiting else ""
    return (
        f"replay {record.id} is {record.state}: {progress.delivered}{of} delivered, "
        f"{progress.failed} failed{waiting}"
    )


def figures(record: ReplayRecord) -> Mapping[str, dg.MetadataValue]:
    """Answer the books of a replay as Dagster shows them."""
    progress = read_progress(record.progress)
    matched = int(str((record.plan or {}).get("count", 0)))
    books = report(progress, matched=matched, ended=record.state in ENDS)
    return {
        "replay": dg.MetadataValue.text(record.id),
        "collection": dg.MetadataValue.text(f"{record.team}.{record.collection}"),
        "query": dg.MetadataValue.text(record.query or "*"),
        "destination": dg.MetadataValue.text(record.destination),
        "state": dg.MetadataValue.text(record.state),
        "matched": dg.MetadataValue.int(books.matched),
        "delivered": dg.MetadataValue.int(books.delivered),
        "failed": dg.MetadataValue.int(books.failed),
        "skipped": dg.MetadataValue.int(books.skipped),
        "unknown": dg.MetadataValue.int(books.unknown),
        "repeated": dg.MetadataValue.int(books.repeated),
        "attempts": dg.MetadataValue.int(books.attempts),
        "late": dg.MetadataValue.int(books.late),
        "bytes": dg.MetadataValue.int(progress.bytes),
    }
