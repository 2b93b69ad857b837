"""Three senders to one destination, each a process of its own, of which one is killed.

They know of each other by the metadata alone. The receiver in this process looks at its clock.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from balance import totals
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import finished, landing, new_lake
from metadata_builders import collection
from ready_store import ready_store
from receiving import Reply, Request, receiving
from replay_process import sending_process
from shared_rates import excess

from penstock.buffer import open_appender, open_buffer
from penstock.metadata.records import Destination
from replay.lease import Bounds
from replay.request import read_request, record_of

pytestmark = pytest.mark.crash

EVENTS = 300
RATE = 50
# A request that was sent in time arrives late where the machine is busy, and then those behind it
# seem to come too early. Two senders that do not share are wrong by seconds.
BUSY = 0.3


class Watch:
    """Takes everything, and notes when and from which replay it came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []

    def __call__(self, request: Request) -> Reply:
        self.seen.append((time.monotonic(), str(request.header("penstock-replay-id"))))
        return Reply()

    def counts(self) -> Counter[str]:
        return Counter(who for _, who in self.seen)


def accepting(request: Request) -> Reply:
    """Answer what the door does."""
    return Reply(202, body=b'{"accepted": %d}' % len(request.body.splitlines()))


def landed(folder: Path) -> None:
    log = open_appender(f"embedded://{folder / 'log'}")
    log.append(
        FLIGHTS, [event(b"{}", id=f"e{n}", received_at=NOON + n) for n in range(EVENTS)]
    ).result(10)
    log.close()
    buffer = open_buffer(f"embedded://{folder / 'log'}")
    landing(buffer, new_lake(folder)).land_once(FLIGHTS)
    buffer.close()


@pytest.mark.breaks("one of three senders that share a rate")
def test_processes_together_keep_the_rate_of_their_destination(tmp_path: Path) -> None:
    """Each by itself would keep three times the rate; one that was killed keeps none of it."""
    watch = Watch()
    landed(tmp_path)
    store = ready_store(tmp_path)
    store.create_collection(collection())
    with receiving(watch) as receiver, receiving(accepting) as door:
        store.add_destination(
            Destination(team="main", name="d1", url=receiver.url, rate=RATE, created_at=NOON)
        )
        request = read_request({"collection": "flights", "destination": "d1"}, team="main")
        ids = ("r1", "r2", "r3")
        for one in ids:
            store.create_replay(record_of(request, id=one, now=NOON))
        senders = {
            one: sending_process(tmp_path, receiver.port, door.port, Bounds(), None, 0, one)
            for one in ids
        }
        for sender in senders.values():
            sender.start()
        deadline = time.monotonic() + 60
        while min(watch.counts()[one] for one in ids) < EVENTS // 10:
            assert time.monotonic() < deadline, f"one of them starves: {watch.counts()}"
            time.sleep(0.01)
        senders["r1"].kill()
        assert finished(senders["r1"]) == -signal.SIGKILL
        assert [finished(senders[one]) for one in ("r2", "r3")] == [0, 0]
        store.close()

    for one in ("r2", "r3"):
        found(**{one: totals(EVENTS, watch.counts()[one])})
    assert excess([at for at, _ in watch.seen], RATE) <= BUSY
    took = watch.seen[-1][0] - watch.seen[0][0]
    assert len(watch.seen) / took >= 0.5 * RATE, "and it is used"
