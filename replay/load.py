"""How much a destination bears at once, learnt from what it answers. Pure: times are arguments.

Additive increase, multiplicative decrease, as TCP does it against congestion (Chiu and Jain, 1989):
half as many sends at once when it has too much, one more after each round without that.
"""

from __future__ import annotations

from replay.targets import Retry

_TOO_MUCH = frozenset({408, 429, 503, 504})
"""What a destination, or a proxy before it, answers when it has too much to do."""


def has_too_much(outcome: Retry) -> bool:
    """Say whether an outcome is a sign that the destination has too much to do.

    So is no answer at all. Any other answer is about the event, or about everything.
    """
    return outcome.status is None or outcome.status in _TOO_MUCH


class Load:
    """How many sends may be under way: `limit`, from 1 to `most`, where it begins."""

    def __init__(self, most: int) -> None:
        self.change(most)

    def change(self, most: int) -> None:
        """Begin anew with another bound."""
        self.most = self.limit = most
        self._in_a_row = 0
        self._lowered_at = float("-inf")

    def delivered(self) -> bool:
        """Count a delivery; answer whether there may be one more send at once now."""
        self._in_a_row += 1
        if self.limit == self.most or self._in_a_row < self.limit:
            return False
        self.limit += 1
        self._in_a_row = 0
        return True

    def too_much(self, *, started: float, now: float) -> None:
        """Take over that a send which was `started` then was too much.

        Those that were under way when the limit was lowered say nothing about the new one.
        """
        self._in_a_row = 0
        if started >= self._lowered_at:
            self.limit = max(1, self.limit // 2)
            self._lowered_at = now
