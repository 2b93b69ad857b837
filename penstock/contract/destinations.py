"""Where replays can go."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example
from penstock.vocabulary import Credential, Kind

Rate = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
"""Sends a second."""


class NewDestination(Asked):
    """A destination to be made. Header values may be credentials: they are never told again."""

    model_config = example(
        name="billing",
        url="https://billing.example/events",
        headers=[["Authorization", "Bearer …"]],
    )

    name: str
    kind: Kind | None = Field(default=None, description="Left out: as the URL's scheme says.")
    url: str
    headers: list[tuple[ShortText, LongText]] = Field(default=[], max_length=50, repr=False)
    options: dict[str, Any] = Field(default={}, description="What the kind has; see the reference.")
    secret: LongText | None = Field(
        default=None,
        repr=False,
        description="Kafka, RabbitMQ: user:password. SQS: KEY_ID:SECRET_KEY[:SESSION]. HTTP: what "
        "signs, with the option signing; two while receivers change theirs, one a line.",
    )
    credentials: dict[Credential, LongText] = Field(
        default={},
        repr=False,
        description="HTTP: client_secret with the option token_url; client_certificate and "
        "client_key (PEM) for TLS.",
    )
    rate: Rate | None = Field(
        default=None, description="Sends a second at most, of all replays to it together."
    )


class ChangedDestination(Asked):
    """What is to be another thing of a destination. What is left out stays as it is.

    Its name, kind and address never change.
    """

    model_config = example(rate=100, options={"method": "PUT"}, without=["X-Team"])

    rate: Rate | None = Field(
        default=None,
        description="Sends a second at most, of all replays to it together; null for no bound.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Instead of those of the same name; the others stay."
    )
    headers: list[tuple[ShortText, LongText]] = Field(
        default=[],
        max_length=50,
        repr=False,
        description="Instead of those of the same name; the others stay.",
    )
    secret: LongText | None = Field(default=None, repr=False, description="Instead of the one.")
    credentials: dict[Credential, LongText] = Field(
        default={}, repr=False, description="Instead of those of the same name; the others stay."
    )
    without: list[ShortText] = Field(
        default=[],
        max_length=100,
        description="Names of headers, options and credentials that it has no more; `secret`.",
    )


class TunnelTold(Told):
    """A tunnel that is connected to the door."""

    bus: str = Field(description="What it writes to, as it says.")
    peer: str = Field(description="Where it called from, as the door sees it.")
    since: Time


class Tried(Told):
    """What a destination made of one small event, or of a look where none is sent for a test."""

    delivered: bool = Field(description="It took the event, or is ready to take events.")
    sent: bool = Field(description="An event was sent. Only to HTTP: the others can be asked.")
    status: int | None = Field(description="The HTTP status it answered with, if it answered.")
    reason: str | None = Field(description="Why it was not delivered.")
    seconds: float
    found: list[TunnelTold] = Field(
        default=[],
        description="The tunnels that are connected, the one that gets the events first.",
    )


class DestinationTold(Told):
    """A destination; of headers and credentials the names, and whether there is a secret."""

    name: str
    kind: Kind
    url: str
    headers: list[str]
    options: dict[str, Any]
    secret: bool
    credentials: list[Credential]
    created_at: Time
    tried_at: Time | None = Field(description="When it was last tested.")
    tried: Tried | None = Field(description="What became of that.")
    rate: float | None = Field(description="Sends a second at most, of all replays together.")
