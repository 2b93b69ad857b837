"""A typed client of the platform's API: one method per route, a module for each noun.

Answers are the shapes of `penstock.contract`, with times as `datetime` in UTC. Errors are those of
`penstock.errors`, made again from what the API tells about them.
"""

from __future__ import annotations

from penstock.client.collections import Collections, FormatOptions
from penstock.client.destinations import Destinations
from penstock.client.problems import told
from penstock.client.quarantine import Quarantine
from penstock.client.replays import ReplayOptions, Replays
from penstock.client.search import ListOptions, PageOptions, Search, SearchOptions
from penstock.client.searches import KeptOptions, Searches
from penstock.client.sql import Sql
from penstock.client.status import Statuses
from penstock.client.tail import Tail
from penstock.client.tokens import Tokens
from penstock.client.wire import TIMEOUT_SECONDS

__all__ = [
    "TIMEOUT_SECONDS",
    "Client",
    "FormatOptions",
    "KeptOptions",
    "ListOptions",
    "PageOptions",
    "ReplayOptions",
    "SearchOptions",
    "told",
]


class Client(
    Statuses, Collections, Search, Searches, Tail, Quarantine, Sql, Tokens, Destinations, Replays
):
    """The platform at `base_url`, as the holder of `token` sees it. Threads may share it.

    Raises `EngineUnavailable` where nothing answers, and for every other refusal the error that
    the platform told of.
    """
