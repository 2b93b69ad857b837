"""What doors know: the tokens and collections, kept near them.

The platform publishes them after each change; doors read them, and start from them alone while
the metadata database is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from penstock.errors import BadSetting
from penstock.metadata.records import Known
from penstock.settings import Settings

LOOK_SECONDS = 0.5
"""How often a door looks at its cache, whether it was called or not."""

DOOR_LASTS = 10.0
"""Seconds after which a door that said nothing any more is no longer counted as one."""


class Cache(Protocol):
    """One `Known`, the last one published. Threads may share a cache."""

    @property
    def lag(self) -> float:
        """Seconds after which a door that reaches the cache goes by what was published."""
        ...

    def publish(self, ask: Callable[[], Known]) -> None:
        """Make what `ask` answers what every later `read` answers, also after a restart.

        Nothing else is published between asking and publishing, so of several publishers the one
        that asked last is also the last one published, whatever the versions say: a restored
        database counts from an older one. `ask` may be asked several times.

        A reader in another process knows within a moment; doors that live are waited for, a second
        at most. Raises `EngineUnavailable` when it cannot be kept; readers then go on with the
        last one.
        """
        ...

    def read(self) -> Known | None:
        """Answer the `Known` published last, or None when there never was one.

        Cheap as long as nothing changed: the same object again. While what is there cannot be
        read, answers the last one that could (and says so in the log), or raises
        `EngineUnavailable` when there is none.
        """
        ...

    def listen(self, told: Callable[[], None]) -> None:
        """Call `told`, in some thread, when `read` would answer something else than before.

        A kind that notices only when it is read never calls; look now and then all the same.
        """
        ...

    def seen(self, door: str) -> None:
        """Tell publishers that this door goes by what the last `read` answered, and lives.

        Never waits and never raises. To be said again every few seconds.
        """
        ...

    def doors(self) -> Mapping[str, bool]:
        """Answer, for each door that lives, whether it goes by the `Known` published last.

        Raises `EngineUnavailable`.
        """
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who one is to a cache on another machine, and whom one trusts."""

    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def open_cache(url: str, *, access: Access | None = None, copy: Path | None = None) -> Cache:
    """Open the cache at `url` (``embedded:///folder``, ``etcd://host:2379,host:2379/prefix``).

    With `copy`, what is read from another machine is also kept in that folder, and what a process
    starts from while the cache is away.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.cache.embedded import EmbeddedCache

            return EmbeddedCache(parts.path)
        case "etcd" | "etcd+https":
            from penstock.cache.etcd import open_etcd

            return open_etcd(url, access or Access(), copy)
        case other:
            raise BadSetting(
                f"cache_url starts with {other!r}; use embedded:///folder or etcd://host:2379"
            )


def cache_of(settings: Settings, *, keeps_copy: bool = False) -> Cache:
    """Open the cache of these settings; with `keeps_copy` a copy is kept in the home."""
    access = Access(
        user=settings.cache_user,
        password=settings.cache_password.get_secret_value(),
        ca=settings.cache_ca,
        certificate=settings.cache_certificate,
        key=settings.cache_key,
    )
    copy = settings.home / "cache" if keeps_copy else None
    return open_cache(settings.cache, access=access, copy=copy)
