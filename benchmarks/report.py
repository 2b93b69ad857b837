"""What was measured, written for the terminal, as JSON, and as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
import psutil

from benchmarks.measure import Facts, Measured, Question, Result


def machine() -> str:
    """Say what this was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def line(measured: Measured) -> str:
    """Write a result for the terminal."""
    if isinstance(measured, Facts):
        return f"{measured.name:<44} {_figures(measured)}"
    if isinstance(measured, Question):
        times = measured.times
        return (
            f"{measured.name:<44} p50 {times.median_ms:>8,.1f} ms  p99 {times.p99_ms:>8,.1f} ms "
            f"{measured.rows_per_second:>13,.0f} rows/s  "
            f"{measured.ratio:6.0%} of {measured.limit_name}"
        )
    figure = measured.figure
    ratio = f"{measured.ratio:6.0%} of {measured.limit_name}" if measured.ratio is not None else ""
    detail = ", ".join(f"{name} {value:,.1f}" for name, value in measured.detail.items())
    return (
        f"{measured.name:<44} {figure.per_second:>11,.0f}/s {figure.per_core:>11,.0f}/core-s "
        f"{figure.cpu_per_million:>8.1f} CPU-s/M  {ratio} {detail}"
    )


class Subject(msgspec.Struct, frozen=True):
    """What was measured of one subject in one run: when (UTC), on what, and whether at length."""

    at: str
    machine: str
    whole: bool
    measured: list[Measured]


Kept = dict[str, Subject]
"""What was measured last of each subject."""


def measured_now(measured: list[Measured], *, whole: bool) -> Subject:
    """Answer what was measured just now, here."""
    return Subject(datetime.now(UTC).isoformat(" ", "minutes")[:16], machine(), whole, measured)


def read_kept(text: bytes) -> Kept:
    """Read what `write_kept` wrote."""
    return msgspec.json.decode(text, type=Kept)


def write_kept(kept: Kept) -> bytes:
    """Write all of it as JSON."""
    return msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n"


def page(kept: Kept) -> str:
    """Write what was measured last as a page of the documentation."""
    measured = [one for subject in kept.values() for one in subject.measured]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`; the limits beside the figures were measured in the same run.",
            '`make bench ONLY="search tail"` renews some of it, at full length.',
            "The limits themselves differ by a third and more between runs a few hours apart.",
            "So the share says more than the figure.",
            "",
            "## Collect, land, replay",
            "",
            "Servers run on the first core, the load on the second; CPU is that of what is named.",
            "",
            *_results(result for result in measured if isinstance(result, Result)),
            "",
            "## SQL and search",
            "",
            "Each question is asked again and again, in turns with a plain statement of DuckDB.",
            "Rows a second: the rows of the table by the time in the middle.",
            "",
            *_questions(question for question in measured if isinstance(question, Question)),
            "",
            "## Scale",
            "",
            "A replay that several processes send has all cores, its receiver and the door one.",
            "It is measured from the 20,000th of 60,000 events on: then the processes have begun.",
            "CPU is that of its own process, and that of those together, without the receiver's.",
            "",
            *_facts(facts for facts in measured if isinstance(facts, Facts)),
            "",
            "## When",
            "",
            *_subjects(kept),
            "",
        ]
    )


def _subjects(kept: Kept) -> Iterator[str]:
    yield "| subject | measured (UTC) | form | machine |"
    yield "|---|---|---|---|"
    for name, subject in kept.items():
        form = "whole" if subject.whole else "short"
        yield f"| `{name}` | {subject.at} | {form} | {subject.machine} |"


def _results(results: Iterator[Result]) -> Iterator[str]:
    yield "| what | events/s | events per core-second | CPU-s per million | share of the limit | |"
    yield "|---|---:|---:|---:|---|---|"
    for result in results:
        figure = result.figure
        notes = [f"{name} {value:,.1f}" for name, value in result.detail.items()]
        notes += [result.note] if result.note else []
        notes += _short(result.short)
        yield (
            f"| {result.name} | {figure.per_second:,.0f} | {figure.per_core:,.0f} | "
            f"{figure.cpu_per_million:,.1f} | {_share(result)} | {'; '.join(notes)} |"
        )


def _share(result: Result) -> str:
    if result.limit is None:
        return ""
    limit = getattr(result.limit, result.by)
    unit = "core-s" if result.by == "per_core" else "s"
    return f"{result.ratio:.0%} of {result.limit_name}, {limit:,.0f}/{unit}"


def _questions(questions: Iterator[Question]) -> Iterator[str]:
    yield "| question | p50 ms | p99 ms | CPU ms | rows/s | share of the limit | |"
    yield "|---|---:|---:|---:|---:|---|---|"
    for question in questions:
        times, limit = question.times, question.limit
        yield (
            f"| {question.name} | {times.median_ms:,.1f} | {times.p99_ms:,.1f} | "
            f"{times.cpu_ms:,.0f} | {question.rows_per_second:,.0f} | "
            f"{question.ratio:.0%} of {question.limit_name}, {limit.median_ms:,.1f} ms | "
            f"{'; '.join([question.note, *_short(question.short)]).removeprefix('; ')} |"
        )


def _facts(found: Iterator[Facts]) -> Iterator[str]:
    yield "| what | figures | |"
    yield "|---|---|---|"
    for facts in found:
        yield f"| {facts.name} | {_figures(facts)} | {'; '.join(_short(facts.short))} |"


def _figures(facts: Facts) -> str:
    return "; ".join(f"{name} {_number(value)}" for name, value in facts.figures.items())


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _short(reasons: Sequence[str]) -> Iterator[str]:
    for reason in reasons:
        yield f"**falls short**: {reason}"
