"""How the time of a destination is dealt out to the replays that send to it. Pure.

A destination with a rate of its own has its time cut into rounds, one behind the other, and those
into slots. Each slot belongs to one replay, which may send in it at the whole rate, and to nobody
else. So what all of them send together keeps the rate, whatever any of them knows of the others:
one that joins is dealt slots of the next round, and those of one that died pass unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from penstock.envelope import Micros

LEAD: Micros = 500_000
"""How long before the end of a round the next one is dealt."""
HOLD: Micros = 5_000_000
"""How long what somebody was told holds: who has not asked again since sends nothing."""

_SECOND: Micros = 1_000_000
_ROUND: Micros = _SECOND
_SLOT = 0.002
"""Seconds of a slot, unless one send takes longer: who sends once in a slot has all of it."""
_GRACE: Micros = 2 * _SECOND
# Nobody deals a round that begins so much later: the clock was set back.
_NEVER: Micros = 30 * _SECOND


class Member(msgspec.Struct, frozen=True):
    """A replay that sends: the round that was the newest when it last asked, and what it can use.

    `wants` is in sends a second, None for all there is; `credit` is what it is owed.
    """

    asked: int
    wants: float | None = None
    credit: float = 0.0


class Round(msgspec.Struct, frozen=True):
    """Some slots of the same length: `order` says of each whose it is, as a place in `who`."""

    begins: Micros
    ends: Micros
    slot: Micros
    rate: float
    who: tuple[str, ...]
    order: tuple[int, ...]


class Sharing(msgspec.Struct, frozen=True):
    """Who sends to a destination, the rounds that are not over, and how many were dealt."""

    members: dict[str, Member] = {}
    rounds: tuple[Round, ...] = ()
    dealt: int = 0


class Piece(NamedTuple):
    """Time that is one replay's alone, to send in at this rate: slots, so long each."""

    begins: Micros
    ends: Micros
    slot: Micros
    rate: float


class Share(NamedTuple):
    """What a replay is told: its time, how many sends a second that is, and when to ask again."""

    pieces: tuple[Piece, ...]
    per_second: float
    again_at: Micros


def asked(sharing: Sharing, who: str, wants: float | None, *, rate: float, now: Micros) -> Sharing:
    """Answer the sharing once this replay has asked, with the next round if it is time for that."""
    rounds = tuple(one for one in sharing.rounds if one.ends > now - _GRACE)
    if rounds and rounds[-1].begins > now + _NEVER:
        rounds = ()
    begins = max(now, rounds[-1].ends) if rounds else now
    members = {
        name: member
        for name, member in sharing.members.items()
        # One that missed a whole round is gone, and so are all where nobody asked for a while.
        if name == who or (rounds and member.asked >= sharing.dealt - 1)
    }
    credit = members[who].credit if who in members else 0.0
    members[who] = Member(sharing.dealt, wants, credit)
    if rounds and now < rounds[-1].ends - LEAD:
        return Sharing(members, rounds, sharing.dealt)
    dealt, members = _dealt(members, begins, rate)
    members[who] = replace(members[who], asked=sharing.dealt + 1)
    return Sharing(members, (*rounds, dealt), sharing.dealt + 1)


def share(sharing: Sharing, who: str, now: Micros) -> Share:
    """Answer what a replay is to know that has just asked."""
    last = sharing.rounds[-1]
    pieces: list[Piece] = []
    for one in sharing.rounds:
        for number, place in enumerate(one.order):
            begins = one.begins + number * one.slot
            ends = min(begins + one.slot, one.ends)
            if one.who[place] != who or ends <= begins:
                continue
            if pieces and (pieces[-1].ends, pieces[-1].rate) == (begins, one.rate):
                pieces[-1] = pieces[-1]._replace(ends=ends)
            else:
                pieces.append(Piece(begins, ends, one.slot, one.rate))
    mine = last.who.index(who) if who in last.who else -1
    per_second = last.rate * last.order.count(mine) / len(last.order)
    return Share(tuple(pieces), per_second, max(now, last.ends - LEAD))


def cut(sharing: Sharing, now: Micros) -> Sharing:
    """Answer the sharing of a destination that has another rate from now on.

    A slot of one send an hour would go on for that hour. Nobody sends in what is cut off: whoever
    was told of it has to ask again before.
    """
    end = now + HOLD
    rounds = tuple(
        replace(one, ends=min(one.ends, end)) for one in sharing.rounds if one.begins < end
    )
    return replace(sharing, rounds=rounds)


def fair(wants: Mapping[str, float | None], rate: float) -> dict[str, float]:
    """Divide a rate: nobody gets less than an equal part unless that is all it wants.

    What nobody wants is divided equally, so that everyone has room to grow.
    """
    left, parts = rate, {}
    waiting = sorted(wants.items(), key=lambda each: (_most(each[1]), each[0]))
    for number, (who, want) in enumerate(waiting):
        parts[who] = min(_most(want), left / (len(waiting) - number))
        left -= parts[who]
    return {who: part + left / len(parts) for who, part in parts.items()}


def _most(want: float | None) -> float:
    return float("inf") if want is None else want


def _dealt(
    members: Mapping[str, Member], begins: Micros, rate: float
) -> tuple[Round, dict[str, Member]]:
    """Deal a round, and note what each is owed: a part of a slot now is one of them later."""
    slot = ceil(max(1, ceil(rate * _SLOT)) * _SECOND / rate)
    count = max(1, _ROUND // slot)
    who = tuple(sorted(members))
    # A slot in each round at the least: whoever has none cannot show that it could use more.
    least = rate / count
    wants = {
        name: None if (want := members[name].wants) is None else max(want, least) for name in who
    }
    parts = fair(wants, rate)
    # Of those who left some were owed more than others: only differences count.
    even = sum(member.credit for member in members.values()) / len(members)
    owed = {name: members[name].credit - even for name in who}
    order = []
    for _ in range(count):
        for name in who:
            owed[name] += parts[name] / rate
        first = max(who, key=lambda name: owed[name])
        owed[first] -= 1
        order.append(who.index(first))
    dealt = Round(begins, begins + count * slot, slot, rate, who, tuple(order))
    return dealt, {name: replace(members[name], credit=owed[name]) for name in who}
