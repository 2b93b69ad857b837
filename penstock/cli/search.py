"""`penstock search`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli import complete
from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, cut, err, out, plain, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import SinceOption, UntilOption, lasting, parse_moment, utc_now

if TYPE_CHECKING:
    from penstock.client import Client, KeptOptions, ListOptions, SearchOptions
    from penstock.contract.search import EventTold, FacetsTold, PageTold
    from penstock.contract.searches import SavedSearchTold

_BAR_WIDTH = 50
_PREVIEW = 500
_MOST_A_PAGE = 500


def search(
    collection: Annotated[
        str | None,
        typer.Argument(
            help="Where to look; a saved search says it itself.", autocompletion=collections
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to look for; nothing finds everything.", autocompletion=complete.search
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The most events to print.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only say how many.")] = False,
    histogram: Annotated[bool, typer.Option("--histogram", help="Show them over time.")] = False,
    facet: Annotated[
        list[str] | None,
        typer.Option(help="Show the most frequent values of this field; may be repeated."),
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the search under this name, too.")
    ] = None,
    saved: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Make the search that was kept under this name.",
            autocompletion=complete.saved_searches,
        ),
    ] = None,
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
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Write the search as a statement for penstock sql.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Find events by content, the moment they are acknowledged.

    For example: penstock search flights 'dep_delay:>120 AND origin:JFK'
    """
    if closed and not quarantine:
        raise typer.BadParameter("only events in quarantine are closed: use it with --quarantine")
    if saved is None and collection is None:
        raise typer.BadParameter("say where to look: penstock search COLLECTION")
    if saved is not None and (collection or save or oldest or quarantine or duplicates):
        raise typer.BadParameter(
            "a saved search says itself where to look and what for; --since and --until change when"
        )
    kept: KeptOptions = {
        "since": lasting(since),
        "until": lasting(until),
        "order": "oldest" if oldest else "newest",
        "view": "quarantine" if quarantine else "main",
        "duplicates": "include" if duplicates else "fold",
        "closed": closed,
    }
    now = utc_now()
    start, end = parse_moment(since, now), parse_moment(until, now)
    with connect(home) as client:
        if saved is not None:
            asked = _Asked.of(client.saved_search(saved), since=start, until=end)
        else:
            asked = _Asked.given(collection or "", query or [], kept, since=start, until=end)
        if save is not None:
            client.save_search(save, asked.collection, asked.text, **kept)
            again = command(home, f"search --saved {save}")
            err().print(f"[dim]saved; the same again: {again}[/]")
        where, which = (asked.collection, asked.text), asked.which
        if as_sql:
            written = client.statement(*where, **which)
            print_json(written) if as_json else out().print(
                written.statement, markup=False, highlight=False, soft_wrap=True
            )
        elif count:
            counted = client.count(*where, **which)
            print_json(counted) if as_json else out().print(f"{counted.count}")
        elif histogram:
            bars = client.histogram(*where, **which)
            print_json(bars) if as_json else _draw([(b.start, b.count) for b in bars.bars])
        elif facet:
            found = client.facets(*where, fields=facet, most=limit, **which)
            print_json(found) if as_json else _show_facets(found)
        else:
            _list(client, asked, limit, home, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is looked for: from the command line, or from a saved search."""

    collection: str
    text: str
    order: str
    which: SearchOptions

    @staticmethod
    def given(
        collection: str,
        words: list[str],
        kept: KeptOptions,
        *,
        since: datetime | None,
        until: datetime | None,
    ) -> _Asked:
        which: SearchOptions = {
            "since": since,
            "until": until,
            "view": kept["view"],
            "duplicates": kept["duplicates"],
            "closed": kept["closed"],
        }
        return _Asked(collection, " ".join(words), kept["order"], which)

    @staticmethod
    def of(saved: SavedSearchTold, *, since: datetime | None, until: datetime | None) -> _Asked:
        """Answer a saved search; times that are given take the place of its own."""
        which: SearchOptions = {
            "since": since or saved.since_at,
            "until": until or saved.until_at,
            "view": saved.view,
            "duplicates": saved.duplicates,
            "closed": saved.closed,
        }
        return _Asked(saved.collection, saved.query, saved.order, which)


def _list(client: Client, asked: _Asked, limit: int, home: Path, *, as_json: bool) -> None:
    shown, more = 0, False
    listed: ListOptions = {**asked.which, "order": asked.order}
    for page in _pages(client, asked.collection, asked.text, listed, most=limit):
        for event in page.events:
            print_json(event) if as_json else show_event(event, out())
        shown, more = shown + len(page.events), page.cursor is not None
        _tell_gaps(page, home)
    if as_json:
        return
    if more:
        err().print(f"[dim]there are more; see them with --limit {limit * 10}[/]")
    if not shown:
        open_only = asked.which["view"] == "quarantine" and not asked.which["closed"]
        since = asked.which["since"] is not None
        err().print(_nothing(asked.text, since=since, open_only=open_only))
    elif sys.stdout.isatty():
        err().print(f"[dim]one whole event: {command(home, f'event {asked.collection} ID')}[/]")


def _show_facets(found: FacetsTold) -> None:
    for facet in found.facets:
        print_table(
            [facet.field, "events"], [(one.value, f"{one.count:,}") for one in facet.values], out()
        )
        notes = [f"{facet.missing:,} of {found.found:,} events have none"] if facet.missing else []
        notes += [f"there are {facet.others:,} other values"] if facet.others else []
        if notes:
            err().print(f"[dim]{'; '.join(notes)}[/]")


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


def _nothing(text: str, *, since: bool, open_only: bool) -> str:
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
