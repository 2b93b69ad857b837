"""From a batch of the log to the rows of the lake, and to quarantine.

Nearly every event passes a check in C and goes to the columns as it was sent. The others are read
one by one in Python, and dropped at once: kept by the thousand, Python objects cost ten times as
much, for the garbage collector walks through them.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from msgspec import Raw

from penstock.codec import ENVELOPE
from penstock.errors import PenstockError
from penstock.schema.check import NO_BLANKS, Place, failing, top_of
from penstock.schema.columns import PIECE_BYTES, Full, MisfitColumn, count_cells, parse
from penstock.schema.discover import Added, Discovery, Seen, blanks, extends, widen
from penstock.schema.fit import Barred, Barrier, Dropped, Misfits, fit_object
from penstock.schema.formats import Decoded, Decoder, TooMuchText
from penstock.schema.gate import Refused, declares_json, read, value_of
from penstock.schema.rows import QUARANTINE_SCHEMA, rows_schema
from penstock.schema.shape import EMPTY, Struct, count_columns, count_repeated

log = structlog.get_logger()

_Rows = TypeVar("_Rows", pa.Array, pa.RecordBatch)

REASON_KEY = "penstock_reason"
"""The metadata in which a door says why it wants an event in quarantine."""

# Rows that are checked with one and the same knowledge: few at first, so that what they teach
# helps with the others.
_FIRST_BLOCK, _BLOCK = 256, 8_192
# Unknown fields of a batch that notes are kept on, some 500 bytes each.
_NOTES = 20_000
# Characters that the misfits of an event may take: at least, and per byte of its payload. A path
# is repeated for each leaf: 1 MB that is half a key and half a list would make 100 GB.
_ROOM_LEAST, _ROOM_RATIO = 1_024, 16
# ``{},`` is the shortest object in a list.
_SHORTEST_OBJECT = 3

# Characters of a path that are told as the reason of quarantine; whoever sends events chooses it.
_LONGEST_PATH = 1_024
# Events of one batch that may fail for no known reason: more of them are no bad events, but a
# mistake in the program, which must not empty a collection into quarantine.
_MOST_UNEXPECTED = 100
MOST_TEXT = 512 << 20
"""Bytes of JSON that a decoder may make of one batch. Arrow counts them with 32 bits."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Rules:
    """What a collection's contract says about leaves without a column, and the bounds."""

    contract: Literal["evolve", "freeze", "quarantine", "drop_value"] = "evolve"
    """With `evolve` a leaf gets a column if it can. Otherwise there are no new columns: it is a
    misfit (`freeze`, and `evolve` where it can have none), its event goes to quarantine
    (`quarantine`), or only the payload has it (`drop_value`)."""
    decoder: Decoder | None = None
    """What makes JSON of payloads that are something else; see `penstock.schema.formats`."""
    max_columns: int = 1000
    """Leaf columns; fields beyond are misfits."""
    max_column_depth: int = 32
    """Levels of a column; leaves below are misfits."""
    max_depth: int = 128
    """Levels of a document; over it: quarantine."""
    max_keys: int = 10_000
    """Different keys of one object; over it: quarantine."""
    max_cells: int = 16_000_000
    """Values of columns, nulls included, that one document may take; all of one that could take
    more are misfits. Each object of a list takes as many as its objects have columns: 1 MB of
    ``[{},{},…]`` beside 999 columns would take 18 GB."""


class TooWide(Exception):
    """These events have more cells than were allowed; the first `rows` of them may have not."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


@dataclass(frozen=True)
class Change:
    """A leaf column that the shape got, and the event that showed it first.

    Or, where it is `full`, that there is no room for more: further fields are misfits. It has no
    path or type then, and the event is the one that brought the last column.
    """

    path: str
    what: Literal["added", "full"]
    type: str | None
    event_id: str


@dataclass(frozen=True)
class Converted:
    """What became of a batch: every event is in exactly one of the tables, in the log's order."""

    rows: pa.Table
    quarantined: pa.Table
    shape: Struct
    changes: tuple[Change, ...]
    cells: int
    """Values of discovered columns, nulls included."""


def convert(
    batch: pa.RecordBatch, shape: Struct, rules: Rules, *, most_cells: int | None = None
) -> Converted:
    """Turn a batch of `codec.LOG_SCHEMA` into rows and quarantined events.

    `data` and `misfits` of a row hold every leaf of its payload, if that is JSON, or of what the
    rules' decoder makes of it, unless the contract is `drop_value`. The shape of the answer is the
    given one or a wider one.

    An event that cannot be converted for a reason nobody thought of goes to quarantine, and the
    others go on. Raises `TooWide` rather than build much more than `most_cells` for several
    events, and what is raised for many events or for none by itself.
    """
    try:
        return _convert(batch, shape, rules, most_cells, {})
    except _NO_EVENTS_FAULT:
        raise
    except Exception:
        unexpected = _isolate(batch, shape, rules, most_cells)
        if not unexpected:
            raise
    return _convert(batch, shape, rules, most_cells, unexpected)


def _convert(
    batch: pa.RecordBatch,
    shape: Struct,
    rules: Rules,
    most_cells: int | None,
    unexpected: Mapping[int, str],
) -> Converted:
    given = shape
    told: Sequence[Added] = ()
    try:
        sorting = _Sorting(batch, rules, unexpected, None if most_cells is None else MOST_TEXT)
    except TooMuchText as much:
        raise TooWide(much.rows) from None
    if sorting.seen is not None:
        shape, told = _widened(given, sorting.seen, rules)
    findings = _examine(sorting, shape, guessing=True)
    if not findings.guessed_well:
        findings = _examine(sorting, shape, guessing=False)
    wider, added = _widened(shape, findings.seen, rules)
    blank = blanks(wider, findings.seen)
    lenient = findings.lenient or blank != NO_BLANKS
    count = batch.num_rows
    if most_cells is not None and count > 1 and count * count_columns(wider) > most_cells:
        raise TooWide(min(count - 1, max(1, most_cells // count_columns(wider))))

    # Documents were let pass by guesses at the wider shape, and with fields that were blank then.
    if wider != shape:
        sorting.set_wide_aside(wider)
    suspects = sorting.narrow(findings.doubtful) if wider == shape else sorting.documents()
    top = top_of(wider, blank)
    sorting.split(sorting.failing(suspects, top) if lenient or wider != shape else suspects, top)
    sorting.split_wide()

    rows = sorting.rows(wider, strict=not lenient, most_cells=most_cells)
    return Converted(
        rows=rows,
        quarantined=sorting.quarantined(),
        shape=wider,
        changes=_changes((*told, *added), batch.column("event_id"), given, wider, rules),
        cells=0 if wider == EMPTY else count_cells(rows["data"]),
    )


_NO_EVENTS_FAULT = (TooWide, PenstockError, MemoryError, OSError)
"""What converting a batch may raise although there is nothing wrong with any event of it."""


def _isolate(
    batch: pa.RecordBatch, shape: Struct, rules: Rules, most_cells: int | None
) -> Mapping[int, str]:
    """Answer the rows that cannot be converted by themselves, with the names of their errors.

    Halves the batch again and again: one event among twenty thousand costs twice the batch.
    Raises the error of an event when there are more of them than bad luck explains.
    """
    found: dict[int, str] = {}
    spans = [(0, batch.num_rows)]
    while spans:
        start, count = spans.pop()
        try:
            _convert(batch.slice(start, count), shape, rules, most_cells, {})
        except _NO_EVENTS_FAULT:
            raise
        except Exception as error:
            if count > 1:
                half = count // 2
                spans += [(start + half, count - half), (start, half)]
                continue
            if len(found) == _MOST_UNEXPECTED:
                raise
            found[start] = type(error).__name__
            _tell(batch.column("event_id")[start].as_py(), error)
    return found


def _tell(event_id: str, error: Exception) -> None:
    # Without the error's own words: they may quote the payload.
    log.error(
        "event not converted, it goes to quarantine",
        event_id=event_id,
        error=type(error).__name__,
        where="".join(traceback.format_tb(error.__traceback__)[-3:]),
    )


def _changes(
    added: Sequence[Added], ids: pa.Array, shape: Struct, wider: Struct, rules: Rules
) -> tuple[Change, ...]:
    changes = [Change(one.path, "added", one.kind, ids[one.row].as_py()) for one in added]
    if changes and count_columns(shape) < rules.max_columns <= count_columns(wider):
        changes.append(Change("", "full", None, changes[-1].event_id))
    return tuple(changes)


class _Findings(NamedTuple):
    """What examining a batch has taught."""

    seen: Seen
    doubtful: list[int]
    """Rows with objects that may have something beside their columns."""
    lenient: bool
    """Whether objects with blank fields were let pass."""
    guessed_well: bool
    """Whether every guess at a type came true, so that `seen` need not have counted all values."""


def _examine(sorting: _Sorting, shape: Struct, *, guessing: bool) -> _Findings:
    """Find the objects that do not fit entirely, and what they hold beside the columns.

    Having looked at some, one can guess at the wider shape, and objects that fit the guess are
    let pass. They hold nothing new, but have no say in what type a field is to get either. That
    is right as long as the guess stays: what they did not say is that it is right.
    """
    rules = sorting.rules
    discovery = Discovery(
        top_of(shape),
        most=max(_NOTES, 4 * rules.max_columns),
        counting=rules.contract == "evolve" and count_columns(shape) < rules.max_columns,
    )
    doubtful: list[int] = []
    expected, blank = shape, NO_BLANKS
    lenient, guessed_well = False, True
    for start, block in sorting.blocks():
        lenient = lenient or blank != NO_BLANKS
        sorting.set_aside(start, block, expected)
        positions = failing(block, top_of(expected, blank))
        for position in positions:
            document = sorting.object_of(start + position, block[position])
            if document is not None:
                doubtful.append(start + position)
                discovery.look(document, start + position)
        if positions and guessing:
            wider, _ = _widened(shape, discovery.seen, rules)
            guessed_well = guessed_well and extends(wider, expected)
            expected = wider
        if positions:
            blank = blanks(expected, discovery.seen)
    return _Findings(discovery.seen, doubtful, lenient, guessed_well)


def _widened(shape: Struct, seen: Seen, rules: Rules) -> tuple[Struct, Sequence[Added]]:
    if rules.contract != "evolve":
        return shape, ()
    return widen(shape, seen, max_columns=rules.max_columns, max_depth=rules.max_column_depth)


class _Verdict(NamedTuple):
    """Why an event goes to quarantine."""

    stage: Literal["wish", "gate", "contract", "convert"]
    reason: str
    detail: str | None = None


class _Sorting:
    """What becomes of the events of a batch. They are known by their row in it.

    An event of which nothing is noted here goes to the columns with the payload it came with.
    """

    def __init__(
        self,
        batch: pa.RecordBatch,
        rules: Rules,
        unexpected: Mapping[int, str],
        most_text: int | None,
    ) -> None:
        """Leave `unexpected` rows alone but for their way to quarantine; the values say why."""
        self.rules = rules
        self._batch = batch
        blank = b"{}" if rules.decoder is None else b""
        self._payloads = _replaced(batch.column("payload"), dict.fromkeys(unexpected, blank))
        self._content_types = batch.column("content_type")
        self._verdicts = {row: _unexpected(why) for row, why in unexpected.items()} | _wishes(batch)
        self._bare: set[int] = set()
        """Rows that have no columns: their payload is no JSON, or no object."""
        self._misfits = MisfitColumn()
        self._apart: Mapping[int, Sequence[tuple[str, str]]] = {}
        """Misfits that are in no text."""
        self.seen: Seen | None = None
        """What types fields have, where that is known before they are looked at."""
        if rules.decoder is not None:
            self._take(rules.decoder.decode(self._payloads, most_text=most_text))
        self._fitting: dict[int, bytes] = {}
        """What the columns can hold of a payload, where that is not all of it."""
        self._wide: set[int] = set()
        """Rows that have no columns: their lists of objects could take too much memory there."""
        self._longest: int = pc.max(pc.binary_length(self._payloads)).as_py() or 0

    def _take(self, decoded: Decoded) -> None:
        """Go by the texts of the payloads from here on."""
        self._payloads = decoded.texts
        self._bare.update(decoded.bare)
        for row, refused in decoded.refused.items():
            self._verdicts.setdefault(row, _Verdict("gate", refused.reason, refused.detail))
        self.seen = decoded.seen
        match self.rules.contract:
            case "drop_value":
                pass
            case "quarantine":
                for row, leaves in decoded.beside.items():
                    self._bar(row, Barred("misfit", leaves[0][0]))
            case _:
                self._apart = decoded.beside
                for row in decoded.beside:
                    self._put(row, ())

    def blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """Answer the payloads of all rows, block by block, each with its first row."""
        start, size = 0, _FIRST_BLOCK
        while start < len(self._payloads):
            yield start, self._payloads.slice(start, size).to_pylist()
            start, size = start + size, min(2 * size, _BLOCK)

    def documents(self) -> list[int]:
        """Answer the rows that are JSON objects, as far as is known."""
        rows = range(len(self._payloads))
        without = self._verdicts.keys() | self._bare | self._wide
        return [row for row in rows if row not in without]

    def narrow(self, rows: Sequence[int]) -> Sequence[int]:
        """Answer those of the rows that were not set aside."""
        return [row for row in rows if row not in self._wide] if self._wide else rows

    def set_aside(self, start: int, block: list[bytes], shape: Struct) -> None:
        """Note the objects of a block that could take too many cells; leave ``{}`` in the block.

        They must not even be checked: that builds every cell, too, if only for a moment.
        """
        repeated, most = count_repeated(shape), self.rules.max_cells
        if repeated * self._longest <= _SHORTEST_OBJECT * most:
            return
        for position, payload in enumerate(block):
            if payload.count(b"{") * repeated > most:
                if self.object_of(start + position, payload) is not None:
                    self._wide.add(start + position)
                block[position] = b"{}"

    def set_wide_aside(self, shape: Struct) -> None:
        """Do so in all blocks, for a shape that has got columns."""
        if count_repeated(shape) * self._longest > _SHORTEST_OBJECT * self.rules.max_cells:
            for start, block in self.blocks():
                self.set_aside(start, block, shape)

    def failing(self, rows: Sequence[int], top: Place) -> list[int]:
        """Answer those of the rows that do not fit entirely."""
        return [rows[position] for position in failing(self._payloads_of(rows), top)]

    def object_of(self, row: int, payload: bytes) -> Raw | None:
        """Answer the text of the payload if it is an object, else note what becomes of it."""
        if row in self._verdicts:
            return None
        try:
            text = self._read(payload)
            if text[:1] == b"{":
                return Raw(text)
            self._bare.add(row)
            misfits = self._beside(payload)
            misfits.add(value_of(text), None)
            self._put(row, misfits.leaves)
        except Barred as barred:
            self._bar(row, barred)
        except Refused as refused:
            self._refuse(row, refused)
        return None

    def split(self, rows: Sequence[int], top: Place, *, wide: bool = False) -> None:
        """Part these objects into what the columns can hold and what the contract says of the rest.

        The leaves of `wide` ones have no column for once.
        """
        for row, payload in zip(rows, self._payloads_of(rows), strict=True):
            misfits = self._beside(payload, wide=wide)
            try:
                self._fitting[row] = _encode(fit_object(Raw(payload), top, misfits))
            except Barred as barred:
                self._bar(row, barred)
            except Refused as refused:
                self._refuse(row, refused)
            else:
                self._put(row, misfits.leaves)

    def split_wide(self) -> None:
        """Make all leaves of the objects that were set aside misfits."""
        if self._wide:
            self.split(sorted(self._wide), top_of(EMPTY), wide=True)

    def rows(self, shape: Struct, *, strict: bool, most_cells: int | None) -> pa.Table:
        """Answer the rows of all events that do not go to quarantine."""
        kept: Sequence[int] = range(len(self._payloads))
        if self._verdicts:
            kept = [row for row in kept if row not in self._verdicts]
        data = []
        if shape != EMPTY:
            column, refused = self._data(kept, shape, strict, most_cells)
            for row in refused:
                self._give_up(row)
            if refused and self.rules.contract == "quarantine":
                return self.rows(shape, strict=strict, most_cells=most_cells)
            data.append(column)
        misfits = self._misfits.column(len(self._payloads))
        return pa.Table.from_arrays(
            [
                *self._kept(self._batch.select(ENVELOPE.names), kept).columns,
                *data,
                pa.nulls(len(kept), pa.string()),
                self._kept(misfits, kept),
            ],
            schema=rows_schema(shape),
        )

    def quarantined(self) -> pa.Table:
        """Answer the events that go to quarantine."""
        rows = sorted(self._verdicts)
        verdicts = [self._verdicts[row] for row in rows]
        return pa.Table.from_arrays(
            [
                *self._batch.select(ENVELOPE.names).take(pa.array(rows, pa.int64())).columns,
                pa.array([verdict.stage for verdict in verdicts], pa.string()),
                pa.array([verdict.reason for verdict in verdicts], pa.string()),
                pa.array([verdict.detail for verdict in verdicts], pa.string()),
                pa.repeat(pa.scalar(1, pa.int32()), len(rows)),
            ],
            schema=QUARANTINE_SCHEMA,
        )

    def _data(
        self,
        kept: Sequence[int],
        shape: Struct,
        strict: bool,
        most_cells: int | None,
    ) -> tuple[pa.ChunkedArray, list[int]]:
        texts = dict.fromkeys(self._bare, b"{}") | self._fitting
        payloads = self._kept(_replaced(self._payloads, texts), kept)
        # A piece that is full of the shortest objects takes as much as the widest document.
        full = _SHORTEST_OBJECT * self.rules.max_cells // max(1, count_repeated(shape))
        piece = min(PIECE_BYTES, full)
        try:
            data, refused = parse(
                payloads, shape, strict=strict, piece_bytes=piece, most_cells=most_cells
            )
        except Full as full_at:
            raise TooWide(kept[full_at.rows]) from None
        if self._bare:
            data = _null_where(data, [row in self._bare for row in kept])
        return data, [kept[position] for position in refused]

    def _kept(self, values: _Rows, kept: Sequence[int]) -> _Rows:
        return values.take(pa.array(kept, pa.int64())) if self._verdicts else values

    def _give_up(self, row: int) -> None:
        """Keep every leaf beside the columns: a row must not stop the others, nor be lost.

        Also with `drop_value`: these leaves do have columns.
        """
        event_id = self._batch.column("event_id")[row].as_py()
        log.error("columns refused a document that fits them", event_id=event_id)
        if self.rules.contract == "quarantine":
            self._verdicts[row] = _unexpected("columns refused a document that fits them")
            return
        payload = self._payloads[row].as_py()
        misfits = Misfits(sys.maxsize)
        misfits.add(value_of(payload), None)
        self._put(row, misfits.leaves)

    def _read(self, payload: bytes) -> bytes:
        return read(payload, max_depth=self.rules.max_depth, max_keys=self.rules.max_keys)

    def _put(self, row: int, misfits: Sequence[tuple[str, str]]) -> None:
        self._misfits.put(row, [*self._apart.get(row, ()), *misfits])

    def _refuse(self, row: int, refused: Refused) -> None:
        """Send to quarantine what has a format, or was declared as JSON; the rest is opaque."""
        if self.rules.decoder is not None or declares_json(self._content_types[row].as_py()):
            self._verdicts[row] = _Verdict("gate", refused.reason, refused.detail)
        else:
            self._bare.add(row)

    def _bar(self, row: int, barred: Barred) -> None:
        """Send to quarantine what the contract does not let in."""
        path = barred.path
        told = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…"
        self._verdicts[row] = _Verdict("contract", barred.reason, told)

    def _beside(self, payload: bytes, *, wide: bool = False) -> Misfits:
        """Answer what takes the leaves of a payload that have no column."""
        match self.rules.contract:
            case "quarantine":
                return Barrier(fields_are_new=not wide)
            case "drop_value":
                return Dropped()
            case _:
                return Misfits(room_of(payload))

    def _payloads_of(self, rows: Sequence[int]) -> Iterator[bytes]:
        for start in range(0, len(rows), _BLOCK):
            yield from self._payloads.take(pa.array(rows[start : start + _BLOCK])).to_pylist()


def room_of(payload: bytes) -> int:
    """Answer how many characters the misfits of a payload may take."""
    return _ROOM_LEAST + _ROOM_RATIO * len(payload)


def _unexpected(why: str) -> _Verdict:
    return _Verdict("convert", "unexpected", why)


def _wishes(batch: pa.RecordBatch) -> dict[int, _Verdict]:
    verdicts = {}
    for row in pc.indices_nonzero(batch.column("quarantine_wish")).to_pylist():
        metadata = dict(batch.column("metadata")[row].as_py() or ())
        verdicts[row] = _Verdict("wish", metadata.get(REASON_KEY, "sender"))
    return verdicts


def _replaced(payloads: pa.Array, texts: Mapping[int, bytes]) -> pa.Array:
    """Answer the payloads with these in place of those at their rows."""
    if not texts:
        return payloads
    mask = pa.array([row in texts for row in range(len(payloads))])
    return pc.replace_with_mask(
        payloads, mask, pa.array([texts[row] for row in sorted(texts)], pa.binary())
    )


def _null_where(structs: pa.ChunkedArray, mask: Sequence[bool]) -> pa.ChunkedArray:
    """Answer the structs with null at the rows where the mask is true."""
    chunks, start = [], 0
    for chunk in structs.chunks:
        stop = start + len(chunk)
        nulls = pa.array(mask[start:stop])
        fields = list(chunk.type)
        chunks.append(pa.StructArray.from_arrays(chunk.flatten(), fields=fields, mask=nulls))
        start = stop
    return pa.chunked_array(chunks, structs.type)
