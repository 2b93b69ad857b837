"""`penstock status`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from penstock.cli.complete import collections
from penstock.cli.console import DONE, FAILED, JsonFlag, out, plain, print_json, table
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect
from penstock.cli.moments import utc_now
from penstock.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.client import Client
    from penstock.contract.stats import StatsTold
    from penstock.contract.status import Health, OneStatus, Status

_LEVELS = "▁▂▃▄▅▆▇█"
_MINUTE = 60

Name = Annotated[
    str | None,
    typer.Argument(help="Only this collection, in detail.", autocompletion=collections),
]


def status(
    name: Name = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again.")] = False,
    every: Annotated[
        float, typer.Option(min=0.2, help="Seconds from one look to the next, with --watch.")
    ] = 2.0,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show whether everything responds, what was accepted and where it is, and what is wrong.

    The exit code is 1 if books do not add up, landing of a collection has stopped, or events wait
    for so long that the log may let go of them.
    """
    ask = _whole if name is None else lambda client: _one(client, name)
    if watch:
        looks = _again(lambda: _asked(home, ask), wait=lambda: time.sleep(every))
        follow_json(looks) if as_json else follow(looks, home, out())
        return
    look = _asked(home, ask)
    print_json(look.told) if as_json else out().print(look.drawn(home))
    raise typer.Exit(FAILED if look.troubles else DONE)


class Look:
    """What one look found."""

    told: dict[str, Any]
    """As JSON shows it."""
    troubles: Sequence[str] = ()
    """A sentence for each thing that somebody has to look at."""

    def drawn(self, home: Path) -> RenderableType:
        """Answer it as people see it."""
        raise NotImplementedError


class Whole(Look):
    """Everything that the team has."""

    def __init__(self, health: Health, whole: Status) -> None:
        self._health = health
        self._whole = whole
        self.told = {"health": health, "status": whole}
        self.troubles = [
            f"{one.name}: {said}" for one in whole.collections for said in one.troubles
        ]

    def drawn(self, home: Path) -> RenderableType:
        """Answer adapters, the table of collections, and what is wrong."""
        parts: list[RenderableType] = list(_adapters(self._health, home))
        found = self._whole.collections
        if not found:
            parts.append(Text(f"no collections yet: '{command(home, 'collection create NAME')}'"))
            return Group(*parts)
        parts.append(_collections(found, self._whole))
        parts += _wrong(self.troubles)
        if self._whole.replays:
            replays = ", ".join(f"{n} {state}" for state, n in self._whole.replays.items())
            parts.append(Text(f"replays: {replays}"))
        return Group(*parts)


class One(Look):
    """One collection in detail, and its last hour."""

    def __init__(self, status: OneStatus, stats: StatsTold) -> None:
        self._status = status
        self._stats = stats
        self.told = {"status": status, "last_hour": stats}
        self.troubles = status.troubles

    def drawn(self, home: Path) -> RenderableType:
        """Answer the books, the lags, the partitions and the last hour."""
        del home
        one = self._status
        books = one.books
        rows: list[tuple[str, object]] = [("accepted", books.accepted)]
        rows += [(f"  {name}", count) for name, count in _shown(books.parts).items()]
        rows.append(("difference", books.difference))
        head = Text(plain(one.name), style="bold")
        head.append(", paused: doors refuse its events" if one.paused else "", style="yellow")
        last = f"{one.last_event_at:%Y-%m-%d %H:%M:%SZ}" if one.last_event_at else "none yet"
        return Group(
            head,
            table("", ["", "events#"], rows),
            _sign(books.sentence, ok=not books.difference),
            Text(f"lag to the lake: {_lag(one.lake_lag_seconds)}"),
            Text(f"lag to search: {_search(one)}"),
            Text(f"last event: {last}"),
            *_wrong(self.troubles),
            Text(""),
            table(
                "",
                ["partition#", "log start#", "log end#", "landed up to#", "waiting#", "lost#"],
                [(p.partition, p.start, p.end, p.mark, p.waiting, p.lost) for p in one.partitions],
            ),
            Text(""),
            *_hour(self._stats),
        )


class Away(Look):
    """The platform did not answer this time."""

    def __init__(self, error: Unavailable) -> None:
        self.told = {"error": str(error)}
        self.troubles = [str(error)]

    def drawn(self, home: Path) -> RenderableType:
        """Answer the reason; the next look may find it again."""
        del home
        return Group(*_wrong(self.troubles))


def follow(looks: Iterator[Look], home: Path, console: Console) -> None:
    """Show each look in the place of the one before, until they end or Ctrl-C."""
    with Live(console=console, auto_refresh=False) as live:
        try:
            for look in looks:
                live.update(look.drawn(home), refresh=True)
        except KeyboardInterrupt:
            return


def follow_json(looks: Iterator[Look]) -> None:
    """Print a line for each look, until they end or Ctrl-C."""
    try:
        for look in looks:
            print_json(look.told)
    except KeyboardInterrupt:
        return


def _again(look: Callable[[], Look], *, wait: Callable[[], None]) -> Iterator[Look]:
    while True:
        try:
            yield look()
        except Unavailable as error:
            yield Away(error)
        wait()


def _asked(home: Path, ask: Callable[[Client], Look]) -> Look:
    with connect(home) as client:
        return ask(client)


def _whole(client: Client) -> Look:
    return Whole(client.health(), client.status())


def _one(client: Client, name: str) -> Look:
    status = client.collection_status(name)
    # Whole minutes, the one that is not over yet included.
    until = utc_now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    since = until - timedelta(hours=1)
    return One(
        status,
        client.collection_stats(name, since=since, until=until, step_seconds=_MINUTE),
    )


def _adapters(health: Health, home: Path) -> Iterator[Text]:
    for name, one in health.adapters.items():
        line = Text(f"  {name:<12} ")
        if one.responds:
            line.append("responds", style="green")
        else:
            line.append("does not respond", style="red").append(f": {plain(str(one.reason))}")
        yield line.append(f" ({one.seconds * 1000:.0f} ms)", style="dim")
    if any(not one.responds for one in health.adapters.values()):
        yield Text(f"  what to do about it: {command(home, 'doctor')}", style="dim")


def _collections(found: Sequence[OneStatus], whole: Status) -> RenderableType:
    """Answer a row for each collection; a part that none has any of has no column."""
    parts = list(dict.fromkeys(name for one in found for name in _shown(one.books.parts)))
    return table(
        "",
        [
            "collection",
            "accepted#",
            *(f"{name}#" for name in parts),
            "lag to lake#",
            "lag to search#",
            "last event#",
            "books",
        ],
        [
            (
                one.name + (" (paused)" if one.paused else ""),
                one.books.accepted,
                *(one.books.parts.get(name, 0) for name in parts),
                _lag(one.lake_lag_seconds),
                "" if one.search_lag_seconds is None else _lag(one.search_lag_seconds),
                "" if one.last_event_at is None else _ago(whole.now - one.last_event_at),
                _books(one),
            )
            for one in found
        ],
    )


def _books(one: OneStatus) -> Text:
    if one.stop is not None:
        return Text(f"stopped: {one.stop.name}", style="red")
    if one.books.difference:
        off = one.books.difference
        return Text(f"{abs(off):,} {'missing' if off > 0 else 'too many'}", style="red")
    return Text("late", style="red") if one.troubles else Text("add up", style="green")


def _wrong(troubles: Sequence[str]) -> list[Text]:
    return [Text(plain(said), style="red") for said in troubles]


def _sign(sentence: str, *, ok: bool) -> Text:
    return Text(sentence, style="green" if ok else "red")


def _shown(parts: dict[str, int]) -> dict[str, int]:
    """Leave out what there is none of, but for the three that everybody looks for."""
    always = ("landed", "quarantined", "waiting")
    return {name: count for name, count in parts.items() if count or name in always}


def _lag(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    return "none" if not seconds else _length(seconds)


def _search(one: OneStatus) -> str:
    if one.search_lag_seconds is None and not one.search_waiting:
        return "none, searches read lake and log"
    lag = _lag(one.search_lag_seconds)
    return f"{lag}, {one.search_waiting:,} events are found in lake and log meanwhile"


def _ago(age: timedelta) -> str:
    return f"{_length(max(0.0, age.total_seconds()))} ago"


def _length(seconds: float) -> str:
    """Write a length of time in the unit people would say."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes = seconds / _MINUTE
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"  # noqa: PLR2004 - two days


def _hour(stats: StatsTold) -> Iterator[Text]:
    """Draw the last hour, a character for each minute."""
    events = [step.events for step in stats.steps]
    aside = [step.quarantined for step in stats.steps]
    yield Text("the last hour, by the minute in which events were received", style="dim")
    again = [step.duplicates for step in stats.steps]
    once = [n - q - d for n, q, d in zip(events, aside, again, strict=True)]
    yield _drawn("landed", once, "cyan")
    yield _drawn("quarantined", aside, "yellow")
    if any(again):
        yield _drawn("duplicates", again, "cyan")
    lags = [step.lag_seconds for step in stats.steps if step.lag_seconds is not None]
    if lags:
        yield Text(f"the longest wait before landing was {_length(max(lags))}", style="dim")
    if stats.uncounted:
        yield Text(f"{stats.uncounted:,} more have landed and are not counted yet", style="yellow")


def _drawn(what: str, counts: Sequence[int], style: str) -> Text:
    total, most = sum(counts), max(counts, default=0)
    line = Text(f"{what:<12} ")
    line.append(bars(counts), style=style)
    return line.append(f" {total:,}, at most {most:,} a minute", style="dim")


def bars(counts: Sequence[int]) -> str:
    """Draw a character for each number, a dot for none; the highest stands for the largest."""
    most = max(counts, default=0)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(n / most * top)] if n else "·" for n in counts)
