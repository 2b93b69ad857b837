"""Destinations: make, list, change, try, forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.client.wire import Wire, asked, path_of, read
from penstock.contract.destinations import (
    ChangedDestination,
    DestinationTold,
    NewDestination,
    Tried,
)


class Destinations(Wire):
    """The places the team's replays go to."""

    def destinations(self) -> list[DestinationTold]:
        """List the team's destinations by name."""
        return self._get(path_of("destinations"), list[DestinationTold])

    def create_destination(
        self,
        name: str,
        url: str,
        *,
        kind: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        options: Mapping[str, object] | None = None,
        secret: str | None = None,
        credentials: Mapping[str, str] | None = None,
        rate: float | None = None,
    ) -> DestinationTold:
        """Make a destination; without `kind` the URL's scheme says what it is."""
        body = asked(
            NewDestination,
            name=name,
            url=url,
            kind=kind,
            headers=list(headers),
            options=options,
            secret=secret,
            credentials=credentials,
            rate=rate,
        )
        return self._post(path_of("destinations"), DestinationTold, body)

    def destination(self, name: str) -> DestinationTold:
        """Answer a destination."""
        return self._get(path_of("destinations", name), DestinationTold)

    def change_destination(self, name: str, change: ChangedDestination) -> DestinationTold:
        """Change a destination. What `change` was not given stays as it is."""
        return read(self._checked("PATCH", path_of("destinations", name), change), DestinationTold)

    def delete_destination(self, name: str) -> None:
        """Forget a destination."""
        self._checked("DELETE", path_of("destinations", name))

    def try_destination(self, name: str) -> Tried:
        """Send one small event to an HTTP destination; look whether another would take events."""
        return self._post(path_of("destinations", name, "test"), Tried)
