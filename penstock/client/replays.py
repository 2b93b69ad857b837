"""Replays: plan, ask for one, look, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypedDict, Unpack

from penstock.client.wire import Wire, asked, path_of, read
from penstock.contract.replays import (
    FailuresTold,
    MessageTold,
    NewPlan,
    NewReplay,
    NewRetry,
    Pace,
    PlannedReplay,
    PlanTold,
    ReachedTold,
    ReplayAsked,
    ReplayBooks,
    ReplayTold,
    SavedPlan,
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
    transform: Sequence[str] | None
    retries: int | None
    timeout: float | None
    pause_after: int | None
    dry_run: bool | None
    missing: bool | None
    continuous: bool | None


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

    def save_plan(
        self,
        collection: str,
        query: str = "",
        *,
        destination: str,
        keep_days: int | None = None,
        **options: Unpack[ReplayOptions],
    ) -> SavedPlan:
        """Answer a plan that can be started as it is while it is kept: 7 days, or `keep_days`."""
        body = asked(
            NewPlan,
            collection=collection,
            query=query,
            destination=destination,
            keep_days=keep_days,
            **options,
        )
        return self._post(path_of("replays", "plans"), SavedPlan, body)

    def start_plan(
        self, plan: SavedPlan, *, confirm: int | None = None, why: str | None = None
    ) -> ReplayTold:
        """Ask for a replay of exactly what a saved plan says."""
        body = asked(PlannedReplay, plan=plan, confirm=confirm, why=why)
        return self._post(path_of("replays", "planned"), ReplayTold, body)

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
        start_at: datetime | None = None,
        **options: Unpack[ReplayOptions],
    ) -> ReplayTold:
        """Ask for a replay. A large one needs `confirm`, the count that its plan answered.

        With `start_at` it starts then, and makes its plan then.
        """
        body = asked(
            NewReplay,
            collection=collection,
            query=query,
            destination=destination,
            confirm=confirm,
            why=why,
            start_at=start_at,
            **options,
        )
        return self._post(path_of("replays"), ReplayTold, body)

    def retry_replay(
        self,
        replay_id: str,
        *,
        destination: str | None = None,
        confirm: int | None = None,
        why: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> ReplayTold:
        """Ask for a replay of what failed in one that has ended, or was cut off.

        What is left out is as it was there; which events it takes cannot be given.
        """
        changed = {name: value for name, value in options.items() if value is not None}
        body = asked(NewRetry, destination=destination, options=changed, confirm=confirm, why=why)
        return self._post(path_of("replays", replay_id, "retry"), ReplayTold, body)

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

    def replay_file(self, replay_id: str) -> Iterator[bytes]:
        """Yield the file that a replay wrote, in pieces; one that breaks off raises."""
        path = path_of("replays", replay_id, "file")
        yield from self._stream("GET", path, accept="*/*")
