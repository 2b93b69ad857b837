"""Servers that do next to nothing: what the door could reach at best.

`echo` answers; `synced` also writes the body to a file and waits for the disk; `grpc` answers calls
without looking at their message.
Run as `python -m benchmarks.limits echo|synced|grpc PORT FOLDER`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import grpc
import uvicorn
import uvloop

from ingest_api.proto import services_pb2

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


async def serve_grpc(port: int) -> None:
    """Answer every call as if its message had been stored."""
    answer = services_pb2.GenericRecordResponse().SerializeToString()

    async def stored(_message: bytes, _context: object) -> bytes:
        return answer

    class Handler(grpc.GenericRpcHandler):
        def service(self, _call: object) -> grpc.RpcMethodHandler[bytes, bytes]:
            return grpc.unary_unary_rpc_method_handler(stored)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve until killed."""
    kind, port, folder = sys.argv[1:]
    if kind == "grpc":
        uvloop.run(serve_grpc(int(port)))
        return
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
