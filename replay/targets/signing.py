"""Signatures of what is posted, as receivers of webhooks know them. Pure.

A signature is made for each attempt, with the time of that attempt: receivers refuse one that is
some minutes old, and a replay sends what was received long ago.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from penstock.envelope import Micros
from penstock.errors import BadRequest

Signing = Literal["none", "standard", "stripe", "github"]

HEADERS: Mapping[Signing, tuple[str, ...]] = {
    "none": (),
    "standard": ("webhook-id", "webhook-timestamp", "webhook-signature"),
    "stripe": ("Stripe-Signature",),
    "github": ("X-Hub-Signature-256",),
}
"""What each scheme sets; it is not the event's to set."""

MOST_SECRETS = 2
"""The new one and the one before it, while receivers change theirs."""

_PREFIX = "whsec_"
# Standard Webhooks asks for 24 to 64 bytes; with less, who sees signatures can guess.
_LEAST_BYTES, _MOST_BYTES = 24, 64
# What is signed is id.timestamp.body: an id with a dot could be read as a shorter one with another
# time and body.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")

Sign = Callable[[str, Micros, bytes], list[tuple[str, str]]]
"""Answers the headers for an event's id, the time of the attempt and the body."""


def signer(scheme: Signing, secret: str | None) -> Sign:
    """Answer what signs with these secrets, one a line, the newest first.

    Raises `BadRequest` where they are not the scheme's.
    """
    secrets = [line.strip() for line in (secret or "").splitlines() if line.strip()]
    if scheme == "none":
        if secret is not None:
            raise BadRequest(
                "a secret of an HTTP destination signs: give the option signing, too, or give "
                "credentials as headers"
            ).at("options.signing")
        return lambda _id, _now, _body: []
    most = 1 if scheme == "github" else MOST_SECRETS
    if not 1 <= len(secrets) <= most:
        many = "one secret" if most == 1 else "one secret, or two with the newest first, one a line"
        raise BadRequest(f"signing={scheme} takes {many}").at("secret")
    match scheme:
        case "standard":
            keys = [_standard_key(one) for one in secrets]
            return lambda event_id, now, body: _standard(keys, event_id, now, body)
        case "stripe":
            keys = [one.encode() for one in secrets]
            return lambda _id, now, body: _stripe(keys, now, body)
        case "github":
            key = secrets[0].encode()
            return lambda _id, _now, body: [
                ("X-Hub-Signature-256", f"sha256={_mac(key, body).hex()}")
            ]


def webhook_id(event_id: str) -> str:
    """Answer the id that is signed: the event's own, or its SHA-256 where that cannot be sent."""
    if _PLAIN_ID.fullmatch(event_id):
        return event_id
    return f"sha256_{hashlib.sha256(event_id.encode(errors='surrogatepass')).hexdigest()}"


def _standard(
    keys: Sequence[bytes], event_id: str, now: Micros, body: bytes
) -> list[tuple[str, str]]:
    signed_id, seconds = webhook_id(event_id), now // 1_000_000
    text = f"{signed_id}.{seconds}.".encode() + body
    made = [f"v1,{b64encode(_mac(key, text)).decode()}" for key in keys]
    values = (signed_id, str(seconds), " ".join(made))
    return [*zip(HEADERS["standard"], values, strict=True)]


def _stripe(keys: Sequence[bytes], now: Micros, body: bytes) -> list[tuple[str, str]]:
    seconds = now // 1_000_000
    text = f"{seconds}.".encode() + body
    made = ",".join(f"v1={_mac(key, text).hex()}" for key in keys)
    return [("Stripe-Signature", f"t={seconds},{made}")]


def _standard_key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise BadRequest(
            f"signing=standard takes secrets of {_LEAST_BYTES} to {_MOST_BYTES} bytes in base64, "
            f"with {_PREFIX} before them or not: echo {_PREFIX}$(openssl rand -base64 32)"
        ).at("secret")
    return key


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")
