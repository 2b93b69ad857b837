"""Tables behind a REST catalog, which knows no requirement of ours."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest
from builders import NOON
from engines.fresh import fresh_name
from engines.places import BUCKET, REST, REST_PORT, S3_SECRET
from lakes import BROKEN, HASTY, STORE, Tampered, append, batch_of, landing, log_of, numbered, put
from ports import free_port
from proxy import Proxy
from pyiceberg.exceptions import CommitFailedException

from lakehouse import Lake, TableView, open_lake
from lakehouse.catalog import main_table, quarantine_table
from lakehouse.commit import Committed
from lakehouse.listing import Listing
from lakehouse.upkeep import LEAD, compact, expire
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId
from penstock.errors import BadSetting, EngineUnavailable, NotFound

engines = pytest.mark.engines
pytestmark = pytest.mark.xdist_group("rest")


@dataclass
class World:
    """A lake behind REST, with a team of its own on the server that all tests share."""

    lake: Lake
    warehouse_url: str = field(default_factory=lambda: f"s3://{BUCKET}/{fresh_name('rest')}")
    collection: CollectionId = field(default_factory=lambda: CollectionId(fresh_name(), "flights"))

    def log(self, *payloads: bytes | str) -> MemoryLog:
        return log_of(*payloads, collection=self.collection)

    def land(self, log: MemoryLog) -> TableView:
        work = landing(log, self.lake)
        while work.land_once(self.collection):
            pass
        view = self.lake.view(self.collection)
        assert view is not None
        return view

    def everywhere(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for name in (main_table(self.collection), quarantine_table(self.collection)):
            table = self.lake.table(name)
            assert table is not None
            rows = table.scan(selected_fields=("log_offset",)).to_arrow()
            found.update(rows["log_offset"].to_pylist())
        return found


def opened(url: str, warehouse_url: str) -> Lake:
    lake = open_lake(url, warehouse_url, STORE)
    lake.patience = HASTY
    return lake


@pytest.fixture
def world() -> World:
    warehouse_url = f"s3://{BUCKET}/{fresh_name('rest')}"
    return World(opened(f"rest+{REST}", warehouse_url), warehouse_url)


@engines
def test_events_land_and_columns_grow(world: World) -> None:
    """The same landing, through another catalog; its files where ours would be."""
    log = world.log(*numbered(3), BROKEN, '{"n": 9, "city": {"name": "Oslo"}}')

    view = world.land(log)
    again = world.land(log)

    assert world.everywhere() == Counter(range(5))
    assert view == again
    assert view.marks[0].next == 5
    assert view.metadata_location.startswith(f"{world.warehouse_url}/{world.collection.team}/")
    assert world.collection in world.lake.collections()


@engines
def test_single_payloads_and_older_metadata_are_read(world: World) -> None:
    """The catalog's own properties do not say how files are reached; searches and merges ask."""
    log = world.log(*numbered(3))
    view = world.land(log)
    fresh = opened(f"rest+{REST}", world.warehouse_url)
    listing = Listing(fresh)

    files = listing.files(view)

    assert files is not None
    assert [listing.payloads(file, range(file.rows)) for file in files] == [
        [payload.encode() for payload in numbered(3)]
    ]


@engines
def test_a_commit_that_meets_nobody_is_unavailable(world: World) -> None:
    """Landing waits for it then, and does not report a fault of its own."""
    log = world.log(*numbered(2))
    view = world.lake.create(world.collection)
    with Proxy(REST_PORT) as proxy:
        lake = opened(f"rest+http://127.0.0.1:{proxy.port}", world.warehouse_url)

        def cut(_number: int) -> None:
            proxy.cut_before(b"POST /v1/")

        unheard = Lake(Tampered(lake.catalog, before=cut), HASTY)  # type: ignore[arg-type]  # a stand-in
        with pytest.raises(EngineUnavailable):
            put(unheard, batch_of(log, view))

        assert proxy.cuts == 3
    assert world.everywhere() == Counter()


@engines
def test_two_who_land_the_same_span_land_it_once(world: World) -> None:
    """The server refuses the second by what is standard: branch, schema, table."""
    log = world.log(*numbered(4))
    view = world.lake.create(world.collection)
    batch = batch_of(log, view)

    def overtake(number: int) -> None:
        if number == 1:
            put(world.lake, batch_of(log, view))

    between = Tampered(world.lake.catalog, before=overtake)
    answer = put(Lake(between, HASTY), batch)  # type: ignore[arg-type]  # a stand-in

    assert isinstance(answer, Committed)
    assert not answer.here
    assert world.everywhere() == Counter(range(4))


@engines
@pytest.mark.parametrize("error", [CommitFailedException("met another"), OSError("cut")])
def test_a_commit_that_landed_and_was_reported_as_failed_is_made_once(
    world: World, error: Exception
) -> None:
    """The table tells, whatever the server's answer was."""
    log = world.log(*numbered(4))
    view = world.lake.create(world.collection)

    def lost(_number: int) -> None:
        raise error

    between = Tampered(world.lake.catalog, after=lost)
    put(Lake(between, HASTY), batch_of(log, view))  # type: ignore[arg-type]  # a stand-in

    assert world.everywhere() == Counter(range(4))


@engines
def test_landings_beside_compaction_double_and_lose_nothing(world: World) -> None:
    """Two landings of one log and a compaction, all at once."""
    log = world.log()
    for n in range(24):
        append(log, f'{{"n": {n}, "f{n % 5}": 1}}', collection=world.collection)
    world.lake.create(world.collection)
    failures: list[Exception] = []
    over = threading.Event()

    def act(what) -> None:
        try:
            what(opened(f"rest+{REST}", world.warehouse_url))
        except Exception as failure:  # noqa: BLE001 - told below
            failures.append(failure)

    def lands(lake: Lake) -> None:
        view = lake.view(world.collection)
        while view is not None and view.mark(log.log_id(world.collection), 0).next < 24:
            start = view.mark(log.log_id(world.collection), 0).next
            put(lake, batch_of(log, view, upto=min(start + 3, 24)))
            view = lake.view(world.collection)

    def merges(lake: Lake) -> None:
        while not over.is_set():
            compact(
                lake,
                main_table(world.collection),
                below=1 << 20,
                new_name=lambda: fresh_name("merged"),
                fewest=2,
            )

    threads = [threading.Thread(target=act, args=(what,)) for what in (lands, lands, merges)]
    for thread in threads:
        thread.start()
    for thread in threads[:2]:
        thread.join(120)
    over.set()
    threads[2].join(60)

    assert not failures
    assert world.everywhere() == Counter(range(24))


@engines
def test_expiry_announces_and_waits_for_who_is_pinning(world: World) -> None:
    """The server would drop a tag with its snapshot, and says nothing."""
    name = main_table(world.collection)
    log = world.log(*numbered(1))
    old = world.land(log).snapshot_id or 0
    append(log, *numbered(1, 1), collection=world.collection)
    pinned = world.land(log).snapshot_id or 0
    append(log, *numbered(1, 2), collection=world.collection)
    world.land(log)
    # Whoever loaded the table before the announcement may still pin.
    early = Lake(world.lake.catalog, HASTY)
    table = early.table(name)

    assert expire(world.lake, name, keep=1, clock=lambda: NOON) == 0
    with pytest.raises(NotFound):
        world.lake.pin(world.collection, old, "late")
    early.table = lambda _name: table  # type: ignore[method-assign]  # what it loaded
    early.pin(world.collection, pinned, "in time")
    assert expire(world.lake, name, keep=1, clock=lambda: NOON + LEAD - 1) == 0
    assert expire(world.lake, name, keep=1, clock=lambda: NOON + LEAD) == 1

    assert world.lake.pins(world.collection) == {"in time": pinned}
    after = world.lake.table(name)
    assert after is not None
    assert after.metadata.snapshot_by_id(old) is None
    assert after.metadata.snapshot_by_id(pinned) is not None
    assert expire(world.lake, name, keep=1, clock=lambda: NOON + 9 * LEAD) == 0
    world.lake.unpin(world.collection, "in time")


@engines
def test_a_catalog_that_went_away_is_used_again_when_it_is_back(world: World) -> None:
    """Without a restart."""
    log = world.log(*numbered(2))
    with Proxy(REST_PORT) as proxy:
        lake = opened(f"rest+http://127.0.0.1:{proxy.port}", world.warehouse_url)
        view = lake.create(world.collection)
        proxy.refuse()
        for ask in (lambda: lake.view(world.collection), lake.collections):
            with pytest.raises(EngineUnavailable):
                ask()
        proxy.accept()
        put(lake, batch_of(log, view))

    assert world.everywhere() == Counter(range(2))


@engines
def test_the_servers_word_on_how_files_are_reached_does_not_count(world: World) -> None:
    """A server that could name a class or a store would read every file's bytes."""
    io = world.lake.catalog._load_file_io({"py-io-impl": "os.system", "s3.endpoint": "http://x"})

    assert type(io).__name__ == "S3Files"
    assert S3_SECRET not in str(io.properties)


def test_a_server_that_is_away_is_unavailable_and_no_secret_is_said() -> None:
    """PyIceberg's sentences may repeat what was sent."""
    with pytest.raises(EngineUnavailable) as refusal:
        open_lake(f"rest+http://id:hush@127.0.0.1:{free_port()}/x", "s3://bucket/x", STORE)

    assert "hush" not in str(refusal.value)
    assert refusal.value.__suppress_context__


def test_a_parameter_that_is_not_known_is_refused() -> None:
    """PyIceberg would take it for a setting of something else."""
    with pytest.raises(BadSetting, match="warehose"):
        open_lake("rest+https://host?warehose=x", "s3://bucket/x", STORE)
