"""Landing: from the embedded log to Iceberg, beside the least that any writer has to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from assets.landing import Landed
from assets.stores import opened
from assets.upkeep import Notes, aims_of, tend
from benchmarks.data import append, nested, repeated
from benchmarks.measure import Figure, Result, median, own
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId, Event, Micros
from penstock.settings import load_settings

EVENTS = 200_000
COMMITS = 1_000
TEND_EVERY = 100


def results(folder: Path) -> Iterator[Result]:
    """Measure landing of conforming events, of others beside them, and of very many commits."""
    payloads = nested(EVENTS)
    schema = _schema_of(payloads[:1_000])
    limit = own(lambda: _least(payloads, schema, folder / "limit.parquet"))
    plain = _landing(folder / "conforming", payloads)
    yield Result(
        "landing, conforming",
        plain,
        "pyarrow.json + Parquet",
        limit,
        floor=70_000,
        floor_ratio=0.6,
    )
    yield Result(
        "landing, 5 % misfits",
        _landing(folder / "misfits", nested(EVENTS, misfits=0.05)),
        "pyarrow.json + Parquet",
        limit,
        floor=50_000,
    )
    # What such events cost is told beside events that have nothing of it.
    yield Result(
        "landing, 10 % of rows with a misfit",
        _landing(folder / "tenth", nested(EVENTS, misfits=0.1)),
        "landing, conforming",
        plain,
        floor_ratio=0.6,
    )
    for share, name in ((0.0, "ids of senders, none sent twice"), (0.1, "10 % duplicates")):
        yield Result(
            f"landing, {name}",
            _landing(folder / f"again-{share}", payloads, sent=repeated(payloads, share)),
            "landing, conforming",
            plain,
            floor_ratio=0.5,
        )
    early, late = _many_commits(folder / "commits")
    yield Result(
        f"{COMMITS:,} commits of one event: the last 100",
        late,
        "commits 100 to 200",
        early,
        note="the ratio is early to late: 67 % is 1.5 times the time",
        floor_ratio=1 / 1.5,
    )


def _least(payloads: Sequence[bytes], schema: pa.Schema, file: Path) -> int:
    """Parse with a known schema and write Parquet, tuned by hand: what nobody gets around.

    One file has the typed columns and the payload, as a landed one has. Blocks of 1 MB are a tenth
    cheaper to parse than larger ones, and the payload without dictionary and statistics saves a
    fifth of the writing.
    """
    text = pa.BufferReader(b"\n".join(payloads))
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    table = pj.read_json(text, pj.ReadOptions(block_size=1 << 20), options)
    leaves = _leaves(table.schema)
    table = table.append_column("payload", pa.array(payloads, pa.binary()))
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=1,
        use_dictionary=leaves,
        write_statistics=leaves,
    )
    return len(payloads)


def _schema_of(payloads: Sequence[bytes]) -> pa.Schema:
    """Infer the schema of payloads; times stay the text that they are."""
    found = pj.read_json(pa.BufferReader(b"\n".join(payloads))).schema
    return pa.schema(
        [pa.field(f.name, pa.string()) if pa.types.is_timestamp(f.type) else f for f in found]
    )


def _leaves(schema: pa.Schema) -> list[str]:
    """Answer the columns as Parquet names them."""
    with pa.BufferOutputStream() as nowhere, pq.ParquetWriter(nowhere, schema) as writer:
        writer.write_table(schema.empty_table())
    columns = writer.writer.metadata.schema
    return [columns.column(place).path for place in range(len(columns))]


def _landing(
    home: Path, payloads: Sequence[bytes], runs: int = 3, *, sent: Sequence[int] | None = None
) -> Figure:
    """Land the same events a few times, each time into a collection of its own.

    With `sent` it is these that are sent, one for each place, with the ids of their senders.
    """
    if sent is not None:
        payloads = [payloads[which] for which in sent]
    home.mkdir()
    settings = load_settings(home, {})
    figures = []
    for run in range(runs):
        collection = CollectionId(DEFAULT_TEAM, f"run_{run}")
        with opened(settings) as stores:
            landing = stores.landing()
            # The table and its columns are there before the clock starts, as they are in life.
            append(
                settings.log,
                collection,
                payloads[:1_000],
                received_at=_now,
                first=len(payloads),
            )
            landing.land_once(collection)
            append(settings.log, collection, payloads, received_at=_now, sent=sent)
            wall, cpu = time.perf_counter(), time.process_time()
            rows = 0
            while (landed := landing.land_once(collection)) is not None:
                rows += landed.rows
            figures.append(Figure(rows, time.perf_counter() - wall, time.process_time() - cpu))
    return median(figures)


def _now(_place: int) -> Micros:
    return machine_clock()


def _many_commits(home: Path) -> tuple[Figure, Figure]:
    """Commit one event at a time, with upkeep as often as its schedule would."""
    home.mkdir()
    settings = load_settings(home, {})
    collection = CollectionId(DEFAULT_TEAM, "commits")
    payload = nested(1)[0]
    appender = open_appender(settings.log)
    times: list[tuple[float, float]] = []
    notes = Notes()
    try:
        with opened(settings) as stores:
            landing = stores.landing()
            for number in range(COMMITS):
                event = Event(
                    id=str(number),
                    received_at=machine_clock(),
                    payload=payload,
                    source="http",
                    content_type="application/json",
                )
                appender.append(collection, [event]).result(30)
                wall, cpu = time.perf_counter(), time.process_time()
                landed = landing.land_once(collection)
                assert isinstance(landed, Landed)
                times.append((time.perf_counter() - wall, time.process_time() - cpu))
                if number % TEND_EVERY == TEND_EVERY - 1:
                    tended = tend(
                        stores.lake,
                        collection,
                        aims=aims_of(settings),
                        notes=notes,
                        clock=machine_clock,
                        chance=os.urandom,
                    )
                    notes = tended.notes
    finally:
        appender.close()
    return _sum(times[100:200]), _sum(times[-100:])


def _sum(times: Sequence[tuple[float, float]]) -> Figure:
    return Figure(len(times), sum(w for w, _ in times), sum(c for _, c in times))
