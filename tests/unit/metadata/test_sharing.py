"""The time of a destination, dealt out: whose it is, how much, and what of it is left to whom."""

from __future__ import annotations

from itertools import pairwise

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from penstock.metadata.sharing import HOLD, LEAD, Sharing, asked, cut, fair, share

SECOND = 1_000_000
WANTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.none() | st.floats(0, 1_000),
    min_size=1,
    max_size=6,
)


def ask(sharing: Sharing, *who: str, rate: float = 100, at: int = NOON) -> Sharing:
    for one in who:
        sharing = asked(sharing, one, None, rate=rate, now=at)
    return sharing


def length(sharing: Sharing, who: str) -> int:
    """Answer how long the time is that is somebody's."""
    return sum(one.ends - one.begins for one in share(sharing, who, NOON).pieces)


@given(WANTS, st.floats(0.01, 1_000))
def test_a_rate_is_divided_whole_and_nobody_is_left_behind(
    wants: dict[str, float | None], rate: float
) -> None:
    """An equal part is everybody's, unless it wants less."""
    parts = fair(wants, rate)

    assert sum(parts.values()) == pytest.approx(rate)
    for who, want in wants.items():
        equal = rate / len(wants)
        assert parts[who] >= min(equal, equal if want is None else want) * (1 - 1e-9)


def test_who_comes_first_has_all_of_it_at_once() -> None:
    """A replay that is alone is as fast as the rate."""
    sharing = ask(Sharing(), "a")

    assert share(sharing, "a", NOON).pieces == ((NOON, NOON + SECOND, 10_000, 100.0),)
    assert share(sharing, "a", NOON).per_second == 100


def test_who_joins_has_time_from_the_next_round_on() -> None:
    """Time that was dealt is somebody's, who may be using it right now."""
    sharing = ask(Sharing(), "a", "b")
    assert (length(sharing, "a"), length(sharing, "b")) == (SECOND, 0)

    sharing = ask(sharing, "a", at=NOON + SECOND - LEAD)

    assert (length(sharing, "a"), length(sharing, "b")) == (1_500_000, 500_000)
    own = [p for who in "ab" for p in share(sharing, who, NOON).pieces]
    assert all(a.ends <= b.begins for a, b in pairwise(sorted(own)))


def test_who_does_not_ask_for_a_round_and_another_is_forgotten() -> None:
    """It died, or has nothing to send."""
    sharing = ask(Sharing(), "a", "b")
    for number in range(1, 4):
        sharing = ask(sharing, "a", at=NOON + number * SECOND - LEAD)

    assert set(sharing.members) == {"a"}
    assert share(sharing, "a", NOON).per_second == 100


def test_what_cannot_be_divided_goes_round() -> None:
    """One send in two seconds for three replays."""
    sharing, had = Sharing(), dict.fromkeys("abc", 0)
    for number in range(12):
        at = NOON + number * 2 * SECOND - LEAD
        sharing = ask(sharing, *had, rate=0.5, at=at)
        dealt = sharing.rounds[-1]
        had[dealt.who[dealt.order[0]]] += 1

    assert max(had.values()) - min(had.values()) <= 1, had


def test_rounds_follow_each_other_without_a_gap_and_old_ones_are_forgotten() -> None:
    """What is kept does not grow."""
    sharing, at = Sharing(), NOON
    for _ in range(50):
        sharing = ask(sharing, "a", "b", at=at)
        rounds = sharing.rounds
        assert all(a.ends == b.begins for a, b in pairwise(rounds))
        assert len(rounds) <= 6
        at = share(sharing, "a", at).again_at


def test_a_clock_that_was_set_back_does_not_stop_everybody() -> None:
    """Until it would be there again."""
    sharing = ask(Sharing(), "a", at=NOON + 3_600 * SECOND)

    assert share(ask(sharing, "a"), "a", NOON).pieces[0].begins == NOON


def test_with_another_rate_a_round_ends_once_nobody_goes_by_it() -> None:
    """One that was to last an hour would hold up the new rate for that hour."""
    sharing = ask(Sharing(), "a", rate=1 / 3600)
    [one] = cut(sharing, NOON + SECOND).rounds

    assert one.ends == NOON + SECOND + HOLD
    assert cut(ask(Sharing(), "a"), NOON).rounds == ask(Sharing(), "a").rounds
