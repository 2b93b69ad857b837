"""Tunnels: clients that have called a door and wait for what replays send.

A tunnel keeps its call open, and events are written to it as messages. Nothing comes back: that
the connection took an event is all that is ever known of it.

Belongs to one event loop, that of HTTP and gRPC.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from ingest_api.accept import Door
from ingest_api.auth import refuse_missing
from penstock.errors import BadRequest, Overloaded, PenstockError
from penstock.handover import Connected, HandedOver

log = structlog.get_logger()

KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event an empty message is written: proxies end calls that are silent."""

MOST_OF_A_TEAM = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Write = Callable[[bytes], Awaitable[None]]
"""Returns when the connection took the message; raises when it is over."""


@dataclass(eq=False, slots=True)
class _Batch:
    messages: Sequence[bytes]
    done: asyncio.Future[None]
    handed: int = 0
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a tunnel says it is."""

    token: str
    name: str
    bus: str
    tunnel_id: str = ""


@dataclass(eq=False, slots=True)
class Tunnel:
    """One call that is open."""

    caller: Caller
    team: str
    about: Connected
    allowed: Callable[[], bool]
    """Says whether its token still lets it in."""
    keep_alive_seconds: float
    _waiting: asyncio.Queue[_Batch | None] = field(default_factory=asyncio.Queue)
    _over: bool = False

    async def carry(self, write: Write, keep_alive: bytes) -> None:
        """Write what is given, in its order, until the tunnel is to end or `write` raises."""
        batch: _Batch | None = None
        try:
            while self.allowed():
                try:
                    async with asyncio.timeout(self.keep_alive_seconds):
                        batch = await self._waiting.get()
                except TimeoutError:
                    await write(keep_alive)
                    continue
                if batch is None or not self.allowed():
                    return
                for message in batch.messages:
                    if batch.withdrawn:
                        break
                    await write(message)
                    batch.handed += 1
                _finish(batch)
        finally:
            self._over = True
            _finish(batch)
            while not self._waiting.empty():
                _finish(self._waiting.get_nowait())

    def end(self) -> None:
        """Let the call end before anything else is written."""
        if not self._over:
            self._waiting.put_nowait(None)

    async def give(self, messages: Sequence[bytes], patience: float) -> HandedOver:
        """Answer how many of the messages were written; what was not by then never is."""
        if self._over:
            return HandedOver(0, "broke")
        batch = _Batch(messages, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(batch)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await batch.done
        finally:
            batch.withdrawn = True
        if batch.handed == len(messages):
            return HandedOver(batch.handed)
        return HandedOver(batch.handed, "broke" if self._over else "slow")


class Tunnels:
    """The tunnels that are connected to this door.

    Of several of one name the one that came last gets the events: one whose connection died without
    a word looks alive for a while, and its client has called again by then. The others wait.
    """

    def __init__(self, door: Door, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        self._door = door
        self._keep_alive_seconds = keep_alive_seconds
        self._open: defaultdict[tuple[str, str], list[Tunnel]] = defaultdict(list)
        self._closed = False

    def admit(self, caller: Caller, peer: str) -> Tunnel:
        """Answer a tunnel that has the right to be one; what it is given waits for `carry`.

        Raises `Unauthorized` or `Forbidden` for its token, `BadRequest` for a name that no
        destination can have, `Unavailable` while the door knows nothing, ends, or has too many.
        """
        team = self.team_of(caller.token)
        name = name_of(caller)
        if self._closed:
            raise Overloaded("the door is closing", retry_after=5)
        if sum(len(each) for (of, _), each in self._open.items() if of == team) >= MOST_OF_A_TEAM:
            raise Overloaded(f"this team has {MOST_OF_A_TEAM} tunnels open", retry_after=60)
        tunnel = Tunnel(
            caller,
            team,
            Connected(caller.bus, peer, self._door.received()),
            allowed=lambda: self._may(caller.token),
            keep_alive_seconds=self._keep_alive_seconds,
        )
        self._open[team, name].append(tunnel)
        self._door.metrics.tunnels += 1
        log.info("tunnel connected", team=team, name=name, bus=caller.bus, peer=peer)
        return tunnel

    def leave(self, tunnel: Tunnel) -> None:
        """Forget a tunnel whose call has ended."""
        place = (tunnel.team, name_of(tunnel.caller))
        self._open[place].remove(tunnel)
        if not self._open[place]:
            del self._open[place]
        self._door.metrics.tunnels -= 1
        log.info("tunnel gone", team=place[0], name=place[1])

    def connected(self, team: str, name: str) -> Sequence[Connected]:
        """Answer the tunnels of a name, the one that gets the events first."""
        return [each.about for each in reversed(self._open.get((team, name), ()))]

    async def give(
        self, team: str, name: str, messages: Sequence[bytes], patience: float
    ) -> HandedOver:
        """Hand messages to the tunnel of a name; answer how many its connection took."""
        found = self._open.get((team, name))
        if not found:
            return HandedOver(0, "none")
        told = await found[-1].give(messages, patience)
        self._door.metrics.handed_over(told.handed)
        return told

    def team_of(self, token: str) -> str:
        """Answer the team of a token that may be a tunnel; raise the refusal."""
        if not token:
            raise refuse_missing()
        return self._door.may(token, "tunnel").team

    def forget(self, token: str, tunnel_id: str) -> None:
        """End the tunnels of this id of the token's team; raise the refusal of the token."""
        team = self.team_of(token)
        for (of, _), tunnels in self._open.items():
            for tunnel in tunnels:
                if tunnel_id and of == team and tunnel.caller.tunnel_id == tunnel_id:
                    tunnel.end()

    def close(self) -> None:
        """Let every call end, and take no other."""
        self._closed = True
        for tunnels in self._open.values():
            for tunnel in tunnels:
                tunnel.end()

    def _may(self, token: str) -> bool:
        try:
            self.team_of(token)
        except PenstockError:
            return False
        return True


def name_of(caller: Caller) -> str:
    """Answer the name that destinations say, made of the bus where the client gives none."""
    name = caller.name or re.sub("[^a-z0-9]+", "_", caller.bus.lower()).strip("_")
    if not _NAME.fullmatch(name):
        raise BadRequest(
            "a tunnel's name has up to 100 letters, digits, '-', '_' and '.'; give it with --name"
        )
    return name


def _finish(batch: _Batch | None) -> None:
    if batch is not None and not batch.done.done():
        batch.done.set_result(None)
