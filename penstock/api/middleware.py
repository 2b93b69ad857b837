"""What every request passes: a limit for its body, the counters, and the last net for errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from traceback import extract_tb

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.metrics import Metrics
from penstock.api.problems import problem_response
from penstock.errors import TooLarge

log = structlog.get_logger()


class LimitedBody:
    """Refuses bodies over `limit` bytes, before more than that is in memory."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 413 once its body turns out to be too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        size = 0
        started = False
        refused: TooLarge | None = None

        async def counted() -> Message:
            nonlocal size, refused
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                refused = TooLarge("body", size, self._limit)
                raise refused
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            # FastAPI makes a "400 error parsing the body" of any error while reading.
            if refused is None:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, noted)
        except TooLarge as error:
            if error is not refused:
                raise
        if refused is not None and not started:
            await problem_response(refused)(scope, receive, send)


class Counted:
    """Counts every request by its route's pattern, so that names in paths stay out of labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it when its answer is complete."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        status = 0
        begun = time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"]
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - begun)


class BrokenOff(Exception):
    """An answer that began and cannot be finished: the server closes the connection."""


class Guarded:
    """Answers errors that nobody thought of, and tells the log where they were.

    Not what they said: the text of an error may quote a row, a payload or a credential.
    `answer` makes the answer of a request and its error; without it, it is a problem document.
    """

    def __init__(
        self, app: ASGIApp, answer: Callable[[Request, Exception], ASGIApp] | None = None
    ) -> None:
        self._app = app
        self._answer = answer or _problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 500 for an error, or break off what was begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BrokenOff:
            raise  # of an app within this one, which told the log
        except Exception as error:  # noqa: BLE001 - the last one before the server
            log.error(  # noqa: TRY400 - a traceback ends with the error's text
                "request failed unexpectedly",
                path=scope["path"],
                kind=type(error).__name__,
                where=[f"{at.filename}:{at.lineno}" for at in extract_tb(error.__traceback__)[-5:]],
            )
            if started:
                raise BrokenOff("an answer broke off") from None
            await self._answer(Request(scope, receive), error)(scope, receive, send)


def _problem(_request: Request, error: Exception) -> ASGIApp:
    return problem_response(error)
