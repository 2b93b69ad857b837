"""`penstock tail`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections
from penstock.cli.console import FAILED, JsonFlag, err, out, print_json, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.cli.moments import parse_moment, utc_now
from penstock.cli.search import show_event
from penstock.errors import Unavailable

if TYPE_CHECKING:
    from penstock.client import Client
    from penstock.client.tail import Tailed
    from penstock.contract.search import EventTold

# Between two tries to reach a platform that is away.
_LONGEST_WAIT = 5.0
_SHORTEST_WAIT = 0.5


def tail(
    collection: Annotated[str, typer.Argument(help="What to follow.", autocompletion=collections)],
    query: Annotated[
        list[str] | None, typer.Argument(help="What to show; nothing shows everything.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Begin with what was received `10m`, `2h` ago, or at a time."),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option("--forward", metavar="URL", help="Post each event there, as a replay would."),
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, help="With --forward, how often an event is tried.")
    ] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Show events that repeat others, too.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show events as they are acknowledged, until Ctrl-C. With --json one a line.

    With --forward each is posted to a URL, for example a service on this machine, and a second
    start goes on where the first one ended.

    For example: penstock tail orders 'total:>100' --forward http://localhost:3000/hooks
    """
    text = " ".join(query or [])
    start = parse_moment(since, utc_now())
    with _ended_by_signals(), connect(home) as client:
        follow = Follow(client, collection, text, since=start, duplicates=duplicates, home=home)
        if forward is None:
            _show(follow, limit, as_json=as_json)
        else:
            _forward(follow, forward, limit, attempts=attempts, as_json=as_json)


class Follow:
    """A tail that outlives its connections; `after` is the position to go on from."""

    def __init__(
        self,
        client: Client,
        collection: str,
        query: str,
        *,
        since: datetime | None,
        duplicates: bool,
        home: Path,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.collection = collection
        self.query = query
        self.since = since
        self.duplicates = duplicates
        self.home = home
        self.platform = client.address
        self._client = client
        self._wait = wait

    def messages(self, after: str | None = None) -> Generator[Tailed, None, None]:
        """Yield what comes; raise what a person has to see to.

        A platform that went away is tried again, for ever; one that was never there is not.
        """
        failures, connected = 0, False
        while True:
            try:
                with closing(
                    self._client.tail(
                        self.collection,
                        self.query,
                        since=self.since,
                        after=after,
                        duplicates="include" if self.duplicates else "fold",
                    )
                ) as messages:
                    for message in messages:
                        if failures:
                            err().print("[green]connected again[/]")
                        failures, connected = 0, True
                        after = message.position or after
                        yield message
            except Unavailable as error:
                if not connected:
                    raise
                if not failures:
                    err().print(f"[yellow]{safe(str(error))}[/]; trying again")
                self._wait(max(_SHORTEST_WAIT, min(error.retry_after * failures, _LONGEST_WAIT)))
                failures += 1


def _show(follow: Follow, limit: int | None, *, as_json: bool) -> None:
    from penstock.client.tail import Gone, Shown

    count = 0
    messages = follow.messages()
    with closing(messages), suppress(KeyboardInterrupt):
        for message in messages:
            match message:
                case Shown(event=event):
                    print_json(event) if as_json else show_event(event, out())
                    count += 1
                    if count == limit:
                        break
                case Gone():
                    _tell_gap(message.reason, message.events)
                case _:
                    _tell_behind(message.behind)


def _forward(follow: Follow, url: str, limit: int | None, *, attempts: int, as_json: bool) -> None:
    from penstock.cli.forward import Forwarder, Progress
    from penstock.client.tail import Gone, Shown

    progress = Progress(follow, url)
    after = None if follow.since else progress.read()
    if after is not None:
        err().print(
            f"[dim]going on where it stopped; up to {progress.window} events may come again "
            "(--since 0s begins anew)[/]"
        )
    count = failed = 0
    messages = follow.messages(after)
    with (
        Forwarder(url, name=progress.name, attempts=attempts) as forwarder,
        progress,
        closing(messages),
        suppress(KeyboardInterrupt),
    ):
        for message in messages:
            match message:
                case Shown(event=event):
                    sent = forwarder.deliver(event)
                    progress.passed(message.position)
                    failed += not sent.delivered
                    print_json(sent.told()) if as_json else _show_sent(event, sent.sentence)
                    count += 1
                    if count == limit:
                        break
                case Gone():
                    _tell_gap(message.reason, message.events)
                case _:
                    forwarder.collection = message.collection
                    progress.reached(message.position)
                    _tell_behind(message.behind)
    err().print(f"[dim]{count - failed:,} delivered, {failed:,} failed[/]")
    if failed:
        raise typer.Exit(FAILED)


def _show_sent(event: EventTold, sentence: str) -> None:
    out().print(
        f"[dim]{event.received_at:%Y-%m-%d %H:%M:%S.%f}Z[/] [bold]{safe(event.event_id)}[/] "
        f"{safe(sentence)}"
    )


def _tell_gap(reason: str, events: int) -> None:
    why = "retention has dropped them" if reason == "expired" else "they are lost"
    err().print(f"[yellow]up to {events:,} events cannot be shown[/]: {why}")


_WORTH_TELLING = 1_000


def _tell_behind(behind: int) -> None:
    if behind >= _WORTH_TELLING:
        err().print(f"[dim]{behind:,} events behind[/]")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: what was delivered is written down."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
