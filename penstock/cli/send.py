"""`penstock send`."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.cli.console import JsonFlag, err, out, print_json
from penstock.cli.home import DEFAULT_HOME, HomeOption, read_running
from penstock.errors import EngineUnavailable, PenstockError, Unavailable

if TYPE_CHECKING:
    import httpx

NDJSON = "application/x-ndjson"
MOST_LINES = 1_000
MOST_BYTES = 4 << 20
GIVE_UP_SECONDS = 120.0


def send(
    collection: Annotated[str, typer.Argument(help="Where the events go.")],
    file: Annotated[
        Path | None, typer.Argument(help="The file; without one, stdin is read.")
    ] = None,
    content_type: Annotated[
        str,
        typer.Option(
            "--type", help="NDJSON is an event a line; of any other type it is one event."
        ),
    ] = NDJSON,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send events to a door; each is acknowledged when it is synced to disk.

    For example: penstock send flights flights.ndjson
    """
    address = os.environ.get("PENSTOCK_DOOR")
    token = os.environ.get("PENSTOCK_TOKEN")
    if not address or not token:
        running = read_running(home)
        address, token = address or running.door, token or running.token
    source: BinaryIO = sys.stdin.buffer if file is None else file.open("rb")
    total = None if file is None else file.stat().st_size
    begun = time.monotonic()
    sent = Sent()
    with source, DoorClient(address, token) as door, _progress(total, quiet=as_json) as shown:
        pieces = lines(source) if content_type == NDJSON else iter([source.read()])
        for body in bodies(pieces) if content_type == NDJSON else pieces:
            sent.add(door.post(collection, body, content_type))
            if shown is not None:
                shown.advance(shown.task_ids[0], len(body))
    seconds = time.monotonic() - begun
    if as_json:
        print_json({"accepted": sent.accepted, "refused": sent.refused, "seconds": seconds})
    else:
        rate = f", {sent.accepted / seconds:,.0f}/s" if seconds else ""
        out().print(f"{sent.accepted:,} accepted, {sent.refused:,} refused{rate}")
        for reason in sent.reasons:
            err().print(f"[yellow]refused[/]: {reason}")
    if sent.refused:
        raise typer.Exit(1)


class Sent:
    """What became of the events of a command."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.reasons: list[str] = []
        """The first few refusals, each once."""

    def add(self, answer: dict[str, Any]) -> None:
        """Count an answer of the door."""
        self.accepted += int(answer["accepted"])
        for outcome in answer.get("outcomes", ()):
            if "detail" in outcome:
                self.refused += 1
                if outcome["detail"] not in self.reasons[:5]:
                    self.reasons = [*self.reasons, outcome["detail"]][:5]


class DoorClient:
    """Posts to a door and waits out what passes. Repeats carry the same idempotency key."""

    def __init__(self, address: str, token: str) -> None:
        import httpx

        self._http: httpx.Client = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60.0,
            trust_env=False,
        )

    def __enter__(self) -> DoorClient:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, collection: str, body: bytes, content_type: str) -> dict[str, Any]:
        """Post a body until it is answered for; raise the door's refusal."""
        import httpx

        from penstock.client import told

        headers = {"Content-Type": content_type, "Idempotency-Key": str(uuid.uuid4())}
        path = f"/v1/events/{collection}"
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            problem: PenstockError
            try:
                response = self._http.post(path, content=body, headers=headers)
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                problem = told(response)
            except httpx.TransportError as error:
                problem = EngineUnavailable(f"no door answers at {self._http.base_url}: {error}")
            if not isinstance(problem, Unavailable) or time.monotonic() > deadline:
                raise problem
            time.sleep(problem.retry_after)


def lines(source: Iterable[bytes]) -> Iterator[bytes]:
    """Answer the lines that hold an event, each with its end."""
    return (line for line in source if line.strip())


def bodies(
    events: Iterable[bytes], *, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES
) -> Iterator[bytes]:
    """Join lines to bodies of at most so many lines, and about so many bytes."""
    part: list[bytes] = []
    size = 0
    for event in events:
        part.append(event)
        size += len(event)
        if len(part) == most_lines or size >= most_bytes:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def _progress(total: int | None, *, quiet: bool) -> Any:
    if quiet or not sys.stderr.isatty():
        return nullcontext()
    progress = Progress(
        TextColumn("sending"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=err()
    )
    progress.add_task("sending", total=total)
    return progress
