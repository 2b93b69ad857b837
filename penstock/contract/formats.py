"""What the payloads of a collection are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example
from penstock.vocabulary import FormatName, Framing


class FormatAsked(Asked):
    """What the payloads of a collection are."""

    model_config = example(name="protobuf", descriptor="CiQKC2EucHJvdG8…", message="shop.Order")

    name: FormatName
    descriptor: Annotated[str, Field(max_length=1 << 20)] | None = Field(
        default=None,
        description="A FileDescriptorSet in base64; without it, the one the collection has.",
    )
    message: ShortText | None = Field(
        default=None, description="The full name of the message that a payload is."
    )
    envelope: Literal["deep", "shallow"] = Field(
        default="deep", description="Shallow: a field of bytes of the message holds another one."
    )
    payload_field: Annotated[int, Field(ge=1, lt=1 << 29, strict=True)] | None = Field(
        default=None, description="The number of that field."
    )
    payload_message: ShortText | None = Field(
        default=None, description="The full name of the message in it."
    )
    avro_schema: Annotated[str, Field(max_length=1 << 20)] | None = Field(
        default=None,
        description="The newest schema, as the text of an .avsc file; earlier ones stay known.",
    )
    framing: Framing | None = Field(
        default=None,
        description="What is before a value of Avro: nothing (datum), the fingerprint of its "
        "schema (single-object), or 00 and its id in a registry (confluent).",
    )
    registry: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="The address of a schema registry, for the framing confluent."
    )
    registry_secret: LongText | None = Field(
        default=None, description="What it asks for: user:password, or a token; never told."
    )


class FormatTried(FormatAsked):
    """A format, and the past events to try it on."""

    model_config = example(name="avro", avro_schema='{"type": "record", …', sample=1000)

    since: Time | None = Field(default=None, description="Received at this time or later.")
    until: Time | None = Field(default=None, description="Received before this time.")
    sample: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="Try about so many events only, spread over the time."
    )


class FormatTold(Told):
    """What the payloads of a collection are."""

    name: FormatName
    descriptor_digest: str | None = Field(
        description="SHA-256 of the descriptor set, without comments, or of the schemas of Avro."
    )
    message: str | None
    payload_field: int | None
    payload_message: str | None
    framing: Framing | None
    versions: int | None = Field(description="How many schemas of Avro were uploaded.")
    registry: str | None
    registry_secret: bool = Field(description="Whether there is one.")
    changed_at: Time | None
