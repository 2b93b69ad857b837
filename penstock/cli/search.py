"""`penstock search`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, cut, err, out, plain, print_json, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import SinceOption, UntilOption, parse_moment, utc_now

if TYPE_CHECKING:
    from penstock.client import Client, ListOptions, SearchOptions
    from penstock.contract.search import EventTold, PageTold

_BAR_WIDTH = 50
_PREVIEW = 500
_MOST_A_PAGE = 500


def search(
    collection: Annotated[str, typer.Argument(help="Where to look.", autocompletion=collections)],
    query: Annotated[
        list[str] | None, typer.Argument(help="What to look for; nothing finds everything.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The most events to print.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only say how many.")] = False,
    histogram: Annotated[bool, typer.Option("--histogram", help="Show them over time.")] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Look at what could not become rows.")
    ] = False,
    closed: Annotated[
        bool,
        typer.Option(
            "--closed", help="With --quarantine, show released and discarded events, too."
        ),
    ] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Show events that repeat others, too.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Find events by content, the moment they are acknowledged.

    For example: penstock search flights 'dep_delay:>120 AND origin:JFK'
    """
    text, now = " ".join(query or []), utc_now()
    start, end = parse_moment(since, now), parse_moment(until, now)
    if closed and not quarantine:
        raise typer.BadParameter("only events in quarantine are closed: use it with --quarantine")
    which: SearchOptions = {
        "since": start,
        "until": end,
        "view": "quarantine" if quarantine else "main",
        "duplicates": "include" if duplicates else "fold",
        "closed": closed,
    }
    with connect(home) as client:
        if count:
            counted = client.count(collection, text, **which)
            print_json(counted) if as_json else out().print(f"{counted.count}")
            return
        if histogram:
            bars = client.histogram(collection, text, **which)
            print_json(bars) if as_json else _draw([(b.start, b.count) for b in bars.bars])
            return
        shown, more = 0, False
        listed: ListOptions = {**which, "order": "oldest" if oldest else "newest"}
        for page in _pages(client, collection, text, listed, most=limit):
            for event in page.events:
                print_json(event) if as_json else show_event(event, out())
            shown, more = shown + len(page.events), page.cursor is not None
            _tell_gaps(page, home)
    if as_json:
        return
    if more:
        err().print(f"[dim]there are more; see them with --limit {limit * 10}[/]")
    if not shown:
        err().print(_nothing(text, since, open_only=quarantine and not closed))
    elif sys.stdout.isatty():
        err().print(f"[dim]one whole event: {command(home, f'event {collection} ID')}[/]")


def _pages(
    client: Client, collection: str, query: str, listed: ListOptions, *, most: int
) -> Iterator[PageTold]:
    left, cursor = most, None
    while left:
        limit = min(left, _MOST_A_PAGE)
        page = client.search(collection, query, limit=limit, cursor=cursor, **listed)
        yield page
        left, cursor = left - len(page.events), page.cursor
        if cursor is None:
            return


def show_event(event: EventTold, console: Console) -> None:
    """Print an event: a line of where and when, then the beginning of its payload."""
    console.print(
        f"[dim]{event.received_at:%Y-%m-%d %H:%M:%S.%f}Z[/] [bold]{safe(event.event_id)}[/] "
        f"[dim]{safe(event.source)} {safe(event.content_type or '')} @{event.log_offset}[/]"
    )
    if event.reason:
        detail = safe(event.detail or "")
        console.print(f"  [yellow]{safe(event.stage)}: {safe(event.reason)}[/] {detail}")
    if event.misfits:
        paths = ", ".join(one.path for one in event.misfits)
        console.print(f"  [yellow]misfits[/]: {safe(paths)}")
    if event.payload is None:
        console.print(f"  [dim]{len(event.payload_bytes()):,} bytes, no text[/]")
        return
    most = min(_PREVIEW, 3 * console.width) if console.is_terminal else _PREVIEW
    console.print(Text("  " + cut(plain(event.payload), most)))


def _nothing(text: str, since: str | None, *, open_only: bool = False) -> str:
    further = "; --since looks only that far back" if since else ""
    if open_only:
        return f"nothing of it is open in quarantine{further}; --closed shows what was"
    if text:
        return f"nothing found{further}; the same without a query shows what there is"
    return f"there is nothing here{further or ' yet: send something to it'}"


def _draw(bars: list[tuple[object, int]]) -> None:
    most = max((count for _, count in bars), default=0)
    for start, count in bars:
        width = round(count / most * _BAR_WIDTH) if most else 0
        bar = "█" * max(width, 1 if count else 0)
        out().print(f"{start:%Y-%m-%d %H:%M:%S}  {count:>9,}  [cyan]{bar}[/]")


def _tell_gaps(page: PageTold, home: Path) -> None:
    """Say what is unusual about an answer."""
    if page.folded:
        err().print(f"[dim]{page.folded:,} duplicates are left out; --duplicates shows them[/]")
    if page.index_away:
        err().print("[yellow]the search index did not answer[/]: the lake was read instead")
    if page.unsearched:
        err().print(
            f"[yellow]{page.unsearched:,} acknowledged events were not looked at[/]: too "
            f"many wait to land; '{command(home, 'status')}' shows how many"
        )
