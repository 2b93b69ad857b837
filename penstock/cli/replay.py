"""`penstock replay …`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from penstock.cli.complete import collections, destinations, replays
from penstock.cli.console import (
    DONE,
    FAILED,
    JsonFlag,
    cut,
    err,
    out,
    plain,
    print_json,
    print_table,
    safe,
    size,
    table,
)
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import (
    SinceOption,
    UntilOption,
    parse_days,
    parse_moment,
    parse_start,
    utc_now,
)
from penstock.errors import BadRequest
from penstock.pace import read_gap, read_speed
from penstock.steps import lines_of

if TYPE_CHECKING:
    from penstock.client import Client
    from penstock.client.replays import ReplayOptions
    from penstock.contract.replays import (
        BehindTold,
        MessageTold,
        Pace,
        PlanTold,
        ReplayTold,
        SavedPlan,
    )

app = typer.Typer(no_args_is_help=True, help="Send again what was found.")

PLAN_FILE = ".json"
ENDED = {"finished", "failed", "cancelled"}
_LOOK_SECONDS = 0.5
_HEADER_SHOWN = 200
_PAYLOAD_SHOWN = 300

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
SetSteps = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="PLACE=EXPRESSION: give a field, key or headers.NAME a value (JMESPath)."
    ),
]
RemoveSteps = Annotated[
    list[str] | None, typer.Option("--remove", help="PLACE: leave a field or header out.")
]
RenameSteps = Annotated[
    list[str] | None, typer.Option("--rename", help="PLACE=NAME: give a field another key.")
]
MaskSteps = Annotated[
    list[str] | None,
    typer.Option("--mask", help="PLACE, or 'PLACE as hash' so that equal values stay equal."),
]
TransformFile = Annotated[
    Path | None,
    typer.Option("--transform", help="A file of steps, one a line: mask card.number."),
]
Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="Send events that repeat others, too.")
]
Missing = Annotated[
    bool, typer.Option("--missing", help="Only what the destination never acknowledged.")
]
Continuous = Annotated[
    bool,
    typer.Option(
        "--continuous",
        help="Go on with every match that comes later, until cancelled; begin at --since, or now.",
    ),
]
Retries = Annotated[int | None, typer.Option(help="How often a failed event is tried again. [10]")]
Timeout = Annotated[float | None, typer.Option(help="Seconds that one send may take. [30]")]
PauseAfter = Annotated[int | None, typer.Option(help="Pause after so many failed sends in a row.")]
Why = Annotated[str | None, typer.Option(help="What it is for; told with the replay.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay and show how far it is.")]


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
    missing: Missing = False,
    continuous: Continuous = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Keep it in a new file (.json), to be started as it is."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="With --save: for how long it can be started. [7d]")
    ] = None,
    mask: MaskSteps = None,
    remove: RemoveSteps = None,
    rename: RenameSteps = None,
    set_: SetSteps = None,
    transform: TransformFile = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Say exactly what a replay would send, without sending it."""
    now = utc_now()
    days = kept_days(save, keep)
    which = " ".join(query or [])
    options: ReplayOptions = {
        "since": parse_moment(since, now),
        "until": parse_moment(until, now),
        "rate": rate,
        "speed": read_speed(speed),
        "gap": read_gap(gap),
        "timing": timing,
        "concurrency": concurrency,
        "order": order,
        "max_events": max_events,
        "headers": "verbatim" if verbatim else None,
        "transform": steps_of(transform, mask, set_, remove, rename),
        "view": "quarantine" if quarantine else None,
        "duplicates": "include" if duplicates else None,
        "missing": missing or None,
        "continuous": continuous or None,
    }
    with connect(home) as client:
        ask: Callable[..., PlanTold | SavedPlan] = client.plan_replay
        planned = (ask if save is None else partial(client.save_plan, keep_days=days))(
            collection, which, destination=to, **options
        )
        if save is not None:
            save.write_text(planned.model_dump_json(indent=2) + "\n")
        if as_json:
            print_json(planned)
            return
        told = _tell_plan(planned, home, save)
        if options["transform"] and told.count:
            for message in client.preview_replay(collection, which, destination=to, **options):
                show_change(message)


def kept_days(save: Path | None, keep: str | None) -> int | None:
    """Answer for how long a plan is kept; raise `BadRequest` for a file that cannot be made."""
    if save is None:
        if keep is not None:
            raise BadRequest("--keep says how long a plan of --save is kept")
        return None
    if save.suffix != PLAN_FILE:
        raise BadRequest(f"a plan is kept as JSON: name the file {save.stem}{PLAN_FILE}")
    if save.exists():
        raise BadRequest(f"{save} is there already; a plan goes into a new file")
    return None if keep is None else parse_days(keep)


def plan_in(file: Path) -> SavedPlan:
    """Read the file of a plan; raise `BadRequest` if there is none in it."""
    from pydantic import ValidationError

    from penstock.contract.replays import SavedPlan

    try:
        return SavedPlan.model_validate_json(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file} cannot be read: {error}") from None
    except ValidationError:
        raise BadRequest(f"{file} is no plan, as `replay plan --save` writes one") from None


def _tell_plan(planned: PlanTold | SavedPlan, home: Path, file: Path | None) -> PlanTold:
    """Show a plan, and how one in a file is started; answer what it tells."""
    from penstock.contract.replays import PlanTold

    if isinstance(planned, PlanTold):
        show_plan(planned)
        return planned
    told = PlanTold.model_validate({n: planned.plan[n] for n in PlanTold.model_fields})
    show_plan(told)
    start_it = command(home, f"replay start {file}")
    out().print(f"kept until {planned.kept_until}; start it: '{safe(start_it)}'")
    return told


@app.command()
def start(
    ctx: typer.Context,
    collection: Annotated[
        str,
        typer.Argument(
            help="Where the events are; or the file of a plan.", autocompletion=collections
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", help="The destination's name.", autocompletion=destinations),
    ] = None,
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
    missing: Missing = False,
    continuous: Continuous = False,
    mask: MaskSteps = None,
    remove: RemoveSteps = None,
    rename: RenameSteps = None,
    set_: SetSteps = None,
    transform: TransformFile = None,
    retries: Retries = None,
    timeout: Timeout = None,
    pause_after: PauseAfter = None,
    confirm: Annotated[
        int | None, typer.Option(help="The plan's count; asked for above a number of events.")
    ] = None,
    why: Why = None,
    at: Annotated[
        str | None,
        typer.Option(help="Start then, and make the plan then: 2026-12-01T03:00:00Z."),
    ] = None,
    after: Annotated[
        str | None, typer.Option("--in", help="Start so much later: 30m, 2h, 7d.")
    ] = None,
    wait: Wait = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send every event the query finds to a destination, or what a plan in a file says."""
    now = utc_now()
    with connect(home) as client:
        replay = plan_started(ctx, client, collection, confirm, why) or client.create_replay(
            collection,
            " ".join(query or []),
            destination=to or "",
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
            transform=steps_of(transform, mask, set_, remove, rename),
            dry_run=dry_run or None,
            view="quarantine" if quarantine else None,
            duplicates="include" if duplicates else None,
            missing=missing or None,
            continuous=continuous or None,
            retries=retries,
            timeout=timeout,
            pause_after=pause_after,
            confirm=confirm,
            why=why,
            start_at=parse_start(at, after, now),
        )
        if wait:
            replay = follow(client, replay, home, quiet=as_json)
    _tell_started(replay, home, waited=wait, as_json=as_json)


def plan_started(
    ctx: typer.Context, client: Client, file: str, confirm: int | None, why: str | None
) -> ReplayTold | None:
    """Start the plan of a file; answer None where a collection was meant.

    Raises `BadRequest` for what a plan says already, and for neither of both.
    """
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if "to" in given:
        return None
    if not file.endswith(PLAN_FILE):
        raise BadRequest(f"say where to, with --to; or give the file of a plan ({PLAN_FILE})")
    said = sorted(given - {"collection", "confirm", "why", "wait", "home", "as_json"})
    if said:
        raise BadRequest(f"a plan is started as it is: leave out {said[0].replace('_', '-')}")
    return client.start_plan(plan_in(Path(file)), confirm=confirm, why=why)


@app.command()
def retry(
    replay_id: Id,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Another destination.", autocompletion=destinations),
    ] = None,
    rate: Rate = None,
    speed: Speed = None,
    gap: Gap = None,
    timing: Timing = None,
    concurrency: Concurrency = None,
    order: Order = None,
    max_events: MaxEvents = None,
    verbatim: Verbatim = False,
    dry_run: DryRun = False,
    missing: Missing = False,
    mask: MaskSteps = None,
    remove: RemoveSteps = None,
    rename: RenameSteps = None,
    set_: SetSteps = None,
    transform: TransformFile = None,
    as_received: Annotated[
        bool, typer.Option("--no-transform", help="Send them unchanged, though they were changed.")
    ] = False,
    retries: Retries = None,
    timeout: Timeout = None,
    pause_after: PauseAfter = None,
    confirm: Annotated[
        int | None, typer.Option(help="How many failed; asked for above a number of events.")
    ] = None,
    why: Why = None,
    wait: Wait = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send again exactly what failed in a replay that has ended, or was cut off.

    Of a continuous one: what has failed so far. What is left out is as it was there; steps are
    given anew as a whole.
    """
    steps = steps_of(transform, mask, set_, remove, rename)
    if as_received and steps:
        raise BadRequest("--no-transform leaves out every step: give none")
    with connect(home) as client:
        replay = client.retry_replay(
            replay_id,
            destination=to,
            rate=rate,
            speed=read_speed(speed),
            gap=read_gap(gap),
            timing=timing,
            concurrency=concurrency,
            order=order,
            max_events=max_events,
            headers="verbatim" if verbatim else None,
            transform=() if as_received else steps,
            dry_run=dry_run or None,
            missing=missing or None,
            retries=retries,
            timeout=timeout,
            pause_after=pause_after,
            confirm=confirm,
            why=why,
        )
        if wait:
            replay = follow(client, replay, home, quiet=as_json)
    _tell_started(replay, home, waited=wait, as_json=as_json)


def _tell_started(replay: ReplayTold, home: Path, *, waited: bool, as_json: bool) -> None:
    """Tell about a replay that was asked for; leave with its end if that was waited for."""
    if as_json:
        print_json(replay)
    elif waited:
        show(replay, home)
    else:
        look = command(home, f"replay status {replay.id} --watch")
        out().print(f"{replay.id} is {_state(replay)}; follow it: '{safe(look)}'")
    if waited:
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


@app.command()
def download(
    replay_id: Id,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where it goes; left out, to stdout.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Take away the file that a replay wrote: each event once, in the order of the log."""
    if file is None and as_json:
        raise BadRequest("say with --out where the file goes: --json is for what is told of it")
    with connect(home) as client:
        pieces = client.replay_file(replay_id)
        failed = client.replay(replay_id).progress.failed
        if failed and not as_json:
            events = "1 event" if failed == 1 else f"{failed:,} events"
            err().print(
                f"[yellow]not in the file[/]: {events} failed; "
                f"'penstock replay failures {safe(replay_id)}' says why"
            )
        if file is None:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            return
        written = put(file, pieces)
    if as_json:
        print_json({"file": str(file), "bytes": written, "failed": failed})
    else:
        out().print(f"{safe(str(file))}: {size(written)}")


def put(file: Path, pieces: Iterable[bytes]) -> int:
    """Have all pieces in a file, or none; answer how many bytes that is."""
    begun = file.with_name(f"{file.name}.part")
    try:
        with begun.open("wb") as opened:
            for piece in pieces:
                opened.write(piece)
            written = opened.tell()
        begun.replace(file)
    except OSError as error:
        raise BadRequest(f"{file} cannot be written: {error.strerror}") from error
    finally:
        begun.unlink(missing_ok=True)
    return written


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
    console.print(f"[bold]{replay.id}[/]  {_state(replay)}")
    way = f"{replay.collection}: {replay.query or '*'} → {replay.destination}"
    console.print(f"  {safe(way)}")
    for step in replay.options.get("transform") or ():
        console.print(f"  changed by [cyan]{safe(step)}[/]")
    if replay.plan is not None:
        console.print(f"  {finished_events(replay):,} of {replay.plan.count:,} events done")
    if replay.behind is not None:
        console.print(f"  continuous, {behind(replay.behind)}")
    for name in ("delivered", "failed", "skipped", "unknown", "repeated", "late", "differing"):
        count = getattr(replay.progress, name)
        if count:
            console.print(f"    {name} {count:,}")
    trouble = replay.error or replay.progress.waiting
    if trouble:
        console.print(f"  [yellow]{safe(trouble)}[/]")
    for what, words in _next(replay):
        console.print(f"  [dim]{what:<10} {safe(command(home, f'{words} {replay.id}'))}[/]")


def behind(far: BehindTold) -> str:
    """Say how far a continuous replay is behind."""
    if not far.events:
        return "and everything that was received has been sent"
    since = "" if far.seconds is None else f", the first of them received {far.seconds:,.0f} s ago"
    return f"{far.events:,} events behind{since}"


def _next(replay: ReplayTold) -> tuple[tuple[str, str], ...]:
    """Answer what somebody may want to do now."""
    match replay.state:
        case "paused":
            return (("go on", "replay resume"), ("give up", "replay cancel"))
        case _ if replay.behind is not None and replay.progress.failed:
            return (("try again", "replay retry"), ("stop it", "replay cancel"))
        case state if state in ENDED and replay.progress.failed + replay.progress.unknown:
            return (("the books", "replay report"), ("try again", "replay retry"))
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


def steps_of(
    file: Path | None,
    masks: Iterable[str] | None = None,
    sets: Iterable[str] | None = None,
    removes: Iterable[str] | None = None,
    renames: Iterable[str] | None = None,
) -> list[str] | None:
    """Answer the steps of a transform, None where there are none.

    What is masked here comes before all others, those of the file too: so none of them copies it.
    """
    steps = [f"mask {place}" for place in masks or ()]
    steps += [] if file is None else lines_of(file.read_text())
    steps += [f"set {place} = {value}" for place, value in map(_pair, sets or ())]
    steps += [f"remove {place}" for place in removes or ()]
    steps += [f"rename {place} to {name}" for place, name in map(_pair, renames or ())]
    return steps or None


def _pair(text: str) -> tuple[str, str]:
    place, equals, value = text.partition("=")
    if not equals:
        raise BadRequest(f"{text!r}: write PLACE=VALUE")
    return place.strip(), value.strip()


def show_change(message: MessageTold) -> None:
    """Print what becomes of an event: ``[-what goes-]`` and ``{+what comes+}``."""
    from penstock.dashboard.difference import difference
    from penstock.dashboard.payload import visible

    console = out()
    console.print(f"\n[bold]{safe(message.event_id)}[/]")
    if message.wrong is not None:
        console.print(f"  [red]is not sent[/]: {safe(message.wrong)}")
        return
    for name, value in message.headers:
        told = "(of the destination)" if value is None else value
        console.print(f"  [dim]{safe(name)}: {safe(cut(told, _HEADER_SHOWN))}[/]")
    payload = visible(message.payload or "")
    if message.before is None:
        console.print(f"  the payload stays: {safe(cut(payload, _PAYLOAD_SHOWN))}")
        return
    line = Text()
    for kind, text in difference(visible(message.before), payload):
        match kind:
            case "gone":
                line.append(f"[-{plain(text)}-]", style="red")
            case "new":
                line.append(f"{{+{plain(text)}+}}", style="green")
            case "cut":
                line.append(f" … {text} more characters … ", style="dim")
            case "same":
                line.append(plain(text))
    console.print(line)


def _state(replay: ReplayTold) -> str:
    """Answer the state; of a replay that starts later when that is, of a continuous one that."""
    if replay.behind is not None and replay.state == "running":
        return "running, continuous"
    if replay.state != "requested" or replay.start_at is None:
        return replay.state
    return f"requested for {replay.start_at:%Y-%m-%d %H:%M:%S}"


def _line(replay: ReplayTold) -> tuple[object, ...]:
    return (
        replay.id,
        replay.collection,
        replay.query or "*",
        replay.destination,
        _state(replay),
        replay.progress.delivered,
        replay.plan and replay.plan.count,
        f"{replay.created_at:%Y-%m-%d %H:%M:%S}",
    )
