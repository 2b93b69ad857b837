"""The cache on etcd: a head and its parts (`parts.py`), and a key for each door.

Under the prefix:

    known          the head; every publication writes it in one transaction with the removal of
                   the parts it no longer names
    parts/<name>   records, packed; never changed once written
    doors/<name>   the revision of the head that the door goes by; gone with the door's lease

A part that the present head names is removed only together with that head. So a reader reads the
head, and the parts it has not, all at the revision of the head. A publisher writes its new parts
first and swaps the head only if nobody else has since it looked, before it asked what to publish.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from penstock.cache import DOOR_LASTS, Access
from penstock.cache.embedded import EmbeddedCache
from penstock.cache.gateway import CALL_SECONDS, Gateway, Json, content, members_of, text
from penstock.cache.parts import Head, Records, cut, put_together, read_head
from penstock.errors import EngineUnavailable
from penstock.metadata.records import Known

log = structlog.get_logger()

COPY_LASTS = 24 * 3600.0
"""Seconds for which a door may start from its copy: whoever was revoked since could still send."""

SILENCE_SECONDS = 5.0
"""How long a watch may say nothing until the head itself is looked at: a connection to a machine
that is gone says nothing either."""

_START_SECONDS = 4.0
_SHORTEST_REST, _LONGEST_REST = 0.1, 1.0
_DOORS_SECONDS = 1.0
_HEART_SECONDS = DOOR_LASTS / 3
_CONFIRM_COPY_SECONDS = 60.0
_MOST_RACES = 50

# etcd takes 128 operations in a transaction, and 1.5 MiB in a request. A part has 14 kB packed.
_MOST_OPERATIONS = 100
_MOST_BYTES = 600_000
_PARTS_AT_ONCE = 16


def open_etcd(url: str, access: Access, copy: Path | None) -> EtcdCache:
    """Open the cache at ``etcd://host:2379,host:2379/prefix``, or ``etcd+https://``."""
    parts = urlsplit(url)
    members = members_of(parts.netloc, secure=parts.scheme == "etcd+https")
    prefix = unquote(parts.path).strip("/") or "penstock"
    return EtcdCache(Gateway(members, access), prefix, None if copy is None else _Copy(copy))


class _Seen(NamedTuple):
    """A publication as it was read."""

    revision: int
    """Of the head; 0 where there is none."""
    known: Known | None


class EtcdCache:
    """Keeps the promise of `Cache`. A thread watches the head once something was read."""

    def __init__(self, gateway: Gateway, prefix: str, copy: _Copy | None) -> None:
        self._gateway = gateway
        self._head = f"{prefix}/known".encode()
        self._parts = f"{prefix}/parts/".encode()
        self._doors = f"{prefix}/doors/".encode()
        self._copy = copy
        # Held from reading a head to going by it, and from swapping one: else one that was read
        # before could be gone by after one that was read later.
        self._turn = threading.Lock()
        self._had: dict[str, Records] = {}
        self._held: _Seen | None = None
        self._trouble: EngineUnavailable | None = None
        self._told: Callable[[], None] = lambda: None
        self._starting = threading.Lock()
        self._follower: threading.Thread | None = None
        self._looked = threading.Event()
        self._ended = threading.Event()
        self._door: str | None = None
        self._heart: threading.Thread | None = None
        self._beat = threading.Event()
        self._read_revision: int | None = None

    # A member that is gone without a word is noticed last: silence, a call in vain, the next look.
    lag = SILENCE_SECONDS + CALL_SECONDS + 1.0

    # Publishing

    def publish(self, ask: Callable[[], Known]) -> None:
        """Write the parts that are new, swap the head, and wait for the doors for a while."""
        for _ in range(_MOST_RACES):
            revision, head = self._read_head()
            listed = self._names()
            known = ask()
            fresh, parts = cut(known)
            has = head.names() if head is not None else set()
            self._put({name: parts[name] for name in parts if name not in has})
            stale = [name for name in listed if name not in parts]
            if fresh == head and not stale:
                self._keep(revision, known)
                return
            if self._swap(revision, fresh, known, stale[:_MOST_OPERATIONS]):
                if len(stale) <= _MOST_OPERATIONS:
                    self._wait_for_doors()
                    return
                log.info("old parts of the cache remain", parts=len(stale) - _MOST_OPERATIONS)
        raise EngineUnavailable("the cache cannot be written: others publish all the time")

    def _swap(self, revision: int, head: Head, known: Known, stale: Sequence[str]) -> bool:
        """Make the head the one that counts, unless it was changed since `revision`."""
        put = {"key": text(self._head), "value": text(msgspec.json.encode(head))}
        removed = [{"request_delete_range": {"key": text(self._part(name))}} for name in stale]
        with self._turn:
            answer = self._gateway.call(
                "kv/txn",
                {
                    "compare": [
                        {
                            "key": text(self._head),
                            "target": "MOD",
                            "result": "EQUAL",
                            "mod_revision": str(revision),
                        }
                    ],
                    "success": [{"request_put": put}, *removed],
                },
            )
            if not answer.get("succeeded"):
                return False
            self._go_by(_Seen(int(answer["header"]["revision"]), known))
        return True

    def _keep(self, revision: int, known: Known) -> None:
        """Go by what is published already: two that publish one change write it once."""
        with self._turn:
            if self._held is None or self._held.revision < revision:
                self._go_by(_Seen(revision, known))

    def _names(self) -> list[str]:
        """Answer the names of all parts that are kept."""
        answer = self._gateway.call("kv/range", {**_below(self._parts), "keys_only": True})
        start = len(self._parts)
        return [content(one["key"])[start:].decode() for one in answer.get("kvs", ())]

    def _put(self, parts: Mapping[str, bytes]) -> None:
        """Keep the parts, as many in a request as it takes."""
        left = iter(parts.items())
        while batch := list(islice(left, _PARTS_AT_ONCE)):
            requests: list[Json] = []
            size = 0
            for name, body in batch:
                if requests and size + len(body) > _MOST_BYTES:
                    self._gateway.call("kv/txn", {"success": requests})
                    requests, size = [], 0
                put = {"key": text(self._part(name)), "value": text(body)}
                requests.append({"request_put": put})
                size += len(body)
            self._gateway.call("kv/txn", {"success": requests})

    def _wait_for_doors(self) -> None:
        """Return when every door that lives goes by the present head, or after a second."""
        until = time.monotonic() + _DOORS_SECONDS
        while time.monotonic() < until:
            try:
                if all(self.doors().values()):
                    return
            except EngineUnavailable:
                return  # it is published; who can ask will be told by `doors`
            time.sleep(0.02)

    # Reading

    def read(self) -> Known | None:
        """Answer what the watching thread holds; wait for its first look only."""
        self._start()
        self._looked.wait(_START_SECONDS)
        held, trouble = self._held, self._trouble
        if held is None and self._copy is not None:
            with self._turn:
                if self._held is None and (known := self._copy.load()) is not None:
                    self._held = _Seen(-1, known)
                    log.warning("cache is away, starting from the copy", version=known.version)
                held = self._held
        if held is None:
            raise trouble or EngineUnavailable("etcd has not answered yet")
        self._read_revision = held.revision
        return held.known

    def listen(self, told: Callable[[], None]) -> None:
        """Call from the watching thread."""
        self._told = told
        self._start()

    def _start(self) -> None:
        with self._starting:
            if self._follower is None:
                self._follower = threading.Thread(
                    target=self._follow, name="cache watch", daemon=True
                )
                self._follower.start()

    def _follow(self) -> None:
        """Go by the newest head, for ever."""
        rest = _SHORTEST_REST
        while not self._ended.is_set():
            try:
                since = self._look()
                self._gateway.wait_for_change(self._head, since, silence=SILENCE_SECONDS)
                rest = _SHORTEST_REST
            except EngineUnavailable as error:
                self._complain(error)
                self._ended.wait(rest)
                rest = min(2 * rest, _LONGEST_REST)
            except Exception as error:
                if self._ended.is_set():
                    break
                # Nobody would follow any more, and a revoked token would be good for ever.
                log.exception("cache watch stumbled")
                self._complain(EngineUnavailable(f"the cache cannot be read: {error!r}"))
                self._ended.wait(_LONGEST_REST)
        if self._heart is not None:
            self._heart.join()
        self._gateway.close()

    def _look(self) -> int:
        """Go by what is published now; answer the revision from which to watch."""
        with self._turn:
            while True:
                head, at = self._head_now()
                held = self._held
                if held is not None and head is not None and head.revision == held.revision:
                    break
                try:
                    known = None if head is None else self._known(head)
                except _Gone:
                    continue  # published anew, and compacted, since the head was read
                self._go_by(_Seen(0 if head is None else head.revision, known))
                break
            if self._trouble is not None and self._looked.is_set():
                log.info("cache answers again")
            self._trouble = None
            if self._copy is not None:
                self._copy.confirm()
        self._looked.set()
        return at + 1

    def _go_by(self, seen: _Seen) -> None:
        if self._held is not None and (self._held.revision, self._held.known) == seen:
            return
        self._held = seen
        if self._copy is not None and seen.known is not None and self._follower is not None:
            self._copy.save(seen.known)
        self._told()

    def _complain(self, error: EngineUnavailable) -> None:
        if self._trouble is None:
            log.warning("cache does not answer, going on with the last one", reason=str(error))
        self._trouble = error
        self._looked.set()

    def _read_head(self) -> tuple[int, Head | None]:
        """Answer the revision of the head (0: there is none), and it if it can be read."""
        found, _ = self._head_now()
        if found is None:
            return 0, None
        try:
            return found.revision, read_head(found.body)
        except EngineUnavailable:
            return found.revision, None  # of another release; it is written anew

    def _head_now(self) -> tuple[_Head | None, int]:
        """Answer the head, and the revision of the whole at which it is so."""
        answer = self._gateway.call("kv/range", {"key": text(self._head)})
        at = int(answer["header"]["revision"])
        for one in answer.get("kvs", ()):
            return _Head(int(one["mod_revision"]), at, content(one["value"])), at
        return None, at

    def _known(self, found: _Head) -> Known:
        """Answer what a head and its parts say; raise `_Gone`."""
        head = read_head(found.body)
        wanted = [name for name in sorted(head.names()) if name not in self._had]
        parts: dict[str, bytes] = {}
        for start in range(0, len(wanted), _PARTS_AT_ONCE):
            names = wanted[start : start + _PARTS_AT_ONCE]
            parts.update(self._fetch(names, found.at))
        return put_together(head, parts, self._had)

    def _fetch(self, names: Sequence[str], at: int) -> Mapping[str, bytes]:
        asked = [
            {"request_range": {"key": text(self._part(name)), "revision": str(at)}}
            for name in names
        ]
        try:
            answers = self._gateway.call("kv/txn", {"success": asked})["responses"]
        except EngineUnavailable as error:
            if "compacted" in str(error):
                raise _Gone from error
            raise
        found = [one["response_range"].get("kvs") for one in answers]
        return {
            name: content(kvs[0]["value"]) for name, kvs in zip(names, found, strict=True) if kvs
        }

    # Doors

    def seen(self, door: str) -> None:
        """Leave it to a thread to say so."""
        if self._heart is None:
            self._door = door
            self._heart = threading.Thread(target=self._say, name="cache door", daemon=True)
            self._heart.start()
        self._beat.set()

    def _say(self) -> None:
        """Say what the door goes by, whenever it was said here and a few times in its lease."""
        lease: str | None = None
        said: tuple[str, int] | None = None
        kept_at = float("-inf")
        while not self._ended.is_set():
            self._beat.wait(_HEART_SECONDS)
            self._beat.clear()
            revision = self._read_revision
            if revision is None or self._ended.is_set():
                continue
            try:
                if time.monotonic() - kept_at >= _HEART_SECONDS:
                    lease = self._kept(lease)
                    kept_at = time.monotonic()
                assert lease is not None  # noqa: S101 - kept above
                if said != (lease, revision):
                    value = text(b"%d" % revision)
                    self._gateway.call(
                        "kv/put", {"key": text(self._own_key()), "value": value, "lease": lease}
                    )
                    said = lease, revision
            except EngineUnavailable:
                lease, kept_at = None, float("-inf")  # the watching thread says that it is away
                self._ended.wait(_SHORTEST_REST)
        with suppress(EngineUnavailable):  # then it goes with its lease
            self._gateway.call("kv/deleterange", {"key": text(self._own_key())})

    def _kept(self, lease: str | None) -> str:
        """Keep the lease, or take another where there is none any more."""
        if lease is not None:
            kept = self._gateway.call("lease/keepalive", {"ID": lease}).get("result", {})
            if int(kept.get("TTL", 0)) > 0:
                return lease
        return str(self._gateway.call("lease/grant", {"TTL": str(int(DOOR_LASTS))})["ID"])

    def doors(self) -> Mapping[str, bool]:
        """Read the head and the doors' keys in one transaction."""
        head = {"key": text(self._head), "keys_only": True}
        asked = [{"request_range": head}, {"request_range": _below(self._doors)}]
        answers = self._gateway.call("kv/txn", {"success": asked})["responses"]
        published, living = (one["response_range"].get("kvs", ()) for one in answers)
        revision = int(published[0]["mod_revision"]) if published else 0
        start = len(self._doors)
        return {
            content(one["key"])[start:].decode(): int(content(one["value"])) == revision
            for one in living
        }

    def close(self) -> None:
        """Take the door's key away and let the threads end: within `SILENCE_SECONDS`."""
        self._ended.set()
        self._beat.set()
        if self._heart is not None:
            self._heart.join()
        if self._follower is None:
            self._gateway.close()

    def _own_key(self) -> bytes:
        return self._doors + (self._door or "").encode()

    def _part(self, name: str) -> bytes:
        return self._parts + name.encode()


class _Head(NamedTuple):
    revision: int
    """At which it was written."""
    at: int
    """At which it was read."""
    body: bytes


class _Gone(Exception):
    """The revision is compacted."""


class _Copy:
    """What a door saw last, in a folder of its own machine; its age is that of the last look."""

    def __init__(self, folder: Path) -> None:
        self._cache = EmbeddedCache(folder)
        self._file = folder / "known.json"
        self._confirmed_at = float("-inf")

    def save(self, known: Known) -> None:
        """Keep this instead."""
        try:
            self._cache.publish(lambda: known)
        except EngineUnavailable as error:
            log.warning("no copy of the cache is kept", reason=str(error))

    def confirm(self) -> None:
        """Say that what is kept was still so just now."""
        now = time.monotonic()
        if now - self._confirmed_at < _CONFIRM_COPY_SECONDS:
            return
        self._confirmed_at = now
        try:
            os.utime(self._file)
        except OSError:
            return  # there is none, or it is told where it is written

    def load(self) -> Known | None:
        """Answer the copy unless there is none that is young enough."""
        try:
            age = time.time() - self._file.stat().st_mtime
            return None if age > COPY_LASTS else self._cache.read()
        except (OSError, EngineUnavailable):
            return None


def _below(prefix: bytes) -> Json:
    """Answer the range of all keys that begin with the prefix."""
    return {"key": text(prefix), "range_end": text(prefix[:-1] + bytes([prefix[-1] + 1]))}
