"""A continuous replay whose run ended for want of events goes on when there are some again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from installing import Installation

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600)]

RUNS = """
query Runs($tag: String!) {
  runsOrError(filter: {tags: [{key: "penstock/replay_id", value: $tag}]}) {
    ... on Runs { results { status } }
  }
}
"""


def until(true: Callable[[], bool], what: str, *, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.mark.parametrize("here", ["embedded"], indirect=True)
def test_a_replay_at_rest_is_woken_by_what_lands(here: Installation) -> None:
    """Nobody has its run any more: the sensor has to see that there is something to send."""
    here.cli("collection", "create", "readings")
    here.cli("destination", "create", "onward", f"http://127.0.0.1:{here.receiver.port}/")
    replay = here.json("replay", "start", "readings", "--to", "onward", "--continuous")["id"]
    received = here.receiver.ids[replay]

    def send(number: int) -> Counter[str]:
        answer = here.post("readings", b'{"n": %d}' % number, "application/json")
        assert answer.status_code == 202
        return Counter(answer.json()["ids"])

    def runs() -> list[str]:
        found = here.graphql(RUNS, tag=replay)["runsOrError"]["results"]
        return sorted(one["status"] for one in found)

    sent = send(1)
    until(lambda: received == sent, "what came while its run was there was not sent")
    until(lambda: runs() == ["SUCCESS"], "its run did not end")
    state = here.json("replay", "status", replay)
    assert (state["state"], state["progress"]["delivered"]) == ("running", 1)

    sent += send(2)
    until(lambda: received == sent, "nobody sent what came after its run had ended")
    assert len(runs()) == 2
    here.cli("replay", "cancel", replay)
    until(lambda: here.json("replay", "status", replay)["state"] == "cancelled", "it goes on")
    assert received == sent
