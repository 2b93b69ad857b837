"""Upkeep of a collection: both of its tables, beside landing."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

from builders import FLIGHTS, NOON
from lakes import BROKEN, MAIN, QUARANTINE, append, everywhere, landing, log_of, new_lake, numbered

from assets.upkeep import tend
from lakehouse.upkeep import ORPHAN_AGE


def test_both_tables_are_tended_and_nothing_is_lost(tmp_path: Path) -> None:
    """Quarantine grows by as many small files as the table does."""
    lake = new_lake(tmp_path)
    log = log_of()
    work = landing(log, lake)
    for _ in range(6):
        append(log, *numbered(1), BROKEN)
        work.land_once(FLIGHTS)
    chance = itertools.count()
    now = NOON

    def tended(seen: dict[str, int]) -> dict[str, int]:
        done = tend(
            lake,
            FLIGHTS,
            keep=1,
            below=1 << 20,
            seen=seen,
            clock=lambda: now,
            chance=lambda size: next(chance).to_bytes(size, "big"),
        )
        outcomes.append((done.compacted.read, done.compacted.written, done.expired, done.deleted))
        return done.seen

    outcomes: list[tuple[int, int, int, int]] = []
    seen = tended({})
    now += ORPHAN_AGE
    assert tended(seen) == {}

    # Six landings and a compaction made seven snapshots of each table, six claims more of main.
    assert outcomes[0] == (12, 2, 18, 0)
    assert outcomes[1][:3] == (0, 0, 0)
    assert outcomes[1][3] == len(seen) > 12
    assert everywhere(new_lake(tmp_path)) == Counter(range(12))
    for name in (MAIN, QUARANTINE):
        table = lake.table(name)
        assert table is not None
        assert len(list(table.scan().plan_files())) == 1
