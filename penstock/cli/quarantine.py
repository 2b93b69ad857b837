"""`penstock quarantine …`."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, cut, err, out, plain, print_json, print_table, safe
from penstock.cli.event import show_whole
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import SinceOption, UntilOption, parse_moment, utc_now
from penstock.errors import BadRequest

if TYPE_CHECKING:
    from penstock.client import Client
    from penstock.contract.quarantine import (
        CausesTold,
        ClosingTold,
        DoneTold,
        PlaceTold,
        RepairTrialTold,
    )

app = typer.Typer(
    no_args_is_help=True, help="Look at, repair, release and discard what could not become rows."
)

_BAR_WIDTH = 30
_SHOWN_HELD = 10
_SHOWN_VALUES = 12
_PREVIEW = 300

Name = Annotated[str, typer.Argument(help="The collection's name.", autocompletion=collections)]
Query = Annotated[
    list[str], typer.Argument(help="Which events, as in a search; '*' is all of them.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="content_type=TYPE: declare it as something else.")
]
TransformOption = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        help="bom: drop a byte order mark; latin1: to UTF-8; ndjson: lines to an array; "
        "nan: null for NaN and Infinity.",
    ),
]
ReplaceOption = Annotated[
    list[str] | None,
    typer.Option("--replace", help=r"'FROM=>TO': put bytes in place of others; \xNN is a byte."),
]
PatternOption = Annotated[
    list[str] | None,
    typer.Option("--replace-pattern", help=r"'FROM=>TO': the same with RE2; \1 is a group."),
]
PayloadOption = Annotated[
    Path | None, typer.Option("--payload", help="A file with a whole other payload, for one event.")
]
ReleaseIdOption = Annotated[
    str | None, typer.Option("--release-id", help="Name the release; else it is given an id.")
]


@app.command("list")
def list_(
    collection: Annotated[
        str | None,
        typer.Argument(help="One collection; else all of them.", autocompletion=collections),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """List why events are in quarantine: how many, since when, and over time."""
    now = utc_now()
    start, end = parse_moment(since, now), parse_moment(until, now)
    with connect(home) as client:
        names = [collection] if collection else [one.name for one in client.collections()]
        found = [client.quarantine(name, since=start, until=end) for name in names]
    if as_json:
        print_json(found)
        return
    shown = [one for one in found if one.causes]
    for number, one in enumerate(shown):
        if number:
            out().print()
        _show_causes(one, out())
    if shown:
        if sys.stdout.isatty():
            name = shown[0].collection
            err().print(f"[dim]look at them: {command(home, f'search {name} --quarantine')}[/]")
            err().print(f"[dim]try a repair: {command(home, f'quarantine repair {name} QUERY')}[/]")
        return
    closed = sum(one.closed for one in found)
    err().print(_nothing(closed, since or until))


@app.command()
def show(
    collection: Name,
    event_id: Annotated[str, typer.Argument(help="The event's id, as `search` shows it.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="Print the payload only, byte for byte.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show a quarantined event: its envelope, why it is there, and where its payload is wrong."""
    with connect(home) as client:
        found = client.quarantined(collection, event_id)
    if as_json:
        print_json(found)
        return
    if payload:
        sys.stdout.buffer.write(found.event.payload_bytes())
        sys.stdout.buffer.flush()
        return
    console = out()
    show_whole(found.event, console)
    _show_place(found.place, console)
    if found.closed is not None:
        console.print(Text(_closed(found.closed), style="bold"))


@app.command()
def works(
    collection: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="The latest ones.")] = 20,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """List who released or discarded how many events, and why."""
    with connect(home) as client:
        found = client.quarantine_works(collection, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found:
        err().print("nothing was released or discarded yet")
        return
    rows = [
        [
            f"{one.last:%Y-%m-%d %H:%M:%S}Z",
            one.state,
            f"{one.count:,}",
            plain(one.by),
            plain(cut(one.why or one.release or "", _PREVIEW)),
        ]
        for one in found
    ]
    names = ["last", "state", "events#", "by", "reason or release"]
    print_table(names, [[Text(cell) for cell in row] for row in rows], out(), row="work")


@app.command()
def repair(
    collection: Name,
    query: Query,
    set_: SetOption = None,
    transform: TransformOption = None,
    replace: ReplaceOption = None,
    replace_pattern: PatternOption = None,
    payload: PayloadOption = None,
    try_: Annotated[
        int, typer.Option("--try", min=1, max=100, help="Show so many, and change nothing.")
    ] = 5,
    release: Annotated[
        bool, typer.Option("--release", help="Release all that are found, repaired.")
    ] = False,
    release_id: ReleaseIdOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Try a repair on some events: what each would become, by landing's own conversion.

    For example: penstock quarantine repair flights quarantine.reason:invalid_json --transform bom
    """
    asked = repair_of(set_, transform, replace, replace_pattern, payload)
    which = _which(query, since, until)
    if release:
        _release(collection, which, asked, release_id, home, as_json=as_json)
        return
    with connect(home) as client:
        tried = client.try_repair(
            collection,
            which.text,
            repair=asked,
            since=which.since,
            until=which.until,
            limit=try_,
        )
    if as_json:
        print_json(tried)
        return
    for trial in tried.trials:
        _show_trial(trial, out())
    _tell_left_out(tried.closed, tried.waiting)
    if not tried.trials:
        err().print("no open event is found: 'penstock quarantine list' tells what there is")
        return
    rows = sum(trial.row for trial in tried.trials)
    more = ", there are more" if tried.cursor else ""
    err().print(f"{rows} of {len(tried.trials)} would become rows{more}; nothing was changed")
    if rows:
        err().print("[dim]the same with --release releases all that are found and become rows[/]")


@app.command("release")
def release_(
    collection: Name,
    query: Query,
    set_: SetOption = None,
    transform: TransformOption = None,
    replace: ReplaceOption = None,
    replace_pattern: PatternOption = None,
    payload: PayloadOption = None,
    release_id: ReleaseIdOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send quarantined events to the log again, repaired or as they are; each becomes a row once.

    It may be interrupted and repeated. Events that would go to quarantine again are held back.
    """
    asked = repair_of(set_, transform, replace, replace_pattern, payload)
    which = _which(query, since, until)
    _release(collection, which, asked, release_id, home, as_json=as_json)


@app.command()
def discard(
    collection: Name,
    query: Query,
    why: Annotated[str, typer.Option("--why", help="Kept with the events, and who did it.")],
    since: SinceOption = None,
    until: UntilOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Take quarantined events out of the list; their rows and bytes stay in the table."""
    which = _which(query, since, until)
    _work(
        "discarded",
        lambda client: client.discard(
            collection, which.text, why=why, since=which.since, until=which.until
        ),
        home,
        as_json=as_json,
    )


def repair_of(
    set_: Iterable[str] | None,
    transforms: Iterable[str] | None,
    replaces: Iterable[str] | None,
    patterns: Iterable[str] | None,
    payload: Path | None,
) -> dict[str, object]:
    """Answer the repair as the API reads it: the payload first, then transforms, then replaces."""
    steps: list[dict[str, str]] = []
    if payload is not None:
        text = base64.b64encode(payload.read_bytes()).decode()
        steps.append({"do": "payload", "payload_base64": text})
    steps += [{"do": name} for name in _known(transforms or ())]
    for do, texts in (("replace", replaces), ("pattern", patterns)):
        steps += [{"do": do, **_pair(text)} for text in texts or ()]
    asked: dict[str, object] = {"steps": steps}
    for text in set_ or ():
        name, equals, value = text.partition("=")
        if name != "content_type" or not equals or not value:
            raise BadRequest(f"{text!r}: --set takes content_type=TYPE")
        asked["content_type"] = value
    return asked


def _known(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in ("bom", "latin1", "ndjson", "nan"):
            raise BadRequest(f"there is no transform {name!r}; there are bom, latin1, ndjson, nan")
        yield name


def _pair(text: str) -> dict[str, str]:
    find, arrow, put = text.partition("=>")
    if not arrow or not find:
        raise BadRequest(f"{text!r}: write what to replace and with what as 'FROM=>TO'")
    return {"find": find, "put": put}


class _Which(NamedTuple):
    """A search, and the time in which its events were received."""

    text: str
    since: datetime | None
    until: datetime | None


def _which(query: list[str], since: str | None, until: str | None) -> _Which:
    now = utc_now()
    return _Which(" ".join(query), parse_moment(since, now), parse_moment(until, now))


def _release(
    collection: str,
    which: _Which,
    asked: dict[str, object],
    release_id: str | None,
    home: Path,
    *,
    as_json: bool,
) -> None:
    """Do what `release` does; `repair --release` is the same."""
    done = _work(
        "released",
        lambda client: client.release(
            collection,
            which.text,
            repair=asked,
            release=release_id,
            since=which.since,
            until=which.until,
        ),
        home,
        as_json=as_json,
    )
    if done.done and not as_json:
        err().print("[dim]they are rows, and closed here, as soon as they have landed[/]")


def _work(
    verb: str, act: Callable[[Client], Iterator[DoneTold]], home: Path, *, as_json: bool
) -> DoneTold:
    """Go through all pages of a release or discard; tell what it did, and answer that."""
    with connect(home) as client:
        done = _followed(act(client), verb)
    released = done.release is not None
    if as_json:
        print_json(
            {
                **({"release": done.release} if released else {}),
                verb: done.done,
                **({"held": done.held} if released else {}),
                "closed": done.closed,
                "waiting": done.waiting,
            }
        )
        return done
    for one in done.held[:_SHOWN_HELD]:
        out().print(f"  [yellow]held[/] {safe(one.event_id)}: {safe(one.why)}")
    if len(done.held) > _SHOWN_HELD:
        out().print(f"  … {len(done.held) - _SHOWN_HELD:,} more were held")
    held = f", {len(done.held):,} held back (release {safe(done.release)})" if released else ""
    out().print(f"{done.done:,} {verb}{held}")
    _tell_left_out(done.closed, done.waiting)
    return done


def _followed(pages: Iterator[DoneTold], verb: str) -> DoneTold:
    """Go through all pages and tell how far it is; answer them as one."""
    from penstock.contract.quarantine import DoneTold

    total = DoneTold(release=None, done=0, held=[], closed=0, waiting=0, cursor=None)
    try:
        for page in pages:
            total = DoneTold(
                release=page.release,
                done=total.done + page.done,
                held=[*total.held, *page.held],
                closed=total.closed + page.closed,
                waiting=total.waiting + page.waiting,
                cursor=page.cursor,
            )
            if page.cursor is not None:
                err().print(f"[dim]{total.done:,} {verb} so far[/]")
    except KeyboardInterrupt:
        err().print(
            f"[yellow]interrupted[/]: {total.done:,} {verb}; the same command goes on where it was"
        )
        raise
    return total


def _show_causes(found: CausesTold, console: Console) -> None:
    closed = f", {found.closed:,} closed" if found.closed else ""
    console.print(f"[bold]{safe(found.collection)}[/]  {found.open:,} open{closed}")
    most = max((count for cause in found.causes for count in cause.bars), default=0)
    for cause in found.causes:
        console.print(
            f"\n[yellow]{safe(cause.stage)}: {safe(cause.reason)}[/]  {cause.count:,}  "
            f"[dim]{cause.first:%Y-%m-%d %H:%M:%S}Z to {cause.last:%Y-%m-%d %H:%M:%S}Z[/]"
        )
        if found.start is None:
            continue
        for number, count in enumerate(cause.bars):
            if not count:
                continue
            at = found.start.timestamp() + number * found.step_seconds
            start = type(found.start).fromtimestamp(at, found.start.tzinfo)
            width = max(round(count / most * _BAR_WIDTH), 1)
            console.print(
                f"  {start:%Y-%m-%d %H:%M}  {count:>9,}  [cyan]{'█' * width}[/]", soft_wrap=True
            )


def _nothing(closed: int, bounded: str | None) -> str:
    if bounded:
        return "nothing is open in quarantine in this time; leave --since and --until out"
    before = (
        f"nothing is open in quarantine, {closed:,} events were closed"
        if closed
        else "nothing is in quarantine"
    )
    return (
        f"{before}: an event comes here when it says that it is JSON and is not, or when its "
        "sender wishes it\nto see one: echo '{\"n\": NaN}' | penstock send COLLECTION"
    )


def _show_place(place: PlaceTold, console: Console) -> None:
    if place.byte is None and place.path is None:
        return
    where = f"byte {place.byte:,}" if place.byte is not None else f"path {place.path or '(top)'}"
    console.print(Text(f"wrong at {plain(where)}", style="bold"))
    before = ("… " if place.before_cut else "") + place.before
    after = place.after + (" …" if place.after_cut else "")
    console.print(Text(f"  {before}").append(after, style="red"), soft_wrap=True)
    if place.byte is not None:
        console.print(Text(f"  {' ' * len(before)}^"), soft_wrap=True)


def _closed(closed: ClosingTold) -> str:
    at = f"{closed.at:%Y-%m-%d %H:%M:%S}Z by {plain(closed.by)}"
    match closed.state:
        case "released":
            return (
                f"released {at} as {plain(str(closed.release))}, now at offset {closed.to_offset}"
            )
        case "discarded":
            return f"discarded {at}: {plain(str(closed.why))}"
        case _:
            return f"another copy of a released event, folded {at}"


def _show_trial(trial: RepairTrialTold, console: Console) -> None:
    at = f"{trial.received_at:%Y-%m-%d %H:%M:%S}Z"
    console.print(f"[dim]{at}[/] [bold]{safe(trial.event_id)}[/]")
    if not trial.row:
        console.print(
            f"  [yellow]stays in quarantine[/]: {safe(trial.stage)}: {safe(trial.reason)} "
            f"{safe(trial.detail or '')}"
        )
    else:
        console.print("  [green]becomes a row[/]")
    for one in trial.columns[:_SHOWN_VALUES]:
        new = " [cyan](new column)[/]" if one.path in trial.new_columns else ""
        console.print(f"  {safe(one.path)}: {safe(cut(one.value, _PREVIEW))}{new}")
    if len(trial.columns) > _SHOWN_VALUES:
        console.print(f"  … {len(trial.columns) - _SHOWN_VALUES:,} more columns")
    for one in trial.misfits[:_SHOWN_VALUES]:
        console.print(
            f"  [yellow]misfit[/] {safe(one.path or '(top)')}: {safe(cut(one.value, _PREVIEW))}"
        )


def _tell_left_out(closed: int, waiting: int) -> None:
    if closed:
        err().print(f"[dim]{closed:,} more are found that are closed already[/]")
    if waiting:
        err().print(f"[dim]{waiting:,} more are found that have not landed yet: try again soon[/]")
