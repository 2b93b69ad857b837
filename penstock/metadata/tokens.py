"""The text of a token: ``pst_``, 43 characters of chance, 6 of checksum.

The alphabet is base 62, so that a double click selects the whole token. The checksum lets a
misspelt token be refused, and a leaked one be found in other people's files, without a look-up.
"""

from __future__ import annotations

import hashlib
import re
import string
import zlib
from collections.abc import Callable

from penstock.envelope import Micros
from penstock.metadata.records import TokenRecord
from penstock.vocabulary import Scope

Chance = Callable[[int], bytes]
"""Answers so many random bytes; `secrets.token_bytes` outside tests."""

PREFIX = "pst_"
CHANCE_BYTES = 32

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET = 43  # 62**43 > 2**256
_CHECKSUM = 6  # 62**6 > 2**32
_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})", re.ASCII)
_HINT = len(PREFIX) + 4


def new_token(chance: bytes) -> str:
    """Answer the token made of 32 random bytes."""
    if len(chance) != CHANCE_BYTES:
        raise ValueError(f"a token takes {CHANCE_BYTES} random bytes, not {len(chance)}")
    secret = _base62(int.from_bytes(chance), _SECRET)
    return f"{PREFIX}{secret}{_checksum(secret)}"


def issue(
    chance: Chance,
    *,
    team: str,
    name: str,
    scopes: tuple[Scope, ...],
    collection: str | None = None,
    created_at: Micros,
    expires_at: Micros | None = None,
) -> tuple[str, TokenRecord]:
    """Answer a new token's text, to be shown once, and the record by which it is recognised."""
    text = new_token(chance(CHANCE_BYTES))
    record = TokenRecord(
        id=chance(8).hex(),
        team=team,
        name=name,
        scopes=scopes,
        collection=collection,
        digest=digest(text),
        hint=hint(text),
        created_at=created_at,
        expires_at=expires_at,
    )
    return text, record


def digest(token: str) -> str:
    """Answer what is stored of a token: its SHA-256 in hex.

    A plain hash is enough: 256 random bits cannot be guessed, however fast the hash is.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def hint(token: str) -> str:
    """Answer the first characters, by which people tell their tokens apart."""
    return token[:_HINT]


def looks_like_token(text: str) -> bool:
    """Say whether the text has a token's form and its checksum is right."""
    found = _SHAPE.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), _CHECKSUM)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
