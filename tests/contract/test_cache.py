"""What every cache promises. A new kind joins by one line in `URLS`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import NOON
from metadata_builders import collection, known, token

from penstock.api.publishing import Publisher
from penstock.cache import Cache, open_cache
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata.records import Known
from penstock.metadata.store import open_store

URLS: dict[str, Callable[[Path], str]] = {
    "embedded": lambda folder: f"embedded://{folder / 'cache'}",
}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return URLS[request.param](tmp_path)


@pytest.fixture
def cache(url: str) -> Cache:
    return open_cache(url)


def big(version: int) -> Known:
    """Answer something to know that takes more than one write to disk."""
    tokens = tuple(token(number) for number in range(1, 300))
    return Known(version=version, collections=(collection(),), tokens=tokens)


def test_a_cache_that_was_never_written_knows_nothing(cache: Cache) -> None:
    assert cache.read() is None


def test_what_was_published_is_read_by_everyone(cache: Cache, url: str) -> None:
    what = known(7, tokens=(token(1, collection="flights", expires_at=NOON),))
    cache.publish(what)

    assert cache.read() == what
    assert open_cache(url).read() == what


def test_the_last_one_published_counts_also_with_a_lower_version(cache: Cache) -> None:
    """A restored database counts from an older version; doors must follow it."""
    cache.publish(known(7))
    cache.read()
    cache.publish(known(3))

    assert cache.read() == known(3)


def test_reading_again_costs_nothing_while_nothing_changed(cache: Cache) -> None:
    cache.publish(known())

    assert cache.read() is cache.read()


def test_a_reader_sees_one_whole_publication_whatever_is_being_written(
    cache: Cache, url: str
) -> None:
    """A door that reads half a file would forget tokens and refuse good senders."""
    cache.publish(big(0))
    stop = threading.Event()

    def publish() -> None:
        mine = open_cache(url)
        version = 1
        while not stop.is_set():
            mine.publish(big(version))
            version += 1

    writers = [threading.Thread(target=publish) for _ in range(2)]
    for writer in writers:
        writer.start()
    versions = set()
    try:
        deadline = time.monotonic() + 20
        while len(versions) < 20 and time.monotonic() < deadline:
            seen = open_cache(url).read()
            assert seen is not None
            assert len(seen.tokens) == 299
            versions.add(seen.version)
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert len(versions) >= 20


def test_only_one_url_scheme_is_known() -> None:
    with pytest.raises(BadSetting, match="embedded:///folder"):
        open_cache("etcd://localhost")


class TestEmbedded:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "known.json"

    def test_only_this_user_may_read_it_and_nothing_is_left_beside_it(
        self, cache: Cache, file: Path
    ) -> None:
        cache.publish(known())
        cache.publish(known(2))

        assert [f.name for f in file.parent.iterdir()] == ["known.json"]
        assert file.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        "garbage",
        [b"", b"{", b'{"format": 99, "known": {}}', b'{"format": 1, "known": 5}', b"\xff"],
    )
    def test_a_door_that_knew_something_goes_on_with_it(
        self, cache: Cache, file: Path, garbage: bytes
    ) -> None:
        cache.publish(known(4))
        cache.read()
        file.write_bytes(garbage)

        assert cache.read() == known(4)
        cache.publish(known(5))
        assert cache.read() == known(5)

    def test_a_door_that_knew_nothing_says_what_is_wrong(self, cache: Cache, file: Path) -> None:
        """It must not start as if there were no tokens at all."""
        file.parent.mkdir()
        file.write_bytes(
            b'{"format": 99, "known": {"version": 1, "collections": [], "tokens": []}}'
        )

        with pytest.raises(EngineUnavailable, match="format 99"):
            cache.read()

    def test_a_file_that_cannot_be_read_is_looked_into_once(self, cache: Cache, file: Path) -> None:
        """Every refused request asks the cache; megabytes of garbage must not be read each time."""
        cache.publish(known(1))
        good = file.read_bytes()
        file.write_bytes(b"x" * len(good))
        written = file.stat().st_mtime_ns
        with pytest.raises(EngineUnavailable):
            cache.read()

        file.write_bytes(good)
        os.utime(file, ns=(written, written))
        with pytest.raises(EngineUnavailable):
            cache.read()

        os.utime(file, ns=(written, written + 1))
        assert cache.read() == known(1)

    def test_a_cache_that_cannot_be_written_says_so_and_keeps_the_last(
        self, cache: Cache, file: Path
    ) -> None:
        cache.publish(known(1))
        file.parent.rename(file.parent.with_name("kept"))
        file.parent.write_text("a file where the folder was")

        with pytest.raises(EngineUnavailable, match="cannot be written"):
            cache.publish(known(2))

        file.parent.unlink()
        file.parent.with_name("kept").rename(file.parent)
        assert cache.read() == known(1)


WATCH = """
import sys, time
from penstock.cache import open_cache
cache = open_cache(sys.argv[1])
assert len(cache.read().tokens) == 1
print("ready", flush=True)
while cache.read().tokens:
    time.sleep(0.05)
print("gone", flush=True)
"""


def test_a_door_forgets_a_revoked_token_within_a_second(
    cache: Cache, url: str, tmp_path: Path
) -> None:
    """Until then whoever stole the token can go on sending."""
    store = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    publisher = Publisher(store, cache)
    store.create_collection(collection(), token(1))
    publisher.publish()
    door = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WATCH, url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert door.stdout is not None
        assert door.stdout.readline() == "ready\n"
        begun = time.monotonic()
        store.revoke_token("main", "t1", NOON)
        publisher.publish()
        assert door.stdout.readline() == "gone\n"
        assert time.monotonic() - begun < 1.0
    finally:
        door.kill()
        door.communicate()
        store.close()


def test_a_change_made_elsewhere_is_caught_up_with(cache: Cache, tmp_path: Path) -> None:
    """The command line makes tokens too; doors learn of them from the platform all the same."""
    store = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    publisher = Publisher(store, cache)
    publisher.catch_up()
    first = cache.read()
    store.add_token(token(1))
    publisher.catch_up()
    second = cache.read()
    publisher.catch_up()
    store.close()

    assert first is not None
    assert second is not None
    assert (first.tokens, second.tokens) == ((), (token(1),))
    assert cache.read() is second


def test_an_older_state_published_by_another_process_is_put_right(
    cache: Cache, url: str, tmp_path: Path
) -> None:
    """Two processes that publish at once may leave the older one; doors must not keep it."""
    store = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    publisher = Publisher(store, cache)
    store.add_token(token(1))
    older = store.known()
    store.revoke_token("main", "t1", NOON)
    publisher.publish()
    open_cache(url).publish(older)

    publisher.catch_up()
    expected = store.known()
    store.close()

    assert cache.read() == expected
    assert expected.tokens == ()


class HesitantStore:
    """Knows a newer version each time, and is slow to tell the first one."""

    def __init__(self) -> None:
        self.asked = 0
        self.second_published = threading.Event()

    def known(self) -> Known:
        self.asked += 1
        mine = self.asked
        if mine == 1:
            self.second_published.wait(0.3)
        return known(mine)

    def version(self) -> int:
        return self.asked


def test_an_older_answer_is_never_published_after_a_newer_one(cache: Cache) -> None:
    """Else a revoked token could come back to life in the doors."""
    store = HesitantStore()
    publisher = Publisher(store, cache)
    first = threading.Thread(target=publisher.publish)
    first.start()
    while not store.asked:
        time.sleep(0.001)
    publisher.publish()
    store.second_published.set()
    first.join()

    assert cache.read() == known(2)
