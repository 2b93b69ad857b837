"""Which files a search reads, which times in them, and in which steps. Pure.

A page is full with the newest events that are found, or the oldest: so files are read in steps
that grow, from that end, and no further than needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from lakehouse.listing import EVER, Listed
from penstock.envelope import Micros
from penstock.query.pieces import ALWAYS, Sql, all_of, any_of
from penstock.query.spelling import UNKNOWN, Spelt
from penstock.schema.shape import Struct

FIRST_STEP = 50_000
"""So many rows are read first; most pages are full by then."""

_GROWTH = 8

MOST_SPANS = 48
"""Each row that is read is compared with all spans of its statement.

Where spans leave out few rows there are fewer of them: comparing two million rows with 48 spans
takes 200 ms of a processor, as long as reading a column and more.
"""


MOST_SPELLINGS = 4
"""So many ways in which the columns of a search are spelt are told apart."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows in which something may be, received from `first` to `last`, both included.

    They are in the row group of the file with this number.
    """

    file: Listed
    group: int
    first: Micros
    last: Micros
    rows: int
    misfits: bool = True
    """Whether a misfit may decide which of them are found."""
    spelt: Spelt = UNKNOWN
    """What is known of the columns whose texts are compared."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time to be searched, from `first` to `last`, both included."""

    first: Micros
    last: Micros


@dataclass(frozen=True, slots=True)
class Reading:
    """Files of one shape to be read, and the condition on their rows."""

    paths: tuple[str, ...]
    shape: Struct
    within: Sql
    misfits: bool = True
    """Whether a misfit may decide which rows are found."""
    spelt: Spelt = UNKNOWN
    """What is known of the columns whose texts are compared."""


WHOLE = Window(*EVER)


def with_id(files: Iterable[Listed], event_id: str) -> list[Piece]:
    """Answer the pieces in which an event with this id may be."""
    return [one for one in whole_files(files) if one.file.groups[one.group].may_have(event_id)]


def bounded(pieces: Iterable[Piece], within: Window) -> list[Piece]:
    """Answer the pieces that have something of a time."""
    return [one for one in pieces if one.first <= within.last and one.last >= within.first]


def next_step(rows: int, found: int, wanted: int) -> int:
    """Answer how many rows to read next, when so many were found in so many rows.

    As many as it takes if events lie as close together there, and some for luck. They may not, so
    that it is half as many again as before at least.
    """
    if not found:
        return rows * _GROWTH
    more = rows * max(wanted - found, 1) * 3 // (2 * found)
    return min(max(more, rows // 2), rows * _GROWTH)


def windows(
    pieces: Sequence[Piece], *, newest_first: bool, steps: Iterable[int]
) -> Iterator[Window]:
    """Answer the times to search one after the other, each of about as many rows as its step says.

    They have nothing in common, and every row of a piece is in one of them. A step is asked for
    when its window is. A row group counts as a whole, for nearly all of it has to be unpacked.
    """
    # Oldest first is newest first with the times turned around.
    ends = sorted(
        ((one.last if newest_first else -one.first, one) for one in pieces),
        key=lambda end: end[0],
        reverse=True,
    )
    upper: Micros | None = None
    taken = 0
    begun: set[tuple[str, int]] = set()
    for step in steps:
        rows = 0
        while taken < len(ends) and rows < step:
            one = ends[taken][1]
            if (one.file.path, one.group) not in begun:
                begun.add((one.file.path, one.group))
                rows += one.file.groups[one.group].rows
            taken += 1
        if taken == len(ends):
            break
        lower = ends[taken][0] + 1
        if upper is None or lower <= upper:
            yield _window(lower, upper, newest_first=newest_first)
            upper = lower - 1
    yield _window(None, upper, newest_first=newest_first)


def _window(lower: Micros | None, upper: Micros | None, *, newest_first: bool) -> Window:
    if newest_first:
        return Window(EVER[0] if lower is None else lower, EVER[1] if upper is None else upper)
    return Window(EVER[0] if upper is None else -upper, EVER[1] if lower is None else -lower)


def readings(pieces: Iterable[Piece], within: Window) -> list[Reading]:
    """Answer what to read of a time, the files that are asked in the same way together."""
    alike: dict[tuple[Struct, bool, Spelt], list[Piece]] = {}
    for one in bounded(pieces, within):
        alike.setdefault((one.file.shape, one.misfits, one.spelt), []).append(one)
    return [
        Reading(
            tuple(sorted({one.file.path for one in some})),
            shape,
            _condition(some, within),
            misfits=misfits,
            spelt=spelt,
        )
        for (shape, misfits, spelt), some in alike.items()
    ]


def _condition(pieces: Sequence[Piece], within: Window) -> Sql:
    """Answer a condition that is true for every row of the pieces in this time, and for few more.

    And for no row of another time: windows must have nothing in common.
    """
    rows: Counter[Listed] = Counter()
    for one in pieces:
        rows[one.file] += one.rows
    left_out = 1 - rows.total() / sum(file.rows for file in rows)
    if not left_out:
        return between(within.first, within.last)
    clipped = sorted((max(one.first, within.first), min(one.last, within.last)) for one in pieces)
    spans = _few(list(_joined(clipped)), max(1, round(MOST_SPANS * left_out)))
    inside = any_of(*(between(first, last) for first, last in spans))
    # By itself, so that engines can leave out files and row groups by it.
    return all_of(between(spans[0][0], spans[-1][1]), inside if len(spans) > 1 else ALWAYS)


def _joined(spans: Iterable[tuple[Micros, Micros]]) -> Iterator[tuple[Micros, Micros]]:
    """Join spans, sorted by their beginnings, that leave nothing between them."""
    begun: tuple[Micros, Micros] | None = None
    for first, last in spans:
        if begun is None:
            begun = first, last
        elif first <= begun[1] + 1:
            begun = begun[0], max(begun[1], last)
        else:
            yield begun
            begun = first, last
    if begun is not None:
        yield begun


def _few(spans: list[tuple[Micros, Micros]], most: int) -> list[tuple[Micros, Micros]]:
    """Close the smallest gaps until there are no more spans than `most`."""
    over = len(spans) - most
    if over <= 0:
        return spans
    gaps = sorted((spans[n + 1][0] - spans[n][1], n) for n in range(len(spans) - 1))
    closed = {n for _, n in gaps[:over]}
    found = [spans[0]]
    for n, span in enumerate(spans[1:]):
        if n in closed:
            found[-1] = found[-1][0], span[1]
        else:
            found.append(span)
    return found


def between(first: Micros, last: Micros) -> Sql:
    """Answer the condition for events received in this time, both ends included."""
    # Not as parameters: DuckDB's package takes 0.3 ms for each.
    sides = []
    if first > EVER[0]:
        sides.append(Sql(f"received_at >= make_timestamptz({first:d})"))
    if last < EVER[1]:
        sides.append(Sql(f"received_at <= make_timestamptz({last:d})"))
    return all_of(*sides)


def few_spellings(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Answer the pieces, knowing nothing of columns that are spelt in many ways from file to file.

    Files of each way are asked by themselves, which takes some milliseconds.
    """
    if len({one.spelt for one in pieces}) <= MOST_SPELLINGS:
        return pieces
    return [replace(one, spelt=UNKNOWN) for one in pieces]


def whole_files(
    files: Iterable[Listed], *, misfits: bool = True, spelt: Spelt = UNKNOWN
) -> list[Piece]:
    """Answer a piece for each row group of the files."""
    return [
        Piece(one, number, group.first, group.last, group.rows, misfits, spelt)
        for one in files
        for number, group in enumerate(one.groups)
    ]
