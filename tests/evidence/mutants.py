"""Bugs that are put into the code so that a test has to find them, one at least for each rule.

Some tests put theirs in by themselves; of the others `seed` does it, and the named test, which
passes as the code is, has to fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
from pyiceberg.exceptions import CommitFailedException, ValidationException

from penstock.errors import LogUnavailable, NotFound

Seed = Callable[[pytest.MonkeyPatch], None]

RULES: dict[str, tuple[str, str]] = {
    "durable": ("log", "a position means durable"),
    "failed sync": ("log", "a sync that failed is never tried again as if it were clean"),
    "folder": ("log", "a new file's name is synced too"),
    "one writer": ("log", "one process writes, and any other is told which"),
    "tail end": ("log", "what was durable is never cut off; damage there stops the writer"),
    "identity": ("log", "a mark knows the record before it, and is checked at every read"),
    "gone": ("log", "what is gone before it was absorbed stops whoever reads, and is not skipped"),
    "copies": ("log", "what one disk alone has is not called durable"),
    "span": ("log", "a span ends by position, and not by the last record that is seen"),
    "key": ("log", "what has one key is in one partition, in order"),
    "once": ("log", "what is appended once is there once"),
    "back": ("log", "a broker that is back is found, without a restart"),
    "table": ("commit", "the table, and no other of its name, says where to go on"),
    "append": ("commit", "marks move with an append, which is fenced"),
    "schema": ("commit", "a commit holds for the schema that it was made for"),
    "retries": ("commit", "a commit is sent once"),
    "unknown": ("commit", "after any error the table is asked what holds"),
    "marks": ("commit", "marks decide what follows a lost race"),
    "files": ("commit", "files are used again only under the schema that they were written with"),
    "names": ("commit", "no file has the name of another"),
    "quarantine": ("commit", "quarantine commits first, and what it has stays there"),
    "rollback": ("commit", "a table that was rolled back stops landing"),
    "derived": ("commit", "statistics follow the marks, whoever died"),
    "compaction": ("upkeep", "files are replaced only while nothing else changed them"),
    "expiry": ("upkeep", "what is pinned does not expire"),
    "sweep": ("upkeep", "only what nobody needs, nor will commit, is deleted"),
    "index": ("search", "the index says that it has a span once searches find it there"),
    "cut": ("search", "log ends first, then one load of the table, then the log from its marks"),
    "tail": ("search", "a tail shows each event once, in order"),
    "pages": ("search", "every page of a cursor is of the cut of the first"),
    "waiting": ("search", "what has not landed is what landing will make of it"),
    "books": ("search", "the books add up whatever happens between the reads"),
    "plan": ("replay", "a plan waits until the table has all that it is about"),
    "rebuild": ("replay", "columns are made anew in place, beside landing"),
    "window": ("replay", "what may be repeated is bounded by the window"),
    "order": ("replay", "an event that is tried again holds up those of its key"),
    "lease": ("replay", "who does not hold the lease does not send"),
    "ledger": ("replay", "what is sent was announced before, and is accounted for after a death"),
    "legs": ("replay", "a continuous replay moves on with what it found, not before"),
    "loop": ("replay", "a replay does not feed itself"),
    "rate": ("replay", "nothing is sent faster than was asked"),
    "inside": ("replay", "nothing is sent to an address inside"),
    "release": ("quarantine", "a released event is there once"),
    "duplicates": ("quarantine", "what is sent twice is seen once"),
    "kept": ("schema", "what cannot become a row is kept in quarantine"),
    "beside": ("schema", "a value that fits no column is kept beside its row"),
    "named": ("door", "a batch is answered event by event"),
    "bytes": ("door", "what is stored is what was sent, to the byte"),
    "bounds": ("door", "what is held of a body and of all together has a bound"),
    "secrets": ("door", "nothing of a payload or a token is told"),
    "teams": ("door", "what is another team's does not exist"),
    "checksums": ("all parts", "what a disk or a store has changed is noticed"),
    "growth": ("all", "what runs for long holds no more than at first"),
    "all": ("all parts", "tables and search hold what was acknowledged, whatever happened"),
    "store": ("all parts", "what a store did not take or give whole is not taken for whole"),
    "upgrade": ("all parts", "a home of an earlier version goes on"),
    "formats": ("all parts", "what is on disks and wires changes in a file that is looked at"),
}
"""What holds, by a short name: of which part it is, and the rule."""

PROMISES: dict[str, tuple[str, ...]] = {
    "Durable": ("durable", "failed sync", "folder", "copies", "store"),
    "All or named": ("named",),
    "Exactly once": ("append", "retries", "unknown", "marks", "release", "cut"),
    "Byte identity": ("bytes", "checksums"),
    "Nothing is dropped": ("kept", "books"),
    "The schema never loses data": ("beside", "files", "rebuild"),
    "Replay": ("window", "order", "lease", "ledger", "rate", "inside"),
    "Bounded": ("bounds", "growth"),
    "No secret in any output": ("secrets",),
    "A loud stop rather than a silent skip": ("identity", "gone", "table", "rollback"),
}
"""The promises of the README, each with the rules without which it would not be kept."""


class Mutant(NamedTuple):
    """A bug, and the test that finds it."""

    name: str
    rule: str
    bug: str
    test: str
    seed: Seed | None = None
    """Puts the bug in; None where the test does it by itself."""
    engines: bool = False
    """Whether its test needs an engine."""
    raises: tuple[type[Exception], ...] = ()
    """What the code itself raises for the bug, where the test finds it by that."""

    @property
    def title(self) -> str:
        """Say which rule it breaks, and how."""
        area, rule = RULES[self.rule]
        return f"{area}: {rule}: {self.bug}"


def _instead(target: str, make: Callable[[Any], Any]) -> Seed:
    """Put what `make` makes of the real one in its place."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        path, _, name = target.rpartition(".")
        owner = _found(path)
        patch.setattr(owner, name, make(getattr(owner, name)))

    return seed


def _found(path: str) -> Any:
    """Import what a dotted path names: a module, or a class in one."""
    module, _, name = path.rpartition(".")
    if name.lstrip("_")[:1].isupper():
        return getattr(__import__(module, fromlist=[name]), name)
    return __import__(path, fromlist=["_"])


def _nothing(_real: Any) -> Any:
    return lambda *_args, **_more: None


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _real: lambda *_args, **_more: value


def _believes_any_mark(real: Any) -> Any:
    def checked(index: Any, collection: Any, mark: Any) -> Any:
        return real(index, collection, dataclasses.replace(mark, fingerprint=""))

    return checked


class _LikeAny(int):
    """Equal to every number."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _whatever_schema(patch: pytest.MonkeyPatch) -> None:
    """Take the schema for the one that it was, when it is decided and when files are used again."""

    def decides(real: Any) -> Any:
        return lambda **facts: real(**{**facts, "same_schema": True})

    def write(real: Any) -> Any:
        def written(*args: Any, **more: Any) -> Any:
            made = real(*args, **more)
            return dataclasses.replace(made, last_id=_LikeAny(made.last_id))

        return written

    _instead("lakehouse.commit.after_failure", decides)(patch)
    _instead("lakehouse.commit._write", write)(patch)


def _cuts_what_cannot_be_read(patch: pytest.MonkeyPatch) -> None:
    """Believe neither what was published nor what frames behind the break prove."""

    def survey(real: Any) -> Any:
        return lambda folder, log_id, _published, boot: real(folder, log_id, None, boot)

    _instead("penstock.buffer.segments.survey", survey)(patch)
    _instead("penstock.buffer.segments._proofs", _always(()))(patch)


def _skips_what_is_gone(real: Any) -> Any:
    def read(buffer: Any, collection: Any, mark: Any, **more: Any) -> Any:
        start = buffer.extents(collection)[mark.partition].start
        if mark.next < start:
            mark = dataclasses.replace(mark, next=start, fingerprint="")
        return real(buffer, collection, mark, **more)

    return read


def _ends_by_the_last_record(real: Any) -> Any:
    def read(buffer: Any, collection: Any, mark: Any, **more: Any) -> Any:
        portion = real(buffer, collection, mark, **more)
        offsets = portion.rows["log_offset"].to_pylist()
        behind = dataclasses.replace(portion.mark, next=offsets[-1] + 1) if offsets else mark
        return dataclasses.replace(portion, mark=behind)

    return read


def _in_turn(_real: Any) -> Any:
    return lambda appender, events, number: [next(appender._turn) % number for _ in events]


def _times_in_the_library(real: Any) -> Any:
    def made(kind: Any, settings: Any) -> Any:
        return real(kind, settings | {"message.timeout.ms": 4_000, "socket.timeout.ms": 60_000})

    return made


def _over_all_that_is_there(_real: Any) -> Any:
    """Put what was read in the place of all rows, as `overwrite` of PyIceberg does it."""

    def merge(lake: Any, loaded: Any, group: Any, _name: str) -> Any:
        rows = loaded.scan().to_arrow()
        while True:
            table = lake.table(loaded.name())
            table.metadata.properties["commit.retry.num-retries"] = "0"
            with contextlib.suppress(CommitFailedException, ValidationException):
                table.overwrite(rows)
                return tuple(task.file for task in table.scan().plan_files())

    return merge


def _named_alike(_real: Any) -> Any:
    return lambda batch, _attempt: batch.batch_id


def _no_lanes(real: Any) -> Any:
    def make(lanes: Any, order: str, **_: bool) -> None:
        real(lanes, order, free=True)

    return make


def _cut_anew(real: Any) -> Any:
    return lambda cuts, collection, view, _ends=None: real(cuts, collection, view)


def _by_the_rules_of_before(real: Any) -> Any:
    def kept_behind(tails: Any, mark: Any, kept: Any, rules: Any) -> Any:
        before = kept.parts.get(mark.partition)
        return real(tails, mark, kept, before.rules if before else rules)

    return kept_behind


def _none_of_them(real: Any) -> Any:
    return lambda sorting: real(sorting).slice(0, 0)


def _leaves_out_what_failed(real: Any) -> Any:
    def parts(framed: Any, outcomes: Any) -> Any:
        return [part for part in real(framed, outcomes) if not isinstance(part[1], Exception)]

    return parts


def _counted_alone(real: Any) -> Any:
    async def body(door: Any, receive: Any) -> bytes:
        door._held_bytes = 0

        async def next_part() -> Any:
            message = await receive()
            door._held_bytes = 0
            return message

        taken: bytes = await real(door, next_part)
        return taken

    return body


def _tidied(real: Any) -> Any:
    """Write JSON anew, as a parser and a writer between door and log would."""

    def append(door: Any, collection: Any, events: Any) -> Any:
        return real(door, collection, [_as_json_again(event) for event in events])

    return append


def _as_json_again(event: Any) -> Any:
    try:
        payload = json.dumps(json.loads(event.payload)).encode()
    except (ValueError, RecursionError):
        return event
    return msgspec.structs.replace(event, payload=payload)


def _without_checksums(real: Any) -> Any:
    return lambda *args, **more: real(*args, **{**more, "write_page_checksum": False})


def _told_with_its_text(_real: Any) -> Any:
    def log_unexpected(error: Exception) -> None:
        """Log the text of the error, which may quote what it was raised for."""
        structlog.get_logger().error("a request failed", kind=type(error).__name__, why=str(error))

    return log_unexpected


def _whoever_asks(_real: Any) -> Any:
    """Find a collection by its name alone, whichever team it belongs to."""

    def one_of(here: Any, _team: str, name: str) -> Any:
        for record in here.store.known().collections:
            if record.id.name == name:
                return record
        raise NotFound("collection", name)

    return one_of


def _without_intents(real: Any) -> Any:
    async def write(books: Any, rows: Sequence[Any]) -> None:
        if outcomes := [row for row in rows if row.first.kind != "intent"]:
            await real(books, outcomes)

    return write


def _forgets_what_was_open(_real: Any) -> Any:
    async def close(_books: Any) -> None:
        """Leave what the sender before left open."""

    return close


COMMIT = "tests/unit/lakehouse/test_commit.py::test_"
SEND = "tests/unit/replay/test_send.py::test_"
FAULTS = "tests/faults/test_"
KAFKA = "tests/unit/buffer/test_"
DOOR = "tests/unit/ingest_api/test_"
CONVERT = "tests/unit/schema/test_convert.py::test_"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "acknowledged before the sync",
        "durable",
        "positions are given, and readers told, before the sync",
        FAULTS + "power_cut.py::test_a_seeded_bug_is_found[AcknowledgesEarly-PowerDisk]",
    ),
    Mutant(
        "sync tried again",
        "failed sync",
        "a sync that failed is tried again, and its success believed",
        FAULTS + "power_cut.py::test_a_seeded_bug_is_found[SyncsAgain-PowerDisk]",
    ),
    Mutant(
        "folder not synced",
        "folder",
        "the folder is not synced when a segment appears",
        FAULTS + "power_cut.py::test_a_seeded_bug_is_found[Writer-ForgetsTheFolder]",
    ),
    Mutant(
        "two writers",
        "one writer",
        "the lock of a log is given to everybody",
        "tests/unit/buffer/test_embedded.py::test_a_second_writer_is_told_who_holds_the_log",
        _instead("fcntl.flock", _nothing),
    ),
    Mutant(
        "any mark believed",
        "identity",
        "a mark is taken for one of this log without looking at the record before it",
        "tests/unit/buffer/test_embedded.py::test_a_restored_backup_is_noticed",
        _instead("penstock.buffer.reader._checked", _believes_any_mark),
    ),
    Mutant(
        "any epoch believed",
        "identity",
        "a mark is taken for one of this topic without looking at the epoch before it",
        FAULTS + "kafka.py::test_a_replica_that_lost_its_end_is_noticed",
        _instead("penstock.buffer.kafka_reader.epoch_before", _always(-1)),
        engines=True,
    ),
    Mutant(
        "gone is skipped",
        "gone",
        "whoever reads from a mark before the beginning goes on at the beginning",
        "tests/contract/test_buffer.py"
        "::TestInSmallPieces::test_a_mark_before_the_oldest_record_is_refused"
        "[embedded_in_small_segments]",
        _instead("penstock.buffer.reader.EmbeddedBuffer.read", _skips_what_is_gone),
    ),
    Mutant(
        "durable end cut",
        "tail end",
        "the log is cut where it cannot be read, whatever was acknowledged behind it",
        FAULTS + "log_crash.py::test_damage_below_the_durable_end_stops_the_writer",
        _cuts_what_cannot_be_read,
    ),
    Mutant(
        "copies not counted",
        "copies",
        "the doctor does not look how many copies a topic has",
        KAFKA + "kafka.py::test_one_copy_is_not_called_durable",
        _instead("penstock.buffer.kafka_cluster.Cluster.copies", _always({})),
        engines=True,
    ),
    Mutant(
        "ends by the last record",
        "span",
        "a span ends behind the last record that a reader saw",
        KAFKA + "kafka.py::test_markers_of_transactions_are_passed",
        _instead("penstock.buffer.kafka_reader.KafkaBuffer.read", _ends_by_the_last_record),
        engines=True,
    ),
    Mutant(
        "partitions in turn",
        "key",
        "events go to the partitions in turn, whatever key they have",
        "tests/contract/test_buffer.py::test_what_has_one_key_is_in_one_partition_in_order",
        _instead("penstock.buffer.kafka_appender.KafkaAppender._partitions_of", _in_turn),
        engines=True,
    ),
    Mutant(
        "time is the library's",
        "once",
        "what a call waits is left to the client library, which gives what is left new numbers",
        FAULTS + "kafka.py::test_one_call_that_gives_up_lets_no_other_be_stored_twice",
        _instead("penstock.buffer.kafka_appender.made", _times_in_the_library),
        engines=True,
    ),
    Mutant(
        "silence for ever",
        "back",
        "a client that hears nothing is never given up for another",
        FAULTS + "kafka.py::test_clients_that_were_told_of_no_broker_find_them_again",
        _instead("penstock.buffer.kafka_silence.Silence.lasts", _always(value=False)),
        engines=True,
        raises=(LogUnavailable,),
    ),
    Mutant(
        "any table believed",
        "table",
        "a table that took the place of another one is landed into",
        COMMIT + "a_table_that_was_replaced_stops_landing",
        _instead("lakehouse.commit._refuse_other_table", _nothing),
    ),
    Mutant(
        "mark without append",
        "append",
        "a mark is set as a property alone, beside a landing",
        "tests/unit/assets/test_resolve.py::test_a_mark_that_is_set_without_a_fence_is_found",
    ),
    Mutant(
        "schema not asked for",
        "schema",
        "a commit does not ask for the schema that it was made for",
        COMMIT + "the_races_catch_a_commit_that_does_not_ask_for_its_schema",
    ),
    Mutant(
        "retries on",
        "retries",
        "PyIceberg's own retries are on",
        COMMIT + "the_races_catch_a_commit_that_retries",
    ),
    Mutant(
        "clean-up after an error",
        "unknown",
        "files of a commit that was reported as failed are deleted",
        COMMIT + "a_clean_up_after_an_unknown_outcome_breaks_the_table",
    ),
    Mutant(
        "own snapshot not looked for",
        "unknown",
        "after an error nobody looks whether the commit landed",
        COMMIT + "a_commit_that_landed_and_was_reported_as_failed",
        _instead("lakehouse.commit.Sent.landed", _always(False)),
    ),
    Mutant(
        "marks not looked at",
        "marks",
        "a commit that was overtaken is built again without looking at the marks",
        COMMIT + "the_races_catch_a_landing_that_ignores_the_marks",
    ),
    Mutant(
        "files under another schema",
        "files",
        "files are committed again whatever columns the table was given meanwhile",
        COMMIT + "two_lanes_that_find_different_fields_get_different_columns",
        _whatever_schema,
    ),
    Mutant(
        "names used again",
        "names",
        "a batch that is landed again writes files of the same names",
        COMMIT + "what_was_quarantined_before_a_crash_is_not_doubled_by_a_lenient_contract",
        _instead("lakehouse.commit.Batch.file_name", _named_alike),
        raises=(FileExistsError,),
    ),
    Mutant(
        "quarantine forgotten",
        "quarantine",
        "what reached quarantine before a crash is decided anew",
        FAULTS + "contracts.py::test_the_checker_finds_a_landing_that_forgets_what_quarantine_has",
    ),
    Mutant(
        "no claim",
        "quarantine",
        "quarantine commits without a claim in the main table",
        FAULTS + "quarantine_races.py::test_the_interleavings_catch_a_quarantine_without_claims",
    ),
    Mutant(
        "claims not heeded",
        "quarantine",
        "landing does not look at the claims of others",
        FAULTS
        + "quarantine_races.py"
        + "::test_the_interleavings_catch_a_landing_that_does_not_look_at_claims",
    ),
    Mutant(
        "rollback not seen",
        "rollback",
        "a table that was rolled back is landed into, by its marks",
        COMMIT + "a_table_that_was_rolled_back_stops_landing",
        _instead("lakehouse.commit.refuse_changed", _nothing),
    ),
    Mutant(
        "statistics by what is told alone",
        "derived",
        "what died between commit and statistics is not made good from the lake",
        "tests/unit/assets/test_stats.py"
        "::test_whoever_was_killed_before_telling_is_made_good_by_the_next",
        _instead("assets.stats.Books._catch_up", _nothing),
    ),
    Mutant(
        "rewrite without a fence",
        "compaction",
        "files are replaced whatever landed meanwhile",
        "tests/unit/lakehouse/test_rewrite.py::test_without_the_fence_the_books_find_what_was_lost",
    ),
    Mutant(
        "merged over what landed",
        "compaction",
        "small files are merged and put in the place of all rows",
        "tests/unit/lakehouse/test_upkeep.py::test_compaction_loses_nothing_that_lands_meanwhile",
        _instead("lakehouse.upkeep._merge", _over_all_that_is_there),
    ),
    Mutant(
        "pins ignored",
        "expiry",
        "what is old expires, whoever has pinned it",
        FAULTS
        + "upkeep_days.py::test_upkeep_that_deletes_what_somebody_needs_is_found[tags_ignored]",
    ),
    Mutant(
        "pins of the load",
        "expiry",
        "a pin that was made after expiry looked is overlooked",
        FAULTS
        + "upkeep_days.py::test_upkeep_that_deletes_what_somebody_needs_is_found[tags_of_the_load]",
    ),
    Mutant(
        "listed after the snapshots",
        "sweep",
        "files are listed after the snapshots were read",
        FAULTS
        + "upkeep_days.py::test_upkeep_that_deletes_what_somebody_needs_is_found[metadata_first]",
    ),
    Mutant(
        "old batch committed",
        "sweep",
        "a batch is committed when the sweep may have taken its files",
        COMMIT + "a_batch_is_given_up_before_the_sweep_takes_its_files",
        _instead("lakehouse.commit.TOO_OLD", lambda real: real * 1_000_000),
    ),
    Mutant(
        "marked before the refresh",
        "index",
        "the index says that it has a span, and nothing was refreshed",
        FAULTS + "index.py::test_an_indexer_that_is_killed_before_its_mark_changes_no_answer",
        _instead("penstock.search.elastic.ElasticIndex.refresh", _nothing),
        engines=True,
    ),
    Mutant(
        "another order of the reads",
        "cut",
        "lake and log are read in another order, or in two loads",
        "tests/unit/search/test_cut.py::test_other_orders_of_the_reads_miss_or_double_events",
    ),
    Mutant(
        "cut of two loads",
        "cut",
        "searches take the snapshot and the marks of two loads, while everything else goes on",
        FAULTS + "searches_beside.py::test_the_clients_find_a_cut_of_two_loads",
    ),
    Mutant(
        "tail with a bug",
        "tail",
        "a tail skips what has landed, passes what has no room, or resumes one too early",
        "tests/unit/search/test_live.py::test_a_tail_with_a_bug_does_not_pass",
    ),
    Mutant(
        "cut anew",
        "pages",
        "a page that follows is of a cut of its own",
        "tests/unit/search/test_cut.py::test_a_cut_can_be_taken_again_at_its_ends",
        _instead("penstock.search.cut.Cuts.take", _cut_anew),
    ),
    Mutant(
        "contract of before",
        "waiting",
        "what waits is shown as the contract before made it",
        "tests/unit/search/test_tail.py::test_another_contract_converts_again_what_still_waits",
        _instead("penstock.search.tail.Tails._from", _by_the_rules_of_before),
    ),
    Mutant(
        "books in another order",
        "books",
        "the books are read in another order, or counted otherwise",
        "tests/unit/assets/test_accounting.py::test_a_reader_in_another_order_is_found",
    ),
    Mutant(
        "plan that does not wait",
        "plan",
        "a plan is made of what has landed, and does not wait for the rest",
        "tests/unit/replay/test_plan.py::test_a_plan_counts_the_tail_that_search_shows",
        _instead("replay.plan.missing", _always(0)),
    ),
    Mutant(
        "new schema without new files",
        "rebuild",
        "columns get another type, and the files stay as they are",
        "tests/unit/lakehouse/test_rewrite.py"
        "::test_a_file_that_is_not_converted_is_found_by_its_leaves",
    ),
    Mutant(
        "window without end",
        "window",
        "a sender goes as far ahead of its checkpoint as it likes",
        SEND + "what_is_sent_stays_within_the_window_of_the_durable_mark",
        _instead("replay.window.Window.room", _always(1_000)),
    ),
    Mutant(
        "key not held up",
        "order",
        "events of a key go while one before them is tried again",
        SEND + "a_retrying_key_blocks_its_successors_and_no_other_key",
        _instead("replay.window.Lanes.__init__", _no_lanes),
    ),
    Mutant(
        "lease not looked at",
        "lease",
        "a sender goes on when its lease has ended",
        SEND + "a_sender_that_was_asleep_looks_at_its_lease_before_it_sends",
        _instead("replay.lease.Lease.holds", _always(True)),
    ),
    Mutant(
        "replay outlived",
        "lease",
        "processes that send go on when their replay is dead",
        FAULTS + "replay_crash.py::test_processes_that_outlive_their_replay_are_found",
    ),
    Mutant(
        "sent without intent",
        "ledger",
        "the ledger hears of an event only once it was sent",
        SEND + "nothing_is_sent_before_its_intent_is_in_the_ledger",
        _instead("replay.books.Books._write", _without_intents),
    ),
    Mutant(
        "open attempts forgotten",
        "ledger",
        "a successor does not say what became of attempts that were open",
        "tests/unit/replay/test_resume.py::test_a_successor_says_unknown_for_what_was_open",
        _instead("replay.books.Books.close_open_attempts", _forgets_what_was_open),
    ),
    Mutant(
        "dead process believed",
        "ledger",
        "what a process that sends had in hand when it died is taken for delivered",
        FAULTS + "replay_crash.py::test_a_dead_process_that_is_believed_is_found",
    ),
    Mutant(
        "place moved first",
        "legs",
        "a continuous replay says that it has looked before what it found is written down",
        "tests/unit/replay/test_continuous.py"
        "::test_a_place_that_moves_before_its_leg_is_there_is_noticed",
    ),
    Mutant(
        "own door not known",
        "loop",
        "the installation's own door is known by its name alone",
        "tests/unit/replay/test_run.py"
        "::test_an_own_door_is_known_by_its_address_however_it_is_written",
        _instead("replay.run._is_here", _always(False)),
    ),
    Mutant(
        "what went is forgotten",
        "rate",
        "a sender does not remember what it sent just now",
        "tests/unit/replay/test_pacing.py"
        "::test_a_bucket_never_lets_more_through_than_rate_and_burst",
        _instead("replay.pacing.Bucket.take", _nothing),
    ),
    Mutant(
        "names not looked at",
        "inside",
        "a name may lead wherever its name server says",
        "tests/unit/test_guard.py::test_one_bad_answer_of_the_resolver_refuses_the_host",
        _instead("penstock.guard.Guard.check_answers", _nothing),
    ),
    Mutant(
        "copies not folded",
        "release",
        "an event that is released twice is two rows",
        FAULTS + "release_crash.py::test_the_checker_finds_a_landing_that_folds_nothing",
    ),
    Mutant(
        "closed twice",
        "release",
        "whoever closes a quarantined event believes to be the first",
        FAULTS + "release_crash.py::test_the_checker_finds_a_closing_that_does_not_look_first",
    ),
    Mutant(
        "closed before it was sent",
        "release",
        "a quarantined event is closed before the log has it, and then a crash",
        FAULTS + "release_crash.py::test_the_checker_finds_an_event_that_was_closed_and_never_sent",
    ),
    Mutant(
        "duplicates forgotten",
        "duplicates",
        "landing forgets at a restart, is deaf to other lanes, or folds and does not count",
        FAULTS + "senders.py::test_the_checker_finds_seeded_bugs",
    ),
    Mutant(
        "looked once",
        "duplicates",
        "a lane that lost a race does not look again",
        "tests/unit/assets/test_duplicates.py::test_the_race_finds_a_lane_that_looks_once",
    ),
    Mutant(
        "not kept",
        "kept",
        "what cannot be read is left out of rows and of quarantine",
        CONVERT + "events_are_sorted_into_rows_and_quarantine_in_the_logs_order",
        _instead("penstock.schema.convert._Sorting.quarantined", _none_of_them),
    ),
    Mutant(
        "misfits left out",
        "beside",
        "a value of another type than its column has is let go",
        CONVERT + "a_leaf_that_does_not_fit_is_kept_as_it_was_sent",
        _instead("penstock.schema.convert._Sorting._put", _nothing),
    ),
    Mutant(
        "failures left out",
        "named",
        "only what was stored is named in the answer to a batch",
        DOOR + "http.py::test_one_oversized_line_does_not_refuse_the_others",
        _instead("ingest_api.answers._parts", _leaves_out_what_failed),
    ),
    Mutant(
        "JSON written anew",
        "bytes",
        "JSON is read and written again on its way to the log",
        DOOR + "http.py::test_an_ugly_body_is_stored_to_the_byte",
        _instead("ingest_api.accept.Door._append", _tidied),
    ),
    Mutant(
        "no page has a checksum",
        "checksums",
        "Parquet is written without the checksums of its pages",
        "tests/unit/lakehouse/test_parquet.py::test_a_damaged_page_is_noticed",
        _instead("pyarrow.parquet.ParquetWriter", _without_checksums),
    ),
    Mutant(
        "bombs go off",
        "bounds",
        "a coded body may become as much as it likes of what it was",
        DOOR + "encoding.py::test_a_bomb_is_stopped_at_the_ratio",
        _instead("ingest_api.encoding._JUDGED_FROM", lambda _real: 1 << 40),
    ),
    Mutant(
        "each body by itself",
        "bounds",
        "bodies that arrive together are not counted together",
        DOOR + "http.py::test_bodies_that_arrive_together_are_bounded",
        _instead("ingest_api.http.HttpDoor._body", _counted_alone),
    ),
    Mutant(
        "texts of errors",
        "secrets",
        "the door's log has the text of an error that nobody expected",
        DOOR + "http.py::test_an_unexpected_error_tells_nothing_and_is_logged_without_the_payload",
        _instead("ingest_api.http.log_unexpected", _told_with_its_text),
    ),
    Mutant(
        "tokens as they are",
        "secrets",
        "what is kept of a token is the token",
        "tests/unit/metadata/test_tokens.py::test_a_record_holds_nothing_that_gives_the_token_away",
        _instead("penstock.metadata.tokens.digest", lambda _real: lambda token: token),
    ),
    Mutant(
        "teams not looked at",
        "teams",
        "a collection is found by its name, whoever asks",
        "tests/unit/api/test_access.py::test_what_belongs_to_another_team_is_not_there",
        _instead("penstock.api.collections.one_of", _whoever_asks),
    ),
    Mutant(
        "memory leaks",
        "growth",
        "a process loses five megabytes a minute beneath peaks of a hundred",
        "tests/unit/test_drift.py::test_memory_that_grows_is_found",
    ),
    Mutant(
        "handles leak",
        "growth",
        "a process that opens and closes files all the time loses three a minute",
        "tests/unit/test_drift.py::test_handles_that_leak_are_found",
    ),
    Mutant(
        "one part with a bug",
        "all",
        "landing decides anew, folds no copies or repeats, or does not see a rollback; "
        "retention leaves closings behind",
        FAULTS + "model.py::test_a_bug_in_any_of_the_parts_is_found",
    ),
    Mutant(
        "short answer believed",
        "store",
        "a file is taken to end where the store's answer did",
        FAULTS + "s3_breaks.py::test_who_takes_what_came_of_a_file_for_all_is_found",
        engines=True,
    ),
    Mutant(
        "sent file believed",
        "store",
        "a file is taken to be there although the store did not say so",
        FAULTS + "s3_breaks.py::test_who_takes_a_file_for_sent_that_was_not_is_found",
        engines=True,
    ),
    Mutant(
        "notes of another layout",
        "upgrade",
        "upkeep does not read what an earlier version has noted",
        "tests/unit/test_golden.py::test_a_home_of_an_earlier_version_goes_on",
        _instead("orchestration.tending.recall", lambda _real: lambda *_: {}),
    ),
    Mutant(
        "a format that says less",
        "formats",
        "records on Kafka do not say any more who gave the id, and are read all the same",
        "tests/unit/test_golden_formats.py::test_what_is_written_is_what_is_kept[log-kafka.ndjson]",
        _instead("penstock.buffer.kafka_codec._encode", lambda real: lambda rest: real(rest[:-1])),
    ),
)
