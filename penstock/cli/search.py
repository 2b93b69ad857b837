"""`penstock search`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.console import JsonFlag, err, out, print_json
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.cli.moments import SinceOption, UntilOption, parse_moment, utc_now
from penstock.client import FoundEvent

_BAR_WIDTH = 50
_PREVIEW = 500


def search(
    collection: Annotated[str, typer.Argument(help="Where to look.")],
    query: Annotated[
        list[str] | None, typer.Argument(help="What to look for; nothing finds everything.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(help="The most events to print.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only say how many.")] = False,
    histogram: Annotated[bool, typer.Option("--histogram", help="Show them over time.")] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Look at what could not become rows.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Find events by content, the moment they are acknowledged.

    For example: penstock search flights 'dep_delay:>120 AND origin:JFK'
    """
    text, now = " ".join(query or []), utc_now()
    start, end = parse_moment(since, now), parse_moment(until, now)
    view = "quarantine" if quarantine else "main"
    with connect(home) as client:
        if count:
            counted = client.count(collection, text, since=start, until=end, view=view)
            print_json(counted) if as_json else out().print(f"{counted.count}")
            return
        if histogram:
            bars = client.histogram(collection, text, since=start, until=end, view=view)
            print_json(bars) if as_json else _draw([(b.start, b.count) for b in bars.bars])
            return
        shown = 0
        order = "oldest" if oldest else "newest"
        page = min(limit, 500)
        for event in client.search_all(
            collection, text, since=start, until=end, order=order, view=view, page=page
        ):
            if shown == limit:
                err().print(f"[dim]there are more; see them with --limit {limit * 10}[/]")
                break
            print_json(event) if as_json else show_event(event, out())
            shown += 1
        if not shown and not as_json:
            err().print("nothing found; without a query everything is, and --since widens the time")


def show_event(event: FoundEvent, console: Console) -> None:
    """Print an event: a line of where and when, then its payload."""
    console.print(
        f"[dim]{event.received_at:%Y-%m-%d %H:%M:%S.%f}Z[/] [bold]{event.event_id}[/] "
        f"[dim]{event.source} {event.content_type or ''} @{event.log_offset}[/]"
    )
    if event.reason:
        console.print(f"  [yellow]{event.stage}: {event.reason}[/] {event.detail or ''}")
    if event.payload is None:
        console.print(f"  [dim]{len(event.payload_bytes()):,} bytes, no text[/]")
        return
    rest = len(event.payload) - _PREVIEW
    more = f" … {rest:,} more characters" if rest > 0 else ""
    console.print(Text("  " + event.payload[:_PREVIEW] + more))


def _draw(bars: list[tuple[object, int]]) -> None:
    most = max((count for _, count in bars), default=0)
    for start, count in bars:
        width = round(count / most * _BAR_WIDTH) if most else 0
        bar = "█" * max(width, 1 if count else 0)
        out().print(f"{start:%Y-%m-%d %H:%M:%S}  {count:>9,}  [cyan]{bar}[/]")
