from __future__ import annotations

import fcntl
import secrets
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from metadata_builders import KEYS, destination
from rich.console import Console

from penstock.contract.destinations import NewDestination
from penstock.errors import BadRequest, BadSetting, KeyMissing, NotFound, WrongState
from penstock.metadata.keys import KEYS_FILE, Key, Keyring, key_of, keyring_of, keys_in
from penstock.metadata.rotation import ensure_key, forget, rotate
from penstock.metadata.store import KeyNeeded, store_of
from penstock.settings import Settings, load_settings

OWNER = ("destination", "main", "billing", "secret")


def settings(home: Path, **given: object) -> Settings:
    return load_settings(home, {}, **given)


def base64(letter: bytes) -> str:
    return b64encode(letter * 32).decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Answer a home with a key, and a destination with a credential."""
    ensure_key(settings(tmp_path), chance=secrets.token_bytes)
    store = store_of(settings(tmp_path))
    store.add_destination(destination())
    store.close()
    return tmp_path


def read_back(home: Path) -> bool:
    store = store_of(settings(home))
    try:
        return store.destination("main", "billing") == destination()
    finally:
        store.close()


def ids(home: Path) -> list[str]:
    return [key.id for key in keys_in(home / KEYS_FILE)]


class TestKeyring:
    def test_the_same_text_is_never_kept_the_same_way_twice(self) -> None:
        """Else it shows which destinations share a password."""
        first, second = (KEYS.seal("s3cret", of=OWNER) for _ in range(2))

        assert first != second
        assert key_of(first) == key_of(second) == KEYS.held()[0].id
        assert {KEYS.unseal(one, of=OWNER) for one in (first, second)} == {"s3cret"}

    @pytest.mark.parametrize("of", [(*OWNER[:3], "headers"), OWNER[:3], ("",), (*OWNER, "")])
    def test_what_is_of_another_owner_is_not_read(self, of: tuple[str, ...]) -> None:
        with pytest.raises(KeyMissing, match="was not encrypted for it"):
            KEYS.unseal(KEYS.seal("s3cret", of=OWNER), of=of)

    @pytest.mark.parametrize("change", [lambda s: s[:-8], lambda s: s + "A", lambda s: s[:20]])
    def test_what_was_changed_is_not_read(self, change: object) -> None:
        assert callable(change)
        with pytest.raises(KeyMissing, match="was changed since"):
            KEYS.unseal(change(KEYS.seal("s3cret", of=OWNER)), of=OWNER)

    def test_the_first_key_encrypts_and_every_one_decrypts(self) -> None:
        old, new = Key(b"o" * 32), Key(b"n" * 32)
        sealed = Keyring(lambda: [old], where="").seal("s3cret", of=OWNER)
        both = Keyring(lambda: [new, old], where="")

        assert both.unseal(sealed, of=OWNER) == "s3cret"
        assert key_of(both.seal("s3cret", of=OWNER)) == new.id

    def test_a_secret_is_that_of_the_oldest_key_and_of_its_owner(self) -> None:
        """Pseudonyms stay equal when a key is added, and differ from team to team."""
        old, new = Key(b"o" * 32), Key(b"n" * 32)
        before = Keyring(lambda: [old], where="").secret(of=("pseudonyms", "main"))
        both = Keyring(lambda: [new, old], where="")

        assert both.secret(of=("pseudonyms", "main")) == before
        assert both.secret(of=("pseudonyms", "rivals")) != before
        assert Keyring(lambda: [new], where="").secret(of=("pseudonyms", "main")) != before
        with pytest.raises(KeyMissing, match="no key to make pseudonyms"):
            Keyring(list, where="here").secret(of=("pseudonyms", "main"))

    def test_nothing_shows_a_key(self) -> None:
        key = Key(b"s3cret--" * 4)

        for shown in (repr(key), repr(Keyring(lambda: [key], where="")), repr([key])):
            assert key.text not in shown
            assert "s3cret" not in shown


def test_a_destination_does_not_show_its_credentials() -> None:
    """What is logged, raised or printed while looking for a bug ends up in other hands."""
    asked = NewDestination(
        name="a", url="https://a.example/", headers=[("A", "hidden")], secret="hidden"
    )
    shown = StringIO()
    Console(file=shown).print(destination())

    for text in (repr(destination()), str(destination()), shown.getvalue(), repr(asked)):
        assert "hidden" not in text
    assert "billing" in shown.getvalue()


class TestWhereKeysAre:
    def test_a_home_gets_one_that_only_its_user_reads_and_keeps_it(self, tmp_path: Path) -> None:
        ensure_key(settings(tmp_path), chance=secrets.token_bytes)
        first = ids(tmp_path)
        ensure_key(settings(tmp_path), chance=secrets.token_bytes)

        assert len(first) == 1
        assert ids(tmp_path) == first
        assert (tmp_path / KEYS_FILE).stat().st_mode & 0o777 == 0o600

    def test_where_settings_say_it_no_other_is_made(self, tmp_path: Path) -> None:
        """A file that was not mounted would otherwise be a key that nobody else has."""
        named = settings(tmp_path, credential_keys_file=tmp_path / "mounted")
        given = settings(tmp_path, credential_keys=f"{base64(b'n')}, {base64(b'o')}")
        for one in (named, given):
            ensure_key(one, chance=secrets.token_bytes)

        assert [*tmp_path.iterdir()] == []
        assert keyring_of(named).held() == []
        assert [key.text for key in keyring_of(given).held()] == [base64(b"n"), base64(b"o")]
        assert base64(b"n") not in repr(given) + given.censored(f"{base64(b'n')}, {base64(b'o')}")

    @pytest.mark.parametrize("bad", ["short", base64(b"a")[:-4], "é", "=" * 44])
    def test_what_is_no_key_is_named_and_not_shown(self, tmp_path: Path, bad: str) -> None:
        file = tmp_path / KEYS_FILE
        file.write_text(f"{base64(b'a')}\n\n{bad}\n")

        with pytest.raises(BadSetting, match=r"key 3 is none: .*openssl rand -base") as refused:
            keyring_of(settings(tmp_path))
        assert bad not in str(refused.value)


class TestRotation:
    def test_everything_is_under_the_new_key_and_the_old_one_may_go(self, home: Path) -> None:
        [old] = ids(home)
        new, count = rotate(settings(home), chance=secrets.token_bytes)

        assert (ids(home), count) == ([new, old], 1)
        forget(settings(home), old)
        assert ids(home) == [new]
        assert read_back(home)
        assert (home / KEYS_FILE).stat().st_mode & 0o777 == 0o600

    def test_a_process_that_runs_needs_no_restart(self, home: Path) -> None:
        """It would keep new credentials under a key that is forgotten a minute later."""
        [old] = ids(home)
        running = store_of(settings(home))
        new, _ = rotate(settings(home), chance=secrets.token_bytes)
        forget(settings(home), old)

        running.add_destination(destination("other"))
        assert running.destination("main", "billing") == destination()
        assert running.keys_needed() == {new: KeyNeeded(["main.billing", "main.other"], [])}
        running.close()

    def test_a_key_that_is_needed_stays(self, home: Path) -> None:
        [old] = ids(home)
        with pytest.raises(WrongState, match=r"needed by main\.billing"):
            forget(settings(home), old)
        new, _ = rotate(settings(home), chance=secrets.token_bytes)
        store = store_of(settings(home))
        store.delete_destination("main", "billing")
        store.close()

        with pytest.raises(WrongState, match=f"the key {new} encrypts"):
            forget(settings(home), new)
        with pytest.raises(NotFound):
            forget(settings(home), "nothing")
        assert ids(home) == [new, old]

    def test_an_interrupted_rotation_loses_nothing(self, home: Path) -> None:
        """The new key is on the disk before anything is under it."""
        file = home / KEYS_FILE
        file.write_text(f"{base64(b'n')}\n{file.read_text()}")

        assert read_back(home)
        new, count = rotate(settings(home), chance=secrets.token_bytes)
        assert (ids(home)[0], count, read_back(home)) == (new, 1, True)

    def test_none_is_made_while_one_that_is_needed_is_missing(self, home: Path) -> None:
        [old] = ids(home)
        (home / KEYS_FILE).write_text(base64(b"x") + "\n")

        with pytest.raises(KeyMissing, match=f"not there \\({old}\\): put them back"):
            rotate(settings(home), chance=secrets.token_bytes)
        assert len(ids(home)) == 1

    def test_one_at_a_time_changes_the_file(self, home: Path) -> None:
        """Of two that each wrote what they read, one key would be lost with what is under it."""
        with (home / f"{KEYS_FILE}.lock").open("a") as lock, ThreadPoolExecutor(1) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)
            turning = pool.submit(rotate, settings(home), chance=secrets.token_bytes)
            with pytest.raises(TimeoutError):
                turning.result(0.2)
            fcntl.flock(lock, fcntl.LOCK_UN)
            turning.result(20)
        assert read_back(home)

    def test_where_keys_are_a_setting_the_first_is_used_and_none_is_written(
        self, tmp_path: Path
    ) -> None:
        store = store_of(settings(tmp_path, credential_keys=base64(b"o")))
        store.add_destination(destination())
        store.close()
        both = settings(tmp_path, credential_keys=f"{base64(b'n')},{base64(b'o')}")

        key_id, count = rotate(both, chance=secrets.token_bytes)

        assert (key_id, count) == (Key(b"n" * 32).id, 1)
        assert not (tmp_path / KEYS_FILE).exists()
        with pytest.raises(BadRequest, match="remove it there"):
            forget(both, Key(b"o" * 32).id)
        alone = store_of(settings(tmp_path, credential_keys=base64(b"n")))
        assert alone.destination("main", "billing") == destination()
        alone.close()
