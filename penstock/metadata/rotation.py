"""Changes of the keys of credentials: the first one, a new one, and none of an old one any more.

At every moment of each, also where it ends in the middle, every credential is under a key that is
kept.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from penstock.errors import BadRequest, KeyMissing, NotFound, WrongState
from penstock.metadata.keys import Key, keyring_of, keys_file, keys_in, new_key
from penstock.metadata.private import write_private
from penstock.metadata.store import Store, store_of
from penstock.metadata.tokens import Chance
from penstock.settings import Settings


def ensure_key(settings: Settings, *, chance: Chance) -> None:
    """Make the first key of a home, unless there is one or keys are named by a setting."""
    file = keys_file(settings)
    if file is None or settings.credential_keys_file is not None:
        return
    with _alone(file):
        if not file.exists():
            _write(file, [new_key(chance)])


def rotate(settings: Settings, *, chance: Chance) -> tuple[str, int]:
    """Put every credential under a new first key; answer its id and how many there were.

    Where the keys are a setting it is the first of them. Raises `KeyMissing` if one cannot be read.
    """
    file = keys_file(settings)
    if file is None:
        return _reseal(settings)
    with _alone(file):
        before = keys_in(file)
        if before:  # without a key a store of an older release cannot be opened
            with closing(store_of(settings)) as store:
                _check_known(store, before)
        _write(file, [new_key(chance), *before])
        return _reseal(settings)


def forget(settings: Settings, key_id: str) -> None:
    """Remove a key from the file. Raises `WrongState` for the first, and for one that is needed."""
    file = keys_file(settings)
    if file is None:
        raise BadRequest(
            "the keys are the setting credential_keys: once 'penstock key list' says that nothing "
            "is under a key, remove it there"
        )
    with _alone(file), closing(store_of(settings)) as store, store.unneeded_key(key_id):
        keys = keys_in(file)
        if key_id not in {key.id for key in keys}:
            raise NotFound("key", key_id)
        if keys[0].id == key_id:
            raise WrongState(f"the key {key_id} encrypts: 'penstock key rotate' first")
        _write(file, [key for key in keys if key.id != key_id])


def _reseal(settings: Settings) -> tuple[str, int]:
    with closing(store_of(settings)) as store:
        return keyring_of(settings).held()[0].id, store.reseal()


def _check_known(store: Store, keys: Sequence[Key]) -> None:
    missing = sorted(set(store.keys_needed()) - {key.id for key in keys})
    if missing:
        raise KeyMissing(
            f"credentials are under keys that are not there ({', '.join(missing)}): put them back, "
            "or give anew what 'penstock key list' names: a destination is deleted first"
        )


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time change the file: two would each lose the other's key."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(file: Path, keys: Sequence[Key]) -> None:
    write_private(file, "".join(f"{key.text}\n" for key in keys))
