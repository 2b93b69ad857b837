"""What a subscription has not been told yet, and the thread that tells it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import structlog

from penstock.bus import MOST_WAITING

log = structlog.get_logger()


class Inbox:
    """Tells texts to `told`, one after the other, in a thread of its own."""

    def __init__(
        self, topic: str, told: Callable[[str], None], leave: Callable[[Inbox], None]
    ) -> None:
        self.topic = topic
        self._told = told
        self._leave = leave
        self._texts: deque[str] = deque(maxlen=MOST_WAITING)
        self._news = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._tell, name=f"bus {topic}", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        """Have the text told; never waits. The oldest goes where there is no room."""
        self._texts.append(text)
        self._news.set()

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._news.set()
        self._leave(self)

    def _tell(self) -> None:
        while not self._closed:
            self._news.wait()
            self._news.clear()
            while self._texts and not self._closed:
                try:
                    self._told(self._texts.popleft())
                except Exception:  # the next message may be one it can do with
                    log.exception("a message could not be taken", topic=self.topic)
