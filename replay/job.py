"""The Dagster job `replay`: fetches, calls, reports. Everything else is in the other files."""

# No postponed annotations here: Dagster reads the classes in them.

import gc
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import msgspec
from pydantic import Field

from lakehouse import Lake
from lakehouse.sql import Engine, open_engine
from penstock import faults
from penstock.buffer import Buffer
from penstock.bus import LAND, Bus
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, Clock, CollectionId, Micros
from penstock.errors import BadRequest, PenstockError
from penstock.guard import Guard
from penstock.metadata.home import ensure_ledger_token, ensure_system_collections
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS
from penstock.metadata.store import Store
from penstock.settings import Settings, door_of
from replay.again import retry_of
from replay.beforehand import check
from replay.continuous import new_record
from replay.doorway import doorway_of, told_to_doors
from replay.ledger import DoorLedger
from replay.plan import Plan, Planner
from replay.progress import read_progress, report
from replay.request import ReplayRequest, read_request, read_time, rfc3339
from replay.run import Tools, run_replay
from replay.saved import read, started
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
    transform: list[str] = Field(
        default=[],
        description="What is changed in each event on its way, a step each: `mask card.number`, "
        "`mask email as hash`, `remove debug`, `rename user to customer`, `set env = 'staging'`.",
    )
    retries: int = Field(default=10, description="Attempts after the first.")
    timeout: float = Field(default=30.0, description="Seconds that one attempt may take.")
    pause_after: int | None = Field(
        default=None, description="Failed attempts in a row that pause the replay."
    )
    dry_run: bool = Field(default=False, description="Do everything but send.")
    missing: bool = Field(
        default=False,
        description="Leave out what the destination has acknowledged in any replay.",
    )
    continuous: bool = Field(
        default=False,
        description="Go on with every match that lands later, until it is cancelled. It begins at "
        "`since`; without that, with what is accepted from now on.",
    )
    retry_of: str | None = Field(
        default=None,
        description="A replay that has ended: send what failed in it, or was cut off. What is left "
        "out here is as it was there.",
    )
    plan: str | None = Field(
        default=None,
        description="The text of a plan that was kept in a file, to be started as it is. Nothing "
        "else is said then but the team.",
    )
    start_at: str | None = Field(
        default=None,
        description="Start at this time, in a run that the sensor launches: 2026-12-01T03:00:00Z.",
    )

    def asked(self) -> dict[str, Any]:
        """Answer the request as `read_request` reads it."""
        given = self.model_dump(
            exclude={"replay_id", "team", "plan", "start_at"}, exclude_none=True
        )
        return {name: v.value if isinstance(v, Enum) else v for name, v in given.items()}

    def begins(self) -> Micros | None:
        """Answer when a new replay is to start; None for at once."""
        return None if self.start_at is None else read_time(self.start_at, what="start_at")

    def changed(self) -> dict[str, Any]:
        """Answer what is not as it is when nothing is said."""
        fields = ReplayConfig.model_fields
        said = {name for name in fields if getattr(self, name) != fields[name].default}
        return {name: value for name, value in self.asked().items() if name in said}


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
        folder = stores.settings.home / "sql"
        opening = open_engine(folder, memory=stores.settings.sql_memory, s3=stores.settings.s3)
        with closing(opening) as engine, frozen():
            tools = tools_of(stores, engine)
            replay_id = config.replay_id or asked_for(config, tools)
            context.instance.add_run_tags(context.run_id, {REPLAY_TAG: replay_id})
            begins = None if config.replay_id else config.begins()
            if begins is not None and machine_clock() < begins:
                context.log.info("replay %s waits for its time: %s", replay_id, rfc3339(begins))
                return
            record = watched(context, replay_id, tools)
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


def ask(
    store: Store,
    config: ReplayConfig,
    clock: Clock,
    begin: Callable[[ReplayRequest], Plan],
    files: Path | None,
) -> str:
    """Write down a replay that was launched by hand, so that it is listed; answer its id.

    `begin` answers the plan of a continuous one.
    """
    request = requested(store, config)
    check(request, store, files)
    record = new_record(
        request,
        begin,
        id=secrets.token_hex(8),
        now=clock(),
        asked_by="Dagster",
        start_at=config.begins(),
    )
    store.create_replay(record)
    return record.id


def asked_for(config: ReplayConfig, tools: Tools) -> str:
    """Write down what was launched by hand, a plan or a request; answer the replay's id."""
    if config.plan is None:
        return ask(tools.store, config, tools.clock, tools.planner.begin, tools.files)
    if config.changed() or config.start_at is not None:
        raise BadRequest("a plan is started as it is: leave everything else out")
    try:
        values = msgspec.json.decode(config.plan, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadRequest(f"the plan cannot be read: {error}") from error
    record = started(
        read(values, team=config.team),
        tools.store,
        tools.planner,
        files=tools.files,
        id=secrets.token_hex(8),
        clock=tools.clock,
        asked_by="Dagster",
    )
    return record.id


def requested(store: Store, config: ReplayConfig) -> ReplayRequest:
    """Answer what a launch asks for. Raises what `read_request` and `retry_of` do."""
    if config.retry_of is None:
        return read_request(config.asked(), team=config.team)
    changes = config.changed()
    replay_id, destination = changes.pop("retry_of"), changes.pop("destination", None)
    record = store.replay(config.team, replay_id)
    return retry_of(record, destination=destination, changes=changes)


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
    said = ""
    try:
        while not done.wait(_TELL_SECONDS):
            for record in latest:
                # A replay that waits, and a continuous one most of all, has nothing new to say.
                if said != (said := sentence(record)):
                    context.log.info(said)
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
        doorway=doorway_of(settings, stores.store),
        files=settings.replay_files,
        senders=settings.replay_senders,
        own_topics=log_topics(settings.log),
        clock=machine_clock,
        bus=stores.bus,
    )


def ledger_token(stores: Stores) -> str:
    """Answer the token of the ledger, and let the doors know of it if it is new."""
    store, settings = stores.store, stores.settings

    def make() -> str:
        ensure_system_collections(store, now=machine_clock())
        return ensure_ledger_token(
            store, settings.home, now=machine_clock(), chance=secrets.token_bytes
        )

    return told_to_doors(settings, store, make)


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
        "differing": dg.MetadataValue.int(books.differing),
        "bytes": dg.MetadataValue.int(progress.bytes),
    }
