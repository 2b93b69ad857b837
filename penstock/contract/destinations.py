"""Where replays can go."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example
from penstock.vocabulary import Credential, Kind


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


class Tried(Told):
    """What a destination made of one small event, or of a look where none is sent for a test."""

    delivered: bool = Field(description="It took the event, or is ready to take events.")
    sent: bool = Field(description="An event was sent. Only to HTTP: the others can be asked.")
    status: int | None = Field(description="The HTTP status it answered with, if it answered.")
    reason: str | None = Field(description="Why it was not delivered.")
    seconds: float


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
