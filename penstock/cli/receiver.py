"""A small HTTP endpoint on this machine that keeps count of what a replay delivers to it."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from penstock.errors import EngineUnavailable

Message = MutableMapping[str, Any]

_ANSWER = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


def digest(payload: bytes) -> bytes:
    """Answer what tells payloads apart."""
    return hashlib.sha256(payload).digest()


class Receiver:
    """Answers 200 to every POST, and remembers per replay what came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.payloads: dict[str, Counter[bytes]] = defaultdict(Counter)
        """How often each payload came, by replay id and digest."""
        self.ids: dict[str, Counter[str]] = defaultdict(Counter)
        """How often each event came, by replay id and event id."""

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Take one request (ASGI)."""
        headers = dict(scope["headers"])
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        replay = headers.get(b"penstock-replay-id", b"").decode()
        self.payloads[replay][digest(body)] += 1
        self.ids[replay][headers.get(b"penstock-event-id", b"").decode("latin-1")] += 1
        await send({"type": "http.response.start", "status": 200, "headers": _ANSWER})
        await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port of 127.0.0.1 for the block."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        receiver = Receiver(listener.getsockname()[1])
        server = uvicorn.Server(
            uvicorn.Config(receiver, lifespan="off", log_config=None, access_log=False)
        )
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.should_exit = True
            thread.join(10)
            if thread.is_alive():
                raise EngineUnavailable("the demo's receiver does not end")
