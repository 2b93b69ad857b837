"""`python -m benchmarks [door|landing|ask|search|search_index|tail|pages|replay|…]`: measure.

Everything together is kept, as ``benchmarks/results.json`` and a page of the documentation; some
subjects alone are printed only. What takes long is measured in a short form among everything, and
at full length when it is named.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from benchmarks.report import Measured, document, line, page

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
        "upkeep": upkeep.results,
        "many": many.results,
        "kafka": kafka.results,
        "replay_kafka": replay_kafka.results,
    }


def short() -> dict[str, Callable[[Path], Iterator[Measured]]]:
    """Answer the short forms of what takes long."""
    from benchmarks import many, pages, search, search_index, upkeep

    return {
        "search": search.short,
        "search_index": search_index.short,
        "pages": pages.short,
        "upkeep": upkeep.short,
        "many": many.short,
    }


def present() -> list[str]:
    """Name what is measured without being asked for: all that this machine has the engine for."""
    from benchmarks import kafka, pages, search_index

    there = {
        "kafka": kafka.there,
        "replay_kafka": kafka.there,
        "search_index": search_index.there,
        "pages": pages.there,
    }
    return [name for name in subjects() if name not in there or there[name]()]


def main() -> None:
    """Measure what the command line names, or everything; everything is kept as results."""
    known = subjects()
    named = sys.argv[1:]
    wanted = named or present()
    unknown = set(wanted) - set(known)
    if unknown:
        sys.exit(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if not named:
        known = {**known, **short()}
    # What goes wrong is raised; what goes right is the table's to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    measured: list[Measured] = []
    # Not in /tmp, which may be memory: what is measured has to reach a disk.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER", HERE)) as folder:
        for name in wanted:
            print(f"measuring {name} …", file=sys.stderr)
            place = Path(folder) / name
            place.mkdir()
            for one in known[name](place):
                print(line(one), flush=True)
                measured.append(one)
    if not named:
        RESULTS.write_text(json.dumps(document(measured), indent=2) + "\n")
        PAGE.write_text(page(measured))
        print(f"written to {RESULTS} and {PAGE}", file=sys.stderr)
    for one in measured:
        if one.short:
            print(f"falls short: {one.name}: {'; '.join(one.short)}")


if __name__ == "__main__":
    main()
