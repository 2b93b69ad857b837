"""The transform that a replay was asked for, and whether it can be done."""

from __future__ import annotations

from penstock.errors import BadRequest
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import Store
from replay.request import ReplayRequest
from replay.transform import Transform, read_transform


def transform_of(request: ReplayRequest, store: Store) -> Transform | None:
    """Answer what changes the events of a replay; None where they are sent as they were received.

    Raises `BadRequest` for steps that cannot be read, `KeyMissing` where they mask by pseudonyms
    and the installation has no key.
    """
    options = request.options
    if not options.transform:
        return None
    return read_transform(
        options.transform,
        secret=lambda: store.masking_secret(request.team),
        mark=options.headers == "add",
    )


def refuse_unreadable(transform: Transform | None, collection: CollectionRecord) -> None:
    """Raise `BadRequest` if payloads are to be changed that are no JSON."""
    kind = collection.format.name
    if transform is not None and transform.reads_payload and kind != "json":
        raise BadRequest(
            f"the transform reads payloads, and those of {collection.id.name} are {kind}: only "
            "JSON can be changed; of other events the key and headers.NAME, without conditions"
        ).at("transform")
