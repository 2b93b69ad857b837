"""What a caller asks a collection's format to be, checked before anything relies on it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from hashlib import sha256

from penstock.api.models import FormatAsked
from penstock.errors import BadRequest
from penstock.schema.formats import Format, open_decoder
from penstock.schema.formats.protobuf import without_comments


def wanted(
    asked: FormatAsked, known: Format, schema_of: Callable[[str], bytes]
) -> tuple[Format, bytes | None]:
    """Answer the format that was asked for, and its schema if that came with it.

    `known` is what the collection has, and `schema_of` answers what that names by its digest.
    Where nothing is to change the answer is `known`. Raises `BadRequest` for what landing could
    not read payloads with.
    """
    new = None if asked.descriptor is None else without_comments(_bytes(asked.descriptor))
    if asked.name != "protobuf" and (new is not None or asked.message is not None):
        raise BadRequest(f"{asked.name} has neither a descriptor set nor a message")
    inside = (asked.payload_field, asked.payload_message)
    if (asked.envelope == "shallow") != (None not in inside) or inside.count(None) == 1:
        raise BadRequest("a shallow envelope, and no other, has payload_field and payload_message")
    digest = known.schema if asked.name == "protobuf" else None
    if new is not None:
        digest = sha256(new).hexdigest()
    format_ = Format(
        name=asked.name,
        schema=digest,
        message=asked.message,
        payload_field=asked.payload_field,
        payload_message=asked.payload_message,
        changed_at=known.changed_at,
    )
    open_decoder(format_, schema_of(digest) if new is None and digest is not None else new)
    return format_, new


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the descriptor set is not in base64") from None
