"""Collections: make, list, pause, resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from itertools import chain, islice

from fastapi import APIRouter, Response
from msgspec.structs import replace

from assets.contract import Past, Trial
from assets.retention import Due, due
from penstock.api.access import Admin, Caller, Reader
from penstock.api.formats import format_told, wanted
from penstock.api.platform import API, Doors, Here, Platform
from penstock.api.streaming import Streamed
from penstock.contract.base import micros, moment
from penstock.contract.collections import (
    Collection,
    ContractAsked,
    ContractTried,
    CreatedCollection,
    DayDue,
    Grown,
    Keeping,
    KeptDays,
    LoopsAsked,
    NewCollection,
)
from penstock.contract.formats import FormatAsked, FormatTold, FormatTried
from penstock.contract.trials import TrialTold
from penstock.envelope import SYSTEM_TEAM, CollectionId, check_name
from penstock.errors import AlreadyExists, NotFound
from penstock.metadata.records import CollectionRecord, RegistrySecret, TokenRecord
from penstock.metadata.tokens import issue
from penstock.schema.formats import Format

NDJSON = "application/x-ndjson"

Run = Callable[[], Generator[Trial]]
"""Starts a trial."""

router = APIRouter(prefix=f"{API}/collections", tags=["collections"])


def one_of(here: Here, team: str, name: str) -> CollectionRecord:
    """Answer the team's collection; the error names it as the caller did."""
    try:
        return here.store.collection(CollectionId(team, name))
    except NotFound:
        raise NotFound("collection", name) from None


def readable(here: Here, caller: Caller, name: str) -> CollectionRecord:
    """Answer one of the team's collections or, for an operator, one of Penstock's own."""
    own, dot, rest = name.partition(".")
    if caller.operator and dot and own == SYSTEM_TEAM:
        return one_of(here, SYSTEM_TEAM, rest)
    return one_of(here, caller.team, name)


def collection_told(record: CollectionRecord) -> Collection:
    """Tell about a record, by the name that callers ask for: Penstock's own have a dot."""
    own = record.id.team == SYSTEM_TEAM
    return Collection(
        name=str(record.id) if own else record.id.name,
        created_at=moment(record.created_at),
        paused=record.paused,
        contract=record.contract,
        format=format_told(record.format),
        notes=record.notes,
        allow_loops=record.allow_loops,
        partitions=record.partitions,
        keep_days=record.keep_days,
    )


@router.get("")
def list_collections(caller: Reader, here: Here) -> list[Collection]:
    """List the team's collections by name."""
    return [collection_told(record) for record in here.store.collections(caller.team)]


@router.post("", status_code=201)
def create_collection(
    asked: NewCollection, caller: Admin, here: Here, doors: Doors
) -> CreatedCollection:
    """Make a collection, and an ingest token for it if asked. The token is shown this once."""
    name = check_name(asked.name, what="collection")
    now = here.clock()
    id_ = CollectionId(caller.team, name)
    _refuse_taken(here, id_)
    format_, schema, secret = wanted(
        asked.format or FormatAsked(name="json"),
        id_,
        Format(),
        here.store,
        guard=here.guard,
        chance=here.chance,
    )
    record = CollectionRecord(
        id=id_,
        # The log first: doors are told of a collection only when it can take its events.
        partitions=here.keeper.ensure(id_, partitions=asked.partitions),
        created_at=now,
        contract=asked.contract,
        format=format_,
        notes=asked.notes,
        allow_loops=asked.allow_loops,
        keep_days=asked.keep_days,
    )
    text: str | None = None
    token: TokenRecord | None = None
    if asked.token:
        text, token = issue(
            here.chance,
            team=caller.team,
            name=f"ingest of {name}",
            scopes=("ingest",),
            collection=name,
            created_at=now,
        )
    here.store.create_collection(record, token, schema=schema, secret=secret)
    doors.publish()
    return CreatedCollection(**dict(collection_told(record)), token=text)


def _refuse_taken(here: Here, id_: CollectionId) -> None:
    """Raise `AlreadyExists` before the log is touched."""
    try:
        here.store.collection(id_)
    except NotFound:
        return
    raise AlreadyExists("collection", str(id_))


@router.get("/{c}")
def show_collection(c: str, caller: Reader, here: Here) -> Collection:
    """Show a collection."""
    return collection_told(readable(here, caller, c))


@router.post("/{c}/pause")
def pause_collection(c: str, caller: Admin, here: Here, doors: Doors) -> Collection:
    """Let doors refuse the collection's events from now on; what was accepted still lands."""
    return _set_paused(c, caller, here, doors, paused=True)


@router.post("/{c}/resume")
def resume_collection(c: str, caller: Admin, here: Here, doors: Doors) -> Collection:
    """Let doors accept the collection's events again."""
    return _set_paused(c, caller, here, doors, paused=False)


@router.post("/{c}/grow")
def grow_collection(c: str, asked: Grown, caller: Admin, here: Here, doors: Doors) -> Collection:
    """Give the collection's log more partitions. Keys may move to others: their order ends here."""
    known = one_of(here, caller.team, c)
    partitions = here.keeper.ensure(known.id, partitions=asked.partitions)
    record = here.store.set_partitions(known.id, partitions)
    doors.publish()
    return collection_told(record)


@router.post("/{c}/loops")
def set_loops(c: str, asked: LoopsAsked, caller: Admin, here: Here, doors: Doors) -> Collection:
    """Let doors take, or refuse, events that a replay took from this collection."""
    known = one_of(here, caller.team, c)
    record = here.store.set_allow_loops(known.id, asked.allow)
    doors.publish()
    return collection_told(record)


@router.post("/{c}/contract")
def set_contract(
    c: str, asked: ContractAsked, caller: Admin, here: Here, doors: Doors
) -> Collection:
    """Say what becomes of leaves without a column, from the next batch that lands on."""
    known = one_of(here, caller.team, c)
    record = here.store.set_contract(known.id, asked.contract, here.clock())
    doors.publish()
    return collection_told(record)


@router.post("/{c}/format")
def set_format(c: str, asked: FormatAsked, caller: Admin, here: Here, doors: Doors) -> Collection:
    """Say what the payloads are that land from now on; what has landed stays as it is."""
    known = one_of(here, caller.team, c)
    format_, schema, secret = _wanted(asked, known, here)
    if format_ == known.format:
        return collection_told(known)
    changed = replace(format_, changed_at=here.clock())
    record = here.store.set_format(known.id, changed, schema=schema, secret=secret)
    doors.publish()
    return collection_told(record)


def format_checked(c: str, asked: FormatAsked, caller: Caller, here: Platform) -> FormatTold:
    """Answer the format that this would become; raise what setting it would."""
    format_, _, _ = _wanted(asked, one_of(here, caller.team, c), here)
    return format_told(format_)


def _wanted(
    asked: FormatAsked, known: CollectionRecord, here: Here
) -> tuple[Format, bytes | None, RegistrySecret | None]:
    return wanted(asked, known.id, known.format, here.store, guard=here.guard, chance=here.chance)


@router.post(
    "/{c}/contract/try",
    response_model=TrialTold,
    responses={200: {"content": {NDJSON: {}}}},
)
def try_contract(c: str, asked: ContractTried, caller: Admin, here: Here) -> Response:
    """Say what past events would become under a contract; nothing is changed.

    Each line is how far the trial is, the last one is its result; an answer without one that is
    `done` is not complete.
    """
    return _trying(here, _of_contract(c, asked, caller, here))


def contract_tried(c: str, asked: ContractTried, caller: Caller, here: Platform) -> TrialTold:
    """Answer the result of a contract's trial, when there is one."""
    return _to_the_end(here, _of_contract(c, asked, caller, here))


def _of_contract(c: str, asked: ContractTried, caller: Caller, here: Platform) -> Run:
    known = one_of(here, caller.team, c)
    past = _past(asked)
    return lambda: here.trials.run(known.id, asked.contract, past)


@router.post(
    "/{c}/format/try",
    response_model=TrialTold,
    responses={200: {"content": {NDJSON: {}}}},
)
def try_format(c: str, asked: FormatTried, caller: Admin, here: Here) -> Response:
    """Say what past events would become in a format, under the contract; nothing is changed.

    The answer is that of a contract's trial.
    """
    return _trying(here, _of_format(c, asked, caller, here))


def format_tried(c: str, asked: FormatTried, caller: Caller, here: Platform) -> TrialTold:
    """Answer the result of a format's trial, when there is one."""
    return _to_the_end(here, _of_format(c, asked, caller, here))


def _of_format(c: str, asked: FormatTried, caller: Caller, here: Platform) -> Run:
    known = one_of(here, caller.team, c)
    past = _past(asked)
    format_, schema, secret = _wanted(asked, known, here)
    if schema is None and format_.schema is not None:
        schema = here.store.format_schema(known.id, format_.schema)
    decoder = here.open_decoder(known.id, format_, schema, None if secret is None else secret.text)
    rules = dataclasses.replace(here.rules(known.id), decoder=decoder)
    return lambda: here.trials.run(known.id, known.contract, past, rules=rules)


def _past(asked: ContractTried | FormatTried) -> Past:
    return Past(since=micros(asked.since), until=micros(asked.until), sample=asked.sample)


def _to_the_end(here: Platform, run: Run) -> TrialTold:
    with here.rooms.trials, closing(run()) as trials:
        *_, last = trials
        return _trial_told(last)


def _trying(here: Here, run: Run) -> Response:
    with ExitStack() as opened:
        opened.enter_context(here.rooms.trials)
        trials = run()
        opened.callback(trials.close)
        # Until the first line is sent errors can be told.
        first = list(islice(trials, 1))
        return Streamed(map(_line, chain(first, trials)), opened.pop_all(), NDJSON)


def _line(trial: Trial) -> bytes:
    return _trial_told(trial).model_dump_json().encode() + b"\n"


def _trial_told(trial: Trial) -> TrialTold:
    told = dataclasses.asdict(trial)
    told["columns"] = [{**change, "before": None, "why": None} for change in told["columns"]]
    return TrialTold.model_validate(told)


@router.post("/{c}/keep")
def keep_collection(c: str, asked: KeptDays, caller: Admin, here: Here, doors: Doors) -> Keeping:
    """Keep rows so many days, null for ever; answer what the next upkeep drops because of it."""
    record = one_of(here, caller.team, c)
    dropping = (
        due(here.lake, record.id, keep_days=asked.days, now=here.clock()) if asked.days else None
    )
    if not asked.dry_run:
        record = here.store.set_keep_days(record.id, asked.days)
        doors.publish()
    return _keeping(record, asked.days, dropping)


def _keeping(record: CollectionRecord, keep_days: int | None, due: Due | None) -> Keeping:
    """Tell about a record and what is due."""
    return Keeping(
        name=record.id.name,
        keep_days=keep_days,
        days=[
            DayDue(day=one.day, rows=one.rows, bytes=one.bytes) for one in (due.days if due else ())
        ],
        pinned_by=list(due.pinned_by) if due else [],
    )


def _set_paused(c: str, caller: Admin, here: Here, doors: Doors, *, paused: bool) -> Collection:
    known = one_of(here, caller.team, c)
    record = here.store.set_paused(known.id, paused)
    doors.publish()
    return collection_told(record)
