"""The platform process: API and search."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from assets.contract import Trials
from assets.stores import duplicates_of, retention_of, sql_of
from assets.stores import opened as stores_of
from lakehouse import Lake
from lakehouse.sql import Limits, open_engine
from penstock.api.app import create_app
from penstock.api.dagster import Dagster
from penstock.api.door import DoorRoute
from penstock.api.platform import Platform
from penstock.api.turnstile import Seats
from penstock.buffer.keeping import make_places
from penstock.clock import machine_clock
from penstock.guard import Guard
from penstock.memory import giving_back
from penstock.metadata.home import ensure_system_collections
from penstock.search.embedded import EmbeddedSearcher
from penstock.search.filters import Filters
from penstock.search.keeping import Keeping
from penstock.search.live import Live
from penstock.settings import Settings, door_of
from replay.doorway import doorway_of
from replay.plan import Planner
from replay.targets.opening import log_topics

log = structlog.get_logger()

_GRACE_SECONDS = 10

# A row group of 128 MB, its texts in lower case, and the tokens of them; beyond that it spills.
_FILTER_MEMORY = "1GB"


def serve(settings: Settings, *, pages: Callable[[FastAPI], None]) -> None:
    """Answer the API, and the `pages` put beside it, until SIGTERM or SIGINT.

    What was begun then is finished.

    Raises `BadSetting`, and the errors of the stores, if it cannot start.
    """
    dagster = Dagster(f"http://{settings.host}:{settings.dagster_port}")
    with giving_back(), opened(settings, dagster) as platform:
        app = create_app(
            platform, others={"dagster": dagster.ping, "stats": lambda: platform.stats().ping()}
        )
        pages(app)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.platform_port,
            log_config=None,
            log_level="warning",
            # It would write query strings.
            access_log=False,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        log.info("platform open", port=settings.platform_port)
        Server(config, leaving=platform.leaving.set).run()
    log.info("platform closed")


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT as uvicorn does, but lets the process finish its own work after.

    Uvicorn raises the signal again once it is done, and the process would die of it with its
    stores open.
    """

    def __init__(self, config: uvicorn.Config, *, leaving: Callable[[], object]) -> None:
        """Call `leaving` when a signal comes: uvicorn waits for answers, and some never end."""
        super().__init__(config)
        self._leaving = leaving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask the server to exit."""
        self._leaving()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ask the server to exit when a signal comes."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _keeping(settings: Settings, lake: Lake, filters: Filters) -> Iterator[None]:
    """Keep the filters of data files for the block."""
    folder = settings.home / "sql"
    # One thread, which is that of the keeping itself: searches have an engine of their own.
    with closing(open_engine(folder, memory=_FILTER_MEMORY, threads=1)) as engine:
        keeping = Keeping(lake, filters, engine, most_bytes=settings.search_filter_bytes)
        keeping.start()
        with closing(keeping):
            yield


@contextmanager
def opened(settings: Settings, dagster: Dagster) -> Iterator[Platform]:
    """Open everything for the block, and close it afterwards."""
    with stores_of(settings) as stores, closing(dagster):
        store, buffer, lake = stores.store, stores.buffer, stores.lake
        ensure_system_collections(
            store, now=machine_clock(), partitions=settings.partitions_at_first
        )
        make_places(stores.keeper, store)
        folder = settings.home / "sql"
        index = stores.index
        with (
            closing(DoorRoute(door_of(settings))) as door,
            closing(
                open_engine(folder, memory=settings.sql_memory, s3=settings.s3, keep_metadata=True)
            ) as engine,
            closing(sql_of(settings, engine)) as sql,
            ExitStack() as beside,
        ):
            filters = Filters(settings.home / "filters")
            if settings.search_filter_bytes:
                beside.enter_context(_keeping(settings, lake, filters))
            searcher = EmbeddedSearcher(
                lake,
                buffer,
                engine,
                rules=stores.rules_of_searches,
                clock=machine_clock,
                index=index,
                duplicates=duplicates_of(settings),
                filters=filters,
            )
            yield Platform(
                store=store,
                cache=stores.cache,
                bus=stores.bus,
                buffer=buffer,
                keeper=stores.keeper,
                lake=lake,
                searcher=searcher,
                live=Live(buffer, searcher.cuts, engine, clock=machine_clock),
                seats=Seats("live tails", each=settings.tails_per_team),
                sql=sql,
                sql_limits=Limits(settings.sql_seconds, settings.sql_rows),
                open_decoder=stores.decoders.opened,
                trials=Trials(lake, engine, rules=stores.rules),
                planner=Planner(lake, buffer, engine, clock=machine_clock),
                launch=dagster.launch,
                confirm_above=settings.replay_confirm_above,
                guard=Guard(settings.allow_networks, settings.allow_ports),
                rules=stores.rules,
                release_door=door.with_token,
                doorway=doorway_of(settings, store),
                files=settings.replay_files,
                own_topics=log_topics(settings.log),
                clock=machine_clock,
                chance=secrets.token_bytes,
                stats=lambda: stores.stats,
                index=index,
                retention=retention_of(settings),
            )
