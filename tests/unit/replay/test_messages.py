"""What a sender gives to a target: columns, and a message where one is asked for."""

from __future__ import annotations

import pytest
from builders import event
from replaying import in_columns

from penstock.envelope import Event, Position
from replay.events import Events, Original
from replay.targets import Message, Messages, Parcel


class Counted(Events):
    """Counts the events that are made of its columns."""

    made = 0

    def event(self, number: int) -> Event:
        self.made += 1
        return super().event(number)


@pytest.fixture
def events() -> Counted:
    told = [event(b"%d" % n, id=f"e{n}") for n in range(10)]
    columns = in_columns([Original(Position(1, n), each) for n, each in enumerate(told)])
    return Counted(
        1, **{name: getattr(columns, name) for name in Events.__slots__ if name != "partition"}
    )


def test_only_the_message_that_is_asked_for_is_made(events: Counted) -> None:
    """A target that asks for each by its number would otherwise make all of them each time."""
    messages = Messages([Parcel(events, 1, 3, 1), Parcel(events, 5, 9, 2)])

    asked = [messages[number] for number in range(len(messages))]

    assert events.made == len(messages) == 6
    assert [each.event.id for each in asked] == ["e1", "e2", "e5", "e6", "e7", "e8"]
    assert [each.attempt for each in asked] == [1, 1, 2, 2, 2, 2]


def test_messages_are_numbered_as_in_a_list(events: Counted) -> None:
    """From either end, and no further."""
    messages = Messages([Parcel(events, 1, 3, 1), Parcel(events, 5, 9, 2)])
    as_list: list[Message] = list(messages)

    assert [messages[-1], messages[-6]] == [as_list[-1], as_list[-6]]
    assert messages[1:4] == as_list[1:4]
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            messages[beyond]
