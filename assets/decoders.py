"""What reads the payloads of collections, made once for each format that one has had."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from assets.registered import Fetch, Kept, RegisteredSchemas, Registry
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, KeyMissing, Unavailable
from penstock.guard import Guard
from penstock.schema.formats import Decoder, Format, open_decoder
from penstock.schema.formats.avro import Registered, schemas_of

_MOST = 256
"""Decoders that are kept. A descriptor set of 100 KB takes about 1 MB as one."""


class Decoders:
    """Decoders by collection and format. Threads may share them."""

    def __init__(
        self,
        kept: Kept,
        fetch: Callable[[str, str | None], Fetch],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `kept` for what a format names by its digest; it raises while that is away.

        `fetch` answers what asks the registry at an address, with what that asks for.
        """
        self._schemas = kept
        self._fetch = fetch
        self._steady = steady
        self._kept: OrderedDict[tuple[CollectionId, Format, float | None], Decoder | None] = (
            OrderedDict()
        )
        self._registries: OrderedDict[tuple[str, str | None], Registry] = OrderedDict()
        self._guard = threading.Lock()

    def of(
        self,
        collection: CollectionId,
        format: Format,  # noqa: A002
        *,
        patience: float | None = None,
    ) -> Decoder | None:
        """Answer what reads payloads of this format, None for JSON.

        What it reads raises `EngineUnavailable` while a registry is away, and after `patience`
        seconds of that it refuses the payload, if that is a number.
        Raises `EngineUnavailable` where the decoder was never made and its schema, or what the
        registry asks for, cannot be had now: the collection waits, for what was read in another
        way could not be undone.
        """
        key = (collection, format, patience)
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            schema = None
            if format.schema is not None:
                schema = self._schemas.format_schema(collection, format.schema)
            decoder = self.opened(collection, format, schema, patience=patience)
        except Unavailable as away:
            raise EngineUnavailable(
                f"the schema of {collection} is in the metadata, which is away: {away}"
            ) from away
        except KeyMissing as missing:
            raise EngineUnavailable(
                f"the schema registry of {collection} cannot be asked: {missing}"
            ) from missing
        with self._guard:
            self._kept[key] = decoder
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return decoder

    def opened(
        self,
        collection: CollectionId,
        format: Format,  # noqa: A002
        schema: bytes | None,
        secret: str | None = None,
        *,
        patience: float | None = None,
    ) -> Decoder | None:
        """Answer what reads payloads of a format that the collection need not have.

        `secret` is what its registry asks for, None where the metadata have that.
        """
        registered = self._registered(collection, format, schema, secret, patience)
        return open_decoder(format, schema, registered)

    def _registered(
        self,
        collection: CollectionId,
        format: Format,  # noqa: A002
        schema: bytes | None,
        secret: str | None,
        patience: float | None,
    ) -> Registered | None:
        if format.registry is None:
            return None
        secret_id = schemas_of(schema).secret_id
        if secret is None and secret_id is not None:
            secret = self._schemas.registry_secret(collection, secret_id)
        key = (format.registry, secret)
        with self._guard:
            # One for all who ask it: where it is away it is away for all of them.
            registry = self._registries.get(key)
            if registry is None:
                registry = self._registries[key] = Registry(self._fetch(*key), self._steady)
            self._registries.move_to_end(key)
            while len(self._registries) > _MOST:
                self._registries.popitem(last=False)
        return RegisteredSchemas(
            collection, format.registry, registry, self._schemas, patience=patience
        )


def over_http(guard: Guard) -> Callable[[str, str | None], Fetch]:
    """Answer what asks registries over HTTP."""

    def fetch(address: str, secret: str | None) -> Fetch:
        from assets.registry import Http

        return Http(address, secret, guard=guard)

    return fetch
