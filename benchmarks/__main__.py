"""`python -m benchmarks [door|landing …]`: measure, print a table, keep the results."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.measure import Result

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"


def subjects() -> dict[str, Callable[[Path], Iterator[Result]]]:
    """Name what can be measured."""
    from benchmarks import door, landing

    return {"door": door.results, "landing": landing.results}


def main() -> None:
    """Measure what the command line names, or everything; everything is kept as results."""
    known = subjects()
    wanted = sys.argv[1:] or list(known)
    unknown = set(wanted) - set(known)
    if unknown:
        sys.exit(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    measured: list[Result] = []
    # Not in /tmp, which may be memory: what is measured has to reach a disk.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER", HERE)) as folder:
        for name in wanted:
            place = Path(folder) / name
            place.mkdir()
            for result in known[name](place):
                print(line(result), flush=True)
                measured.append(result)
    if wanted == list(known):
        RESULTS.write_text(json.dumps(document(measured), indent=2) + "\n")
        PAGE.write_text(page(measured))
        print(f"\nwritten to {RESULTS} and {PAGE}")
    short = [result for result in measured if result.short]
    for result in short:
        print(f"falls short: {result.name}: {'; '.join(result.short)}")


def line(result: Result) -> str:
    """Write a result for the terminal."""
    figure = result.figure
    ratio = f"{result.ratio:6.0%} of {result.limit_name}" if result.ratio is not None else ""
    detail = ", ".join(f"{name} {value:,.1f}" for name, value in result.detail.items())
    return (
        f"{result.name:<44} {figure.per_second:>11,.0f}/s {figure.per_core:>11,.0f}/core-s "
        f"{figure.cpu_per_million:>8.1f} CPU-s/M  {ratio} {detail}"
    )


def machine() -> str:
    """Say what this was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def document(measured: list[Result]) -> dict[str, object]:
    """Write the results as JSON."""
    return {
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "results": [
            {
                **asdict(result),
                "ratio": result.ratio,
                "per_second": result.figure.per_second,
                "per_core": result.figure.per_core,
                "cpu_per_million": result.figure.cpu_per_million,
            }
            for result in measured
        ],
    }


def page(measured: list[Result]) -> str:
    """Write the results as a page of the documentation."""
    rows = [
        "| what | events/s | events per core-second | CPU-s per million | share of the limit | |",
        "|---|---:|---:|---:|---|---|",
    ]
    for result in measured:
        figure = result.figure
        ratio = f"{result.ratio:.0%} of {result.limit_name}" if result.ratio is not None else ""
        notes = [f"{name} {value:,.1f}" for name, value in result.detail.items()]
        notes += [result.note] if result.note else []
        notes += [f"**falls short**: {reason}" for reason in result.short]
        rows.append(
            f"| {result.name} | {figure.per_second:,.0f} | {figure.per_core:,.0f} | "
            f"{figure.cpu_per_million:,.1f} | {ratio} | {'; '.join(notes)} |"
        )
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`; the limits beside the figures were measured in the same run.",
            f"Machine: {machine()}.",
            "Servers run on the first core, the load on the second.",
            "",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
