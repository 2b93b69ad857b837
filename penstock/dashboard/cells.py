"""What stands in the columns of a table of events. Pure, and bounded: payloads may be anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from penstock.contract.search import EventTold
from penstock.query.parse import read_field
from penstock.query.tree import Column, Field, Header, Metadata, Payload, Quarantine, Time
from penstock.query.writing import field_text
from penstock.schema.gate import Refused, value_of
from penstock.schema.gate import read as read_json
from penstock.schema.leaves import Scalar, json_text, leaves
from penstock.schema.names import key_of, path_text

LONGEST = 100
"""Characters of a value that are shown."""
LONGEST_PAYLOAD = 160
PAYLOAD = "payload"
"""The column that shows how the payload begins; a search calls it ``data``."""

_MOST_VALUES = 5
_MOST_READ = 256 * 1024
_MOST_DEPTH, _MOST_KEYS = 64, 20_000
# A table of events shows so many of the collection's columns unless others are chosen.
_AT_FIRST = 5
_FACETS_AT_FIRST = 4
_LONG_WORDS = ("id", "uuid", "time", "date", "timestamp", "created", "updated", "at", "url")


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown of a value; `cut` says that there is more."""

    text: str
    kind: str = "text"
    """``number``, ``text``, ``bool``, or ``none`` where the event has no such value."""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """An event in a table."""

    event: EventTold
    cells: tuple[Cell, ...]


NOTHING = Cell("", "none")


def rows_of(events: Sequence[EventTold], columns: Sequence[str]) -> list[Row]:
    """Answer the events with what stands in these columns, in their order."""
    fields = [None if column == PAYLOAD else read_field(column) for column in columns]
    return [Row(event, tuple(_cells(event, fields))) for event in events]


def fields_of_columns(paths: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Answer discovered columns as a search names them, with their types."""
    found = []
    for path, kind in paths:
        keys = tuple(key_of(part) for part in path.replace("[]", "").split("."))
        found.append((field_text(Payload(keys)), kind))
    return list(dict(found).items())


def columns_at_first(known: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Answer the columns of a table for which nobody has chosen any."""
    plain = [field for field, _ in known if "." not in field]
    return (*(plain or [field for field, _ in known])[:_AT_FIRST], PAYLOAD)


def facets_at_first(known: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Answer fields that may have few values, as far as their names and types tell."""
    likely = [
        field
        for field, kind in known
        if kind in ("string", "bool", "boolean")
        and field.rpartition(".")[2].rpartition("_")[2].lower() not in _LONG_WORDS
    ]
    return (*likely[:_FACETS_AT_FIRST], "source")


def _cells(event: EventTold, fields: Sequence[Field | None]) -> Iterator[Cell]:
    wanted = any(isinstance(field, Payload) for field in fields)
    values = _values(event) if wanted else {}
    for field in fields:
        match field:
            case None:
                yield _preview(event)
            case Payload(keys):
                yield _joined(values.get(path_text(keys), []))
            case _:
                yield _of_envelope(event, field)


def _of_envelope(event: EventTold, field: Header | Metadata | Column | Time | Quarantine) -> Cell:
    match field:
        case Header(name):
            return _joined(
                [
                    value if isinstance(value, str) else f"base64 {value.base64}"
                    for header, value in event.headers
                    if name is None or header.lower() == name
                ]
            )
        case Metadata(name):
            return _joined([value for key, value in event.metadata.items() if name in (None, key)])
        case Time("event_time") if event.event_time is not None:
            return Cell(f"{event.event_time:%Y-%m-%d %H:%M:%S}")
        case Time("received_at"):
            return Cell(f"{event.received_at:%Y-%m-%d %H:%M:%S.%f}")
        case Time():
            return NOTHING
        case Column("key") if event.key_base64 is not None:
            return _cell(f"base64 {event.key_base64}")
        case Column(name) | Quarantine(name):
            return _joined([getattr(event, name)])


def _values(event: EventTold) -> dict[str, list[Scalar]]:
    """Answer the leaves of the payload by their paths, as far as it is JSON of a usual size."""
    found: dict[str, list[Scalar]] = {}
    if event.payload is None or len(event.payload) > _MOST_READ:
        return found
    try:
        read = read_json(event.payload.encode(), max_depth=_MOST_DEPTH, max_keys=_MOST_KEYS)
        document = value_of(read)
    except Refused:
        return found
    for path, leaf in leaves(document):
        known = found.setdefault(path, [])
        if len(known) <= _MOST_VALUES:
            known.append(leaf)
    return found


def _preview(event: EventTold) -> Cell:
    if event.payload is None:
        size = len(event.payload_bytes())
        return Cell(f"{size:,} bytes that are no text", "none")
    return _cell(event.payload[: 4 * LONGEST_PAYLOAD], LONGEST_PAYLOAD)


def _joined(values: Sequence[Scalar | None]) -> Cell:
    there = [value for value in values if value is not None]
    if not there:
        return NOTHING
    if len(there) == 1:
        return _cell(there[0])
    shown = ", ".join(_text(value) for value in there[:_MOST_VALUES])
    more = len(there) > _MOST_VALUES
    cell = _cell(shown)
    return Cell(cell.text if cell.cut or not more else f"{cell.text}, …", "text", cell.cut or more)


def _cell(value: Scalar, longest: int = LONGEST) -> Cell:
    kind = "text"
    if isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, int | float | msgspec.Raw):
        kind = "number"
    text = " ".join(_text(value).split())
    cut = len(text) > longest
    return Cell(f"{text[:longest]}…" if cut else text, kind, cut)


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json_text(value)
