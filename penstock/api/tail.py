"""Live tails: events as they are acknowledged, over server-sent events.

Here many connections wait; what they wait for is found out in a few threads of their own
(`penstock.search.live`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Literal, TypeVar

import anyio
import structlog
from anyio import to_thread
from anyio.lowlevel import RunVar
from fastapi import APIRouter, Header, Query, Response
from starlette.types import Receive, Scope, Send

from penstock import sse
from penstock.api.access import Credentials, Reader, caller_of
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.api.search import event_told
from penstock.contract.base import Time, micros
from penstock.contract.tail import TailBeat, TailGap
from penstock.envelope import CollectionId, Micros
from penstock.errors import EngineUnavailable, PenstockError, Unavailable
from penstock.problem import problem
from penstock.search.live import Following, Page
from penstock.search.positions import along

log = structlog.get_logger()

_T = TypeVar("_T")

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["search"])

# Ids beyond this length (hundreds of partitions) come with the last event of a page only.
_LONGEST_ID = 400

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    # nginx holds answers back to send them in one piece.
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a tail does what nobody asks for, in seconds."""

    heartbeat: float = 10.0
    """The longest silence."""
    access: float = 2.0
    """Between two looks whether the caller may still read."""
    leaving: float = 0.5
    """Between two looks whether the platform is to end."""
    behind: float = 1.0
    """Between two words on how far a tail is behind."""
    stuck: float = 60.0
    """After which a reader that takes nothing is let go."""


# Fewer are no news: they are on their way.
_WORTH_TELLING = 1_000


@router.get(
    "/tail",
    response_class=Response,
    responses={
        200: {
            "description": "Messages `event`, `behind`, `gap`, `heartbeat` and `end`, without end.",
            "content": {sse.CONTENT_TYPE: {"schema": {"type": "string"}}},
        }
    },
)
def tail(
    c: str,
    caller: Reader,
    here: Here,
    credentials: Credentials,
    query: Annotated[str, Query(max_length=10_000, description="Nothing finds everything.")] = "",
    since: Annotated[
        Time | None, Query(description="Begin with what was received at this time or later.")
    ] = None,
    after: Annotated[
        str | None,
        Query(max_length=32_000, description="Begin after this position, the id of a message."),
    ] = None,
    duplicates: Annotated[
        Literal["fold", "include"],
        Query(description="Leave out events that repeat others, or show them too."),
    ] = "fold",
    last_event_id: Annotated[
        str | None,
        Header(max_length=32_000, description="As `after`, which it goes before."),
    ] = None,
) -> Response:
    """Show events as they are acknowledged, until one side ends it.

    The data of a message `event` are an event as search tells it. Its id is the position behind
    it: given back, the tail goes on from there. `behind` tells how many events were not looked at
    yet, `gap` what can be shown no more, `end` (data are a problem) why nothing more comes.
    """
    return tail_of(
        here,
        caller.team,
        readable(here, caller, c).id,
        TailAsked(query, micros(since), last_event_id or after, duplicates),
        still=lambda: caller_of(here, credentials, "read"),
    )


@dataclass(frozen=True, slots=True)
class TailAsked:
    """What to show, and from where on: after a position, since a time, or from now."""

    query: str = ""
    since: Micros | None = None
    after: str | None = None
    duplicates: Literal["fold", "include"] = "fold"


def tail_of(
    here: Platform,
    team: str,
    collection: CollectionId,
    asked: TailAsked,
    *,
    still: Callable[[], object],
    pace: Pace | None = None,
    write: Callable[[Page], bytes] | None = None,
) -> Response:
    """Answer a tail of a collection, in the place of one of the team's tails.

    `write` makes messages of the events of a page, in place of a message `event` for each. `still`
    is asked every other second; it raises what ends the tail, as `Unauthorized`.
    Raises as a search does, and `Overloaded` when the team has too many tails.
    """
    bell = Bell()
    with ExitStack() as opened:
        opened.enter_context(here.seats.taken(team))
        with here.rooms.search:
            following = here.live.follow(
                collection,
                asked.query,
                wake=bell.ring,
                since=asked.since,
                after=asked.after,
                duplicates=asked.duplicates,
            )
        opened.callback(following.close)
        return EventStream(
            following,
            bell,
            still=still,
            leaving=here.leaving,
            opened=opened.pop_all(),
            pace=pace or Pace(),
            write=write or _written,
        )


class Bell:
    """Wakes a task of the event loop from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()

    def listen(self) -> None:
        """Wake the tasks of the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Wake who waits, or the next one who does."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._rung.set)

    def clear(self) -> None:
        """Wait for what comes from now on."""
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, so long at most."""
        with anyio.move_on_after(max(0.0, seconds)):
            await self._rung.wait()


class EventStream(Response):
    """Sends what a tail finds; closes it when either side ends."""

    media_type = sse.CONTENT_TYPE

    def __init__(
        self,
        following: Following,
        bell: Bell,
        *,
        still: Callable[[], object],
        leaving: threading.Event,
        opened: ExitStack,
        pace: Pace,
        write: Callable[[Page], bytes],
    ) -> None:
        # Not the parent's, which knows the length of what it sends.
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._following = following
        self._bell = bell
        self._still = still
        self._leaving = leaving
        self._opened = opened
        self._pace = pace
        self._write = write
        self._error: PenstockError | None = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes, may not read any more, or takes nothing; then close."""
        self._bell.listen()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._until_gone, receive, group.cancel_scope)
                group.start_soon(self._watch, group.cancel_scope)
                await self._tell(send)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._opened.close)

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Look whether it may go on; let it say so if it may not, but not wait for that."""
        looked = time.monotonic()
        while self._error is None:
            await anyio.sleep(self._pace.leaving)
            if self._leaving.is_set():
                self._error = EngineUnavailable("the platform is being closed")
            elif time.monotonic() - looked >= self._pace.access:
                self._error = await _in_thread(self._refusal)
                looked = time.monotonic()
        self._bell.ring()
        await anyio.sleep(self._pace.leaving)
        scope.cancel()

    def _refusal(self) -> PenstockError | None:
        try:
            self._still()
        except Unavailable:
            return None  # nobody can have revoked anything meanwhile
        except PenstockError as error:
            return error
        return None

    async def _tell(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

        async def say(content: bytes) -> None:
            with anyio.fail_after(self._pace.stuck):
                await send({"type": "http.response.body", "body": content, "more_body": True})

        try:
            await say(b"".join(self._first()))
            await self._go_on(say)
        except TimeoutError:
            log.info("a tail was let go: its reader takes nothing")
        except PenstockError as error:
            await say(sse.write(sse.Message("end", problem(error).body())))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _first(self) -> list[bytes]:
        gaps = [TailGap(reason=reason, events=events) for reason, events in self._following.missing]
        return [
            *(sse.write(sse.Message("gap", gap.model_dump_json().encode())) for gap in gaps),
            self._beat("heartbeat"),
        ]

    def _beat(self, name: Literal["heartbeat", "behind"]) -> bytes:
        following = self._following
        told = TailBeat(collection=str(following.collection), behind=following.behind)
        return sse.write(sse.Message(name, told.model_dump_json().encode(), str(following.at)))

    async def _go_on(self, say: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is found, for ever; raise why it ends."""
        spoken = time.monotonic()
        lagging = 0.0
        while True:
            if self._error is not None:
                raise self._error
            self._bell.clear()
            page = await _in_thread(self._following.next)
            if page is not None and page.events:
                await say(await _in_thread(partial(self._write, page)))
                spoken = time.monotonic()
            elif time.monotonic() - spoken >= self._pace.heartbeat:
                await say(self._beat("heartbeat"))
                spoken = time.monotonic()
            if self._following.behind >= _WORTH_TELLING:
                if time.monotonic() - lagging >= self._pace.behind:
                    await say(self._beat("behind"))
                    spoken = lagging = time.monotonic()
            elif lagging and page is None:
                await say(self._beat("behind"))
                spoken, lagging = time.monotonic(), 0.0
            if page is None:
                await self._bell.wait(spoken + self._pace.heartbeat - time.monotonic())


# Tails that ask the same share their pages; those who are late have pages of their own.
@lru_cache(maxsize=8)
def _written(page: Page) -> bytes:
    """Write the messages of a page."""
    pieces = []
    last = len(page.events) - 1
    for number, (found, at) in enumerate(
        zip(page.events, along(page.start, iter(page.events)), strict=True)
    ):
        # What lies behind the last one has been looked at, too.
        place = str(page.after if number == last else at)
        short = number == last or len(place) <= _LONGEST_ID
        body = event_told(found).model_dump_json().encode()
        pieces.append(sse.write(sse.Message("event", body, place if short else None)))
    return b"".join(pieces)


_threads: RunVar[anyio.CapacityLimiter] = RunVar("threads of tails")
# Pages are made of Python and of SQL that takes two cores.
_MOST_THREADS = 3


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Answer what blocks, in one of a few threads that tails have to themselves."""
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MOST_THREADS)
        _threads.set(limiter)
    return await to_thread.run_sync(work, limiter=limiter)
