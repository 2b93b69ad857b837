"""Errors of Penstock, made again from what a service tells about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec

from penstock import errors
from penstock.errors import EngineUnavailable, PenstockError


def told(response: httpx.Response) -> PenstockError:
    """Make the error again that a problem tells of.

    It has its class and its sentence; of its other facts only `retry_after`, the field that is at
    fault, and where a query could not be read.
    """
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    detail = str(problem.get("detail") or f"the platform answered {response.status_code}")
    if "query" in problem and "position" in problem:
        position = int(problem["position"])
        expected = detail.removesuffix(f", at character {position + 1}")
        unread = errors.BadQuery(str(problem["query"]), position, expected)
        unread.field = str(problem.get("field", unread.field))
        return unread

    kind = _kind(str(problem.get("type", "")), response.status_code)
    if issubclass(kind, errors.Unavailable):
        wait = response.headers.get("Retry-After", "1")
        return kind(detail, retry_after=int(wait) if wait.isdecimal() else 1)
    # Past the class's own __init__, which would make another sentence of its facts.
    error = kind.__new__(kind)
    Exception.__init__(error, detail)
    if isinstance(error, errors.Rejected):
        error.field = str(problem.get("field", ""))
    return error


_BY_STATUS: Mapping[int, type[PenstockError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.WrongState,
    413: errors.TooLarge,
    429: errors.Overloaded,
    500: PenstockError,
}
_SERVER_ERROR = 500


def _kind(type_: str, status: int) -> type[PenstockError]:
    name = type_.removeprefix("urn:penstock:").replace("-", "")
    for kind in _every(PenstockError):
        if kind.__name__.lower() == name:
            return kind
    fallback = EngineUnavailable if status > _SERVER_ERROR else errors.BadRequest
    return _BY_STATUS.get(status, fallback)


def _every(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _every(below)
