"""What `penstock doctor` looks at on disks and on the engines that the settings name.

A sentence shows addresses without user, password and parameters.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from assets.accounting import answered, stand_all, troubles
from assets.remedies import short
from assets.stores import merger_of, retention_of
from lakehouse import Lake, open_lake
from lakehouse.catalog import main_table
from lakehouse.sql import Limits, open_trino
from lakehouse.sql.tables import LakeTables
from penstock.buffer import open_buffer, open_keeper
from penstock.bus import open_bus
from penstock.cache import cache_of
from penstock.cli.console import size
from penstock.cli.findings import Check
from penstock.cli.moments import utc_now
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId
from penstock.errors import BadSetting, BadSql, EngineUnavailable, KeyMissing
from penstock.metadata import database
from penstock.metadata.keys import KEYS_FILE, keyring_of
from penstock.metadata.store import store_of
from penstock.search.index import open_index
from penstock.settings import Settings, shown
from penstock.stats import open_stats

# Below this the log refuses events before long.
_LITTLE_SPACE = 1 << 30
# A file written by a process of this machine cannot be much younger than now.
_CLOCK_SECONDS = 5.0
_SECRETS = ("running.json", "admin.token", KEYS_FILE)

_SQL_SECONDS = 10.0


def checks_of(settings: Settings) -> Mapping[str, Check]:
    """Name the checks of every store; of an engine only where the settings name one."""
    home = settings.home

    def away(setting: str, more: str) -> str:
        if getattr(settings, setting):
            return f"see that {setting} is right and what it names runs and lets us in; {more}"
        return f"see that this user may read and write all below {home}; {more}"

    stats_url = "stats_url" if settings.stats_url else "metadata_url"
    log, lake = "it holds what has not landed", "it holds what has landed"
    checks = {
        "home": Check(
            lambda: _home(home),
            f"chmod 700 {home}; chmod 600 {home}/*.token {home}/*.json {home}/*.keys",
        ),
        "disk": Check(lambda: _disk(home), "make room: below that the door refuses events"),
        "clock": Check(
            lambda: _clock(home), "set the clock (timedatectl); times of events come of it"
        ),
        "log": Check(lambda: _log(settings), away("log_url", f"remove nothing, {log}")),
        "catalog": Check(
            lambda: _catalog(settings), away("catalog_url", f"remove nothing, {lake}")
        ),
        "lake": Check(lambda: _lake(settings), away("warehouse_url", f"remove nothing, {lake}")),
        "books": Check(
            lambda: _books(settings),
            "'penstock status NAME' shows the sum; docs/howto/operate.md says what each can mean",
        ),
        "metadata": Check(
            lambda: _metadata(settings), away("metadata_url", "nothing can be changed until then")
        ),
        "credentials": Check(
            lambda: _credentials(settings),
            "put the keys back where the other processes have them; 'penstock key list'",
        ),
        "statistics": Check(
            lambda: _statistics(settings), away(stats_url, "they are made good then")
        ),
        "cache": Check(
            lambda: _cache(settings), away("cache_url", "the platform writes it when it starts")
        ),
    }
    if settings.bus_url:
        checks["bus"] = Check(
            lambda: _bus(settings),
            away("bus_url", "changes are heard of later until then"),
        )
    if settings.sql_url:
        checks["SQL"] = Check(
            lambda: _sql(settings), away("sql_url", "docs/howto/trino.md says what it needs")
        )
    if settings.compact_url:
        checks["merging"] = Check(
            lambda: _merging(settings),
            away("compact_url", "no files are merged until then; docs/howto/trino.md"),
        )
    if settings.search_url:
        checks["search"] = Check(
            lambda: _search(settings), away("search_url", "searches read the lake until then")
        )
    if settings.dagster_url:
        checks["Dagster's runs"] = Check(
            lambda: _runs(settings), away("dagster_url", "nothing lands until then")
        )
    if not settings.log.startswith("embedded:"):
        checks["log copies"] = Check(
            lambda: _copies(settings),
            "run three brokers, and give the topics three copies: docs/howto/kafka.md",
        )
    return checks


def _home(home: Path) -> str:
    for file in (home, *(home / name for name in _SECRETS)):
        if file.exists() and file.stat().st_mode & 0o077:
            raise BadSetting(f"others may read {file}, and there are secrets in it")
    if not os.access(home, os.W_OK | os.X_OK):
        raise BadSetting(f"this user may not write to {home}")
    return "readable by its owner only, and writable"


def _disk(home: Path) -> str:
    free = shutil.disk_usage(home).free
    if free < _LITTLE_SPACE:
        raise EngineUnavailable(f"only {size(free)} free below {home}")
    return f"{size(free)} free"


def _clock(home: Path) -> str:
    now = time.time()
    newest = max((file.stat().st_mtime for file in home.iterdir()), default=now)
    if newest - now > _CLOCK_SECONDS:
        raise BadSetting(f"it is behind the newest file of the home by {newest - now:,.0f} s")
    return f"{utc_now():%Y-%m-%d %H:%M:%S} UTC, after everything in the home"


def _log(settings: Settings) -> str:
    with closing(open_buffer(settings.log)) as buffer:
        found = buffer.collections()
        events = sum(
            extent.end - extent.start for one in found for extent in buffer.extents(one).values()
        )
    return f"{len(found)} collections, {events:,} events kept ({shown(settings.log)})"


def _copies(settings: Settings) -> str:
    with closing(open_keeper(settings.log)) as keeper:
        if (warning := keeper.warning()) is not None:
            raise BadSetting(warning)
    return "an acknowledged event is on three disks"


def _catalog(settings: Settings) -> str:
    found = _opened_lake(settings).collections()
    return f"{len(found)} tables ({shown(settings.catalog)})"


def _lake(settings: Settings) -> str:
    lake = _opened_lake(settings)
    views = [view for view in map(lake.view, lake.collections()) if view is not None]
    rows = sum(view.rows for view in views)
    stored = sum(view.bytes for view in views)
    return f"{rows:,} rows in {size(stored)} ({shown(settings.warehouse)})"


def _books(settings: Settings) -> str:
    """Look at every collection as `penstock status` does; raise what somebody has to look at."""
    lake, retention = _opened_lake(settings), retention_of(settings)
    with closing(open_buffer(settings.log)) as buffer:
        names = sorted({*buffer.collections(), *lake.collections()})
        looked = stand_all(buffer, lake, None, names, now=machine_clock())
        standings = [answered(looked[name]) for name in names]
    said = [
        f"{short(one.books.collection)}: {trouble}"
        for one in standings
        for trouble in troubles(one, retention)
    ]
    if said:
        raise EngineUnavailable("; ".join(said))
    accepted = sum(one.books.accepted for one in standings)
    return f"{accepted:,} events accepted in {len(names)} collections, each is accounted for"


def _opened_lake(settings: Settings) -> Lake:
    return open_lake(settings.catalog, settings.warehouse, settings.s3)


def _metadata(settings: Settings) -> str:
    with closing(store_of(settings)) as store:
        return f"{len(store.collections())} collections ({shown(settings.metadata)})"


def _credentials(settings: Settings) -> str:
    """Look whether every key that something is under is there; nothing is decrypted."""
    keys = {key.id for key in keyring_of(settings).held()}
    with closing(store_of(settings)) as store:
        needed = store.keys_needed()
    missing = {key: by for key, by in needed.items() if key not in keys}
    if missing:
        said = "; ".join(f"{key}, needed by {by}" for key, by in sorted(missing.items()))
        raise KeyMissing(f"there is no key {said}")
    if not keys:
        return "none are kept, and there is no key for any"
    return f"under {len(needed)} of {len(keys)} keys"


def _statistics(settings: Settings) -> str:
    with closing(open_stats(settings.stats)) as stats:
        stats.ping()
    return f"answer ({shown(settings.stats)})"


def _cache(settings: Settings) -> str:
    with closing(cache_of(settings)) as cache:
        known = cache.read()
    if known is None:
        raise EngineUnavailable(f"nothing was published yet to {shown(settings.cache)}")
    return f"version {known.version}, {len(known.tokens)} tokens ({shown(settings.cache)})"


def _bus(settings: Settings) -> str:
    with closing(open_bus(settings.bus_url, lambda: store_of(settings))) as bus:
        bus.ping()
    return f"carries messages ({shown(settings.bus_url)})"


def _sql(settings: Settings) -> str:
    """Ask for nothing of a table, if there is one: Trino may answer and not see our tables."""
    password, token = settings.sql_password, settings.sql_token
    limits = Limits(_SQL_SECONDS, rows=1)
    with closing(
        open_trino(
            settings.sql_url,
            password=password.get_secret_value(),
            token=token.get_secret_value(),
        )
    ) as sql:
        lake = _opened_lake(settings)
        for collection in lake.collections():
            tables = LakeTables(lake, collection.team, system=True)
            try:
                sql.query(f'TABLE "{collection.name}" LIMIT 0', tables, limits)
            except BadSql as error:
                said = str(error).partition("\n")[0]
                raise BadSetting(f"it does not read the table of {collection}: {said}") from error
            return f"reads the tables ({shown(settings.sql_url)})"
        sql.query("SELECT 1", LakeTables(lake, DEFAULT_TEAM), limits)
    return f"answers; there is no table to read yet ({shown(settings.sql_url)})"


def _merging(settings: Settings) -> str:
    """Let Trino say whether it would merge files of a table, if there is one."""
    merger = merger_of(settings)
    assert merger is not None  # noqa: S101 - asked only where the settings name one
    names = [main_table(collection) for collection in _opened_lake(settings).collections()]
    merger.check(next(iter(names), None))
    said = "may merge files" if names else "answers; there is no table yet"
    return f"{said} ({shown(settings.compact_url)})"


def _search(settings: Settings) -> str:
    index = open_index(settings)
    assert index is not None  # noqa: S101 - asked only where the settings name one
    with closing(index):
        index.state(CollectionId(DEFAULT_TEAM, "any"))
    return f"answers ({shown(settings.search_url)})"


def _runs(settings: Settings) -> str:
    database.ping(settings.dagster_url, setting="dagster_url")
    return f"the database answers ({shown(settings.dagster_url)})"
