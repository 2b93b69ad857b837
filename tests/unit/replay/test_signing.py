"""Signatures that receivers of other people's webhooks accept."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode

import pytest
from builders import NOON

from penstock.errors import BadRequest
from replay.targets.signing import HEADERS, Signing, signer, webhook_id

NEW = "whsec_" + b64encode(b"n" * 32).decode()
OLD = "whsec_" + b64encode(b"o" * 32).decode()


def test_standard_webhooks_signs_as_its_reference_does() -> None:
    """The vector that implementations of the specification share."""
    sign = signer("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    assert sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330_000_000, b'{"test": 2432232314}') == [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]


def test_github_signs_as_its_documentation_does() -> None:
    sign = signer("github", "It's a Secret to Everybody")

    assert sign("e1", NOON, b"Hello, World!") == [
        (
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )
    ]


def test_stripe_signs_what_a_client_of_stripe_accepts() -> None:
    """Stripe publishes no secret with its example; this is what a client library is tested by."""
    item = {
        "id": "ii_123",
        "object": "invoiceitem",
        "amount": 1000,
        "currency": "usd",
        "customer": "cus_123",
        "date": 1533204620,
        "description": "Test Invoice Item",
        "discountable": False,
        "invoice": "in_123",
        "livemode": False,
        "metadata": {},
        "period": {"start": 1533204620, "end": 1533204620},
        "proration": False,
        "quantity": 3,
    }
    body = {
        "id": "evt_123",
        "object": "event",
        "account": "acct_123",
        "api_version": "2017-05-25",
        "created": 1533204620,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_123", "idempotency_key": "idempotency-key-123"},
        "data": {"object": item},
        "type": "invoiceitem.created",
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    assert signer("stripe", "secret")("e1", 1533204620_999_999, text) == [
        (
            "Stripe-Signature",
            "t=1533204620,v1=5a81ebe328da1df19581cbc6c7377920947ffd30b56eebcc7ba9a6938a090965",
        )
    ]


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_while_secrets_change_a_receiver_accepts_with_either(secret: str) -> None:
    """Nobody changes both ends in the same moment."""
    headers = dict(signer("standard", f"{NEW}\n{OLD}\n")("e1", NOON, b"{}"))
    signed = f"e1.{NOON // 1_000_000}.".encode() + b"{}"
    key = b64decode(secret.removeprefix("whsec_"))
    expected = b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()

    versions = [one.split(",", 1) for one in headers["webhook-signature"].split(" ")]
    assert [version for version, _ in versions] == ["v1", "v1"]
    assert expected in {signature for _, signature in versions}

    stripe = dict(signer("stripe", f"{NEW}\n{OLD}")("e1", NOON, b"{}"))["Stripe-Signature"]
    made = hmac.new(secret.encode(), f"{NOON // 1_000_000}.".encode() + b"{}", "sha256").hexdigest()
    assert f"v1={made}" in stripe.split(",")


@pytest.mark.parametrize("event_id", ["a.1614265330", "", "é", "a b", "x" * 201, "a\nb", "\ud800"])
def test_an_id_that_could_be_read_otherwise_is_signed_as_its_digest(event_id: str) -> None:
    """``a.1`` with the time 2 and the body ``{}`` signs what ``a``, 1 and ``2.{}`` do."""
    signed = webhook_id(event_id)

    assert signed.startswith("sha256_")
    assert len(signed) == 7 + 64
    assert webhook_id(signed) == signed
    assert webhook_id(event_id + "x") != signed


def test_the_same_event_has_the_same_id_in_every_attempt_and_another_time() -> None:
    """Receivers fold repeats by the id, and refuse what is too old."""
    sign = signer("standard", NEW)
    first, second = dict(sign("e1", NOON, b"{}")), dict(sign("e1", NOON + 600_000_000, b"{}"))

    assert first["webhook-id"] == second["webhook-id"] == "e1"
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 600


@pytest.mark.parametrize(
    ("scheme", "secret", "why"),
    [
        ("none", "s3cret", "give the option signing"),
        ("standard", None, "takes one secret"),
        ("standard", "  \n ", "takes one secret"),
        ("standard", f"{NEW}\n{OLD}\n{NEW}", "takes one secret, or two"),
        ("standard", "whsec_s3cret!", "24 to 64 bytes in base64"),
        ("standard", "whsec_" + b64encode(b"s" * 23).decode(), "24 to 64 bytes"),
        ("standard", b64encode(b"s" * 65).decode(), "24 to 64 bytes"),
        ("stripe", None, "takes one secret"),
        ("github", "a\nb", "takes one secret$"),
        ("github", "", "takes one secret$"),
    ],
)
def test_what_is_no_secret_of_the_scheme_is_refused_without_being_shown(
    scheme: Signing, secret: str | None, why: str
) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        signer(scheme, secret)
    for line in (secret or "").split():
        assert line not in str(refused.value) or len(line) == 1


def test_each_scheme_sets_the_headers_it_says() -> None:
    secrets: dict[Signing, str] = {"standard": NEW, "stripe": "a", "github": "b"}
    for scheme, secret in secrets.items():
        made = signer(scheme, secret)("e1", NOON, b"")
        assert tuple(name for name, _ in made) == HEADERS[scheme]
