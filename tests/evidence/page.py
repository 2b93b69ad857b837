"""What was broken and found, and which seeded bugs were caught, as a page of the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from balance import Findings

from evidence.mutants import MUTANTS, PROMISES, RULES, Mutant
from evidence.sheet import Place, Told


class Caught(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the test of a mutant found the bug, and when (UTC)."""

    caught: bool
    broke: bool = False
    """Whether something else was raised than the test looks for, which finds nothing."""
    at: str


class Kept(msgspec.Struct, kw_only=True):
    """What was found last: of each test here and on the engines, and of each mutant."""

    faults: dict[str, Told] = {}
    mutants: dict[str, Caught] = {}


def read_kept(text: bytes) -> Kept:
    """Read what `write_kept` wrote."""
    return msgspec.json.decode(text, type=Kept)


def write_kept(kept: Kept) -> bytes:
    """Write all of it as JSON."""
    return msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n"


PLACES: dict[Place, str] = {"here": "On one machine", "engines": "On the engines"}


ENGINES = "Kafka, PostgreSQL, S3, Trino, Elasticsearch, etcd and RabbitMQ"


def page(kept: Kept) -> str:
    """Write what was found last as a page of the documentation."""
    every = list(kept.faults.values())
    lines = [
        "# Faults",
        "",
        "What tests break, and what was lost by it. Written by `make faults` and `make mutants`.",
        "",
        *_sum(every),
        *_when([one.at for one in every]),
        "",
        "- *events*: acknowledged, and looked for afterwards in all that stands under *looked at*.",
        "- *lost*: acknowledged, and nowhere. *doubled*: there more often than it was sent.",
        "- *phantom*: there, and nobody sent it. *altered*: other bytes than were sent.",
        "- *reordered*: comes before one that was sent earlier with its key.",
        "- *again*: sent once more after a sender died, within [the promise](../why/replay.md).",
        "- A dash: this test does not look at it.",
    ]
    for place, title in PLACES.items():
        lines += ["", f"## {title}", ""]
        if place == "engines":
            lines += [f"With {ENGINES}: `make engines`, then `make faults ENGINES=1`.", ""]
        told = {name: one for name, one in sorted(kept.faults.items()) if one.place == place}
        lines += _faults(told) if told else ["None of them was run yet."]
    lines += [
        "",
        "## Seeded bugs",
        "",
        "A test that cannot fail proves nothing.",
        "`make mutants` puts each of these bugs into the code, and a test has to find it.",
        "What it asserts has to fail: one that meets any other error *broke*, and found nothing.",
        "",
        *_when([one.at for one in kept.mutants.values()]),
        "",
        *_mutants(kept.mutants),
        "",
        "Each of the [promises](../../README.md#what-it-promises) falls with rules of these:",
        "",
        *_promises(),
        "",
        "## By yourself",
        "",
        "`make faults` kills, cuts and counts again, more than 800 kills in about half an hour.",
        "What has run is kept as it goes; the same command goes on with a run that was stopped.",
        "`FAULT_KILLS` says how often each site is killed at moments nobody chose (75);",
        "`FAULT_EVENTS`, of how many events landing makes its first commits (500000);",
        "`FAULT_CLIENTS` and `FAULT_SECONDS`, how many attack a door, and how long (200, 120).",
        '`make faults ONLY="landing door"`, `make mutants ONLY=commit`: what has a word in it.',
        "With `ENGINES=1` both do what needs the engines, and only that.",
        "`make soak` keeps an installation under load for ten minutes, with a fault every 5 s, and",
        "asks 20,000 searches beside landing and upkeep; `make soak SECONDS=120 RATE=500 SEED=7`.",
        "It fails where a process grows by more than 1 MB or a handle a minute, once nothing is",
        "killed any more and a third of the rest is over, and where a table has over 60 snapshots.",
        "In a soak of less than six minutes only 400 MB or 120 handles a minute can be told apart.",
        "Memory is what a process has of its own (`RssAnon`): of every 10 s the least counts, and",
        "of the slopes between any two of those the median.",
        "A short form of all tests is part of `make test`.",
        "",
    ]
    return "\n".join(lines)


def _sum(every: list[Told]) -> Iterator[str]:
    injected: Counter[str] = Counter()
    for one in every:
        injected.update(one.injected)
    whole = sum((one.found for one in every), Findings(events=0))
    what = ", ".join(f"{count:,} {name}" for name, count in injected.most_common())
    yield (
        f"In all: {what or 'nothing'}; {whole.events:,} events acknowledged, "
        f"**{whole.lost:,} lost, {whole.doubled:,} doubled, {whole.phantom:,} phantom, "
        f"{_number(whole.reordered)} reordered, {_number(whole.altered)} altered**."
    )


def _when(times: list[str]) -> Iterator[str]:
    if times:
        yield f"Run between {min(times)} and {max(times)} (UTC)."


def _faults(told: dict[str, Told]) -> Iterator[str]:
    yield (
        "| test | what it breaks | injected | looked at | events "
        "| lost | doubled | phantom | reordered | altered | again |"
    )
    yield "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for name, one in told.items():
        found = one.found
        injected = _counted(one.injected)
        if one.measured:
            injected += f"; measured: {_counted(one.measured)}"
        failed = f"; **{one.failed} of {one.cases} failed**" if one.failed else ""
        figures = [
            *(f"{figure:,}" for figure in (found.events, found.lost, found.doubled, found.phantom)),
            _number(found.reordered),
            _number(found.altered),
            f"{found.again:,}",
        ]
        cells = [
            _link(name.partition("@")[0]),
            one.breaks + failed,
            injected,
            ", ".join(one.stores),
            *figures,
        ]
        yield f"| {' | '.join(cells)} |"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _number(figure: int | None) -> str:
    return "–" if figure is None else f"{figure:,}"  # noqa: RUF001 - a dash in a table


def _link(test: str) -> str:
    """Write a test's claim as a link to its file."""
    file, _, rest = test.partition("::")
    name = rest.rpartition("::")[2]
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{file})"


def _mutants(caught: dict[str, Caught]) -> Iterator[str]:
    yield "| rule | bug | found by | |"
    yield "|---|---|---|---|"
    for rule, (area, text) in RULES.items():
        of_rule = [one for one in MUTANTS if one.rule == rule]
        for one in of_rule:
            yield f"| {area}: {text} | {one.bug} | {_link(one.test)} | {_verdict(one, caught)} |"


def _promises() -> Iterator[str]:
    for number, (promise, rules) in enumerate(PROMISES.items(), 1):
        yield f"{number}. *{promise}*: {'; '.join(RULES[rule][1] for rule in rules)}."


def _verdict(one: Mutant, caught: dict[str, Caught]) -> str:
    verdict = caught.get(one.name)
    if verdict is None:
        return "not run yet"
    if verdict.broke:
        return "**broke**"
    return "caught" if verdict.caught else "**missed**"


def short(told: Iterable[tuple[str, Told]]) -> Iterator[str]:
    """Write what was found for the terminal, a line for each test."""
    for name, one in told:
        found = one.found
        injected = _counted(one.injected)
        if one.measured:
            injected += f"; {_counted(one.measured)}"
        wrong = {
            kind: figure
            for kind in ("lost", "doubled", "phantom", "reordered", "altered")
            if (figure := getattr(found, kind))
        }
        verdict = f"{wrong or ''} {one.failed} FAILED" if one.failed or wrong else "nothing wrong"
        claim = name.partition("@")[0].partition("::")[2].removeprefix("test_").replace("_", " ")
        yield f"{claim}: {injected}; {found.events:,} events, {verdict}"
