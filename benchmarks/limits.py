"""Servers that do next to nothing: what the door could reach at best.

`echo` answers; `synced` also writes the body to a file and waits for the disk.
Run as `python -m benchmarks.limits echo|synced PORT FOLDER`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer."""
    await _body(receive)
    await _answer(send)


def synced(folder: Path) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Build an app that makes each body durable by itself."""
    file = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        os.write(file, await _body(receive))
        os.fdatasync(file)
        await _answer(send)

    return app


def main() -> None:
    """Serve until killed."""
    kind, port, folder = sys.argv[1:]
    uvicorn.run(
        echo if kind == "echo" else synced(Path(folder)),
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
