"""What every metadata store promises. A new kind joins by one line in `KINDS`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from engines.fresh import fresh_database
from metadata_builders import (
    KEYS,
    collection,
    destination,
    replay,
    saved_search,
    session,
    token,
)
from msgspec.structs import replace
from sqlalchemy import select, update

from penstock.envelope import CollectionId
from penstock.errors import AlreadyExists, BadRequest, KeyMissing, NotFound, WrongState
from penstock.metadata.database import reading, writing
from penstock.metadata.keys import NO_KEYS, Key, Keyring
from penstock.metadata.records import (
    Destination,
    Known,
    Lease,
    RegistrySecret,
    ReplayRecord,
    SchemaVersion,
)
from penstock.metadata.store import KeyNeeded, Store, open_store
from penstock.metadata.tables import destinations, format_schemas, registry_secrets
from penstock.schema.formats import Format

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.engines)]

SECOND = 1_000_000
OTHERS = CollectionId("rivals", "flights")


NewUrl = Callable[[], str]


@pytest.fixture(params=KINDS)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewUrl]:
    """Answer addresses of databases that are empty."""
    with ExitStack() as stack:
        numbers = count()

        def sqlite() -> str:
            return f"sqlite:///{tmp_path / 'home' / f'metadata-{next(numbers)}.db'}"

        def postgresql() -> str:
            return stack.enter_context(fresh_database())

        yield {"sqlite": sqlite, "postgresql": postgresql}[request.param]


@pytest.fixture
def url(new_url: NewUrl) -> str:
    return new_url()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url, KEYS)
    yield opened
    assert opened._engine.pool.checkedout() == 0, "a connection was not given back"
    opened.close()


def at_once(count: int, work: Callable[[int], object]) -> list[object]:
    """Answer what `work` answered in so many threads that begin together."""
    together = threading.Barrier(count)

    def begin(number: int) -> object:
        together.wait(10)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


class TestCollections:
    def test_a_collection_is_answered_as_it_was_made(self, store: Store) -> None:
        made = replace(collection(), allow_loops=True)
        store.create_collection(made)

        assert store.collection(FLIGHTS) == made
        with pytest.raises(NotFound, match=r"main\.trains"):
            store.collection(CollectionId("main", "trains"))

    def test_a_name_is_taken_once_in_a_team(self, store: Store) -> None:
        store.create_collection(collection())
        store.create_collection(collection(OTHERS))

        with pytest.raises(AlreadyExists):
            store.create_collection(collection())
        assert [c.id for c in store.collections()] == [FLIGHTS, OTHERS]
        assert [c.id for c in store.collections("rivals")] == [OTHERS]

    def test_a_refused_collection_leaves_no_token(self, store: Store) -> None:
        """A token nobody was shown would be one that nobody revokes."""
        store.create_collection(collection())
        before = store.known()

        with pytest.raises(AlreadyExists):
            store.create_collection(collection(), token(1))

        assert store.known() == before
        assert store.tokens("main") == []

    def test_pausing_holds_until_it_is_undone(self, store: Store) -> None:
        store.create_collection(collection())

        assert store.set_paused(FLIGHTS, True).paused
        assert store.collection(FLIGHTS).paused
        assert not store.set_paused(FLIGHTS, False).paused
        assert not store.collection(FLIGHTS).paused
        with pytest.raises(NotFound):
            store.set_paused(OTHERS, True)

    def test_partitions_are_kept_and_told_to_doors(self, store: Store) -> None:
        store.create_collection(collection(partitions=2))
        before = store.version()

        assert store.collection(FLIGHTS).partitions == 2
        assert store.set_partitions(FLIGHTS, 4).partitions == 4
        assert store.known().collections[0].partitions == 4
        assert store.version() > before
        with pytest.raises(NotFound):
            store.set_partitions(OTHERS, 2)

    def test_a_contract_that_changes_is_in_the_history_once(self, store: Store) -> None:
        """With it and not beside it: the history must not say what did not happen."""
        store.create_collection(collection())

        assert store.set_contract(FLIGHTS, "freeze", NOON).contract == "freeze"
        assert store.set_contract(FLIGHTS, "freeze", NOON + 1).contract == "freeze"
        assert store.collection(FLIGHTS).contract == "freeze"
        change = {"path": "", "what": "contract", "before": "evolve", "type": "freeze"}
        assert store.schema_versions(FLIGHTS) == [
            SchemaVersion(
                collection=FLIGHTS, version=1, at=NOON, changes=({**change, "event_id": None},)
            )
        ]
        with pytest.raises(NotFound):
            store.set_contract(OTHERS, "freeze", NOON)

    def test_the_format_of_payloads_is_kept_and_told_to_doors(self, store: Store) -> None:
        store.create_collection(replace(collection(), format=Format(name="plain")))
        before = store.version()

        assert store.collection(FLIGHTS).format == Format(name="plain")
        changed = Format(name="json", changed_at=NOON)
        assert store.set_format(FLIGHTS, changed).format == changed
        assert store.known().collections[0].format == changed
        assert store.version() > before
        with pytest.raises(NotFound):
            store.set_format(OTHERS, changed)

    def test_what_a_format_needs_is_kept_by_its_digest(self, store: Store) -> None:
        """Events that landed are not read again, and yet an older one may come back."""
        first = Format(name="protobuf", schema="d1", message="a.B")
        second = replace(first, schema="d2")
        store.create_collection(replace(collection(), format=first), schema=b"\x00one")

        store.set_format(FLIGHTS, second, schema=b"two\xff")
        store.set_format(FLIGHTS, replace(second, message="a.C"))
        store.set_format(FLIGHTS, first, schema=b"\x00one")

        assert store.collection(FLIGHTS).format == first
        assert store.format_schema(FLIGHTS, "d1") == b"\x00one"
        assert store.format_schema(FLIGHTS, "d2") == b"two\xff"
        for which, digest in ((FLIGHTS, "d3"), (OTHERS, "d1")):
            with pytest.raises(NotFound):
                store.format_schema(which, digest)

    def test_what_a_format_comes_to_need_is_kept_once(self, store: Store) -> None:
        """Several who read the same events learn it at the same time."""
        store.create_collection(collection())
        version = store.version()

        for body in (b"first", b"second"):
            store.keep_format_schema(FLIGHTS, "registry 1", body)

        assert store.format_schema(FLIGHTS, "registry 1") == b"first"
        assert store.version() == version
        with pytest.raises(NotFound):
            store.keep_format_schema(OTHERS, "registry 1", b"first")

    def test_how_long_rows_are_kept_is_for_ever_until_it_is_said(self, store: Store) -> None:
        store.create_collection(collection())

        assert store.collection(FLIGHTS).keep_days is None
        assert store.set_keep_days(FLIGHTS, 90).keep_days == 90
        assert store.collections("main")[0].keep_days == 90
        assert store.set_keep_days(FLIGHTS, None).keep_days is None
        with pytest.raises(NotFound):
            store.set_keep_days(OTHERS, 1)


class TestTokens:
    def test_a_token_is_found_by_its_digest_alone(self, store: Store) -> None:
        record = token(1, scopes=("read", "replay"), collection=None, expires_at=NOON + SECOND)
        store.add_token(record)

        assert store.token_by_digest(record.digest) == record
        assert store.token_by_digest(token(2).digest) is None

    def test_a_revoked_token_stays_revoked_since_the_first_time(self, store: Store) -> None:
        store.add_token(token(1))

        assert store.revoke_token("main", "t1", NOON).revoked_at == NOON
        assert store.revoke_token("main", "t1", NOON + 5).revoked_at == NOON
        found = store.token_by_digest(token(1).digest)
        assert found is not None
        assert not found.alive(NOON)

    def test_a_session_is_found_with_its_token_as_it_is_now(self, store: Store) -> None:
        """A token that was revoked ends what it opened."""
        store.add_token(token(1))
        opened = session("s1", token_id="t1")
        store.add_session(opened)

        assert store.session("s1") == (opened, token(1))
        revoked = store.revoke_token("main", "t1", NOON + SECOND)
        assert store.session("s1") == (opened, revoked)
        assert store.session("s2") is None

    def test_a_session_is_gone_once_dropped_and_old_ones_with_the_next(self, store: Store) -> None:
        store.add_token(token(1))
        for name, ends in (("s1", NOON), ("s2", NOON + 1), ("s3", NOON + 2)):
            store.add_session(session(name, token_id="t1", begins=NOON - 1, ends=ends))

        store.drop_session("s3")
        store.drop_session("never there")
        store.add_session(session("s4", token_id="t1", begins=NOON, ends=NOON + 9))

        assert [store.session(f"s{n}") is not None for n in (1, 2, 3, 4)] == [
            *(False, True, False, True)
        ]

    def test_a_session_needs_a_token_and_is_no_news_for_doors(self, store: Store) -> None:
        store.add_token(token(1))
        before = store.version()

        with pytest.raises(NotFound):
            store.add_session(session("s1", token_id="t2"))
        store.add_session(session("s1", token_id="t1"))
        store.drop_session("s1")

        assert store.version() == before

    def test_another_team_cannot_revoke_a_token(self, store: Store) -> None:
        store.add_token(token(1))

        with pytest.raises(NotFound):
            store.revoke_token("rivals", "t1", NOON)
        assert [t.revoked_at for t in store.tokens("main")] == [None]
        assert store.tokens("rivals") == []

    def test_a_digest_is_known_once(self, store: Store) -> None:
        store.add_token(token(1))

        with pytest.raises(AlreadyExists):
            store.add_token(token(1))


class TestKnown:
    def test_a_door_is_told_every_collection_and_every_token_that_works(self, store: Store) -> None:
        store.create_collection(collection(), token(1, collection="flights"))
        store.create_collection(collection(OTHERS))
        store.add_token(token(2))
        store.revoke_token("main", "t2", NOON)

        known = store.known()

        assert known.collections == (collection(), collection(OTHERS))
        assert known.tokens == (token(1, collection="flights"),)

    def test_its_version_grows_with_each_change_that_a_door_has_to_learn(
        self, store: Store
    ) -> None:
        """Two different things to know under one version: a door would keep the older one."""
        changes: list[Callable[[], object]] = [
            lambda: store.create_collection(collection()),
            lambda: store.set_paused(FLIGHTS, True),
            lambda: store.set_contract(FLIGHTS, "freeze", NOON),
            lambda: store.add_token(token(1)),
            lambda: store.revoke_token("main", "t1", NOON),
        ]
        versions = [store.version()]
        for change in changes:
            change()
            versions.append(store.version())
            assert store.known().version == versions[-1]

        assert versions == sorted(set(versions))

    def test_a_change_that_failed_is_no_change(self, store: Store) -> None:
        before = store.version()
        with pytest.raises(NotFound):
            store.set_paused(FLIGHTS, True)
        with pytest.raises(NotFound):
            store.revoke_token("main", "t1", NOON)

        assert store.version() == before


class TestSavedSearches:
    def test_a_saved_search_belongs_to_one_team(self, store: Store) -> None:
        store.add_saved_search(saved_search("late"))
        store.add_saved_search(saved_search("early", query="dep_delay:<0"))
        theirs = saved_search("late", team="rivals", query="")
        store.add_saved_search(theirs)

        assert store.saved_search("main", "late") == saved_search("late")
        assert [one.name for one in store.saved_searches("main")] == ["early", "late"]
        assert store.saved_searches("rivals") == [theirs]
        with pytest.raises(AlreadyExists):
            store.add_saved_search(saved_search("late"))

    def test_another_search_under_the_name_is_as_old_as_the_first(self, store: Store) -> None:
        store.add_saved_search(saved_search("late"))
        other = replace(saved_search("late", query="x"), since=None, created_at=1, changed_at=NOON)

        kept = replace(other, created_at=NOON)
        assert store.change_saved_search(other) == kept
        assert store.saved_search("main", "late") == kept
        with pytest.raises(NotFound):
            store.change_saved_search(replace(other, team="rivals"))
        assert store.saved_searches("rivals") == []

    def test_a_forgotten_search_is_gone_for_its_team_only(self, store: Store) -> None:
        store.add_saved_search(saved_search("late"))
        with pytest.raises(NotFound):
            store.delete_saved_search("rivals", "late")
        store.delete_saved_search("main", "late")

        assert store.saved_searches("main") == []
        with pytest.raises(NotFound):
            store.saved_search("main", "late")
        with pytest.raises(NotFound):
            store.delete_saved_search("main", "late")

    def test_any_text_can_be_searched_for_again(self, store: Store) -> None:
        odd = saved_search("odd", query='nul\x00 "é" 😀 \\ \n')
        store.add_saved_search(odd)

        assert store.saved_search("main", "odd") == odd


class TestCredentials:
    """Whoever reads the database, or a copy of it, learns no credential."""

    def test_they_are_kept_encrypted_and_read_back(self, store: Store) -> None:
        store.add_destination(secured())

        assert store.destination("main", "bus") == secured()
        assert "hidden" not in kept(store)
        assert "s3cret" not in kept(store)
        assert store.keys_needed() == {KEYS.held()[0].id: KeyNeeded(["main.bus"], [])}

    def test_a_list_needs_no_key_and_has_none_of_them(self, store: Store) -> None:
        store.add_destination(secured())
        without = Store(store._engine, NO_KEYS)

        [listed] = without.destinations("main")

        assert (listed.headers, listed.secret) == (("authorization", "X-Empty"), True)
        assert listed.credentials == ("client_key",)
        assert without.listed_destination("main", "bus") == listed
        assert "hidden" not in repr(listed) + repr(without)
        with pytest.raises(NotFound):
            without.listed_destination("rivals", "bus")

    def test_without_its_key_one_is_not_read_and_none_is_kept(self, store: Store) -> None:
        store.add_destination(secured())
        other = Store(store._engine, Keyring(lambda: [Key(b"o" * 32)], where="the test"))
        without = Store(store._engine, NO_KEYS)

        with pytest.raises(KeyMissing, match=r"under the key .{8}, which is not in the test: put"):
            other.destination("main", "bus")
        with pytest.raises(KeyMissing, match=r"no key to encrypt .* 'penstock key rotate' makes"):
            without.add_destination(secured("more"))
        assert [one.name for one in store.destinations("main")] == ["bus"]
        without.add_destination(replace(destination("open"), headers=()))
        assert without.destination("main", "open").headers == ()

    @pytest.mark.parametrize("to", [{"team": "rivals"}, {"name": "mine"}])
    def test_one_that_was_moved_to_another_destination_is_not_read(
        self, store: Store, to: dict[str, str]
    ) -> None:
        """Who may write to the database could send it to an address of his own."""
        store.add_destination(secured())
        with writing(store._engine) as connection:
            connection.execute(update(destinations).values(**to))

        with pytest.raises(KeyMissing, match="was not encrypted for it"):
            store.destination(to.get("team", "main"), to.get("name", "bus"))

    def test_one_in_the_place_of_another_is_not_read(self, store: Store) -> None:
        """A header that is sent openly would tell what the other one is."""
        store.add_destination(secured())
        with writing(store._engine) as connection:
            [row] = connection.execute(select(destinations)).mappings().all()
            first, second = row["headers"]
            swapped = [[first[0], second[1]], [second[0], first[1]]]
            connection.execute(update(destinations).values(headers=swapped))

        with pytest.raises(KeyMissing, match="was not encrypted for it"):
            store.destination("main", "bus")

    def test_what_a_registry_asks_for_is_kept_encrypted_and_read_back(self, store: Store) -> None:
        format_ = Format(name="avro", schema="d1", registry="http://r.example", secret=True)
        store.create_collection(collection())

        store.set_format(FLIGHTS, format_, schema=b"{}", secret=RegistrySecret("s1", "me:hidden"))

        assert store.registry_secret(FLIGHTS, "s1") == "me:hidden"
        assert "hidden" not in kept(store) + repr(RegistrySecret("s1", "me:hidden"))
        for which, secret_id in ((FLIGHTS, "s2"), (OTHERS, "s1")):
            with pytest.raises(NotFound):
                store.registry_secret(which, secret_id)

    @pytest.mark.parametrize("to", [{"team": "rivals"}, {"id": "s2"}])
    def test_one_that_was_moved_to_another_registry_is_not_read(
        self, store: Store, to: dict[str, str]
    ) -> None:
        """Who may write to the database could have it sent to an address of his own."""
        store.create_collection(collection(), secret=RegistrySecret("s1", "me:hidden"))
        store.create_collection(replace(collection(), id=OTHERS))
        with writing(store._engine) as connection:
            connection.execute(update(registry_secrets).values(**to))
        which = OTHERS if "team" in to else FLIGHTS

        with pytest.raises(KeyMissing, match=r"collection \w+ flights was not encrypted for it"):
            store.registry_secret(which, to.get("id", "s1"))

    def test_a_format_is_not_set_without_a_key_for_its_secret(self, store: Store) -> None:
        """And nothing of it is: the next batch would be read with half of it."""
        store.create_collection(collection())
        without = Store(store._engine, NO_KEYS)
        format_ = Format(name="avro", schema="d1")

        with pytest.raises(KeyMissing, match="'penstock key rotate' makes"):
            without.set_format(FLIGHTS, format_, schema=b"{}", secret=RegistrySecret("s1", "x"))

        assert store.collection(FLIGHTS).format == Format()

    def test_all_go_under_a_new_key_or_none_does(self, store: Store) -> None:
        store.add_destination(secured())
        store.add_destination(secured("other"))
        store.create_collection(collection(), secret=RegistrySecret("s1", "me:hidden"))
        needed = KeyNeeded(["main.bus", "main.other"], ["main.flights"])
        old, new = KEYS.held()[0], Key(b"n" * 32)
        both = Store(store._engine, Keyring(lambda: [new, old], where="the test"))
        alone = Store(store._engine, Keyring(lambda: [new], where="the test"))

        with pytest.raises(KeyMissing):
            alone.reseal()
        assert store.keys_needed() == {old.id: needed}
        with (
            pytest.raises(WrongState, match=r"needed by main\.bus, main\.other, coll.* main\.fli"),
            both.unneeded_key(old.id),
        ):
            pytest.fail("it is needed")
        assert both.reseal() == 9
        assert both.keys_needed() == {new.id: needed}
        assert alone.destination("main", "bus") == secured()
        assert alone.registry_secret(FLIGHTS, "s1") == "me:hidden"
        with both.unneeded_key(old.id):
            pass


def secured(name: str = "bus") -> Destination:
    """Answer a destination with credentials of both kinds."""
    headers = (("authorization", "Bearer hidden"), ("X-Empty", ""))
    keys = {"client_key": "hidden key"}
    return replace(destination(name), headers=headers, secret="s3cret", credentials=keys)


def kept(store: Store) -> str:
    """Answer what the database has of destinations and registries."""
    with reading(store._engine) as connection:
        return "".join(
            str(connection.execute(select(table)).all())
            for table in (destinations, format_schemas, registry_secrets)
        )


class TestDestinations:
    def test_the_last_trial_is_kept(self, store: Store) -> None:
        store.add_destination(destination())

        store.note_trial("main", "billing", {"delivered": False}, NOON)
        noted = store.note_trial("main", "billing", {"delivered": True}, NOON + 1)

        assert noted == store.listed_destination("main", "billing")
        assert (noted.tried, noted.tried_at) == ({"delivered": True}, NOON + 1)
        with pytest.raises(NotFound):
            store.note_trial("rivals", "billing", {}, NOON)

    def test_its_rate_is_shared_by_who_asks(self, store: Store) -> None:
        """Every store is where replays meet: nothing else knows of all of them."""
        store.add_destination(replace(destination(), rate=100.0))
        store.add_destination(destination("free"))

        first = store.share("main", "billing", "r1", None, NOON)
        store.share("main", "billing", "r2", None, NOON)
        later = NOON + 500_000
        shares = [store.share("main", "billing", one, None, later) for one in ("r1", "r2")]

        assert store.listed_destination("main", "billing").rate == 100.0
        assert first is not None
        assert first.per_second == 100
        assert [one and one.per_second for one in shares] == [50, 50]
        assert store.share("main", "free", "r1", None, NOON) is None
        with pytest.raises(NotFound):
            store.share("rivals", "billing", "r1", None, NOON)

        store.delete_destination("main", "billing")
        store.add_destination(replace(destination(), rate=100.0))
        alone = store.share("main", "billing", "r3", None, NOON)
        assert alone is not None
        assert alone.per_second == 100, "of a destination that is gone nothing is left"

    def test_another_rate_is_not_kept_waiting(self, store: Store) -> None:
        """A send in three hours is a round of three hours."""
        store.add_destination(replace(destination(), rate=0.0001))
        store.share("main", "billing", "r1", None, NOON)

        told = store.change_destination(
            "main", "billing", lambda before: replace(before, rate=10.0), NOON
        )
        later = store.share("main", "billing", "r1", None, NOON + 5_000_000)

        assert told.rate == 10.0
        assert later is not None
        assert later.pieces[-1].rate == 10.0
        with pytest.raises(NotFound):
            store.change_destination("rivals", "billing", lambda before: before, NOON)

    def test_what_is_changed_is_kept_encrypted(self, store: Store) -> None:
        store.add_destination(secured())

        store.change_destination("main", "bus", lambda before: replace(before, secret="n3w"), NOON)

        assert store.destination("main", "bus") == replace(secured(), secret="n3w")
        assert "n3w" not in kept(store)

    def test_a_destination_belongs_to_one_team(self, store: Store) -> None:
        store.add_destination(destination())

        assert store.destination("main", "billing") == destination()
        assert store.destinations("rivals") == []
        with pytest.raises(NotFound):
            store.destination("rivals", "billing")
        with pytest.raises(NotFound):
            store.delete_destination("rivals", "billing")
        with pytest.raises(AlreadyExists):
            store.add_destination(destination())

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_a_number_that_json_does_not_have_is_refused_everywhere(
        self, store: Store, number: float
    ) -> None:
        """SQLite would keep it and PostgreSQL would not: a copy of one could not become the other.

        Nothing of such a change is kept.
        """
        bad: dict[str, object] = {"a": [{"b": (1.5, number)}]}
        store.create_collection(collection())
        store.create_replay(replay())
        held = store.claim_replay("r1", "one", NOON, SECOND)
        assert held is not None

        for change, what in (
            (lambda: store.add_destination(replace(destination(), options=bad)), "options"),
            (lambda: store.create_replay(replace(replay("r2"), options=bad)), "options"),
            (lambda: store.create_replay(replace(replay("r2"), plan=bad)), "plan"),
            (
                lambda: store.checkpoint_replay(
                    "r1", held.epoch, progress=bad, now=NOON, ttl=SECOND
                ),
                "progress",
            ),
            (lambda: store.add_schema_version(FLIGHTS, NOON, [bad]), "changes"),
        ):
            with pytest.raises(BadRequest, match=f"^{what} holds a number that JSON does not"):
                change()

        assert store.destinations("main") == []
        assert store.replays("main") == [held]
        assert store.schema_versions(FLIGHTS) == []

    def test_a_destination_stays_while_a_replay_needs_it(self, store: Store) -> None:
        """A running replay could not be resumed without it."""
        store.add_destination(destination())
        store.create_replay(replay())

        with pytest.raises(WrongState, match="r1"):
            store.delete_destination("main", "billing")
        store.wish("main", "r1", "cancel", NOON)
        store.delete_destination("main", "billing")

        assert store.destinations("main") == []


def claimed(store: Store, *, now: int = NOON) -> ReplayRecord:
    record = store.claim_replay("r1", "run", now, 10 * SECOND)
    assert record is not None
    return record


class TestReplays:
    @pytest.fixture(autouse=True)
    def one_replay(self, store: Store) -> None:
        store.create_replay(replay(plan={"count": 5}))

    def test_a_replay_belongs_to_one_team(self, store: Store) -> None:
        assert store.replay("main", "r1") == replay(plan={"count": 5})
        assert store.replays("rivals") == []
        with pytest.raises(NotFound):
            store.replay("rivals", "r1")
        with pytest.raises(NotFound):
            store.wish("rivals", "r1", "cancel", NOON)
        with pytest.raises(AlreadyExists):
            store.create_replay(replay())

    def test_replays_are_listed_newest_first_and_open_ones_oldest_first(self, store: Store) -> None:
        store.create_replay(replay("r2", created_at=NOON + 1))
        store.create_replay(replay("r3", created_at=NOON + 2, state="failed"))

        assert [r.id for r in store.replays("main")] == ["r3", "r2", "r1"]
        assert [r.id for r in store.replays("main", limit=2)] == ["r3", "r2"]
        assert [r.id for r in store.open_replays()] == ["r1", "r2"]

    def test_only_one_holds_a_replay_at_a_time(self, store: Store) -> None:
        """Two senders would deliver everything twice."""
        first = claimed(store)

        assert store.claim_replay("r1", "other", NOON + SECOND, SECOND) is None
        later = claimed(store, now=NOON + 10 * SECOND)
        assert (first.epoch, later.epoch) == (1, 2)

    def test_of_many_claims_at_once_one_wins(self, store: Store) -> None:
        answers = at_once(8, lambda n: store.claim_replay("r1", f"run {n}", NOON, SECOND))

        assert [a.epoch for a in answers if isinstance(a, ReplayRecord)] == [1]
        assert answers.count(None) == 7

    def test_a_checkpoint_is_answered_with_the_whole_replay(self, store: Store) -> None:
        mine = claimed(store)
        answer = store.checkpoint_replay(
            "r1",
            mine.epoch,
            progress={"sent": 3},
            plan={"count": 7},
            state="running",
            now=NOON + SECOND,
            ttl=10 * SECOND,
        )

        assert answer == store.replay("main", "r1")
        assert (answer.state, answer.progress, answer.plan) == (
            "running",
            {"sent": 3},
            {"count": 7},
        )
        assert (answer.started_at, answer.lease_until) == (NOON + SECOND, NOON + 11 * SECOND)

    def test_a_holder_of_an_older_epoch_writes_nothing(self, store: Store) -> None:
        """A zombie's checkpoint would move its successor's back, and events be sent again."""
        zombie = claimed(store)
        successor = claimed(store, now=NOON + 10 * SECOND)
        before = store.checkpoint_replay(
            "r1", successor.epoch, progress={"sent": 9}, now=NOON + 10 * SECOND, ttl=SECOND
        )

        with pytest.raises(WrongState, match="epoch 1"):
            store.checkpoint_replay(
                "r1", zombie.epoch, progress={"sent": 4}, now=NOON + 10 * SECOND, ttl=SECOND
            )
        store.release_replay("r1", zombie.epoch)

        assert store.replay("main", "r1") == before

    def test_a_holder_who_let_go_cannot_write_any_more(self, store: Store) -> None:
        mine = claimed(store)
        store.release_replay("r1", mine.epoch)

        with pytest.raises(WrongState):
            store.checkpoint_replay("r1", mine.epoch, progress={}, now=NOON, ttl=SECOND)
        assert claimed(store).epoch == mine.epoch + 1

    def test_a_live_holder_hears_the_wish_and_grants_it(self, store: Store) -> None:
        mine = claimed(store)
        store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="running", now=NOON, ttl=SECOND
        )

        asked = store.wish("main", "r1", "pause", NOON)
        heard = store.checkpoint_replay("r1", mine.epoch, progress={}, now=NOON, ttl=SECOND)
        granted = store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="paused", now=NOON, ttl=SECOND
        )

        assert [(r.state, r.wish) for r in (asked, heard, granted)] == [
            ("running", "pause"),
            ("running", "pause"),
            ("paused", None),
        ]

    def test_a_resume_reaches_a_holder_that_is_just_pausing(self, store: Store) -> None:
        """The holder read "pause" before it was taken back; it must not stay paused for ever."""
        mine = claimed(store)
        store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="running", now=NOON, ttl=SECOND
        )
        store.wish("main", "r1", "pause", NOON)
        store.wish("main", "r1", "resume", NOON)

        late = store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="paused", now=NOON, ttl=SECOND
        )

        assert (late.state, late.wish) == ("paused", "resume")

    def test_a_wish_is_granted_at_once_where_nobody_holds_the_replay(self, store: Store) -> None:
        assert store.wish("main", "r1", "pause", NOON).state == "paused"
        assert store.wish("main", "r1", "resume", NOON).state == "running"
        cancelled = store.wish("main", "r1", "cancel", NOON + 1)
        assert (cancelled.state, cancelled.finished_at) == ("cancelled", NOON + 1)

    def test_who_is_believed_dead_cannot_undo_what_was_granted_meanwhile(
        self, store: Store
    ) -> None:
        """A paused replay that goes on sending is the worst answer to a pause."""
        zombie = claimed(store)
        store.wish("main", "r1", "pause", NOON + 10 * SECOND)

        with pytest.raises(WrongState):
            store.checkpoint_replay(
                "r1", zombie.epoch, progress={}, state="running", now=NOON, ttl=SECOND
            )
        assert store.replay("main", "r1").state == "paused"

    def test_a_replay_that_shall_not_run_cannot_be_claimed(self, store: Store) -> None:
        store.wish("main", "r1", "pause", NOON)
        with pytest.raises(WrongState, match="paused"):
            store.claim_replay("r1", "run", NOON, SECOND)

        store.wish("main", "r1", "cancel", NOON)
        with pytest.raises(WrongState, match="cancelled"):
            store.claim_replay("r1", "run", NOON, SECOND)
        with pytest.raises(NotFound):
            store.claim_replay("r9", "run", NOON, SECOND)

    def test_whoever_claims_a_replay_grants_the_resume_its_last_holder_left(
        self, store: Store
    ) -> None:
        mine = claimed(store)
        store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="paused", now=NOON, ttl=10 * SECOND
        )
        store.wish("main", "r1", "resume", NOON)

        successor = claimed(store, now=NOON + 10 * SECOND)

        assert (successor.state, successor.wish) == ("running", None)

    def test_an_end_gives_the_lease_up_and_stays(self, store: Store) -> None:
        mine = claimed(store)
        ended = store.checkpoint_replay(
            "r1", mine.epoch, progress={}, state="finished", now=NOON + 1, ttl=SECOND
        )

        assert (ended.state, ended.lease_until, ended.finished_at) == ("finished", None, NOON + 1)
        with pytest.raises(WrongState):
            store.checkpoint_replay("r1", mine.epoch, progress={}, now=NOON, ttl=SECOND)
        with pytest.raises(WrongState, match="finished"):
            store.wish("main", "r1", "cancel", NOON)

    def test_an_error_goes_with_the_state_it_belongs_to(self, store: Store) -> None:
        mine = claimed(store)

        def checkpoint(**values: object) -> str | None:
            return store.checkpoint_replay(
                "r1", mine.epoch, progress={}, now=NOON, ttl=SECOND, **values
            ).error

        assert checkpoint(state="running") is None
        assert checkpoint(state="paused", error="the destination is down") is not None
        assert checkpoint() == "the destination is down"
        assert checkpoint(state="running") is None

    def test_the_run_is_noted_unless_another_one_holds_the_replay(self, store: Store) -> None:
        """The sensor fails runs that do not hold what they were started for: not the real one."""
        assert store.set_replay_run("r1", "run-1", NOON).run_id == "run-1"
        held = store.claim_replay("r1", "me", NOON, SECOND, run_id="run-2")
        assert held is not None
        assert held.run_id == "run-2"
        assert store.set_replay_run("r1", "run-3", NOON).run_id == "run-2"
        assert store.set_replay_run("r1", "run-4", NOON + SECOND).run_id == "run-4"
        with pytest.raises(NotFound):
            store.set_replay_run("r9", "run-1", NOON)


class TestColumnHistories:
    def test_versions_count_from_one_in_each_collection(self, store: Store) -> None:
        trains = CollectionId("main", "trains")
        store.create_collection(collection())
        store.create_collection(collection(trains))
        added = {"path": "carrier", "what": "added", "type": "string", "event_id": "e1"}

        assert store.add_schema_version(FLIGHTS, NOON, [added]) == 1
        assert store.add_schema_version(FLIGHTS, NOON + 1, []) == 2
        assert store.add_schema_version(trains, NOON, []) == 1
        assert store.schema_versions(FLIGHTS) == [
            SchemaVersion(collection=FLIGHTS, version=1, at=NOON, changes=(added,)),
            SchemaVersion(collection=FLIGHTS, version=2, at=NOON + 1, changes=()),
        ]
        with pytest.raises(NotFound):
            store.add_schema_version(OTHERS, NOON, [])

    def test_versions_given_at_once_have_no_gap(self, store: Store) -> None:
        store.create_collection(collection())

        given = at_once(6, lambda n: store.add_schema_version(FLIGHTS, NOON + n, []))

        assert sorted(given, key=str) == [1, 2, 3, 4, 5, 6]


class TestMessages:
    def test_a_message_is_there_for_who_looks_after_it(self, store: Store) -> None:
        begun = store.last_message()
        store.send_messages([("land", "main.flights")], NOON)
        store.send_messages([("replay", "r1")], NOON)
        last, found = store.messages_after(begun)

        assert found == [(last - 1, "land", "main.flights"), (last, "replay", "r1")]
        assert store.messages_after(last) == (last, [])
        assert store.last_message() == last

    def test_messages_are_gone_after_a_while_and_their_ids_are_not_used_again(
        self, store: Store
    ) -> None:
        """Who looked last saw an id: a new message with the same one would never be seen."""
        store.send_messages([("land", "old")], NOON)
        last, _ = store.messages_after(0)
        store.send_messages([("land", "new")], NOON + 61 * SECOND)

        assert store.messages_after(0) == (last + 1, [(last + 1, "land", "new")])

    def test_a_clock_that_was_set_back_leaves_no_messages(self, store: Store) -> None:
        store.send_messages([("land", "later")], NOON)
        store.send_messages([("land", "now")], NOON - 3_600 * SECOND)

        assert [text for _, _, text in store.messages_after(0)[1]] == ["now"]

    def test_who_looked_into_a_newer_database_begins_again(self, store: Store) -> None:
        """Ids count from lower ones after a backup was put back."""
        store.send_messages([("land", "first")], NOON)
        after, found = store.messages_after(1_000)
        store.send_messages([("land", "second")], NOON)

        assert found == []
        assert [text for _, _, text in store.messages_after(after)[1]] == ["second"]

    def test_messages_sent_at_once_are_all_seen_in_order(self, store: Store) -> None:
        """One that becomes visible behind a later one would be missed by who looks in between."""
        at_once(8, lambda n: store.send_messages([("land", str(n))], NOON))

        last, found = store.messages_after(0)

        assert len(found) == 8
        assert last == store.last_message()


class TestLeases:
    def test_a_lease_has_one_holder_until_it_lapses(self, store: Store) -> None:
        assert store.lease("lane 0") is None
        assert store.take_lease("lane 0", "one", NOON, 10) == 1
        assert store.take_lease("lane 0", "other", NOON + 9, 10) is None
        assert store.take_lease("lane 1", "other", NOON + 9, 10) == 1
        assert store.take_lease("lane 0", "other", NOON + 10, 10) == 2
        assert store.lease("lane 0") == Lease(
            name="lane 0", holder="other", epoch=2, until=NOON + 20
        )

    def test_a_lease_of_the_time_before_the_clock_was_set_back_is_free(self, store: Store) -> None:
        """Its holder may be dead, and nobody would land or replay until the clock is there."""
        store.take_lease("lane 0", "one", NOON, 10)

        assert store.take_lease("lane 0", "other", NOON - 11, 10) == 2
        assert not store.keep_lease("lane 0", 1, NOON - 10, 10)

    def test_of_many_who_take_a_new_lease_at_once_one_has_it(self, store: Store) -> None:
        answers = at_once(8, lambda n: store.take_lease("lane 0", f"run {n}", NOON, SECOND))

        assert sorted(answers, key=str) == [1, *[None] * 7]

    def test_a_lease_is_kept_only_while_it_is_ours(self, store: Store) -> None:
        assert store.take_lease("lane 0", "one", NOON, 10) == 1

        assert store.keep_lease("lane 0", 1, NOON + 5, 10)
        assert not store.keep_lease("lane 0", 1, NOON + 15, 10)
        assert store.take_lease("lane 0", "other", NOON + 15, 10) == 2
        assert not store.keep_lease("lane 0", 1, NOON + 16, 10)
        store.drop_lease("lane 0", 1)
        assert store.keep_lease("lane 0", 2, NOON + 17, 10)

    def test_a_dropped_lease_is_free_at_once_and_its_epoch_is_not_given_again(
        self, store: Store
    ) -> None:
        store.take_lease("lane 0", "one", NOON, 10)
        store.drop_lease("lane 0", 1)

        assert not store.keep_lease("lane 0", 1, NOON, 10)
        assert store.take_lease("lane 0", "other", NOON + 1, 10) == 2


class TestTexts:
    """What people and senders write is kept as they wrote it, whatever the database is."""

    ODD = "NUL \x00, ESC \x1b, \x1b0 \x1b1 \x00\x00, e\u0301 \U0001f600 \ufffe"

    def test_any_character_is_kept(self, store: Store) -> None:
        """PostgreSQL has no NUL in its texts."""
        store.create_collection(replace(collection(), notes=self.ODD))
        store.add_token(replace(token(1), name=self.ODD))
        store.create_replay(replay(destination=self.ODD))

        assert store.collection(FLIGHTS).notes == self.ODD
        assert [t.name for t in store.tokens("main")] == [self.ODD]
        assert store.replay("main", "r1").destination == self.ODD

    def test_a_name_with_odd_characters_is_found_or_not_but_no_error(self, store: Store) -> None:
        """It may come from an address that somebody typed."""
        with pytest.raises(NotFound):
            store.destination("main", "a\x00b")
        with pytest.raises(NotFound):
            store.replay("ma\x00in", "r1")
        store.add_destination(destination("a\x00b"))

        assert store.destination("main", "a\x00b").name == "a\x00b"
        with pytest.raises(NotFound):
            store.destination("main", "ab")

    def test_what_is_no_text_is_refused_and_leaves_nothing(self, store: Store) -> None:
        """Half a surrogate pair has no bytes in any encoding."""
        with pytest.raises(UnicodeEncodeError):
            store.create_collection(replace(collection(), notes="half \ud800"))

        assert store.collections() == []
        assert store.version() == 0

    def test_names_are_ordered_by_their_characters(self, store: Store) -> None:
        """Many databases would put `a_b` between `aa` and `ac`; pages rely on one order."""
        names = ["Z", "a_b", "aa", "ac", "b", "\u00e9"]
        for name in reversed(names):
            store.add_destination(destination(name))

        assert [d.name for d in store.destinations("main")] == names

    def test_documents_are_kept_to_the_character_however_large(self, store: Store) -> None:
        odd = {
            "text": self.ODD + "\ud800",
            "": [None, True, 1.5e-300, -(1 << 62), {"deep": [[]]}],
            "large": "x\x00" * 4_000_000,
        }
        store.create_replay(replay(plan=odd))

        assert store.replay("main", "r1").plan == odd
        mine = claimed(store)
        answer = store.checkpoint_replay("r1", mine.epoch, progress=odd, now=NOON, ttl=SECOND)
        assert answer.progress == odd


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from alembic import command
from builders import NOON
from metadata_builders import collection, token
from penstock.errors import AlreadyExists
from penstock.metadata.store import open_store

def opened(url):
    store = open_store(url)
    version = store.version()
    store.close()
    return version

def add_tokens(url, first):
    store = open_store(url)
    for number in range(int(first), int(first) + 25):
        store.add_token(token(number))
    store.close()
    return "done"

def create(url, number):
    store = open_store(url)
    try:
        store.create_collection(collection(), token(int(number)))
    except AlreadyExists:
        return "exists"
    finally:
        store.close()
    return "created"

def claim(url, holder):
    store = open_store(url)
    claimed = store.claim_replay("r1", holder, NOON, 1_000_000)
    store.close()
    return claimed and f"{claimed.epoch}"

def take(url, holder):
    store = open_store(url)
    epoch = store.take_lease("lane 0", holder, NOON, 1_000_000)
    store.close()
    return epoch

print("ready", flush=True)
for line in sys.stdin:
    name, *arguments = line.split()
    print(globals()[name](*arguments), flush=True)
"""


class Workers:
    """Processes that do what they are told, all at once."""

    def __init__(self, count: int) -> None:
        self._programs = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", WORKER, str(Path(__file__).parents[1])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        assert self._answers(count) == ["ready"] * count

    def do(self, *commands: str) -> list[str]:
        """Give as many processes one command each; answer what each said when it was done."""
        programs = self._programs[: len(commands)]
        for program, line in zip(programs, commands, strict=True):
            assert program.stdin is not None
            program.stdin.write(line + "\n")
        for program in programs:
            assert program.stdin is not None
            program.stdin.flush()
        return self._answers(len(commands))

    def _answers(self, count: int) -> list[str]:
        answers = []
        for program in self._programs[:count]:
            assert program.stdout is not None
            answers.append(program.stdout.readline().strip())
        return answers

    def end(self) -> None:
        for program in self._programs:
            program.communicate()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers(8)
    yield started
    started.end()


class TestProcesses:
    def test_processes_that_open_an_empty_home_at_once_all_succeed(
        self, new_url: NewUrl, workers: Workers
    ) -> None:
        """Door, platform and Dagster start together; none may find half a database."""
        for together in (2, 2, 2, 2, 8, 8):
            fresh = new_url()
            assert workers.do(*[f"opened {fresh}"] * together) == ["0"] * together

    def test_of_many_processes_that_make_a_collection_one_does(
        self, store: Store, url: str, workers: Workers
    ) -> None:
        """And only its token exists: the others' were shown to nobody."""
        answers = workers.do(*[f"create {url} {number}" for number in range(8)])

        assert sorted(answers) == ["created", *["exists"] * 7]
        assert [t.id for t in store.tokens("main")] == [f"t{answers.index('created')}"]
        assert store.version() == 1

    def test_of_two_processes_that_claim_a_replay_one_has_it(
        self, store: Store, url: str, workers: Workers
    ) -> None:
        """Two senders would deliver everything twice."""
        store.create_replay(replay())

        answers = workers.do(f"claim {url} one", f"claim {url} other")

        assert sorted(answers) == ["1", "None"]
        assert store.replay("main", "r1").epoch == 1

    def test_of_many_processes_that_take_a_lease_that_lapsed_one_has_it(
        self, store: Store, url: str, workers: Workers
    ) -> None:
        store.take_lease("lane 0", "dead", NOON - 2 * SECOND, SECOND)

        answers = workers.do(*[f"take {url} run-{number}" for number in range(8)])

        assert sorted(answers) == ["2", *["None"] * 7]
        held = store.lease("lane 0")
        assert held is not None
        assert held.holder == f"run-{answers.index('2')}"

    def test_versions_become_visible_in_the_order_in_which_they_grow(
        self, store: Store, url: str, workers: Workers
    ) -> None:
        """A door that saw version 7 never looks for what 6 brought: a revoked token would work."""
        polled = open_store(url)
        seen: list[Known] = []
        stop = threading.Event()

        def poll() -> None:
            while not stop.is_set():
                seen.append(polled.known())

        thread = threading.Thread(target=poll)
        thread.start()
        try:
            assert workers.do(*[f"add_tokens {url} {n}00" for n in range(1, 5)]) == ["done"] * 4
        finally:
            stop.set()
            thread.join()
            polled.close()

        assert [k.version for k in seen] == sorted(k.version for k in seen)
        assert [k.version for k in seen] == [len(k.tokens) for k in seen]
        assert store.version() == 100

    def test_writers_in_several_processes_and_threads_lose_nothing(
        self, store: Store, url: str, workers: Workers
    ) -> None:
        """A writer that gives up where another is writing would lose a token or a checkpoint."""
        store.create_collection(collection())
        stop = threading.Event()
        pauses = []

        def pause() -> None:
            while not stop.is_set():
                store.set_paused(FLIGHTS, True)
                pauses.append(1)

        thread = threading.Thread(target=pause)
        thread.start()
        try:
            answers = workers.do(f"add_tokens {url} 100", f"add_tokens {url} 200")
        finally:
            stop.set()
            thread.join()

        assert answers == ["done", "done"]
        assert {t.id for t in store.tokens("main")} == {
            f"t{number}" for first in (100, 200) for number in range(first, first + 25)
        }
        assert store.version() == 1 + 50 + len(pauses)
