"""What would change if columns were made anew, over a real lake; and who takes loops."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import FLIGHTS, event
from lakes import landing, new_lake
from metadata_builders import collection
from platform_stand_ins import InProcess, grant, platform

from penstock.api.app import create_app
from penstock.buffer.memory import MemoryLog
from penstock.client import Client
from penstock.errors import Forbidden


def client(folder: Path, *scopes: str, payloads: list[str] | None = None) -> Client:
    log, lake = MemoryLog(), new_lake(folder / "lake")
    for number, some in enumerate([(payloads or [])[:1], (payloads or [])[1:]]):
        if some:
            log.append(FLIGHTS, [event(p, id=f"e{number}-{n}") for n, p in enumerate(some)])
            landing(log, lake).land_once(FLIGHTS)
    here = platform(folder, lake=lake)
    here.store.create_collection(collection())
    token = grant(here.store, *scopes)  # type: ignore[arg-type]  # scopes of literals
    return Client("http://penstock", token, InProcess(create_app(here)))


def test_fractions_in_a_column_of_longs_are_told_and_nothing_changes(tmp_path: Path) -> None:
    made = client(tmp_path, "admin", payloads=['{"n": 1}', '{"n": 1.5}', '{"n": 2.5}'])

    retype = made.retype("flights")
    rebuild = made.try_rebuild("flights")

    assert [(one.path, one.gained, one.lost, one.due) for one in retype.columns] == [
        ("n", 2, 0, True)
    ]
    assert retype.rows == 3
    assert rebuild is not None
    assert [(one.path, one.what, one.after) for one in rebuild.changes] == [
        ("n", "retyped", "double")
    ]
    assert [(one.path, one.before, one.after) for one in rebuild.misfits] == [("n", 2, 0)]
    assert made.retype("flights") == retype


def test_before_the_first_row_there_is_nothing_to_tell(tmp_path: Path) -> None:
    made = client(tmp_path, "admin")

    assert made.retype("flights").columns == []
    assert made.try_rebuild("flights") is None


def test_loops_are_allowed_and_refused_again(tmp_path: Path) -> None:
    made = client(tmp_path, "admin")

    assert made.set_loops("flights", allow=True).allow_loops is True
    assert made.set_loops("flights", allow=False).allow_loops is False
    assert made.collection("flights").allow_loops is False


def test_who_only_reads_changes_and_rebuilds_nothing(tmp_path: Path) -> None:
    made = client(tmp_path, "read")

    with pytest.raises(Forbidden):
        made.set_loops("flights", allow=True)
    with pytest.raises(Forbidden):
        made.try_rebuild("flights")
