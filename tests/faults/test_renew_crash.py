"""Kill a renewal of the log at each point of it: the next one goes on, and nothing is lost."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from lakes import child, finished, new_lake
from renewing import accept, land, put_back, renew_in_process, renewed, settled, turn_byte

from lakehouse import Lake
from penstock.buffer.renewal import renewals
from penstock.envelope import CollectionId

pytestmark = pytest.mark.crash

SHOP = CollectionId("main", "shop")

TELLING = [
    "after_intent",
    "before_telling",
    "before_telling:2",
    "before_statement",
    "after_statement",
    "before_statement:2",
    "after_statement:2",
    "after_telling",
    "after_telling:2",
]
MAKING = [
    "renewing_log",
    "before_made",
    "putting_aside",
    "putting_aside:2",
    "putting_aside:3",
    "putting_in_place",
    "putting_in_place:2",
    "putting_in_place:3",
    "before_renewed",
]


def broken(tmp_path: Path, lake: Lake, stop: str) -> tuple[list[int], int]:
    """Break a log of which two collections have landed; answer what is to be found, and lost."""
    accept(tmp_path, range(1, 7))
    accept(tmp_path, [1, 2], collection=SHOP)
    land(tmp_path, lake)
    land(tmp_path, lake, SHOP)
    if stop == "damaged":
        accept(tmp_path, range(7, 13))
        turn_byte(tmp_path, 8)
        return [*range(1, 7), *range(9, 13)], 2
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    accept(tmp_path, [7, 8])
    land(tmp_path, lake)
    put_back(tmp_path, tmp_path / "copy")
    accept(tmp_path, [9, 10, 11])
    return [*range(1, 12)], 0


def killed(tmp_path: Path, point: str) -> None:
    """Renew in a process that is killed at this point."""
    process = child(renew_in_process, tmp_path, point)
    process.start()
    assert finished(process, 120) == -signal.SIGKILL, point


def goes_on(tmp_path: Path, lake: Lake, numbers: list[int], lost: int) -> None:
    """Assert that the next renewal makes whole what was begun."""
    renewed(tmp_path, lake, new=8)

    settled(tmp_path, lake, numbers, lost=lost)
    assert lake.view(SHOP) is not None
    assert not (tmp_path / "log" / "renewal").exists()
    assert [one.new.int for one in renewals(tmp_path / "log")] == [7], "begun once, and done once"


# Files change places alike, whatever it was that stopped.
@pytest.mark.breaks("the renewal of a broken log, at each of its points")
@pytest.mark.parametrize(
    ("stop", "point"),
    [("damaged", point) for point in [*TELLING, *MAKING]] + [("forked", each) for each in TELLING],
)
def test_a_renewal_that_was_killed_goes_on(tmp_path: Path, stop: str, point: str) -> None:
    """What was told to a table is done, and nothing is told to it twice."""
    lake = new_lake(tmp_path)
    numbers, lost = broken(tmp_path, lake, stop)

    killed(tmp_path, point)

    goes_on(tmp_path, lake, numbers, lost)


@pytest.mark.breaks("the renewal of a broken log, at one point after the other")
def test_a_renewal_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    """Whoever goes on is killed as well, each time a step further."""
    lake = new_lake(tmp_path)
    numbers, lost = broken(tmp_path, lake, "forked")

    telling = ["after_intent", "before_statement", "after_statement", "after_telling:2"]
    for point in [*telling, *MAKING]:
        killed(tmp_path, point)

    goes_on(tmp_path, lake, numbers, lost)
