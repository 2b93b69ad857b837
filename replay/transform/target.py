"""The one place where events are changed on their way: between the sender and any target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replay.events import Events
from replay.targets import Failed, Message, Messages, Outcome, Parcel, Target, parcels_of
from replay.transform import Transform
from replay.transform.document import Unchangeable


class ChangingTarget:
    """Hands every event to a target as its transform makes it.

    An event that cannot be changed as asked fails for good, and nothing of it is handed on. What
    is signed, keyed and counted behind it is what is sent.
    """

    def __init__(self, target: Target, transform: Transform) -> None:
        self.most = target.most
        self.ordered = target.ordered
        self._target = target
        self._transform = transform

    def check(self, message: Message) -> Failed | None:
        """Say what the target says of the event that would be sent."""
        try:
            event = self._transform.changed(message.event, message.position)
        except Unchangeable as error:
            return Failed(str(error))
        return self._target.check(Message(event, message.position, message.attempt))

    async def examine(self) -> str | None:
        """Say what the target says."""
        return await self._target.examine()

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send what could be changed; answer an outcome for each, in order.

        Nothing is waited for before the target's own `send`: an ordered one is begun in order.
        """
        failed: list[Failed | None] = []
        parcels = [self._changed(parcel, failed) for parcel in parcels_of(messages)]
        parcels = [parcel for parcel in parcels if parcel.stop]
        sent: Iterator[Outcome] = iter(
            await self._target.send(Messages(parcels)) if parcels else ()
        )
        return [next(sent) if each is None else each for each in failed]

    async def close(self) -> None:
        """Close the target."""
        await self._target.close()

    def _changed(self, parcel: Parcel, failed: list[Failed | None]) -> Parcel:
        """Answer the events of a parcel that can be sent; add why not, or None, for each."""
        before = parcel.events
        made = Events(
            before.partition,
            offsets=[],
            ids=[],
            received_at=[],
            event_times=[],
            sources=[],
            content_types=[],
            keys=[],
            headers=[],
            metadata=[],
            payloads=[],
        )
        for number in range(parcel.start, parcel.stop):
            position = before.position(number)
            try:
                event = self._transform.changed(before.event(number), position)
            except Unchangeable as error:
                failed.append(Failed(str(error)))
                continue
            failed.append(None)
            made.offsets.append(position.offset)
            made.ids.append(event.id)
            made.received_at.append(event.received_at)
            made.event_times.append(event.event_time)
            made.sources.append(event.source)
            made.content_types.append(event.content_type)
            made.keys.append(event.key)
            made.headers.append(event.headers)
            made.metadata.append(event.metadata)
            made.payloads.append(event.payload)
        return Parcel(made, 0, len(made), parcel.attempt)
