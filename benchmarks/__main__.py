"""`python -m benchmarks [door|landing|ask|search|search_index|tail|pages|replay|…]`: measure.

With ``--keep`` it is kept, as ``benchmarks/results.json`` and a page of the documentation, beside
what was measured of other subjects before. What takes long is measured in a short form among
everything, and at full length when it is named.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from benchmarks.measure import Measured
from benchmarks.report import Kept, line, measured_now, page, read_kept, write_kept

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"


def subjects() -> dict[str, Callable[[Path], Iterator[Measured]]]:
    """Name what can be measured."""
    from benchmarks import (
        ask,
        door,
        kafka,
        landing,
        many,
        pages,
        replay,
        replay_kafka,
        replay_plan,
        replay_queues,
        replay_times,
        search,
        search_index,
        tail,
        upkeep,
    )

    return {
        "door": door.results,
        "landing": landing.results,
        "ask": ask.results,
        "search": search.results,
        "search_index": search_index.results,
        "tail": tail.results,
        "pages": pages.results,
        "replay": replay.results,
        "replay_times": replay_times.results,
        "replay_plan": replay_plan.results,
        "upkeep": upkeep.results,
        "many": many.results,
        "kafka": kafka.results,
        "replay_kafka": replay_kafka.results,
        "replay_queues": replay_queues.results,
    }


def short() -> dict[str, Callable[[Path], Iterator[Measured]]]:
    """Answer the short forms of what takes long."""
    from benchmarks import many, pages, replay_plan, search, search_index, upkeep

    return {
        "search": search.short,
        "search_index": search_index.short,
        "pages": pages.short,
        "replay_plan": replay_plan.short,
        "upkeep": upkeep.short,
        "many": many.short,
    }


def present() -> list[str]:
    """Name what is measured without being asked for: all that this machine has the engine for."""
    from benchmarks import kafka, pages, replay_queues, search_index

    there = {
        "kafka": kafka.there,
        "replay_kafka": kafka.there,
        "replay_queues": replay_queues.there,
        "search_index": search_index.there,
        "pages": pages.there,
    }
    return [name for name in subjects() if name not in there or there[name]()]


def main() -> None:
    """Measure what the command line names, or everything, and keep it if that is asked for."""
    known = subjects()
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure, and keep the results")
    parser.add_argument("subjects", nargs="*", help=f"{', '.join(known)}; all without a name")
    parser.add_argument("--keep", action="store_true", help="write results and page")
    asked = parser.parse_args()
    wanted = asked.subjects or present()
    unknown = set(wanted) - set(known)
    if unknown:
        sys.exit(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    quick = {} if asked.subjects else short()
    # What goes wrong is raised; what goes right is the table's to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found: Kept = {}
    # Not in /tmp, which may be memory: what is measured has to reach a disk.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER", HERE)) as folder:
        for name in wanted:
            print(f"measuring {name} …", file=sys.stderr)
            place = Path(folder) / name
            place.mkdir()
            measured = []
            for one in {**known, **quick}[name](place):
                print(line(one), flush=True)
                measured.append(one)
            found[name] = measured_now(measured, whole=name not in quick)
            if asked.keep:
                _keep(found)
    for subject in found.values():
        for one in subject.measured:
            if one.short:
                print(f"falls short: {one.name}: {'; '.join(one.short)}")


def _keep(found: Kept) -> None:
    """Put what was measured in the place of what is kept of the same subjects."""
    before = read_kept(RESULTS.read_bytes())
    both = {**before, **found}
    kept = {name: both[name] for name in subjects() if name in both}
    RESULTS.write_bytes(write_kept(kept))
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()
