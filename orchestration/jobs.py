"""The jobs: land, upkeep; the job `replay` is in `replay.job`."""

# No postponed annotations here: Dagster reads the classes in them.

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

import dagster as dg

from assets.checks import (
    Verdict,
    check_all_books,
    check_conservation,
    check_freshness,
    check_marks,
    checked,
)
from assets.landing import Trouble
from assets.stats import count_from_lake
from assets.stores import Stores, retention_of
from assets.upkeep import Tended, Untended, aims_of, check_upkeep, together
from orchestration.digest import Digest, Sum
from orchestration.indexing import following
from orchestration.keys import COLLECTIONS, EVENTS, LAND, QUARANTINE, UPKEEP
from orchestration.lease import held
from orchestration.rewriting import fit_types
from orchestration.stopping import told_to_stop
from orchestration.tending import tend_home
from penstock import faults
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Micros
from penstock.errors import Unavailable, WrongState

SECOND = 1_000_000

FRESH_WITHIN = 300 * SECOND
"""The freshness check fails when an event has waited longer to land."""

NOT_RETRIED = {"dagster/max_retries": "0"}


class LaneConfig(dg.Config):
    """Which lane a landing run drains, and for how long."""

    lane: str = "0"
    minutes: float = 15.0
    """After so long the run ends and the sensor starts a fresh one."""
    idle_seconds: float = 60.0
    """The run ends when nothing has waited for so long."""


@dg.op(description="Land what is due in this lane until it is idle or its time is over.")
def drain(
    context: dg.OpExecutionContext, config: LaneConfig, stores: dg.ResourceParam[Stores]
) -> None:
    """Land batch after batch, and tell Dagster about each collection every 30 s at most."""
    faults.arm(os.environ.get(faults.VARIABLE))
    end = time.monotonic() + config.minutes * 60
    digest = Digest()
    stopped: dict[CollectionId, str] = {}
    with (
        told_to_stop() as told,
        held(
            lambda: stores.store, f"lane {config.lane}", holder=context.run_id, clock=machine_clock
        ) as lease,
    ):
        if lease is None:
            context.log.info("another run drains this lane")
            return
        with stores.books() as books, following(context, stores, told.is_set) as index:
            for outcome in stores.landing(int(config.lane)).drain(
                stores.buffer.collections,
                until=lambda: told.is_set() or lease.lost or time.monotonic() > end,
                idle=round(config.idle_seconds * SECOND),
                hurry=stores.hurried,
            ):
                if isinstance(outcome, Trouble):
                    tell_trouble(context, outcome, stopped)
                    continue
                books.tell(outcome)
                stopped.pop(outcome.collection, None)
                tell(context, digest.add(outcome, machine_clock()))
                index.landed(outcome)
        # Before the lease goes: of hundreds that takes so long that the run would look dead.
        tell(context, digest.rest(machine_clock()))
    if stopped:
        first = min(stopped)
        raise dg.Failure(f"{len(stopped)} collections do not land: {first}: {stopped[first]}")


@dg.job(
    name=LAND,
    executor_def=dg.in_process_executor,
    # The sensor starts a new run; Dagster's own retry would start a second one beside it.
    tags=NOT_RETRIED,
    description="Turns events on the log into rows of Iceberg tables.",
)
def land() -> None:
    """Drain one lane."""
    drain()


def tell(context: dg.OpExecutionContext, sums: Sequence[tuple[CollectionId, Sum]]) -> None:
    """Log what was landed as materialisations of the collection's partition."""
    for collection, landed in sums:
        partition = str(collection)
        ensure_partition(context.instance, partition)
        context.log_event(
            dg.AssetMaterialization(EVENTS, partition=partition, metadata=figures(landed))
        )
        if landed.quarantined:
            context.log_event(
                dg.AssetMaterialization(
                    QUARANTINE, partition=partition, metadata={"rows": landed.quarantined}
                )
            )


def tell_trouble(
    context: dg.OpExecutionContext, trouble: Trouble, stopped: dict[CollectionId, str]
) -> None:
    """Log a trouble; what will not pass by itself is noted on the partition, once."""
    collection, reason = trouble.collection, trouble.reason
    if trouble.passes:
        context.log.warning("%s does not land now: %s", collection, reason)
        return
    context.log.error("%s does not land: %s", collection, reason)
    if stopped.get(collection) == reason:
        return
    stopped[collection] = reason
    ensure_partition(context.instance, str(collection))
    context.log_event(
        dg.AssetObservation(
            EVENTS,
            partition=str(collection),
            metadata={"stopped": dg.MetadataValue.text(reason)},
        )
    )


def _narrowed(window: Micros | None) -> dict[str, dg.MetadataValue]:
    """Answer how far back duplicates are found, where that is less than the setting says."""
    if window is None:
        return {}
    return {"duplicate window seconds": dg.MetadataValue.float(window / SECOND)}


def figures(landed: Sum) -> dict[str, dg.MetadataValue]:
    """Answer a sum as Dagster shows it."""
    newest = landed.newest
    assert newest is not None  # noqa: S101 - a sum is made by adding to it
    spans = {str(partition): f"{start}-{end}" for partition, (start, end) in landed.spans.items()}
    return {
        "rows": dg.MetadataValue.int(landed.rows),
        "quarantined": dg.MetadataValue.int(landed.quarantined),
        "duplicates": dg.MetadataValue.int(landed.duplicates),
        **_narrowed(newest.duplicate_window),
        "bytes": dg.MetadataValue.int(landed.bytes),
        "commits": dg.MetadataValue.int(landed.commits),
        "lag seconds": dg.MetadataValue.float(newest.lag / SECOND),
        "waiting": dg.MetadataValue.int(newest.waiting),
        "columns": dg.MetadataValue.int(newest.columns),
        "spans": dg.MetadataValue.json(spans),
        # As text: JavaScript's numbers would round it.
        "snapshot": dg.MetadataValue.text(str(newest.snapshot_id)),
    }


def ensure_partition(instance: dg.DagsterInstance, partition: str) -> None:
    """Make the collection a partition, if it is not one yet."""
    if not instance.has_dynamic_partition(str(COLLECTIONS.name), partition):
        instance.add_dynamic_partitions(str(COLLECTIONS.name), [partition])


@dg.op(description="Merge small files, expire snapshots and delete orphans of every collection.")
def tidy(context: dg.OpExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Tend every collection; one that cannot be tended fails the run after the others are done."""
    collections = stores.lake.collections()
    sums: dict[CollectionId, Tended] = {}
    failed: list[CollectionId] = []
    try:
        for outcome in tend_home(
            stores, collections, holder=context.run_id, seconds=stores.settings.upkeep_seconds
        ):
            collection = outcome.collection
            if isinstance(outcome, Untended):
                # Without the error's own words: a library may quote what it could not read.
                context.log.error(
                    "%s could not be tended: %s", collection, type(outcome.error).__name__
                )
                failed.append(collection)
                continue
            if outcome.compacted.trouble:
                context.log.error(
                    "files of %s were not merged: %s", collection, outcome.compacted.trouble
                )
                failed += [] if collection in failed else [collection]
            before = sums.get(collection)
            sums[collection] = outcome if before is None else together(before, outcome)
    except WrongState as error:
        context.log.info("%s", error)
        return
    for collection, tended in sums.items():
        ensure_partition(context.instance, str(collection))
        context.log_event(
            dg.AssetObservation(EVENTS, partition=str(collection), metadata=done(tended))
        )
    context.add_output_metadata(
        {
            "collections": dg.MetadataValue.int(len(collections)),
            "tended": dg.MetadataValue.int(len(sums)),
            "with more to merge": dg.MetadataValue.int(
                sum(tended.compacted.more for tended in sums.values())
            ),
        }
    )
    count_rest(context, stores)
    if failed:
        raise dg.Failure(f"{len(failed)} collections could not be tended: {failed[0]} …")


def count_rest(context: dg.OpExecutionContext, stores: Stores) -> None:
    """Count what the statistics were not told, once they answer."""
    for collection in stores.lake.collections():
        try:
            count_from_lake(stores.stats, stores.lake, collection, clock=machine_clock)
        except Unavailable as error:
            context.log.warning("statistics are not kept up: %s", error)
            return
        except Exception:  # one table must not keep the others from being counted
            context.log.exception("%s could not be counted", collection)


def done(tended: Tended) -> dict[str, dg.MetadataValue]:
    """Answer what upkeep did, as Dagster shows it."""
    return {
        name: dg.MetadataValue.float(value)
        if isinstance(value, float)
        else dg.MetadataValue.int(value)
        for name, value in tended.figures().items()
    }


@dg.job(
    name=UPKEEP,
    executor_def=dg.in_process_executor,
    description="Keeps the tables fast: fewer and larger files, few snapshots, no orphans.",
)
def upkeep() -> None:
    """Tend every collection."""
    tidy()
    fit_types()


CHECKS = ("conservation", "freshness", "marks", "books")


@dg.multi_asset_check(
    name="books",
    specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset=EVENTS,
            description="Below the table's mark every log position is one row or one quarantined "
            "event, or one of those that retention counted; above it there is none.",
        ),
        dg.AssetCheckSpec(
            "freshness",
            asset=EVENTS,
            description="No event waits longer than five minutes to land.",
        ),
        dg.AssetCheckSpec(
            "marks",
            asset=EVENTS,
            description="The log still holds the records that the tables say they absorbed.",
        ),
        dg.AssetCheckSpec(
            "books",
            asset=EVENTS,
            description="Accepted = landed + duplicates + quarantined + closed + waiting + expired "
            "+ lost, landing goes on, and no event has waited for half of the time for which the "
            "log keeps it.",
        ),
    ],
)
def books(stores: dg.ResourceParam[Stores]) -> Iterator[dg.AssetCheckResult]:
    """Check every collection; a check passes if it does for all of them."""
    buffer, lake, now = stores.buffer, stores.lake, machine_clock()
    retention = retention_of(stores.settings)
    verdicts: dict[str, dict[CollectionId, Verdict]] = {name: {} for name in CHECKS}
    # Those of the lake as well: another log knows nothing of them, and that must be told.
    collections = sorted({*buffer.collections(), *lake.collections()})
    verdicts["books"] = dict(check_all_books(buffer, lake, collections, now, retention))
    for collection in collections:
        for name, check in (
            ("conservation", lambda c: check_conservation(lake, c, buffer.log_id(c))),
            ("freshness", lambda c: check_freshness(buffer, lake, c, now, limit=FRESH_WITHIN)),
            ("marks", lambda c: check_marks(buffer, lake, c)),
        ):
            verdicts[name][collection] = checked(partial(check, collection))
    for name, found in verdicts.items():
        yield result(name, found)


@dg.asset_check(
    asset=EVENTS,
    name=UPKEEP,
    description="Small files and old snapshots are gone an hour after they could be.",
)
def kept_up(stores: dg.ResourceParam[Stores]) -> dg.AssetCheckResult:
    """Check whether upkeep keeps up with every collection."""
    aims, now = aims_of(stores.settings), machine_clock()
    return result(
        UPKEEP,
        {
            collection: checked(
                partial(check_upkeep, stores.lake, collection, aims, now, stores.merger)
            )
            for collection in stores.lake.collections()
        },
    )


def result(name: str, verdicts: dict[CollectionId, Verdict]) -> dg.AssetCheckResult:
    """Put the verdicts of all collections together."""
    failed = [collection for collection, verdict in verdicts.items() if not verdict.passed]
    return dg.AssetCheckResult(
        asset_key=EVENTS,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(verdicts) - len(failed)} of {len(verdicts)} collections pass",
        metadata={
            str(collection): dg.MetadataValue.text(verdict.sentence)
            for collection, verdict in verdicts.items()
        },
    )
