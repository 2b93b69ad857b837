"""Answers that are sent as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import anyio
from anyio import to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Streamed(StreamingResponse):
    """Gives back what was opened for it, also when nobody is there to read it."""

    def __init__(self, pieces: Iterator[bytes], opened: ExitStack, media_type: str) -> None:
        super().__init__(pieces, media_type=media_type)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, then close."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._opened.close)
