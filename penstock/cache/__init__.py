"""What doors know: the tokens and collections, kept near them.

The platform publishes them after each change; doors read them, and start from them alone while
the metadata database is away.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from penstock.errors import BadSetting
from penstock.metadata.records import Known


class Cache(Protocol):
    """One `Known`, the last one published. Threads may share a cache."""

    def publish(self, known: Known) -> None:
        """Make this what every later `read` answers, in all processes and after a restart.

        Raises `EngineUnavailable` when it cannot be kept; readers then go on with the last one.
        """
        ...

    def read(self) -> Known | None:
        """Answer the `Known` published last, or None when there never was one.

        Cheap as long as nothing changed: the same object again. While what is there cannot be
        read, answers the last one that could (and says so in the log), or raises
        `EngineUnavailable` when there is none.
        """
        ...


def open_cache(url: str) -> Cache:
    """Open the cache at `url` (``embedded:///folder``)."""
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.cache.embedded import EmbeddedCache

            return EmbeddedCache(parts.path)
        case other:
            raise BadSetting(f"cache_url starts with {other!r}; use embedded:///folder")
