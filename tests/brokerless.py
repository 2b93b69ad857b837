"""A way to a Kafka broker on which a cluster can say that it has no brokers.

A real one says so while its brokers are fenced: one that stood still for longer than its session,
or was started a moment ago, is not yet counted again when it answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct

from proxy import Proxy

_CHUNK = 1 << 16
_METADATA = 3
_FIRST_FLEXIBLE = 9
"""From this version of the answer on, arrays begin with a varint, and headers have tags."""


class Brokerless(Proxy):
    """Passes on what comes to `port`; `brokerless` answers lose the brokers that they name."""

    brokerless = False

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        questions: dict[int, int] = {}
        asked, told = bytearray(), bytearray()
        with near, far, contextlib.suppress(OSError, ValueError):
            while True:
                for one in select.select([near, far], [], [])[0]:
                    data = one.recv(_CHUNK)
                    if not data:
                        return
                    if one is near:
                        asked += data
                        for frame in _frames(asked):
                            kind, version, number = struct.unpack_from(">hhi", frame)
                            if kind == _METADATA:
                                questions[number] = version
                        far.sendall(data)
                        continue
                    told += data
                    for frame in _frames(told):
                        version = questions.pop(struct.unpack_from(">i", frame)[0], None)
                        if version is not None and self.brokerless:
                            self.cuts += 1
                            frame = _without_brokers(frame, version)  # noqa: PLW2901
                        near.sendall(struct.pack(">i", len(frame)) + frame)


def _frames(received: bytearray) -> list[bytes]:
    """Take what is complete off the front."""
    found = []
    while len(received) >= 4:
        (size,) = struct.unpack_from(">i", received)
        if len(received) < 4 + size:
            break
        found.append(bytes(received[4 : 4 + size]))
        del received[: 4 + size]
    return found


def _without_brokers(frame: bytes, version: int) -> bytes:
    """Answer a metadata response (versions 9 to 13) whose array of brokers is empty.

    https://kafka.apache.org/protocol#The_Messages_Metadata
    """
    if version < _FIRST_FLEXIBLE:
        raise ValueError(f"version {version} of the answer is not known here")
    begin = place = 4 + 1 + 4  # the number of the question, no tags, the throttle time
    count, place = _varint(frame, place)
    for _ in range(count - 1):
        place += 4
        size, place = _varint(frame, place)
        place += size - 1 + 4  # the host and its port
        size, place = _varint(frame, place)
        place += max(0, size - 1)  # the rack
        tags, place = _varint(frame, place)
        if tags:
            raise ValueError("a broker has tags, which are not known here")
    return frame[:begin] + b"\x01" + frame[place:]


def _varint(frame: bytes, place: int) -> tuple[int, int]:
    """Answer the unsigned varint that is there, and where the next field is."""
    value = shift = 0
    while True:
        byte = frame[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
