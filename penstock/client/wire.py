"""How the client asks: requests of the contract out, answers of the contract or errors back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import TypeAdapter, ValidationError

from penstock.client.problems import told
from penstock.contract.base import Asked, field_at_fault, rfc3339, what_is_wrong
from penstock.errors import BadRequest, EngineUnavailable

TIMEOUT_SECONDS = 90.0
"""Longer than any answer may take: the API itself ends SQL after `sql_seconds`."""

_T = TypeVar("_T")
_A = TypeVar("_A", bound=Asked)


class Wire:
    """The connection to a platform; what a noun's methods are made of."""

    def __init__(
        self,
        base_url: str,
        token: str,
        transport: httpx.BaseTransport | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._base = base_url
        # trust_env off: a token must not go to whatever proxy the environment names.
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"},
            transport=transport,
            timeout=timeout,
            trust_env=False,
        )

    @property
    def address(self) -> str:
        """Where the platform is."""
        return self._base

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()

    def _get(self, path: str, kind: type[_T]) -> _T:
        return read(self._checked("GET", path), kind)

    def _post(self, path: str, kind: type[_T], body: Asked | None = None) -> _T:
        return read(self._checked("POST", path, body), kind)

    def _checked(self, method: str, path: str, body: Asked | None = None) -> httpx.Response:
        response = self._send(method, path, body)
        if not response.is_success:
            raise told(response)
        return response

    def _send(self, method: str, path: str, body: Asked | None = None) -> httpx.Response:
        try:
            return self._http.request(
                method, path, content=_written(body), headers=_described(body)
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _stream(
        self,
        method: str,
        path: str,
        body: Asked | None = None,
        *,
        accept: str,
        silence: float | None = None,
    ) -> Iterator[bytes]:
        """Yield the pieces of an answer as they come; they may be `silence` seconds apart."""
        headers = {**_described(body), "Accept": accept}
        timeout = self._http.timeout if silence is None else httpx.Timeout(silence)
        try:
            with self._http.stream(
                method, path, content=_written(body), headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                    raise told(response)
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> EngineUnavailable:
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"{self._base} did not answer in time")
        return EngineUnavailable(f"no platform answers at {self._base}: {error}")


def asked(kind: type[_A], /, **values: object) -> _A:
    """Answer the request with these values; None leaves out what may be left out.

    Raises `BadRequest`, as the platform would, for what the contract does not take.
    """
    fields = kind.model_fields
    given = {
        name: value
        for name, value in values.items()
        if value is not None or (name in fields and fields[name].is_required())
    }
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        # Not from the error: it holds the values, and they may be secret.
        mistakes = error.errors(include_input=False)
        raise BadRequest(what_is_wrong(mistakes)).at(field_at_fault(mistakes)) from None


def read(response: httpx.Response, kind: type[_T]) -> _T:
    """Answer what a response tells; fields that a later version tells are passed over."""
    try:
        return read_json(response.content, kind)
    except ValidationError as error:
        wrong = what_is_wrong(error.errors(include_input=False)[:1])
        raise EngineUnavailable(
            f"what answers at {response.url} is no Penstock of this version: {wrong}"
        ) from None


def read_json(content: bytes, kind: type[_T]) -> _T:
    """Answer what JSON text of the contract tells."""
    return TypeAdapter(kind).validate_json(content, extra="ignore")


def lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of an answer as soon as each is whole."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def path_of(*parts: str, **query: object) -> str:
    """Answer the path of a resource; parameters that are None are left out."""
    # Dots too: a part that is ".." would be taken for the folder above.
    quoted = (quote(part, safe="").replace(".", "%2E") for part in parts)
    given = {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name, value in query.items()
        if value is not None
    }
    return "/api/v1/" + "/".join(quoted) + (f"?{urlencode(given)}" if given else "")


def _described(body: Asked | None) -> dict[str, str]:
    return {} if body is None else {"Content-Type": "application/json"}


def _written(body: Asked | None) -> str | None:
    return None if body is None else body.model_dump_json(exclude_unset=True)
