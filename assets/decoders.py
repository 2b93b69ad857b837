"""What reads the payloads of collections, made once for each format that one has had."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, Unavailable
from penstock.schema.formats import Decoder, Format, open_decoder

_MOST = 256
"""Decoders that are kept. A descriptor set of 100 KB takes about 1 MB as one."""


class Decoders:
    """Decoders by collection and format. Threads may share them."""

    def __init__(self, schema: Callable[[CollectionId, str], bytes]) -> None:
        """Ask `schema` for what a format names by its digest; it raises while that is away."""
        self._schema = schema
        self._kept: OrderedDict[tuple[CollectionId, Format], Decoder | None] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, collection: CollectionId, format: Format) -> Decoder | None:  # noqa: A002
        """Answer what reads payloads of this format, None for JSON.

        Raises `EngineUnavailable` where it was never made and its schema cannot be had now: the
        collection waits, for what was read in another way could not be undone.
        """
        with self._guard:
            if (collection, format) in self._kept:
                self._kept.move_to_end((collection, format))
                return self._kept[collection, format]
        schema = None
        if format.schema is not None:
            try:
                schema = self._schema(collection, format.schema)
            except Unavailable as away:
                raise EngineUnavailable(
                    f"the schema of {collection} is in the metadata, which is away: {away}"
                ) from away
        decoder = open_decoder(format, schema)
        with self._guard:
            self._kept[collection, format] = decoder
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return decoder
