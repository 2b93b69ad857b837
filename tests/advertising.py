"""A Kafka cluster that is nothing but what it says about itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class Cluster:
    """Speaks just enough Kafka to tell metadata: one broker, at the address it is given."""

    def __init__(self, advertised: tuple[str, int]) -> None:
        self.advertised = advertised
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        # A client that goes with an answer unread resets the connection, as it may at any time.
        with (
            contextlib.suppress(ConnectionError),
            connection,
            connection.makefile("rwb") as stream,
        ):
            while len(head := stream.read(12)) == 12:
                size, api, version, correlation = struct.unpack(">ihhi", head)
                stream.read(size - 8)
                body = struct.pack(">i", correlation) + (
                    self._metadata() if api == 3 else self._versions(version)
                )
                stream.write(struct.pack(">i", len(body)) + body)
                stream.flush()

    def _versions(self, version: int) -> bytes:
        error = 0 if version == 0 else 35
        apis = [(0, 3, 7), (3, 1, 1), (18, 0, 0), (22, 0, 0)]
        return struct.pack(">hi", error, len(apis)) + b"".join(
            struct.pack(">hhh", *each) for each in apis
        )

    def _metadata(self) -> bytes:
        host, port = self.advertised[0].encode(), self.advertised[1]
        broker = struct.pack(">iih", 1, 7, len(host)) + host
        broker += struct.pack(">ih", port, -1)
        topic = struct.pack(">ihh", 1, 0, 5) + b"topic" + struct.pack(">bi", 0, 1)
        partition = struct.pack(">hiiiiii", 0, 0, 7, 1, 7, 1, 7)
        return broker + struct.pack(">i", 7) + topic + partition

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
