"""`penstock send`."""

from __future__ import annotations

import io
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.cli.complete import collections
from penstock.cli.console import FAILED, JsonFlag, err, out, print_json, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, naming, read_running
from penstock.envelope import ENVELOPES
from penstock.errors import (
    BadRequest,
    EngineUnavailable,
    Malformed,
    PenstockError,
    Rejected,
    Unavailable,
)

if TYPE_CHECKING:
    import httpx

NDJSON = "application/x-ndjson"
NOTHING: dict[str, Any] = {"accepted": 0}
MOST_LINES = 1_000
MOST_BYTES = 4 << 20
GIVE_UP_SECONDS = 120.0

_REASONS_SHOWN = 5
_LOOK_BYTES = 4_096
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def send(
    collection: Annotated[
        str, typer.Argument(help="Where the events go.", autocompletion=collections)
    ],
    file: Annotated[
        Path | None,
        typer.Argument(help="The file, also packed with gzip or zstd; - or none reads stdin."),
    ] = None,
    content_type: Annotated[
        str | None,
        typer.Option(
            "--type", help="NDJSON is an event a line; of any other type it is one event. [NDJSON]"
        ),
    ] = None,
    envelopes: Annotated[
        bool,
        typer.Option(
            "--envelopes",
            help="Lines are events with key, headers and time, as a replay to a file writes them.",
        ),
    ] = False,
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
    if envelopes and content_type is not None:
        raise BadRequest("--envelopes says what the file is; leave --type out")
    sent = Sent()
    begun = time.monotonic()
    try:
        with (
            opened(file) as (source, total),
            DoorClient(address, token, tell=lambda text: err().print(safe(text))) as door,
            _progress(total, quiet=as_json) as advance,
            naming(home),
        ):
            content = unpacked(source, advance)
            if content_type in {None, NDJSON}:
                if content_type is None:
                    refuse_binary(content)
                send_lines(door, collection, content, sent, envelopes=envelopes)
            else:
                sent.add(door.post(collection, content.read(), str(content_type)))
    except PenstockError as error:
        # What is acknowledged stays: whoever sends the rest has to know how much.
        if sent.accepted:
            error.add_note(f"acknowledged before that: {sent.accepted:,} events")
        raise
    except KeyboardInterrupt:
        err().print("stopped; of the last request nothing is known")
        sent.tell(time.monotonic() - begun, as_json=as_json)
        raise typer.Exit(FAILED) from None
    sent.tell(time.monotonic() - begun, as_json=as_json)
    if sent.refused:
        raise typer.Exit(FAILED)


class Sent:
    """What became of the events of a command."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.reasons: dict[str, str] = {}
        """The first few refusals, each once, and where it was met first."""
        self.lines = 0
        """How many were read before."""

    def add(self, answer: dict[str, Any], *, lines: int = 0) -> None:
        """Count the answer of the door to a body of so many lines."""
        self.accepted += int(answer["accepted"])
        for outcome in answer.get("outcomes", ()):
            if "detail" not in outcome:
                continue
            self.refused += 1
            line = outcome.get("line")
            where = f"line {self.lines + line:,}: " if line else ""
            if len(self.reasons) < _REASONS_SHOWN:
                self.reasons.setdefault(outcome["detail"], where)
        self.lines += lines

    def tell(self, seconds: float, *, as_json: bool) -> None:
        """Print what became of them."""
        if as_json:
            reasons = [f"{where}{reason}" for reason, where in self.reasons.items()]
            counts = {"accepted": self.accepted, "refused": self.refused, "seconds": seconds}
            print_json({**counts, "reasons": reasons})
            return
        rate = self.accepted / seconds
        out().print(f"{self.accepted:,} accepted, {self.refused:,} refused, {rate:,.0f}/s")
        if not self.accepted and not self.refused:
            err().print("there was no event: NDJSON is a line of JSON for each")
        for reason, where in self.reasons.items():
            err().print(f"[yellow]refused[/]: {safe(where + reason)}")


def send_lines(
    door: DoorClient,
    collection: str,
    content: io.BufferedReader,
    sent: Sent,
    *,
    envelopes: bool,
) -> None:
    """Send lines as they come, and count what became of them."""
    for block in blocks(content):
        for body in bodies(io.BytesIO(block)):
            answer = NOTHING
            if body.strip() and envelopes:
                answer = door.post(collection, with_envelopes(body, sent.lines), ENVELOPES)
            elif body.strip():
                answer = door.post(collection, body, NDJSON)
            sent.add(answer, lines=body.count(b"\n"))


def with_envelopes(body: bytes, before: int) -> bytes:
    """Answer lines as a door takes them; raise `BadRequest` for the first that is no event.

    `before` are the lines of the file before these.
    """
    import msgspec

    from penstock.lines import enveloped, read_line

    events = []
    for number, line in enumerate(body.split(b"\n"), before + 1):
        if line.strip():
            try:
                events.append(enveloped(read_line(line)))
            except Malformed as error:
                raise BadRequest(f"line {number:,}: {error}") from None
    return msgspec.msgpack.encode(events)


@contextmanager
def opened(file: Path | None) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file, or stdin, for the block, with its size; `BadRequest` if that is impossible."""
    if file is None or str(file) == "-":
        if sys.stdin.isatty():
            err().print("reading events from the terminal, one a line; Ctrl-D ends it")
        yield sys.stdin.buffer, None
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise BadRequest(f"{file} cannot be read: {error.strerror}") from error
    with source:
        yield source, os.fstat(source.fileno()).st_size


def unpacked(source: BinaryIO, advance: Callable[[int], None]) -> io.BufferedReader:
    """Answer what is in a file, out of gzip or zstd if it begins so; `advance` hears of reads."""
    packed: io.BufferedReader = io.BufferedReader(_Counted(source, advance))
    begin = packed.peek(4)[:4]
    if begin.startswith(_GZIP):
        import gzip

        return io.BufferedReader(_Unpacking(gzip.GzipFile(fileobj=packed)))
    if begin.startswith(_ZSTD):
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        return io.BufferedReader(_Unpacking(reader))
    return packed


def refuse_binary(content: io.BufferedReader) -> None:
    """Raise `BadRequest` where lines are hardly meant: each piece between two would be an event."""
    if b"\0" in content.peek(_LOOK_BYTES)[:_LOOK_BYTES]:
        raise BadRequest(
            "this is no text: send it as one event with --type application/octet-stream, "
            f"or with --type {NDJSON} if its lines are events all the same"
        )


class _Counted(io.RawIOBase):
    """Reads, and says how much."""

    def __init__(self, source: BinaryIO, advance: Callable[[int], None]) -> None:
        self._source: Any = source
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # What there is: somebody may type.
        piece = self._source.read1(len(buffer))
        buffer[: len(piece)] = piece
        self._advance(len(piece))
        return len(piece)


class _Unpacking(io.RawIOBase):
    """Reads what is packed; a broken pack is a fault of the file."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zlib

        import zstandard

        try:
            piece = self._source.read1(len(buffer))
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise BadRequest(f"the file is packed, and cannot be unpacked: {error}") from error
        buffer[: len(piece)] = piece
        return len(piece)


class DoorClient:
    """Posts to a door and waits out what passes. Repeats carry the same idempotency key."""

    def __init__(
        self, address: str, token: str, *, tell: Callable[[str], None] = lambda _text: None
    ) -> None:
        """`tell` hears, once per wait, what is waited for."""
        import httpx

        self._tell = tell
        self._answered = False
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
        """Post a body until it is answered for; raise the door's refusal.

        Of a batch that was refused event by event the outcomes are answered. A door that has never
        answered is not waited for: it is most likely not there.
        """
        import httpx

        from penstock.client.problems import told

        headers = {"Content-Type": content_type, "Idempotency-Key": str(uuid.uuid4())}
        path = f"/v1/events/{collection}"
        deadline = time.monotonic() + GIVE_UP_SECONDS
        waits = False
        while True:
            problem: PenstockError
            try:
                response = self._http.post(path, content=body, headers=headers)
                self._answered = True
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                problem = told(response)
                if isinstance(problem, Rejected) and b'"outcomes"' in response.content:
                    return {"accepted": 0, **response.json()}
            except httpx.TransportError as error:
                problem = EngineUnavailable(f"no door answers at {self._http.base_url}: {error}")
            passes = isinstance(problem, Unavailable) and self._answered
            if not passes or time.monotonic() > deadline:
                raise problem
            if not waits:
                self._tell(f"{problem}; trying again for {GIVE_UP_SECONDS:.0f} s")
                waits = True
            time.sleep(getattr(problem, "retry_after", 1))


def blocks(content: io.BufferedReader) -> Iterator[bytes]:
    """Answer whole lines as they come: who pipes a log in does not wait for a thousand more."""
    rest = b""
    while piece := content.read1(MOST_BYTES):
        whole, end, begun = piece.rpartition(b"\n")
        if end:
            yield rest + whole + end
            rest = begun
        else:
            rest += piece
    if rest:
        yield rest


def bodies(
    events: Iterable[bytes], *, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES
) -> Iterator[bytes]:
    """Join lines to bodies of at most so many lines, and about so many bytes.

    Empty lines stay, so that a line of a body can be counted back to one of the file.
    """
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


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda _count: None
        return
    with Progress(
        TextColumn("sending"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=err()
    ) as progress:
        task = progress.add_task("sending", total=total)
        yield lambda count: progress.advance(task, count)
