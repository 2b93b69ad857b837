"""Replays: plan, ask for one, look, pause, resume, cancel."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from penstock.client.wire import Wire, asked, path_of, read
from penstock.contract.replays import (
    FailuresTold,
    MessageTold,
    NewReplay,
    Pace,
    PlanTold,
    ReachedTold,
    ReplayAsked,
    ReplayBooks,
    ReplayTold,
)


class ReplayOptions(TypedDict, total=False):
    """Which events a replay takes beside the query, and how it sends them.

    What is left out, or None, has the default of the documentation.
    """

    since: datetime | None
    until: datetime | None
    view: str | None
    duplicates: str | None
    order: str | None
    rate: float | None
    speed: float | None
    gap: float | None
    timing: str | None
    concurrency: int | None
    max_events: int | None
    headers: str | None
    retries: int | None
    timeout: float | None
    pause_after: int | None
    dry_run: bool | None


class Replays(Wire):
    """The team's replays."""

    def plan_replay(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        **options: Unpack[ReplayOptions],
    ) -> PlanTold:
        """Answer what a replay would send, without sending it.

        It is exact, because it is counted on one pinned snapshot.
        """
        body = asked(
            ReplayAsked, collection=collection, query=query, destination=destination, **options
        )
        return self._post(path_of("replays", "plan"), PlanTold, body)

    def preview_replay(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        **options: Unpack[ReplayOptions],
    ) -> list[MessageTold]:
        """Answer the first events as the destination would be sent them, without sending any."""
        body = asked(
            ReplayAsked, collection=collection, query=query, destination=destination, **options
        )
        return self._post(path_of("replays", "preview"), list[MessageTold], body)

    def create_replay(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        confirm: int | None = None,
        why: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> ReplayTold:
        """Ask for a replay. A large one needs `confirm`, the count that its plan answered."""
        body = asked(
            NewReplay,
            collection=collection,
            query=query,
            destination=destination,
            confirm=confirm,
            why=why,
            **options,
        )
        return self._post(path_of("replays"), ReplayTold, body)

    def replays(self) -> list[ReplayTold]:
        """List the team's newest replays, newest first."""
        return self._get(path_of("replays"), list[ReplayTold])

    def replay(self, replay_id: str) -> ReplayTold:
        """Answer a replay."""
        return self._get(path_of("replays", replay_id), ReplayTold)

    def pause_replay(self, replay_id: str) -> ReplayTold:
        """Ask a replay to stop sending for now."""
        return self._post(path_of("replays", replay_id, "pause"), ReplayTold)

    def resume_replay(self, replay_id: str) -> ReplayTold:
        """Ask a replay to go on."""
        return self._post(path_of("replays", replay_id, "resume"), ReplayTold)

    def cancel_replay(self, replay_id: str) -> ReplayTold:
        """Ask a replay to stop for good."""
        return self._post(path_of("replays", replay_id, "cancel"), ReplayTold)

    def pace_replay(self, replay_id: str, pace: Pace) -> ReplayTold:
        """Change how fast a replay sends. What `pace` was not given stays as it is."""
        return read(self._checked("PATCH", path_of("replays", replay_id), pace), ReplayTold)

    def replay_course(self, replay_id: str) -> list[ReachedTold]:
        """Answer how a replay came as far as it is."""
        return self._get(path_of("replays", replay_id, "course"), list[ReachedTold])

    def replay_failures(self, replay_id: str) -> FailuresTold:
        """Answer why events failed for good, the most frequent reason first."""
        return self._get(path_of("replays", replay_id, "failures"), FailuresTold)

    def replay_report(self, replay_id: str) -> ReplayBooks:
        """Answer the books of a replay: matched = delivered + failed + skipped."""
        return self._get(path_of("replays", replay_id, "report"), ReplayBooks)
