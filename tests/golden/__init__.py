"""A home as an earlier version left it: what it holds, and how it is made.

`home.tar.xz` is kept as it was written; tests unpack it and go on with it. What is on the disks of
people may not be readable any more once one of them fails: then read the old layout beside the new
one, or migrate it, and leave the file as it is. Where a format changes and the old one is still
read, make one more beside it: ``PYTHONPATH=tests python -m golden NEW.tar.xz``.

Tables name their files with absolute paths. Those of this home are below the working directory of
the process, wherever that is, so a test unpacks it and goes there.
"""

from __future__ import annotations

import secrets
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import chdir, closing
from pathlib import Path

from builders import FLIGHTS, event
from metadata_builders import collection, destination, saved_search
from releasing import AppendingDoor

from assets.release import Asked, Workplace
from assets.stores import Stores, duplicates_of, opened
from assets.upkeep import Tended
from lakehouse.sql import Engine, open_engine
from orchestration.tending import tend_home
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.envelope import Event
from penstock.metadata.home import ensure_admin_token, ensure_system_collections
from penstock.metadata.rotation import ensure_key
from penstock.quarantine.repair import Repair, transform
from penstock.search import SearchRequest, View
from penstock.search.embedded import EmbeddedSearcher
from penstock.search.filters import Filters
from penstock.search.keeping import Keeping
from penstock.settings import Settings, load_settings

HOME = Path(__file__).with_name("home.tar.xz")
MOST_BYTES = 300 << 10

_BOM = b"\xef\xbb\xbf"

LANDED: tuple[Event, ...] = (
    event('{"n": 1, "city": "Bern", "at": {"gate": "A1"}}', id="fits", named=True),
    event('{"n": "one"}', id="misfit", key=b"\xff\x00", headers=(("x-shop", b"\xfe"),)),
    event('{"n": 2, "tags": ["a", "b"]}', id="list", content_type=None, event_time=7),
    event(b"\x00\x01\x02", id="bytes", content_type="application/octet-stream"),
    event(b'{"never": "closed', id="discarded"),
    event(b'{"never": "opened', id="open"),
    event(_BOM + b'{"n": 3, "city": "Ulm"}', id="released"),
    event('{"n": 1, "city": "Bern", "at": {"gate": "A1"}}', id="fits", named=True),
)
"""What the tables hold: the fourth does not say that it is JSON, and the last repeats the first."""

WAITING: tuple[Event, ...] = (
    event('{"n": 4, "later": true}', id="waits"),
    event(_BOM + b'{"n": 5}', id="waits broken"),
)
"""What was acknowledged and is on the log alone."""

SECRET = "Bearer hidden"
"""A credential of the destination."""

ORPHAN = Path("lake/main/flights/data/orphan.parquet")
"""A file that upkeep has seen, and nobody refers to."""

DROP_BOM = Repair(steps=(transform("bom"),))


def unpack(archive: Path, folder: Path) -> Path:
    """Put the home into the folder; answer where it is."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "home"


def settings_here() -> Settings:
    """Answer the settings of the home that is the working directory."""
    return load_settings(Path.cwd(), {})


def searcher_of(stores: Stores, engine: Engine) -> EmbeddedSearcher:
    """Answer the search over the home, with its filters."""
    return EmbeddedSearcher(
        stores.lake,
        stores.buffer,
        engine,
        rules=stores.rules_of_searches,
        clock=machine_clock,
        duplicates=duplicates_of(stores.settings),
        filters=Filters(stores.settings.home / "filters"),
    )


def shown(searcher: EmbeddedSearcher, view: View, query: str = "") -> list[tuple[str, bytes]]:
    """Answer id and payload of what is found, by the id."""
    request = SearchRequest(collection=FLIGHTS, view=view, query=query, limit=100)
    return sorted((one.event_id, one.payload) for one in searcher.search(request).events)


def land(stores: Stores) -> None:
    """Land what waits, and tell the statistics."""
    with stores.books() as books:
        landing = stores.landing()
        while landed := landing.land_once(FLIGHTS):
            books.tell(landed)


def append(settings: Settings, events: Iterable[Event]) -> None:
    """Acknowledge events, each in a frame of its own."""
    with closing(open_appender(settings.log)) as appender:
        for one in events:
            appender.append(FLIGHTS, [one]).result(30)


def desk_of(stores: Stores, searcher: EmbeddedSearcher) -> Workplace:
    """Answer where the quarantine is worked on."""
    return Workplace(stores.lake, stores.buffer, searcher, rules=stores.rules, clock=machine_clock)


def release(stores: Stores, searcher: EmbeddedSearcher, event_id: str) -> int:
    """Release an event without its byte order mark; answer how many that were."""
    asked = Asked(collection=FLIGHTS, query=f'event_id:"{event_id}"')
    with closing(open_appender(stores.settings.log)) as appender:
        door = AppendingDoor(appender.append)
        done = desk_of(stores, searcher).release(
            asked, DROP_BOM, release="r1", by="ann", door=door, limit=10
        )
    return done.done


def tend(stores: Stores, *, later: int = 0) -> int:
    """Do upkeep, so many microseconds from now; answer how many files it deleted."""
    work = tend_home(
        stores,
        stores.lake.collections(),
        holder="test",
        seconds=60,
        clock=lambda: machine_clock() + later,
    )
    return sum(one.deleted for one in work if isinstance(one, Tended))


def make(archive: Path) -> None:
    """Make a home that has some of everything, and keep it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        with chdir(home):
            Path("penstock.toml").write_text('warehouse_url = "file:///proc/self/cwd/lake"\n')
            _fill(settings_here())
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(home, "home", filter=_of_nobody)
    if archive.stat().st_size > MOST_BYTES:
        raise AssertionError(f"{archive} is too large to be kept: {archive.stat().st_size:,} bytes")


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose it was."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _fill(settings: Settings) -> None:
    ensure_key(settings, chance=secrets.token_bytes)
    with opened(settings) as stores, closing(open_engine(Path("sql"), memory="300MB")) as engine:
        store, now = stores.store, machine_clock()
        ensure_admin_token(store, settings.home, now=now, chance=secrets.token_bytes)
        ensure_system_collections(store, now=now, partitions=1)
        store.create_collection(collection(FLIGHTS))
        store.add_destination(destination())
        store.add_saved_search(saved_search())
        append(settings, LANDED[:5])
        land(stores)
        append(settings, LANDED[5:])
        land(stores)
        searcher = searcher_of(stores, engine)
        release(stores, searcher, "released")
        land(stores)
        asked = Asked(collection=FLIGHTS, query="event_id:discarded")
        desk_of(stores, searcher).discard(asked, why="no use", by="ann", limit=10)
        ORPHAN.parent.mkdir(parents=True, exist_ok=True)
        ORPHAN.write_bytes(b"nobody knows")
        tend(stores)
        filters = Filters(settings.home / "filters")
        Keeping(stores.lake, filters, engine, most_bytes=1 << 20, least_rows=1).keep(FLIGHTS)
        append(settings, WAITING)
