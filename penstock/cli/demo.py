"""`penstock demo`: the whole trip with real data, told step by step, with its books at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.cli import replay as replays
from penstock.cli.console import DONE, FAILED, out, safe, table
from penstock.cli.home import DEFAULT_HOME, HomeOption, Running, SettingsOption, command
from penstock.cli.moments import utc_now
from penstock.cli.receiver import Receiver, digest, receiving
from penstock.cli.send import NDJSON, DoorClient, bodies
from penstock.cli.up import DagsterPort, GrpcPort, HttpPort, PlatformPort, describe, running
from penstock.errors import EngineUnavailable
from penstock.samples import flights, orders
from penstock.settings import load_settings

if TYPE_CHECKING:
    from penstock.client import Client, ReplayOptions
    from penstock.contract.replays import ReplayTold
    from penstock.contract.status import OneStatus

RECEIVER = "demo_receiver"
PLAY_ON = (
    "status",
    "search orders discount --limit 3",
    "search orders --quarantine --limit 3",
    "collection schema orders",
    "sql 'select * from orders limit 1'",
    "replay list",
)
_LATE = 120
LATE_FROM_JFK = f"dep_delay:>{_LATE} AND origin:JFK"
_LANDING_PATIENCE = 180.0
_REPLAY_PATIENCE = 300.0


@dataclass
class Books:
    """What became of one collection's events of this run."""

    collection: str
    sent: Counter[bytes] = field(default_factory=Counter)
    """Payload digests of what was acknowledged."""
    expected: Counter[bytes] = field(default_factory=Counter)
    """Digests of what the replays shall deliver."""
    rows_before: int = 0
    quarantined_before: int = 0
    landed: int = 0
    quarantined: int = 0
    found: int = 0
    replayed: int = 0
    received: Counter[bytes] = field(default_factory=Counter)
    doubled: int = 0

    @property
    def accepted(self) -> int:
        """The number of acknowledged events."""
        return self.sent.total()

    @property
    def missing(self) -> int:
        """The number of expected events that did not come."""
        return (self.expected - self.received).total()

    @property
    def differing(self) -> int:
        """The number of received payloads that nobody sent."""
        return sum(n for one, n in self.received.items() if one not in self.sent)

    @property
    def balanced(self) -> bool:
        """Whether every event is where it should be, once."""
        return (
            self.accepted == self.landed + self.quarantined
            and self.found == self.landed
            and self.replayed == self.expected.total() == self.received.total()
            and not (self.missing or self.doubled or self.differing)
        )

    def figures(self) -> tuple[object, ...]:
        """Answer what the table tells, in the order of `FIGURES`."""
        return (
            *(self.accepted, self.landed, self.quarantined, self.found),
            *(self.replayed, self.received.total(), self.missing, self.doubled, self.differing),
            "yes" if self.balanced else "NO",
        )


FIGURES = (
    *("accepted", "landed", "quarantined", "found", "replayed", "received"),
    *("missing", "doubled", "bytes differing", "balanced"),
)


def books_table(books: Sequence[Books]) -> Table:
    """Lay the books out: a column for each collection, so that 80 characters are enough."""
    names = [f"{one.collection}#" for one in books]
    figures = [one.figures() for one in books]
    rows = [(name, *(of[place] for of in figures)) for place, name in enumerate(FIGURES)]
    return table("The books of this run", ["", *names], rows)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the table; 0 only if the books balance.")
    ] = False,
    departures: Annotated[
        int, typer.Option(min=1, max=flights.FLIGHTS, help="How many departures to send.")
    ] = flights.FLIGHTS,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    platform_port: PlatformPort = None,
    dagster_port: DagsterPort = None,
) -> None:
    """Start everything, send real events, find, ask and replay them, and check the books."""
    with receiving() as receiver:
        settings = load_settings(
            home,
            file=settings_file,
            http_port=http_port,
            grpc_port=grpc_port,
            platform_port=platform_port,
            dagster_port=dagster_port,
            # The guard refuses private addresses; the demo's receiver is on this machine.
            allow_networks=(ip_network("127.0.0.1/32"),),
            allow_ports=(receiver.port,),
        )
        console = out()
        console.print(
            "[bold]Penstock demo[/]: from the bus to the lake and back, in a minute or two\n"
            f"[dim]everything is kept in {safe(settings.home)}; Ctrl-C stops it[/]\n"
        )
        with running(settings, console, file=settings_file) as (supervisor, what):
            balanced = Trip(what, receiver, console, departures, settings.home).run()
            if once:
                up_again = command(settings.home, "up")
                console.print(
                    f"Everything stops now and what landed stays; go on with it: {up_again}\n",
                    markup=False,
                )
                raise typer.Exit(DONE if balanced else FAILED)
            describe(what, settings.home, console)
            console.print("  Play on, in another terminal:\n")
            for words in PLAY_ON:
                console.print(f"    {command(settings.home, words)}", markup=False)
            console.print()
            supervisor.watch()


class Trip:
    """One run of the demo against what is running."""

    def __init__(
        self,
        what: Running,
        receiver: Receiver,
        console: Console,
        departures: int,
        home: Path,
    ) -> None:
        from penstock.client import Client

        self._what = what
        self._receiver = receiver
        self._console = console
        self._departures = departures
        self._home = home
        self._client: Client = Client(what.platform, what.token)
        self._books = {
            name: Books(name) for name in ("airlines", "planes", "weather", "flights", "orders")
        }
        self._step = 0
        self._token = ""

    def run(self) -> bool:
        """Go the whole way; answer whether all books balance."""
        begun = utc_now()
        with self._client:
            self._prepare()
            self._send()
            self._find_at_once()
            self._land()
            self._find(begun)
            self._ask()
            self._replay(begun)
        self._console.print()
        self._console.print(books_table(list(self._books.values())))
        wrong = [books.collection for books in self._books.values() if not books.balanced]
        if wrong:
            self._console.print(
                f"\n[red]The books of {', '.join(wrong)} do not balance[/]: every accepted event "
                "has to be landed or quarantined, and every replayed one received once\n"
            )
        else:
            self._console.print(
                "\n[green]The books balance[/]: every event is where it should be, once, "
                "byte for byte\n"
            )
        return not wrong

    def _type(self, words: str) -> None:
        """Show a command that somebody can type in another terminal."""
        self._console.print(Text(f"  $ {command(self._home, words)}", style="cyan"))

    def _tell(self, title: str, look: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Panel.fit(f"[bold]{self._step}. {title}[/]\n[dim]{look}[/]"))

    def _prepare(self) -> None:
        existing = {one.name for one in self._client.collections()}
        for name in self._books:
            if name not in existing:
                self._client.create_collection(name, notes="demo")
        for books in self._books.values():
            status = self._wait_landed(books.collection)
            books.rows_before, books.quarantined_before = status.rows, status.quarantined
        made = self._client.create_token("demo, gRPC", ["ingest"], collection="orders")
        self._token = made.token or ""
        if RECEIVER in {one.name for one in self._client.destinations()}:
            self._client.delete_destination(RECEIVER)
        address = f"http://127.0.0.1:{self._receiver.port}/events"
        self._client.create_destination(RECEIVER, address)

    def _send(self) -> None:
        self._tell(
            "Collect: real events over HTTP and gRPC",
            "departures from New York in 2013, their planes and weather, and shop orders\n"
            "that go wrong on purpose; each is acknowledged once it is synced to disk",
        )
        with DoorClient(self._what.door, self._what.token) as door:
            for name in flights.NAMES:
                events = flights.events(name)
                if name == "flights":
                    events = islice(events, self._departures)
                self._timed(name, partial(self._batches, door, name, events))
            stream = list(orders.orders(3_000))
            self._timed("orders, HTTP", lambda: self._orders_http(door, stream[:1_000]))
        self._timed("orders, gRPC", lambda: self._orders_grpc(stream[1_000:]))

    def _timed(self, what: str, work: Callable[[], int]) -> None:
        begun = time.monotonic()
        with self._console.status(f"sending {what} …"):
            count = work()
        seconds = time.monotonic() - begun
        self._console.print(f"  {what:<14} {count:>9,} accepted, {count / seconds:>9,.0f}/s")

    def _batches(self, door: DoorClient, name: str, events: Iterable[bytes]) -> int:
        sent = self._books[name].sent
        before = sent.total()

        def counted() -> Iterator[bytes]:
            for event in events:
                sent[digest(event)] += 1
                yield event + b"\n"

        accepted = sum(int(door.post(name, body, NDJSON)["accepted"]) for body in bodies(counted()))
        if accepted != sent.total() - before:
            raise EngineUnavailable(
                f"the door accepted {accepted} of {sent.total() - before} events"
            )
        return accepted

    def _orders_http(self, door: DoorClient, stream: list[orders.Order]) -> int:
        for order in stream:
            door.post("orders", order.payload, order.content_type)
            self._books["orders"].sent[digest(order.payload)] += 1
        return len(stream)

    def _orders_grpc(self, stream: list[orders.Order]) -> int:
        import grpc

        from ingest_api.proto import records_pb2, services_pb2, services_pb2_grpc

        metadata = (("batch-token", self._token),)
        accepted: int = 0
        with grpc.insecure_channel(self._what.grpc) as channel:
            door = services_pb2_grpc.GRPCCollectorStub(channel)  # type: ignore[no-untyped-call] # generated
            for start in range(0, len(stream), 100):
                part = stream[start : start + 100]
                records = [
                    records_pb2.AMQPSinkRecord(
                        body=order.payload,
                        content_type=order.content_type,
                        exchange="shop",
                        routing_key=f"orders.{order.kind}",
                        headers=[
                            records_pb2.AMQPHeader(key=name, value=value)
                            for name, value in order.headers
                        ],
                    )
                    for order in part
                ]
                request = services_pb2.AMQPRecordRequest(records=records)
                answer = door.AddAMQPRecord(request, metadata=metadata)
                accepted += answer.num_records_processed
        for order in stream:
            self._books["orders"].sent[digest(order.payload)] += 1
        return accepted

    def _find_at_once(self) -> None:
        self._tell(
            "Find: the moment it is acknowledged",
            "an event is found by the very next request, before it is in any table",
        )
        needle = f"needle{time.time_ns()}"
        payload = msgspec.json.encode({"order_id": needle, "total": 1})
        with DoorClient(self._what.door, self._what.token) as door:
            door.post("orders", payload, "application/json")
        self._books["orders"].sent[digest(payload)] += 1
        begun = time.monotonic()
        page = self._client.search("orders", f"order_id:{needle}")
        took = (time.monotonic() - begun) * 1000
        self._type(f"search orders order_id:{needle}")
        self._console.print(f"  {len(page.events)} event, {took:.0f} ms")
        if len(page.events) != 1:
            raise EngineUnavailable("an acknowledged event was not found")

    def _land(self) -> None:
        self._tell(
            "Land: rows in Iceberg tables, by Dagster",
            f"watch it at {self._what.dagster}/assets/events",
        )
        for books in self._books.values():
            with self._console.status(f"landing {books.collection} …"):
                status = self._wait_landed(books.collection)
            books.landed = status.rows - books.rows_before
            books.quarantined = status.quarantined - books.quarantined_before
            self._console.print(
                f"  {books.collection:<10} {books.landed:>9,} rows, {books.quarantined:,} in "
                f"quarantine, {status.columns} columns discovered"
            )
        self._type("collection schema orders")
        self._type("search orders --quarantine --limit 3")

    def _wait_landed(self, name: str) -> OneStatus:
        deadline = time.monotonic() + _LANDING_PATIENCE
        while True:
            status = self._client.collection_status(name)
            if status.waiting == 0:
                return status
            if time.monotonic() > deadline:
                raise EngineUnavailable(
                    f"{status.waiting:,} events of {name} did not land in time: see the logs folder"
                )
            time.sleep(0.5)

    def _find(self, begun: datetime) -> None:
        for books in self._books.values():
            books.found = self._client.count(books.collection, since=begun).count

    def _ask(self) -> None:
        self._tell("Ask: SQL over everything", "every collection is a table; fields are in `data`")
        statement = (
            "select data.origin as origin, count(*) as departures, "
            "round(avg(data.dep_delay), 1) as minutes_late "
            "from flights where data.dep_time is not null group by 1 order by 2 desc"
        )
        answer = self._client.sql(statement)
        self._type(f'sql "{statement}"')
        self._console.print(table("", ["origin", "departures#", "minutes late#"], answer.rows))

    def _replay(self, begun: datetime) -> None:
        self._tell(
            "Replay: what was found, byte for byte",
            f"to an HTTP endpoint on this machine ({RECEIVER});\n"
            "every attempt is a row of penstock_system.replay_attempts",
        )
        late = Counter(
            digest(msgspec.json.encode(row))
            for row in islice(flights.rows("flights"), self._departures)
            if row["origin"] == "JFK"
            and isinstance(row["dep_delay"], int)
            and row["dep_delay"] > _LATE
        )
        self._books["flights"].expected = late
        self._one_replay("flights", LATE_FROM_JFK, begun)
        self._books["orders"].expected = self._books["orders"].sent.copy()
        self._one_replay("orders", "", begun)
        self._one_replay("orders", "", begun, view="quarantine")

    def _one_replay(self, name: str, query: str, begun: datetime, view: str = "main") -> None:
        books = self._books[name]
        options: ReplayOptions = {"since": begun, "view": view}
        planned = self._client.plan_replay(name, query, destination=RECEIVER, **options)
        replay = self._client.create_replay(name, query, destination=RECEIVER, **options)
        what = f"{name}{'' if view == 'main' else ' in quarantine'}, {query or 'all of this run'}"
        self._console.print(f"  {what}: {planned.count:,} events planned", markup=False)
        started = time.monotonic()
        with self._console.status("sending …"):
            replay = self._ended(replay, started)
        delivered = replay.progress.delivered
        took = time.monotonic() - started
        self._console.print(f"    {replay.state}: {delivered:,} delivered in {took:.1f} s")
        self._type(f"replay report {replay.id}")
        books.replayed += delivered
        books.received += self._receiver.payloads[replay.id]
        books.doubled += sum(n - 1 for n in self._receiver.ids[replay.id].values())

    def _ended(self, replay: ReplayTold, started: float) -> ReplayTold:
        while replay.state not in replays.ENDED and replay.state != "paused":
            if time.monotonic() - started > _REPLAY_PATIENCE:
                raise EngineUnavailable(f"replay {replay.id} is still {replay.state}")
            time.sleep(0.3)
            replay = self._client.replay(replay.id)
        return replay
