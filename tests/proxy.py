"""A way to an engine that a test can close, and on which it can lose one question or answer."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class Proxy:
    """Passes on what comes to `port` to a port of this machine."""

    def __init__(self, to: int) -> None:
        self.cuts = 0
        self._to = to
        self._open = True
        self._stalled = False
        self._over = threading.Event()
        self._last_words: bytes | None = None
        self._unheard: bytes | None = None
        self._guard = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._forgotten: frozenset[socket.socket] = frozenset()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._take, daemon=True)]
        self._threads[0].start()

    def leads(self, url: str) -> str:
        """Answer the address with this port for the one behind it; names may have its digits."""
        return url.replace(f":{self._to}/", f":{self.port}/")

    def refuse(self) -> None:
        """Cut every connection, and every new one at once."""
        self._open = False
        self._cut_all()

    def accept(self) -> None:
        """Be there again."""
        self._open = True

    def stall(self) -> None:
        """Pass on nothing more, with every connection left open."""
        self._stalled = True

    def forget(self) -> None:
        """Pass on nothing more of the connections there are, as a router that lost its table."""
        with self._guard:
            self._forgotten = frozenset(self._sockets)

    def cut_answer_to(self, question: bytes) -> None:
        """Pass on the next question that holds these bytes, and cut instead of its answer."""
        self._last_words = question

    def cut_before(self, question: bytes) -> None:
        """Cut instead of passing on the next question that holds these bytes."""
        self._unheard = question

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._over.set()
        self._cut_all()
        for thread in self._threads:
            thread.join(10)

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            with self._guard:
                self._sockets |= {near, far}
            passing = threading.Thread(target=self._pass, args=(near, far), daemon=True)
            self._threads.append(passing)
            passing.start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        lost = False
        with near, far, contextlib.suppress(OSError, ValueError):
            while True:
                for one in select.select([near, far], [], [])[0]:
                    data = one.recv(_CHUNK)
                    if near in self._forgotten and data:
                        continue
                    if self._stalled:
                        if not data:
                            # Nor is its end passed on: the other stays open until this ends.
                            self._over.wait()
                            return
                        continue
                    if one is far and lost:
                        # It has done what it was asked to, since it answers.
                        self.cuts += 1
                        return
                    if not data:
                        return
                    if one is near and self._unheard and self._unheard in data:
                        self._unheard = None
                        self.cuts += 1
                        return
                    if one is near and self._last_words and self._last_words in data:
                        self._last_words, lost = None, True
                    (far if one is near else near).sendall(data)

    def _cut_all(self) -> None:
        with self._guard:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()
