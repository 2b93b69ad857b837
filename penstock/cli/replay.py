"""`penstock replay …`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.cli.complete import collections, destinations, replays
from penstock.cli.console import (
    DONE,
    FAILED,
    JsonFlag,
    err,
    out,
    print_json,
    print_table,
    safe,
    size,
    table,
)
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import SinceOption, UntilOption, parse_moment, utc_now
from penstock.errors import BadRequest
from penstock.pace import read_gap, read_speed

if TYPE_CHECKING:
    from penstock.client import Client
    from penstock.contract.replays import Pace, PlanTold, ReplayTold

app = typer.Typer(no_args_is_help=True, help="Send again what was found.")

ENDED = {"finished", "failed", "cancelled"}
_LOOK_SECONDS = 0.5

Collection = Annotated[
    str, typer.Argument(help="Where the events are.", autocompletion=collections)
]
Query = Annotated[list[str] | None, typer.Argument(help="Which events, as in `search`.")]
To = Annotated[
    str, typer.Option("--to", help="The destination's name.", autocompletion=destinations)
]
Id = Annotated[str, typer.Argument(help="The replay's id.", autocompletion=replays)]
Rate = Annotated[float | None, typer.Option(help="Sends per second at most.")]
Speed = Annotated[
    str | None,
    typer.Option(help="1x: in the time it came in; 10x: in a tenth; 0: as fast as it goes. [0]"),
]
Gap = Annotated[
    str | None, typer.Option(help="With --speed: no silence longer than this: 5s, 200ms, 1m.")
]
Timing = Annotated[
    str | None,
    typer.Option(help="With --speed: the time received, or the event's own if known. [received]"),
]
Concurrency = Annotated[int | None, typer.Option(help="Sends at the same time. [32]")]
Order = Annotated[str | None, typer.Option(help="log: one at a time; key: in order per key. [key]")]
MaxEvents = Annotated[int | None, typer.Option("--max-events", help="Send the first so many.")]
Verbatim = Annotated[
    bool, typer.Option("--verbatim", help="Add no penstock-… headers to what was received.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything but send.")]
Quarantine = Annotated[bool, typer.Option("--quarantine", help="Replay what is in quarantine.")]
Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="Send events that repeat others, too.")
]


@app.command()
def plan(
    collection: Collection,
    to: To,
    query: Query = None,
    since: SinceOption = None,
    until: UntilOption = None,
    rate: Rate = None,
    speed: Speed = None,
    gap: Gap = None,
    timing: Timing = None,
    concurrency: Concurrency = None,
    order: Order = None,
    max_events: MaxEvents = None,
    verbatim: Verbatim = False,
    quarantine: Quarantine = False,
    duplicates: Duplicates = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Say exactly what a replay would send, without sending it."""
    now = utc_now()
    with connect(home) as client:
        planned = client.plan_replay(
            collection,
            " ".join(query or []),
            destination=to,
            since=parse_moment(since, now),
            until=parse_moment(until, now),
            rate=rate,
            speed=read_speed(speed),
            gap=read_gap(gap),
            timing=timing,
            concurrency=concurrency,
            order=order,
            max_events=max_events,
            headers="verbatim" if verbatim else None,
            view="quarantine" if quarantine else None,
            duplicates="include" if duplicates else None,
        )
    if as_json:
        print_json(planned)
        return
    show_plan(planned)


@app.command()
def start(
    collection: Collection,
    to: To,
    query: Query = None,
    since: SinceOption = None,
    until: UntilOption = None,
    rate: Rate = None,
    speed: Speed = None,
    gap: Gap = None,
    timing: Timing = None,
    concurrency: Concurrency = None,
    order: Order = None,
    max_events: MaxEvents = None,
    verbatim: Verbatim = False,
    dry_run: DryRun = False,
    quarantine: Quarantine = False,
    duplicates: Duplicates = False,
    retries: Annotated[
        int | None, typer.Option(help="How often a failed event is tried again. [10]")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that one send may take. [30]")
    ] = None,
    pause_after: Annotated[
        int | None, typer.Option(help="Pause after so many failed sends in a row.")
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(help="The plan's count; asked for above a number of events.")
    ] = None,
    why: Annotated[str | None, typer.Option(help="What it is for; told with the replay.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay and show how far it is.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send every event the query finds to a destination."""
    now = utc_now()
    with connect(home) as client:
        replay = client.create_replay(
            collection,
            " ".join(query or []),
            destination=to,
            since=parse_moment(since, now),
            until=parse_moment(until, now),
            rate=rate,
            speed=read_speed(speed),
            gap=read_gap(gap),
            timing=timing,
            concurrency=concurrency,
            order=order,
            max_events=max_events,
            headers="verbatim" if verbatim else None,
            dry_run=dry_run or None,
            view="quarantine" if quarantine else None,
            duplicates="include" if duplicates else None,
            retries=retries,
            timeout=timeout,
            pause_after=pause_after,
            confirm=confirm,
            why=why,
        )
        if wait:
            replay = follow(client, replay, home, quiet=as_json)
    if as_json:
        print_json(replay)
    elif wait:
        show(replay, home)
    else:
        look = command(home, f"replay status {replay.id} --watch")
        out().print(f"{replay.id} is {replay.state}; follow it: '{safe(look)}'")
    if wait:
        raise typer.Exit(DONE if replay.state == "finished" else FAILED)


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the newest replays."""
    with connect(home) as client:
        found = client.replays()
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ["id", "collection", "query", "to", "state", "delivered#", "of#", "created"],
            [_line(one) for one in found],
            out(),
        )
    else:
        start_one = command(home, "replay start COLLECTION QUERY --to DESTINATION")
        out().print(f"no replays yet: '{safe(start_one)}'")


@app.command()
def status(
    replay_id: Id,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show how far a replay is."""
    with connect(home) as client:
        replay = client.replay(replay_id)
        if watch:
            replay = follow(client, replay, home, quiet=as_json)
    print_json(replay) if as_json else show(replay, home)


@app.command()
def pause(replay_id: Id, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Stop sending for now; what is under way comes to its end."""
    with connect(home) as client:
        replay = client.pause_replay(replay_id)
    print_json(replay) if as_json else show(replay, home)


@app.command()
def resume(replay_id: Id, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Go on where it stopped."""
    with connect(home) as client:
        replay = client.resume_replay(replay_id)
    print_json(replay) if as_json else show(replay, home)


@app.command()
def cancel(replay_id: Id, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Stop for good."""
    with connect(home) as client:
        replay = client.cancel_replay(replay_id)
    print_json(replay) if as_json else show(replay, home)


@app.command()
def pace(
    replay_id: Id,
    rate: Annotated[float | None, typer.Option(help="Sends per second at most; 0: no end.")] = None,
    speed: Speed = None,
    gap: Annotated[str | None, typer.Option(help="The longest silence: 5s; 0: no end.")] = None,
    concurrency: Concurrency = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Change how fast a replay sends, while it sends. What is left out stays as it is."""
    changed = pace_of(rate, concurrency, speed, gap)
    with connect(home) as client:
        replay = client.pace_replay(replay_id, changed)
    print_json(replay) if as_json else show(replay, home)


def pace_of(
    rate: float | None, concurrency: int | None, speed: str | None = None, gap: str | None = None
) -> Pace:
    """Answer what is to be changed; raise `BadRequest` where that is nothing."""
    from penstock.contract.replays import Pace

    values: dict[str, float | None] = {}
    if rate is not None:
        values["rate"] = rate or None
    if speed is not None:
        values["speed"] = read_speed(speed)
    if gap is not None:
        values["gap"] = None if gap == "0" else read_gap(gap)
    if concurrency is not None:
        values["concurrency"] = concurrency
    if not values:
        raise BadRequest("say what is to change: --rate, --speed, --gap or --concurrency")
    return Pace.model_validate(values)


@app.command()
def failures(replay_id: Id, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show why events failed for good, and the newest of them."""
    with connect(home) as client:
        found = client.replay_failures(replay_id)
    if as_json:
        print_json(found)
        return
    rows = [(one.events, one.reason, one.examples[0].event_id) for one in found.failures]
    if rows:
        print_table(["events#", "why", "for example"], rows, out())
    else:
        out().print("no event failed, as far as the ledger tells")
    if not found.complete:
        err().print("[yellow]there are more: these are the newest[/]")


@app.command()
def report(replay_id: Id, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show the books of a replay: matched = delivered + failed + skipped + unknown."""
    with connect(home) as client:
        books = client.replay_report(replay_id)
    if as_json:
        print_json(books)
        return
    out().print(table("", ["", "#"], [(name.replace("_", " "), v) for name, v in books]))


def follow(client: Client, replay: ReplayTold, home: Path, *, quiet: bool) -> ReplayTold:
    """Show the progress until the replay ends or pauses; answer it then."""
    try:
        with _progress(quiet=quiet) as told:
            while replay.state not in ENDED and replay.state != "paused":
                told(replay)
                time.sleep(_LOOK_SECONDS)
                replay = client.replay(replay.id)
            told(replay)
    except KeyboardInterrupt:
        console = err()
        console.print(f"the replay goes on without you: {replay.id}")
        console.print(f"  follow it  {safe(command(home, f'replay status {replay.id} --watch'))}")
        console.print(f"  stop it    {safe(command(home, f'replay cancel {replay.id}'))}")
        raise typer.Exit(FAILED) from None
    return replay


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[ReplayTold], None]]:
    """Draw a bar; where nobody looks at a terminal, write a line for each new state."""
    console = err()
    if quiet:
        yield lambda _replay: None
    elif not console.is_terminal:
        seen: list[str] = []

        def write(replay: ReplayTold) -> None:
            if replay.state not in seen:
                seen.append(replay.state)
                console.print(f"{replay.id} is {replay.state}")

        yield write
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("requested", total=None)
            yield lambda replay: bar.update(
                task,
                description=replay.state,
                completed=finished_events(replay),
                total=None if replay.plan is None else replay.plan.count,
            )


def finished_events(replay: ReplayTold) -> int:
    """Count the events of a replay that came to an end."""
    far = replay.progress
    return far.delivered + far.failed + far.skipped + far.unknown


def show(replay: ReplayTold, home: Path) -> None:
    """Print a replay: its state, how far it is, why it stands still, and what can be done."""
    console = out()
    console.print(f"[bold]{replay.id}[/]  {replay.state}")
    way = f"{replay.collection}: {replay.query or '*'} → {replay.destination}"
    console.print(f"  {safe(way)}")
    if replay.plan is not None:
        console.print(f"  {finished_events(replay):,} of {replay.plan.count:,} events done")
    for name in ("delivered", "failed", "skipped", "unknown", "repeated", "late"):
        count = getattr(replay.progress, name)
        if count:
            console.print(f"    {name} {count:,}")
    trouble = replay.error or replay.progress.waiting
    if trouble:
        console.print(f"  [yellow]{safe(trouble)}[/]")
    for what, words in _next(replay):
        console.print(f"  [dim]{what:<10} {safe(command(home, f'{words} {replay.id}'))}[/]")


def _next(replay: ReplayTold) -> tuple[tuple[str, str], ...]:
    """Answer what somebody may want to do now."""
    match replay.state:
        case "paused":
            return (("go on", "replay resume"), ("give up", "replay cancel"))
        case state if state in ENDED:
            return (("the books", "replay report"),)
        case _:
            return (("follow it", "replay status --watch"), ("stop it", "replay cancel"))


def show_plan(planned: PlanTold) -> None:
    """Print a plan for people."""
    console = out()
    console.print(f"[bold]{planned.count:,}[/] events, {size(planned.bytes)}")
    for name, value in planned:
        if name not in {"count", "bytes", "warnings"} and isinstance(value, str | int | float):
            console.print(f"  {name.replace('_', ' '):<20} {safe(value)}")
    for warning in planned.warnings:
        console.print(f"  [yellow]{safe(warning)}[/]")


def _line(replay: ReplayTold) -> tuple[object, ...]:
    return (
        replay.id,
        replay.collection,
        replay.query or "*",
        replay.destination,
        replay.state,
        replay.progress.delivered,
        replay.plan and replay.plan.count,
        f"{replay.created_at:%Y-%m-%d %H:%M:%S}",
    )
