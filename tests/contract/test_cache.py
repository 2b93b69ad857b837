"""What every cache promises. A new kind joins by one line in `URLS`."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import structlog
from builders import NOON
from certificates import make_certificates
from engines.etcd import Etcd
from engines.fresh import fresh_name
from engines.places import ETCD, HOST
from metadata_builders import collection, known, token
from own_engines import own_engine
from secured import SecuredEtcd, example, keys_of

from penstock.api.publishing import Publisher
from penstock.cache import Access, Cache, cache_of, open_cache
from penstock.cache.embedded import EmbeddedCache
from penstock.cache.etcd import COPY_LASTS, EtcdCache
from penstock.cache.gateway import Gateway, text
from penstock.envelope import CollectionId
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata.records import Known
from penstock.metadata.store import open_store
from penstock.settings import load_settings

URLS: dict[str, Callable[[Path], str]] = {
    "embedded": lambda folder: f"embedded://{folder / 'cache'}",
    "etcd": lambda _folder: f"{ETCD.replace('http', 'etcd')}/{fresh_name('cache')}",
}
KINDS = [pytest.param("embedded"), pytest.param("etcd", marks=pytest.mark.engines)]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    url = URLS[request.param](tmp_path)
    yield url
    if request.param == "etcd":  # it is everybody's, and keeps what it is given
        prefix = urlsplit(url).path.strip("/")
        keys = {"key": text(f"{prefix}/".encode()), "range_end": text(f"{prefix}0".encode())}
        gateway = Gateway([ETCD], Access())
        gateway.call("kv/deleterange", keys)
        gateway.close()


@pytest.fixture
def another(url: str) -> Iterator[Callable[[], Cache]]:
    """Open the cache as another process does."""
    opened: list[Cache] = []

    def open_one() -> Cache:
        opened.append(open_cache(url))
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(another: Callable[[], Cache]) -> Cache:
    return another()


def soon(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Say whether it becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def big(version: int) -> Known:
    """Answer something to know that takes more than one write to disk."""
    tokens = tuple(token(number) for number in range(1, 300))
    return Known(version=version, collections=(collection(),), tokens=tokens)


def test_a_cache_that_was_never_written_knows_nothing(cache: Cache) -> None:
    assert cache.read() is None


def test_what_was_published_is_read_by_everyone(cache: Cache, another: Callable[[], Cache]) -> None:
    what = known(7, tokens=(token(1, collection="flights", expires_at=NOON),))
    cache.publish(lambda: what)

    assert cache.read() == what
    assert another().read() == what


def test_the_last_one_published_counts_also_with_a_lower_version(cache: Cache) -> None:
    """A restored database counts from an older version; doors must follow it."""
    cache.publish(lambda: known(7))
    cache.read()
    cache.publish(lambda: known(3))

    assert cache.read() == known(3)


def test_reading_again_costs_nothing_while_nothing_changed(cache: Cache) -> None:
    cache.publish(known)

    assert cache.read() is cache.read()


def test_what_is_published_twice_is_nothing_new(cache: Cache, another: Callable[[], Cache]) -> None:
    """Making tens of thousands of tokens ready again costs doors what requests need."""
    reader = another()
    cache.publish(lambda: known(1, tokens=(token(1),)))
    first = reader.read()
    another().publish(lambda: known(1, tokens=(token(1),)))
    here = another()
    here.publish(lambda: known(1, tokens=(token(1),)))

    assert here.read() == first
    assert not soon(lambda: reader.read() is not first, seconds=0.5)


def test_a_reader_sees_one_whole_publication_whatever_is_being_written(
    cache: Cache, another: Callable[[], Cache]
) -> None:
    """A door that reads half of one would forget tokens and refuse good senders."""
    cache.publish(lambda: big(0))
    stop = threading.Event()
    versions = iter(range(1, 1_000_000))

    def publish(mine: Cache) -> None:
        while not stop.is_set():
            mine.publish(lambda: big(next(versions)))

    writers = [threading.Thread(target=publish, args=(another(),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = set()
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 20 and time.monotonic() < deadline:
            read = another().read()
            assert read is not None
            assert len(read.tokens) == 299
            seen.add(read.version)
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert len(seen) >= 20


def huge(*, without: int | None = None) -> Known:
    """Answer more than etcd takes in one value, and more than it has operations for."""
    return Known(
        version=1,
        collections=tuple(
            collection(CollectionId("main", f"c{number}")) for number in range(20_000)
        ),
        tokens=tuple(
            msgspec.structs.replace(
                token(1), id=f"{number:016x}", digest=f"{number:064x}", name=f"sender {number}"
            )
            for number in range(50_000)
            if number != without
        ),
    )


def test_as_many_tokens_as_anybody_has_are_read_whole_and_one_of_them_goes(
    cache: Cache, another: Callable[[], Cache]
) -> None:
    """50,000 tokens are 15 MB."""
    reader = another()
    cache.publish(huge)
    assert soon(lambda: reader.read() == huge())

    cache.publish(lambda: huge(without=33_333))

    assert soon(lambda: reader.read() == huge(without=33_333))
    assert another().read() == huge(without=33_333)


def test_of_two_publishers_the_one_that_asked_last_counts(
    cache: Cache, another: Callable[[], Cache]
) -> None:
    """A platform that was slow between asking and publishing must not revive a revoked token."""
    asking, go_on = threading.Event(), threading.Event()
    truth = [known(1, tokens=(token(1),))]

    def ask_slowly() -> Known:
        answer = truth[0]
        asking.set()
        go_on.wait(5)
        return answer

    slow = threading.Thread(target=another().publish, args=(ask_slowly,))
    slow.start()
    asking.wait(5)
    truth[0] = known(2)
    quick = threading.Thread(target=another().publish, args=(lambda: truth[0],))
    quick.start()
    quick.join(0.5)  # the embedded one waits for its turn, etcd's lets it pass
    go_on.set()
    slow.join()
    quick.join()

    assert soon(lambda: cache.read() == known(2))


class TestDoors:
    def test_a_door_says_what_it_goes_by(self, cache: Cache, another: Callable[[], Cache]) -> None:
        """Who revokes a token asks which doors refuse it by now."""
        door = another()
        assert cache.doors() == {}
        cache.publish(lambda: known(1))
        door.read()
        door.seen("hübsch:8080")
        assert soon(lambda: dict(cache.doors()) == {"hübsch:8080": True})

        cache.publish(lambda: known(2))
        assert dict(cache.doors()) == {"hübsch:8080": False}

        assert soon(lambda: door.read() == known(2))
        door.seen("hübsch:8080")
        assert soon(lambda: dict(cache.doors()) == {"hübsch:8080": True})

    def test_a_door_that_says_nothing_any_more_is_not_counted(self, cache: Cache, url: str) -> None:
        """It is gone; nobody would ever get an answer from it."""
        cache.publish(known)
        door = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", DOOR, url], stdout=subprocess.PIPE, text=True
        )
        assert door.stdout is not None
        assert door.stdout.readline() == "said\n"
        counted = soon(lambda: dict(cache.doors()) == {"d": True})
        door.kill()
        door.communicate()

        assert counted
        assert soon(lambda: not cache.doors(), seconds=30.0)

    def test_a_listener_is_called_or_finds_out_when_it_looks(
        self, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        reader = another()
        news = threading.Event()
        cache.publish(lambda: known(1))
        reader.read()
        reader.listen(news.set)
        cache.publish(lambda: known(2))

        assert soon(lambda: reader.read() == known(2))
        assert news.is_set() or isinstance(reader, EmbeddedCache)


DOOR = """
import sys, time
from penstock.cache import open_cache
cache = open_cache(sys.argv[1])
cache.read()
cache.seen("d")
print("said", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "url",
    ["redis://localhost", "etcd:///no-host", "etcd://user:hidden@localhost:2379/penstock"],
)
def test_an_address_that_cannot_be_used_is_told_at_once(url: str) -> None:
    with pytest.raises(BadSetting, match="cache_url") as told:
        open_cache(url)

    assert "hidden" not in str(told.value)


class TestEmbedded:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Cache:
        return open_cache(f"embedded://{tmp_path / 'cache'}")

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "known.json"

    def test_only_this_user_may_read_it_and_nothing_is_left_beside_it(
        self, cache: Cache, file: Path
    ) -> None:
        cache.publish(known)
        cache.publish(lambda: known(2))

        assert [f.name for f in file.parent.iterdir()] == ["known.json"]
        assert file.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize(
        "garbage",
        [b"", b"{", b'{"format": 99, "known": {}}', b'{"format": 1, "known": 5}', b"\xff"],
    )
    def test_a_door_that_knew_something_goes_on_with_it(
        self, cache: Cache, file: Path, garbage: bytes
    ) -> None:
        cache.publish(lambda: known(4))
        cache.read()
        file.write_bytes(garbage)

        assert cache.read() == known(4)
        cache.publish(lambda: known(5))
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
        cache.publish(lambda: known(1))
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
        cache.publish(lambda: known(1))
        file.parent.rename(file.parent.with_name("kept"))
        file.parent.write_text("a file where the folder was")

        with pytest.raises(EngineUnavailable, match="cannot be written"):
            cache.publish(lambda: known(2))

        file.parent.unlink()
        file.parent.with_name("kept").rename(file.parent)
        assert cache.read() == known(1)


@pytest.mark.engines
@pytest.mark.xdist_group("own engines")
class TestEtcdAway:
    """What holds while no member answers."""

    @pytest.fixture
    def etcd(self, tmp_path: Path) -> Iterator[Etcd]:
        with own_engine(Etcd, tmp_path) as etcd:
            yield etcd

    @pytest.fixture
    def url(self, etcd: Etcd) -> str:
        return f"etcd://{HOST}:{etcd.port}/ünï/code"

    def test_a_reader_goes_on_and_follows_again(
        self, etcd: Etcd, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        reader = another()
        cache.publish(lambda: known(1))
        first = reader.read()
        etcd.stop()
        with pytest.raises(EngineUnavailable, match="does not answer"):
            cache.publish(lambda: known(2))
        assert reader.read() is first

        etcd.start()
        cache.publish(lambda: known(3))

        assert soon(lambda: reader.read() == known(3), seconds=2.0)

    def test_a_member_that_hangs_is_noticed(
        self, etcd: Etcd, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        """Its connections are open, and nothing comes over them."""
        reader = another()
        cache.publish(lambda: known(1))
        first = reader.read()
        etcd.pause()
        try:
            with pytest.raises(EngineUnavailable):
                cache.publish(lambda: known(2))
            assert reader.read() is first
        finally:
            etcd.resume()
        cache.publish(lambda: known(3))

        assert soon(lambda: reader.read() == known(3), seconds=reader.lag)

    def test_who_starts_meanwhile_starts_from_the_copy(
        self, etcd: Etcd, cache: Cache, url: str, tmp_path: Path
    ) -> None:
        """A door whose machine was started anew must not refuse everybody until etcd is back."""
        copy = tmp_path / "copy"
        cache.publish(lambda: known(1, tokens=(token(1),)))
        door = open_cache(url, copy=copy)
        door.read()
        door.close()
        etcd.stop()

        with structlog.testing.capture_logs():
            again = open_cache(url, copy=copy)
            assert again.read() == known(1, tokens=(token(1),))
            with pytest.raises(EngineUnavailable):
                open_cache(url, copy=tmp_path / "none").read()
            etcd.start()
            cache.publish(lambda: known(2))

            assert soon(lambda: again.read() == known(2), seconds=2.0)
        again.close()

    def test_a_copy_that_nobody_confirmed_for_long_is_not_started_from(
        self, etcd: Etcd, cache: Cache, url: str, tmp_path: Path
    ) -> None:
        """Whoever was revoked since could send again."""
        copy = tmp_path / "copy"
        cache.publish(lambda: known(1, tokens=(token(1),)))
        door = open_cache(url, copy=copy)
        door.read()
        door.close()
        etcd.stop()
        long_ago = time.time() - COPY_LASTS - 60
        os.utime(copy / "known.json", (long_ago, long_ago))

        with structlog.testing.capture_logs(), pytest.raises(EngineUnavailable):
            open_cache(url, copy=copy).read()

    def test_an_emptied_etcd_is_told_as_empty_and_filled_again(
        self, etcd: Etcd, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        """The platform would wait for ever for a change that it has published already."""
        reader = another()
        for version in (1, 2, 3):
            cache.publish(lambda version=version: known(version))  # type: ignore[misc]  # bound at once
        reader.read()
        etcd.wipe()
        etcd.start()
        assert soon(lambda: reader.read() is None)
        assert soon(lambda: cache.read() is None)

        cache.publish(lambda: known(3))

        assert soon(lambda: reader.read() == known(3))

    def test_another_member_is_asked(
        self, etcd: Etcd, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        cache.publish(known)
        for first in ("127.0.0.1:9", f"{HOST}:{etcd.port}"):
            several = open_cache(f"etcd://{first},127.0.0.1:9,{HOST}:{etcd.port}/ünï/code")
            assert several.read() == known()
            several.publish(known)
            several.close()

    def test_a_revision_that_was_compacted_is_no_trouble(
        self, etcd: Etcd, cache: Cache, another: Callable[[], Cache]
    ) -> None:
        """Who was away for long watches from a revision that etcd has forgotten."""
        reader = another()
        cache.publish(lambda: known(1))
        reader.read()
        etcd.pause()
        etcd.resume()
        gateway = Gateway([f"http://{HOST}:{etcd.port}"], Access())
        with structlog.testing.capture_logs() as lines:
            for version in range(2, 40):
                cache.publish(lambda version=version: known(version))  # type: ignore[misc]  # bound at once
                revision = gateway.call("kv/range", {"key": text(b"x")})["header"]["revision"]
                gateway.call("kv/compaction", {"revision": revision, "physical": True})
            # The watch itself: from a revision that is gone it ends at once.
            begun = time.monotonic()
            gateway.wait_for_change("ünï/code/known".encode(), 2, silence=20.0)

            assert time.monotonic() - begun < 10.0
            assert soon(lambda: reader.read() == known(39))
        assert [line for line in lines if line["log_level"] != "info"] == []
        gateway.close()

    def test_parts_that_nobody_names_any_more_are_gone(self, etcd: Etcd, cache: Cache) -> None:
        """Else etcd would be full one day, and take nothing more from anybody."""
        cache.publish(huge)
        for number in range(3):
            cache.publish(lambda number=number: huge(without=number))  # type: ignore[misc]  # bound at once
        assert isinstance(cache, EtcdCache)
        head = cache._read_head()[1]
        assert head is not None

        assert set(cache._names()) == head.names()

    def test_users_are_asked_for_their_password(self, etcd: Etcd, tmp_path: Path) -> None:
        gateway = Gateway([f"http://{HOST}:{etcd.port}"], Access())
        for path, body in (
            ("auth/user/add", {"name": "root", "password": "hidden"}),
            ("auth/user/grant", {"user": "root", "role": "root"}),
            ("auth/enable", {}),
        ):
            gateway.call(path, body)
        url = f"etcd://{HOST}:{etcd.port}/penstock"
        with structlog.testing.capture_logs() as lines:
            for access in (None, Access(user="root", password="wrong-one")):
                stranger = open_cache(url, access=access)
                with pytest.raises(EngineUnavailable, match="etcd refuses"):
                    stranger.read()
                with pytest.raises(EngineUnavailable, match="etcd refuses"):
                    stranger.publish(known)
                stranger.close()
        known_here = open_cache(url, access=Access(user="root", password="hidden"))
        known_here.publish(lambda: known(1))
        assert known_here.read() == known(1)
        # Its token ends with the member that gave it.
        etcd.stop()
        etcd.start()
        known_here.publish(lambda: known(2))

        assert known_here.read() == known(2)
        assert "wrong-one" not in str(lines)
        assert "hidden" not in repr(Access(user="root", password="hidden"))
        known_here.close()
        gateway.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEtcd]:
    with own_engine(SecuredEtcd, tmp_path_factory.mktemp("secured")) as etcd:
        yield etcd


def secured_cache(etcd: SecuredEtcd, home: Path, **instead: str) -> Cache:
    """Open the cache of a home that is set up as the page says, but for these parts."""
    keys = keys_of(etcd.run)
    parts = {
        "etcd+https": "etcd+https",
        "etcd-1.example:2379": f"{HOST}:{etcd.port}",
        "/etc/penstock/ca.pem": str(keys / "ca.pem"),
        "/etc/penstock/penstock.pem": str(keys / "client.pem"),
        "/etc/penstock/penstock.key": str(keys / "client.key"),
        'cache_user = "penstock"\n': "",  # this one lets in who has a certificate
    }
    home.mkdir(exist_ok=True)
    (home / "penstock.toml").write_text(example("cache_url", {**parts, **instead}))
    return cache_of(load_settings(home, {}))


@pytest.mark.engines
@pytest.mark.xdist_group("own engines")
def test_certificates_are_shown_and_checked(secured: SecuredEtcd, tmp_path: Path) -> None:
    """What doors know opens them: it must not be read, or changed, on its way."""
    make_certificates(tmp_path / "stranger")
    theirs = {
        "/etc/penstock/penstock.pem": str(tmp_path / "stranger" / "client.pem"),
        "/etc/penstock/penstock.key": str(tmp_path / "stranger" / "client.key"),
    }
    strangers = {
        "see cache_ca": {"/etc/penstock/ca.pem": str(tmp_path / "stranger" / "ca.pem")},
        "see cache_certificate and cache_key": theirs,
        "with TLS cache_url begins with": {"etcd+https": "etcd"},
    }
    with structlog.testing.capture_logs():
        for told, instead in strangers.items():
            refused = secured_cache(secured, tmp_path / "home", **instead)
            with pytest.raises(EngineUnavailable, match=told):
                refused.publish(known)
            refused.close()
        cache = secured_cache(secured, tmp_path / "home")
        cache.publish(known)

        assert cache.read() == known()
        cache.close()
    with pytest.raises(BadSetting, match="certificates"):
        secured_cache(
            secured, tmp_path / "home", **{"/etc/penstock/ca.pem": str(tmp_path / "none.pem")}
        )


@pytest.mark.engines
def test_an_etcd_without_tls_is_told(tmp_path: Path) -> None:
    """The other way round."""
    url = ETCD.replace("http", "etcd+https")
    cache = open_cache(url)
    with pytest.raises(EngineUnavailable, match="etcd://"):
        cache.publish(known)
    cache.close()


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        ("etcd", "with TLS cache_url begins with"),
        ("etcd+https", "see cache_certificate and cache_key"),
    ],
)
def test_who_hangs_up_without_a_word_may_have_wanted_tls_or_a_certificate(
    scheme: str, told: str, tmp_path: Path
) -> None:
    """A reset takes away what was said before it: an answer in plain text, an alert in TLS."""
    keys = tmp_path / "keys"
    make_certificates(keys)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(keys / "server.pem", keys / "server.key")
    with socket.create_server((HOST, 0)) as server:
        secure = scheme.endswith("https")
        thread = threading.Thread(target=hang_up, args=(server, trust if secure else None))
        thread.start()
        port = server.getsockname()[1]
        cache = open_cache(f"{scheme}://{HOST}:{port}", access=Access(ca=keys / "ca.pem"))
        with pytest.raises(EngineUnavailable, match=told):
            cache.publish(known)
        cache.close()
        thread.join()


def hang_up(server: socket.socket, trust: ssl.SSLContext | None) -> None:
    """Take one connection, with TLS or without, read some, and reset it."""
    raw, _ = server.accept()
    with trust.wrap_socket(raw, server_side=True) if trust else raw as taken:
        taken.recv(1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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
    cache: Cache, another: Callable[[], Cache], tmp_path: Path
) -> None:
    """A cache that was restored holds an older one; doors must not keep it."""
    store = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    publisher = Publisher(store, cache)
    store.add_token(token(1))
    older = store.known()
    store.revoke_token("main", "t1", NOON)
    publisher.publish()
    another().publish(lambda: older)
    assert soon(lambda: cache.read() == older)

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

    assert cache.read() == known(store.asked)
