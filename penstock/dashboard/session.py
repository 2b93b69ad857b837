"""What a session is: a secret in a cookie, and what is derived from it. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from penstock.envelope import Micros
from penstock.errors import KeyMissing
from penstock.metadata.keys import Key, Keyring
from penstock.metadata.records import SessionRecord, TokenRecord
from penstock.metadata.tokens import Chance

LASTS: Micros = 7 * 86_400 * 1_000_000
"""How long somebody stays signed in at most; as long as the token works."""

_SECRET_BYTES = 32
# What may stand in an address as it is; letters, digits and "-._~" always may.
_ADDRESS = "%/?#[]@!$&'()*+,;=:"


def begun(
    token: TokenRecord, text: str, *, now: Micros, chance: Chance
) -> tuple[str, SessionRecord]:
    """Answer the secret of a new session, for the cookie alone, and the record of it."""
    secret = chance(_SECRET_BYTES).hex()
    ends = now + LASTS if token.expires_at is None else min(now + LASTS, token.expires_at)
    record = SessionRecord(
        digest=digest(secret),
        token_id=token.id,
        sealed=_masked(text.encode(), secret),
        created_at=now,
        expires_at=ends,
    )
    return secret, record


def digest(secret: str) -> str:
    """Answer what is stored of a secret: 256 random bits need no slow hash."""
    return _derived("session", secret).hex()


def csrf(secret: str) -> str:
    """Answer what every form of the session carries, and no other site can know."""
    return _derived("form", secret).hex()


def is_csrf(given: str, secret: str) -> bool:
    """Say whether a form belongs to the session."""
    return hmac.compare_digest(given.encode(), csrf(secret).encode())


def unsealed(record: SessionRecord, secret: str) -> str:
    """Answer the text of the token that the session began with."""
    return _masked(record.sealed, secret).decode()


def put_aside(text: str, secret: str, *, of: Sequence[str], chance: Chance) -> str:
    """Answer what a page may hold of a credential that was typed: this session alone reads it.

    `of` is what it was typed for; for anything else it cannot be read.
    """
    return _keyring(secret, chance).seal(text, of=of)


def taken_up(aside: str, secret: str, *, of: Sequence[str]) -> str | None:
    """Answer what was put aside; None for what this session did not put aside for this."""
    try:
        return _keyring(secret, secrets.token_bytes).unseal(aside, of=of)
    except KeyMissing:
        return None


def alive(record: SessionRecord, now: Micros) -> bool:
    """Say whether the session is not over."""
    return now < record.expires_at


def cookie_name(port: int | None, *, secure: bool) -> str:
    """Answer the cookie's name.

    Cookies do not know ports: two installations on one host must not sign each other out.
    """
    # Browsers take a cookie of that prefix over TLS only, for this host alone.
    prefix = "__Host-" if secure else ""
    return f"{prefix}penstock_{port or (443 if secure else 80)}"


def way_back(wanted: str | None) -> str:
    """Answer the page to go to after signing in: one of ours, whatever a link says.

    It can stand in a header: what is no part of an address is percent-encoded.
    """
    path = wanted or "/"
    parts = urlsplit(path) if path.isprintable() and "\\" not in path else None
    ours = (
        parts is not None
        and not parts.scheme
        and not parts.netloc
        and path.startswith("/")
        and not path.startswith("//")
        and not path.startswith(("/sign-in", "/sign-out"))
    )
    return quote(path, safe=_ADDRESS) if ours else "/"


def _derived(purpose: str, secret: str) -> bytes:
    return hmac.digest(secret.encode(), f"penstock {purpose}".encode(), "sha256")


def _keyring(secret: str, chance: Chance) -> Keyring:
    return Keyring(lambda: [Key(_derived("aside", secret))], where="the session", chance=chance)


def _masked(content: bytes, secret: str) -> bytes:
    """Answer the bytes under a mask that this secret alone gives; twice is as before.

    The mask is used for one text only, as a secret is for one session: a pad of one use.
    """
    pad = hashlib.shake_256(_derived("seal", secret)).digest(len(content))
    return bytes(a ^ b for a, b in zip(content, pad, strict=True))
