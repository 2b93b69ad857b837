"""What a Kafka cluster says about itself, asked over one guarded connection of our own.

Kafka's clients go wherever a cluster's metadata leads, at once and by themselves. So the metadata
is read here first: a handful of requests in versions that every broker since 1.0 knows.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from penstock.guard import Endpoint, Guard, Lookup, connected_socket

_METADATA, _HANDSHAKE, _VERSIONS, _CONFIGS, _AUTHENTICATE = 3, 17, 18, 32, 36
_TOPIC = 2
_WITH_RIGHTS = 8
"""The version of metadata that tells what we may do with a topic."""
_MAY_WRITE = 1 << 4
_UNKNOWN_RIGHTS = -(1 << 31)
_MOST_BYTES = 16 << 20
_MOST_ITERATIONS = 1_000_000

UNKNOWN_TOPIC = 3
NOT_ALLOWED = 29


class NotLetIn(Exception):
    """The cluster does not take this user and password."""


class Told(NamedTuple):
    """The brokers a cluster advertises, and what it says about one topic."""

    brokers: Sequence[tuple[str, int]]
    topic_error: int
    may_write: bool | None
    """None if the cluster does not say."""
    most_bytes: int | None
    """The largest batch that the topic takes; None if the cluster does not say."""


class Login(NamedTuple):
    """Who we are."""

    mechanism: str
    user: str
    password: str


async def ask_cluster(
    endpoint: Endpoint,
    topic: str,
    *,
    guard: Guard,
    lookup: Lookup,
    tls: ssl.SSLContext | None,
    login: Login | None,
) -> Told:
    """Ask one broker.

    Raises `AddressRefused`, `OSError`, `NotLetIn`, and `ValueError` for what is no answer.
    """
    sock = await connected_socket(guard, endpoint.host, endpoint.port, lookup)
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=tls, server_hostname=endpoint.host if tls else None
        )
    except BaseException:
        sock.close()
        raise
    try:
        talk = _Talk(reader, writer)
        if login is not None:
            await _sign_in(talk, login)
        return await _metadata(talk, topic)
    except (struct.error, UnicodeDecodeError, asyncio.IncompleteReadError) as error:
        raise ValueError("the answer is not Kafka's") from error
    finally:
        # Nothing is left to be said: TLS would wait for the broker to say goodbye.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


class _Answer:
    """Bytes read from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> int:
        value: int
        (value,) = struct.unpack_from(f">{form}", self._data, self._at)
        self._at += struct.calcsize(f">{form}")
        return value

    def text(self) -> str:
        return self._raw(self.take("h")).decode()

    def data(self) -> bytes:
        return self._raw(self.take("i"))

    def _raw(self, size: int) -> bytes:
        if size <= 0:
            return b""
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise ValueError("the answer is not Kafka's")
        self._at += size
        return data


class _Talk:
    """Requests and answers, one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def ask(self, api: int, version: int, body: bytes) -> _Answer:
        self._number += 1
        head = struct.pack(">hhi", api, version, self._number) + _text("penstock-replay")
        self._writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        if not 4 <= size <= _MOST_BYTES:  # noqa: PLR2004 - the number of the request
            raise ValueError("the answer is not Kafka's")
        answer = _Answer(await self._reader.readexactly(size))
        if answer.take("i") != self._number:
            raise ValueError("the answer is not Kafka's")
        return answer


async def _metadata(talk: _Talk, topic: str) -> Told:
    answer = await talk.ask(_VERSIONS, 0, b"")
    answer.take("h")
    newest = {}
    for _ in range(answer.take("i")):
        api, _, last = (answer.take("h") for _ in range(3))
        newest[api] = last
    version = _WITH_RIGHTS if newest.get(_METADATA, 0) >= _WITH_RIGHTS else 1
    rich = version == _WITH_RIGHTS
    # Make no topic; tell nothing about the cluster; tell our rights on the topic.
    asked = struct.pack(">i", 1) + _text(topic) + (b"\0\0\1" if rich else b"")
    answer = await talk.ask(_METADATA, version, asked)
    if rich:
        answer.take("i")
    brokers = []
    for _ in range(answer.take("i")):
        answer.take("i")
        brokers.append((answer.text(), answer.take("i")))
        answer.text()
    if rich:
        answer.text()
    answer.take("i")
    if answer.take("i") != 1:
        raise ValueError("the answer is not Kafka's")
    error = answer.take("h")
    answer.text()
    answer.take("b")
    rights = _rights(answer) if rich else None
    size = await _largest(talk, topic) if _CONFIGS in newest and not error else None
    return Told(brokers, error, rights, size)


async def _largest(talk: _Talk, topic: str) -> int | None:
    """Ask for ``max.message.bytes``; who may write need not be allowed to."""
    asked = struct.pack(">ib", 1, _TOPIC) + _text(topic)
    asked += struct.pack(">i", 1) + _text("max.message.bytes") + b"\0"
    answer = await talk.ask(_CONFIGS, 1, asked)
    answer.take("i")
    if answer.take("i") != 1 or answer.take("h"):
        return None
    answer.text()
    answer.take("b")
    answer.text()
    if answer.take("i") != 1:
        return None
    answer.text()
    value = answer.text()
    return int(value) if value.isdecimal() else None


def _rights(answer: _Answer) -> bool | None:
    """Read what follows the name of the one topic that was asked for."""
    for _ in range(answer.take("i")):
        answer.take("h")
        for _ in range(3):
            answer.take("i")
        for _ in range(3):
            for _ in range(answer.take("i")):
                answer.take("i")
    rights = answer.take("i")
    return None if rights == _UNKNOWN_RIGHTS else bool(rights & _MAY_WRITE)


async def _sign_in(talk: _Talk, login: Login) -> None:
    answer = await talk.ask(_HANDSHAKE, 1, _text(login.mechanism))
    if answer.take("h"):
        raise NotLetIn
    if login.mechanism == "PLAIN":
        await _authenticate(talk, f"\0{login.user}\0{login.password}".encode())
        return
    scram = Scram(login, secrets.token_hex(16))
    challenge = await _authenticate(talk, scram.first())
    await _authenticate(talk, scram.final(challenge))


async def _authenticate(talk: _Talk, data: bytes) -> bytes:
    answer = await talk.ask(_AUTHENTICATE, 0, struct.pack(">i", len(data)) + data)
    error = answer.take("h")
    answer.text()
    if error:
        raise NotLetIn
    return answer.data()


class Scram:
    """The client's side of SCRAM (RFC 5802), without channel binding."""

    def __init__(self, login: Login, nonce: str) -> None:
        user = login.user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={user},r={nonce}"
        self._nonce = nonce
        self._hash = login.mechanism.removeprefix("SCRAM-").replace("-", "").lower()
        self._password = login.password.encode()

    def first(self) -> bytes:
        """Answer the first message."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Answer the proof; raise `ValueError` for a challenge that is none."""
        text = challenge.decode()
        said = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        if not said.get("r", "").startswith(self._nonce) or not said.get("i", "").isdecimal():
            raise ValueError("the answer is not SCRAM")
        rounds = int(said["i"])
        if not 0 < rounds <= _MOST_ITERATIONS:
            raise ValueError("the answer is not SCRAM")
        salt = base64.b64decode(said.get("s", ""))
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, rounds)
        key = hmac.digest(salted, b"Client Key", self._hash)
        stored = hashlib.new(self._hash, key).digest()
        bare = f"c=biws,r={said['r']}"
        signed = f"{self._bare},{text},{bare}".encode()
        signature = hmac.digest(stored, signed, self._hash)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">h", len(data)) + data
