"""The bus in the metadata: messages are rows, and who listens looks four times a second.

Rows are written by a thread, all that wait in one transaction: synced one by one they took 5 ms
each on a busy disk, and whoever publishes has something else to do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import structlog

from penstock.bus import MOST_WAITING, Subscription, fit
from penstock.bus.inbox import Inbox
from penstock.clock import machine_clock
from penstock.errors import Unavailable
from penstock.metadata.store import Store

log = structlog.get_logger()

LOOK_SECONDS = 0.25
"""A look takes 0.2 ms."""

_NEVER = (1 << 63) - 1
"""No message has this id."""

_REST_SECONDS = 10.0
"""How long the metadata is left alone after it did not answer: it may take 20 s to say so."""


class EmbeddedBus:
    """Keeps the promise of `Bus` in the table ``messages``."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._inboxes: dict[Inbox, int | None] = {}
        """Each with the message up to which it was told; None while nobody knows the last one."""
        self._changing = threading.Lock()
        self._away = False
        self._ended = threading.Event()
        self._looking: threading.Thread | None = None
        self._out: deque[tuple[str, str]] = deque(maxlen=MOST_WAITING)
        self._outgoing = threading.Event()
        self._writing: threading.Thread | None = None

    def publish(self, topic: str, text: str) -> None:
        """Leave it to the writing thread."""
        self._out.append((topic, fit(text)))
        self._outgoing.set()
        with self._changing:
            if self._writing is None:
                self._writing = threading.Thread(target=self._write_on, name="bus out", daemon=True)
                self._writing.start()

    def subscribe(self, topic: str, told: Callable[[str], None]) -> Subscription:
        """Look for rows that come after those that are there now."""
        inbox = Inbox(topic, told, self._leave)
        begin = self._begin()
        with self._changing:
            self._inboxes[inbox] = begin
            if self._looking is None:
                self._looking = threading.Thread(target=self._look_on, name="bus", daemon=True)
                self._looking.start()
        return inbox

    def ping(self) -> None:
        """Look for messages."""
        self._store().last_message()

    def close(self) -> None:
        """Write what waits, and end the threads."""
        self._ended.set()
        self._outgoing.set()
        for inbox in list(self._inboxes):
            inbox.close()
        for thread in (self._writing, self._looking):
            if thread is not None:
                thread.join(timeout=1.0)

    def _leave(self, inbox: Inbox) -> None:
        with self._changing:
            self._inboxes.pop(inbox, None)

    def _begin(self) -> int | None:
        """Answer which message is the last one now, if that can be known now."""
        if self._away:
            return None
        try:
            return self._store().last_message()
        except Unavailable as error:
            self._complain(error)
            return None

    def _write_on(self) -> None:
        while not (self._ended.is_set() and not self._out):
            self._outgoing.wait()
            self._outgoing.clear()
            sent = [self._out.popleft() for _ in range(len(self._out))]
            if not sent:
                continue
            try:
                self._store().send_messages(sent, machine_clock())
            except Unavailable as error:
                self._complain(error)  # they are lost; who listens looks by itself

    def _look_on(self) -> None:
        while not self._ended.wait(_REST_SECONDS if self._away else LOOK_SECONDS):
            if not self._inboxes:
                continue
            try:
                self._look()
            except Unavailable as error:
                self._complain(error)
            else:
                self._away = False

    def _look(self) -> None:
        """Hand out what came since the last look."""
        with self._changing:
            told = dict(self._inboxes)
        begun = [last for last in told.values() if last is not None]
        newest, found = self._store().messages_after(min(begun, default=_NEVER))
        with self._changing:
            for inbox, last in told.items():
                for id_, topic, text in found:
                    if last is not None and id_ > last and topic == inbox.topic:
                        inbox.put(text)
                if inbox in self._inboxes:
                    self._inboxes[inbox] = newest

    def _complain(self, error: Unavailable) -> None:
        if not self._away:
            log.warning("messages are not carried", reason=str(error))
        self._away = True
