"""etcd's JSON gateway: every call is a POST of JSON, keys and values are in base64.

The paths are those of etcd 3.4 and later; before, they had another beginning. What `etcd.py`
needs of it is here, and no more.
"""

from __future__ import annotations

import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from penstock.cache import Access
from penstock.errors import BadSetting, EngineUnavailable

_CONNECT_SECONDS = 1.0
CALL_SECONDS = 3.0

# Codes of gRPC that the gateway answers with.
_UNAUTHENTICATED = 16
_OTHER_MEMBER_MAY = {4, 14}
"""Too late, and unavailable: another member may be better off."""

_HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)

Json = Mapping[str, Any]


class Refused(EngineUnavailable):
    """etcd answered that it will not do this; `code` is gRPC's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(f"etcd refuses: {message}")
        self.code = code


class Gateway:
    """The members of one cluster; asked in turn, beginning with the one that answered last.

    Threads may share it. Everything raises `EngineUnavailable` when no member answers.
    """

    def __init__(self, members: Sequence[str], access: Access) -> None:
        self._members = tuple(members)
        self._access = access
        self._first = 0
        self._token: str | None = None
        self._signing_in = threading.Lock()
        self._client = httpx.Client(
            verify=_trust(access),
            timeout=httpx.Timeout(CALL_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=False,  # the cluster is never behind the proxy of outgoing traffic
        )

    def close(self) -> None:
        """Let go of every connection."""
        self._client.close()

    def call(self, path: str, body: Json) -> Json:
        """Answer what a member answers.

        A call of which no answer came may have been carried out all the same, twice even.
        """
        trouble: EngineUnavailable | None = None
        for member in self._in_turn():
            try:
                answer = self._signed_in(member, path, body)
            except httpx.HTTPError as error:
                trouble = _away(error)
            except Refused as error:
                if error.code not in _OTHER_MEMBER_MAY:
                    raise
                trouble = error
            else:
                self._first = member
                return answer
        raise trouble or EngineUnavailable("etcd has no members")

    def wait_for_change(self, key: bytes, since: int, *, silence: float) -> None:
        """Return when something happened to the key from revision `since` on, or may have.

        That is also so where the revision is gone already, and after `silence` seconds without a
        word: look at the key itself, and wait again.
        """
        created = {"key": text(key), "start_revision": str(since)}
        timeout = httpx.Timeout(silence, connect=_CONNECT_SECONDS)
        url = f"{self._members[self._first]}/v3/watch"
        body = msgspec.json.encode({"create_request": created})
        try:
            with self._client.stream(
                "POST", url, content=body, headers=self._headers(), timeout=timeout
            ) as answer:
                for line in answer.iter_lines():
                    values = _decoded(line.encode())
                    if "result" not in values:
                        raise EngineUnavailable("etcd ended a watch")
                    if values["result"].get("events") or values["result"].get("canceled"):
                        return
        except httpx.ReadTimeout:
            return
        except httpx.HTTPError as error:
            raise _away(error) from error

    def _in_turn(self) -> list[int]:
        count = len(self._members)
        return [(self._first + number) % count for number in range(count)]

    def _signed_in(self, member: int, path: str, body: Json) -> Json:
        if self._access.user and self._token is None:
            self._sign_in(member, None)
        token = self._token
        try:
            return self._post(member, path, body)
        except Refused as error:
            # Tokens end after five minutes without use, and with the member that gave them.
            if not self._access.user or error.code != _UNAUTHENTICATED:
                raise
            self._sign_in(member, token)
            return self._post(member, path, body)

    def _sign_in(self, member: int, old: str | None) -> None:
        with self._signing_in:
            if self._token != old:
                return  # another thread did
            self._token = None
            who = {"name": self._access.user, "password": self._access.password}
            self._token = str(self._post(member, "auth/authenticate", who)["token"])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _post(self, member: int, path: str, body: Json) -> Json:
        answer = self._client.post(
            f"{self._members[member]}/v3/{path}",
            content=msgspec.json.encode(body),
            headers=self._headers(),
        )
        values = _decoded(answer.content)
        if answer.status_code == httpx.codes.OK and "code" not in values:
            return values
        message = str(values.get("message") or values.get("error") or answer.reason_phrase)
        raise Refused(message, int(values.get("code", _code(answer.status_code))))


def members_of(netloc: str, *, secure: bool) -> list[str]:
    """Answer the addresses of ``host:2379,host:2379``; raise `BadSetting`."""
    if "@" in netloc:
        raise BadSetting("cache_url: give user and password as cache_user and cache_password")
    hosts = [host for host in netloc.split(",") if host]
    if not hosts:
        raise BadSetting("cache_url names no host; use etcd://host:2379")
    scheme, port = ("https" if secure else "http"), ":2379"
    return [f"{scheme}://{host}{'' if _has_port(host) else port}" for host in hosts]


def text(content: bytes) -> str:
    """Answer a key or value as the gateway takes it."""
    return b64encode(content).decode()


def content(value: str) -> bytes:
    """Answer what a key or value of the gateway says."""
    return b64decode(value)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _trust(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
    except (OSError, ssl.SSLError) as error:
        raise BadSetting(f"the certificates of the cache cannot be read: {error}") from error
    return context


def _decoded(body: bytes) -> Json:
    try:
        values = msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise EngineUnavailable("what answers at cache_url is not etcd 3.4 or newer") from error
    if not isinstance(values, dict):
        raise EngineUnavailable("what answers at cache_url is not etcd 3.4 or newer")
    return values


def _code(status: int) -> int:
    return 14 if status >= httpx.codes.INTERNAL_SERVER_ERROR else 0


def _away(error: httpx.HTTPError) -> EngineUnavailable:
    return EngineUnavailable(f"etcd does not answer ({_reason(error)})")


def _reason(error: httpx.HTTPError) -> str:
    """Answer which setting to look at, where what TLS said tells it, else the error's class."""
    # Its text goes no further, which may hold addresses that nobody needs to see.
    said, secure = str(error).upper(), error.request.url.scheme == "https"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate does not pass; see cache_ca"
    if "ALERT" in said:
        return "it does not take our certificate; see cache_certificate and cache_key"
    if "SSL" in said or (secure and isinstance(error, httpx.ConnectError) and "RESET" in said):
        return "it does not speak TLS; without it cache_url begins with etcd://"
    if isinstance(error, _HUNG_UP):
        # What it had to say may be lost on the way: who hangs up on a caller resets the connection.
        return (
            "it hung up; if it asks for a certificate, see cache_certificate and cache_key"
            if secure
            else "it hung up; with TLS cache_url begins with etcd+https://"
        )
    return type(error).__name__
