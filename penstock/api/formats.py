"""A collection's format: told, and asked for, checked before anything relies on it."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from penstock.contract.base import moment
from penstock.contract.formats import FormatAsked, FormatTold
from penstock.envelope import CollectionId
from penstock.errors import BadRequest, KeyMissing
from penstock.guard import Guard
from penstock.metadata.records import RegistrySecret
from penstock.metadata.store import Store
from penstock.metadata.tokens import Chance
from penstock.schema.formats import Format, open_decoder
from penstock.schema.formats.avro import Schemas, schemas_of, with_version
from penstock.schema.formats.protobuf import without_comments

_ID_BYTES = 16

_OF_PROTOBUF = ("descriptor", "message", "payload_field", "payload_message")
_OF_AVRO = ("avro_schema", "framing", "registry", "registry_secret")


def format_told(known: Format) -> FormatTold:
    """Tell about a format."""
    return FormatTold(
        name=known.name,
        descriptor_digest=known.schema,
        message=known.message,
        payload_field=known.payload_field,
        payload_message=known.payload_message,
        framing=known.framing,
        versions=known.versions,
        registry=known.registry,
        registry_secret=known.secret,
        changed_at=moment(known.changed_at),
    )


def wanted(
    asked: FormatAsked,
    collection: CollectionId,
    known: Format,
    store: Store,
    *,
    guard: Guard,
    chance: Chance,
) -> tuple[Format, bytes | None, RegistrySecret | None]:
    """Answer the format that was asked for, and its schema and secret if those came with it.

    `known` is what the collection has, and `store` keeps what that names. Where nothing is to
    change the answer is `known`. Raises `BadRequest` for what landing could not read payloads
    with, `AddressRefused` for a registry that may not be reached.
    """
    for name, names in (("protobuf", _OF_PROTOBUF), ("avro", _OF_AVRO)):
        given = [each for each in names if getattr(asked, each) is not None]
        if asked.name != name and given:
            raise BadRequest(f"{asked.name} has no {given[0]}; {name} has")
    secret = None
    match asked.name:
        case "protobuf":
            format_, new = _protobuf(asked, known)
        case "avro":
            format_, new, secret = _avro(asked, known, collection, store, guard, chance)
        case name:
            format_, new = Format(name=name), None
            if asked.envelope != "deep":
                raise BadRequest(f"{name} has no envelope")
    digest = format_.schema
    open_decoder(
        format_,
        store.format_schema(collection, digest) if new is None and digest is not None else new,
    )
    return replace(format_, changed_at=known.changed_at), new, secret


def _protobuf(asked: FormatAsked, known: Format) -> tuple[Format, bytes | None]:
    new = None if asked.descriptor is None else without_comments(_bytes(asked.descriptor))
    inside = (asked.payload_field, asked.payload_message)
    if (asked.envelope == "shallow") != (None not in inside) or inside.count(None) == 1:
        raise BadRequest("a shallow envelope, and no other, has payload_field and payload_message")
    digest = known.schema if known.name == "protobuf" else None
    format_ = Format(
        name="protobuf",
        schema=digest if new is None else sha256(new).hexdigest(),
        message=asked.message,
        payload_field=asked.payload_field,
        payload_message=asked.payload_message,
    )
    return format_, new


def _avro(
    asked: FormatAsked,
    known: Format,
    collection: CollectionId,
    store: Store,
    guard: Guard,
    chance: Chance,
) -> tuple[Format, bytes | None, RegistrySecret | None]:
    """Answer what is asked for, with all that the collection knows already and nobody changes."""
    if asked.envelope != "deep":
        raise BadRequest("avro has no envelope")
    before = known if known.name == "avro" else Format(name="avro")
    kept = schemas_of(
        None if before.schema is None else store.format_schema(collection, before.schema)
    )
    framing = asked.framing or ("confluent" if asked.registry else before.framing) or "datum"
    registry = before.registry if framing == "confluent" else None
    if asked.registry is not None:
        registry = _address(asked.registry, guard)
    if (framing == "confluent") != (registry is not None):
        raise BadRequest("the framing confluent, and no other, has the address of a registry")
    new = kept if asked.avro_schema is None else with_version(kept, asked.avro_schema)
    secret = None
    if asked.registry_secret is not None:
        if registry is None:
            raise BadRequest("the secret is for a registry, and there is none")
        if not asked.registry_secret.isprintable():
            raise BadRequest("the secret has characters that no header can carry")
        if asked.registry_secret != _known_secret(new, collection, store):
            secret = RegistrySecret(chance(_ID_BYTES).hex(), asked.registry_secret)
            new = replace(new, secret_id=secret.id)
    elif registry != before.registry:
        # What signs in to one address is not shown to another.
        new = replace(new, secret_id=None)
    body = None if new in (kept, Schemas()) else msgspec.json.encode(new)
    format_ = Format(
        name="avro",
        schema=_digest(new, body, before),
        framing=framing,
        versions=len(new.versions),
        registry=registry,
        secret=new.secret_id is not None,
    )
    return format_, body, secret


def _digest(schemas: Schemas, body: bytes | None, before: Format) -> str | None:
    if body is not None:
        return sha256(body).hexdigest()
    # Not made anew: an older release had the secret in what it is of.
    return None if schemas == Schemas() else before.schema


def _known_secret(schemas: Schemas, collection: CollectionId, store: Store) -> str | None:
    if schemas.secret_id is None:
        return None
    try:
        return store.registry_secret(collection, schemas.secret_id)
    except KeyMissing:
        return None  # it is being given anew


def _address(url: str, guard: Guard) -> str:
    address = guard.endpoint(url).url
    if "?" in address:
        raise BadRequest("the address of a registry has no parameters")
    return address.rstrip("/")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the descriptor set is not in base64") from None
