"""Keys under which credentials of destinations and schema registries are kept, and what is kept.

A credential is kept as ``aes256gcm:KEY:…``: which key it is under, then nonce and ciphertext in
base64. What it belongs to is authenticated with it, so that one which is moved to another place in
the database cannot be read there. The first key encrypts, every one decrypts.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import BadSetting, KeyMissing
from penstock.metadata.tokens import Chance
from penstock.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEYS_FILE = "credential.keys"

_SCHEME = "aes256gcm"
_NONCE_BYTES = 12  # of chance: NIST SP 800-38D allows 2**32 credentials under one key
_ID_LETTERS = 8
_MAKE_ONE = (
    "'penstock key rotate' makes the first one where keys are kept in a file, else set "
    "credential_keys"
)


class Key:
    """One key; it shows nothing but its id, the beginning of its SHA-256."""

    def __init__(self, raw: bytes) -> None:
        self.id = hashlib.sha256(b"penstock key " + raw).hexdigest()[:_ID_LETTERS]
        self._raw = raw

    def __repr__(self) -> str:
        return f"Key({self.id})"

    @property
    def text(self) -> str:
        """What stands in the file, or in the setting."""
        return b64encode(self._raw).decode()

    def secret(self, name: bytes) -> bytes:
        """Answer a secret of this name, from which neither the key nor another one follows."""
        return hmac.digest(self._raw, b"penstock secret " + name, "sha256")

    def cipher(self) -> AESGCM:
        """Answer what encrypts and decrypts."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._raw)


def new_key(chance: Chance) -> Key:
    """Answer a key made of chance."""
    return Key(chance(KEY_BYTES))


def read_keys(lines: Sequence[str], *, where: str) -> list[Key]:
    """Answer the keys of these lines; raise `BadSetting`, which calls them `where`.

    A key is 32 bytes in base64; an empty line is none.
    """
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = b64decode(line.strip(), validate=True)
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise BadSetting(
                f"{where}: key {number} is none: write {KEY_BYTES} bytes in base64, as "
                f"'openssl rand -base64 {KEY_BYTES}' does"
            )
        keys.append(Key(raw))
    return keys


class Keyring:
    """Encrypts and decrypts credentials.

    `read` is asked each time: a process that has been running for weeks knows a key that was made
    a moment ago, and no longer uses one that was forgotten. `where` says to people where keys are
    put.
    """

    def __init__(
        self, read: Callable[[], Sequence[Key]], *, where: str, chance: Chance = secrets.token_bytes
    ) -> None:
        self._read = read
        self._where = where
        self._chance = chance

    def held(self) -> Sequence[Key]:
        """Answer the keys, the one that encrypts first."""
        return self._read()

    def seal(self, text: str, *, of: Sequence[str]) -> str:
        """Answer the text as it is kept; `of` is what it belongs to. Raises `KeyMissing`."""
        keys = self._read()
        if not keys:
            raise KeyMissing(
                f"there is no key to encrypt credentials with in {self._where}: {_MAKE_ONE}"
            )
        nonce = self._chance(_NONCE_BYTES)
        kept = nonce + keys[0].cipher().encrypt(nonce, text.encode(), _owner(of))
        return f"{_SCHEME}:{keys[0].id}:{b64encode(kept).decode()}"

    def secret(self, *, of: Sequence[str]) -> bytes:
        """Answer a secret that is the same each time for the same `of`. Raises `KeyMissing`.

        It is made of the oldest key: a new one in front of that changes nothing.
        """
        keys = self._read()
        if not keys:
            raise KeyMissing(
                f"there is no key to make pseudonyms with in {self._where}: {_MAKE_ONE}"
            )
        return keys[-1].secret(_owner(of))

    def unseal(self, sealed: str, *, of: Sequence[str]) -> str:
        """Answer the text that was sealed for the same owner. Raises `KeyMissing`."""
        from cryptography.exceptions import InvalidTag

        wanted = key_of(sealed)
        what = " ".join(of[:3])
        key = next((one for one in self._read() if one.id == wanted), None)
        if key is None:
            raise KeyMissing(
                f"a credential of {what} is under the key {wanted}, which is not in "
                f"{self._where}: put it back there, or give it anew"
            )
        try:
            kept = b64decode(sealed.rpartition(":")[2], validate=True)
            return (
                key.cipher().decrypt(kept[:_NONCE_BYTES], kept[_NONCE_BYTES:], _owner(of)).decode()
            )
        except (InvalidTag, ValueError):
            # Said without its cause: nobody is helped by it, and it could quote what was read.
            raise KeyMissing(
                f"a credential of {what} was not encrypted for it under the key {wanted}, or was "
                "changed since: give it anew"
            ) from None


def key_of(sealed: str) -> str:
    """Answer the id of the key that something is under."""
    scheme, _, rest = sealed.partition(":")
    return rest.partition(":")[0] if scheme == _SCHEME else "?"


def keyring_of(settings: Settings) -> Keyring:
    """Answer the keys of an installation: of `credential_keys`, else of the file of keys.

    Raises `BadSetting` for what is no key.
    """
    file = keys_file(settings)
    if file is None:
        given = settings.credential_keys.get_secret_value().split(",")
        keys = read_keys(given, where="credential_keys")
        return Keyring(lambda: keys, where="credential_keys")
    ring = Keyring(lambda: keys_in(file), where=str(file))
    ring.held()
    return ring


def keys_file(settings: Settings) -> Path | None:
    """Answer the file that keys are kept in; None where they are a setting."""
    if settings.credential_keys.get_secret_value():
        return None
    return settings.credential_keys_file or settings.home / KEYS_FILE


def keys_in(file: Path) -> list[Key]:
    """Answer the keys of a file, none where there is no file; raise `BadSetting`."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"the keys of credentials cannot be read from {file}") from error
    return read_keys(lines, where=str(file))


def _owner(of: Sequence[str]) -> bytes:
    return msgspec.json.encode(list(of))


NO_KEYS = Keyring(tuple, where="no settings")
"""For stores that are opened without any."""
