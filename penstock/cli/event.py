"""`penstock event`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, err, out, plain, print_json, print_table
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.errors import BadRequest

if TYPE_CHECKING:
    from penstock.contract.events import AroundTold, BesideTold, DeliveriesTold
    from penstock.contract.search import EventTold, NotText

_SHOWN_BYTES = 256


def event(
    collection: Annotated[
        str, typer.Argument(help="The collection it is in.", autocompletion=collections)
    ],
    event_id: Annotated[str, typer.Argument(help="The event's id, as `search` shows it.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="Print the payload only, byte for byte.")
    ] = False,
    deliveries: Annotated[
        bool,
        typer.Option("--deliveries", help="Show who received it, in which replay, at which try."),
    ] = False,
    around: Annotated[
        bool,
        typer.Option("--around", help="Show its row, its neighbours on the log, and its repeats."),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show one whole event: envelope, headers, metadata, misfits and payload.

    For example: penstock event hello ID --payload > payload.json
    """
    if payload + deliveries + around > 1:
        raise BadRequest("--payload, --deliveries and --around each show something else: name one")
    with connect(home) as client:
        if deliveries:
            received = client.deliveries(collection, event_id)
            print_json(received) if as_json else show_deliveries(received)
            return
        if around:
            beside = client.around(collection, event_id)
            print_json(beside) if as_json else show_around(beside, out())
            return
        found = client.event(collection, event_id)
    if as_json:
        print_json(found)
    elif payload:
        sys.stdout.buffer.write(found.payload_bytes())
        sys.stdout.buffer.flush()
    else:
        show_whole(found, out())


def show_deliveries(found: DeliveriesTold) -> None:
    """Print every attempt to send an event."""
    if not found.deliveries:
        err().print("no replay has sent it")
        return
    print_table(
        ["at", "replay", "destination", "attempt#", "outcome", "status#", "took", "reason"],
        [
            (
                f"{one.at:%Y-%m-%d %H:%M:%S}Z",
                one.replay,
                one.destination,
                one.attempt,
                one.outcome,
                one.status,
                None if one.latency_ms is None else f"{one.latency_ms:,.1f} ms",
                one.reason,
            )
            for one in found.deliveries
        ],
        out(),
    )
    if found.more:
        err().print("[yellow]there are more attempts[/]: ask SQL for them")


def show_around(found: AroundTold, console: Console) -> None:
    """Print what stands about an event."""
    where = "in the lake" if found.landed else "waits on the log"
    console.print(
        f"partition {found.log_partition}, offset {found.log_offset}, {where}", highlight=False
    )
    cells = found.columns or []
    _pairs(console, "row", [(one.path, f"{_json(one.value)}  {one.type}") for one in cells])
    for title, some in (
        ("before", found.before),
        ("after", found.after),
        ("repeated by", found.repeated_by),
    ):
        _pairs(console, title, [(str(one.log_offset), _told_of(one)) for one in some])


def _told_of(one: BesideTold) -> str:
    aside = ", in quarantine" if one.view == "quarantine" else ""
    return f"{one.event_id}, {one.received_at:%Y-%m-%d %H:%M:%S.%f}Z, {one.size:,} bytes{aside}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def show_whole(event: EventTold, console: Console) -> None:
    """Print everything that is known of an event."""
    facts: list[tuple[str, object]] = [
        ("event_id", event.event_id),
        ("received_at", f"{event.received_at:%Y-%m-%d %H:%M:%S.%f}Z"),
        ("event_time", event.event_time and f"{event.event_time:%Y-%m-%d %H:%M:%S.%f}Z"),
        ("source", event.source),
        ("content_type", event.content_type),
        ("key", event.key if event.key is not None else event.key_base64),
        ("position", f"partition {event.log_partition}, offset {event.log_offset}"),
        ("duplicate_of", event.duplicate_of),
        ("quarantined", event.stage and f"at {event.stage}: {event.reason}"),
        ("detail", event.detail),
        ("attempts", event.attempts),
    ]
    _pairs(console, "", [(name, str(value)) for name, value in facts if value is not None])
    _pairs(console, "headers", [(name, _told(value)) for name, value in event.headers])
    _pairs(console, "metadata", list(event.metadata.items()))
    _pairs(console, "misfits", [(one.path, one.value) for one in event.misfits])
    content = event.payload_bytes()
    console.print(Text(f"payload, {len(content):,} bytes", style="bold"))
    for line in _lines(event.payload, content):
        console.print(Text(f"  {plain(line)}"))


def _pairs(console: Console, title: str, pairs: list[tuple[str, str]]) -> None:
    if not pairs:
        return
    if title:
        console.print(Text(title, style="bold"))
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0) if not title else (0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(plain(name)), Text(plain(value)))
    console.print(grid)


def _told(value: str | NotText) -> str:
    return value if isinstance(value, str) else f"{value.base64} (base64)"


def _lines(text: str | None, content: bytes) -> list[str]:
    """Lay JSON out; show other text as it is, and the first of other bytes as `xxd` would."""
    if text is None:
        shown = content[:_SHOWN_BYTES]
        lines = [shown[at : at + 16] for at in range(0, len(shown), 16)]
        dump = [
            f"{n * 16:04x}  {line.hex(' '):<47}  {_ascii(line)}" for n, line in enumerate(lines)
        ]
        rest = len(content) - len(shown)
        return [*dump, f"… {rest:,} more bytes: --payload prints all"] if rest else dump
    try:
        return msgspec.json.format(content, indent=2).decode().splitlines()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.splitlines()


def _ascii(line: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)  # noqa: PLR2004 - printable
