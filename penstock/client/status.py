"""How far everything is, and whether it responds."""

from __future__ import annotations

from datetime import datetime

from penstock.client.wire import Wire, path_of, read
from penstock.contract.schema import Schema
from penstock.contract.stats import StatsTold
from penstock.contract.status import Health, OneStatus, Status


class Statuses(Wire):
    """The whole, and how each collection stands."""

    def status(self) -> Status:
        """Answer the team's collections with their lag, and its replays by state."""
        return self._get(path_of("status"), Status)

    def health(self) -> Health:
        """Answer which adapters respond; needs no token. Raises nothing for a sick platform."""
        return read(self._send("GET", "/healthz"), Health)

    def metrics(self) -> str:
        """Answer the platform's metrics as Prometheus reads them."""
        return self._checked("GET", "/metrics").text

    def collection_metrics(self) -> str:
        """Answer the books and lag of the team's collections as Prometheus reads them."""
        return self._checked("GET", path_of("metrics")).text

    def collection_status(self, name: str) -> OneStatus:
        """Answer how far landing is with a collection, its books, and what is wrong with it."""
        return self._get(path_of("collections", name, "status"), OneStatus)

    def collection_stats(
        self,
        name: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step_seconds: int | None = None,
    ) -> StatsTold:
        """Answer how many events came over time; without `since`, in the last day."""
        path = path_of("collections", name, "stats", since=since, until=until, step=step_seconds)
        return self._get(path, StatsTold)

    def schema(self, name: str, *, fill: bool = False) -> Schema:
        """Answer a collection's columns and how they came; with `fill` also how full they are."""
        path = path_of("collections", name, "schema", fill="true" if fill else None)
        return self._get(path, Schema)
