"""Columns made anew, in place: those that are due at each upkeep, and what somebody asks for."""

# No postponed annotations here: Dagster reads the classes in them.

import os
import secrets
import time
from collections.abc import Callable

import dagster as dg
from pydantic import Field

from assets.rebuild import rebuild as rebuild_columns
from assets.retype import retype as retype_columns
from assets.stores import Stores
from lakehouse.rewrite import Progress, Rewritten
from orchestration.keys import COLLECTIONS, EVENTS, REBUILD, RETYPE
from orchestration.memory import recall, remember
from penstock import faults
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, parse_collection
from penstock.schema.retype import columns_of, differences

_TELL_EVERY = 30.0


@dg.op(description="Retype columns of longs to which fractions were sent, where these add up.")
def fit_types(context: dg.OpExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Look at every collection into which something has landed since the last time.

    One that cannot be retyped fails the run after the others are done, and is looked at again.
    """
    file = stores.settings.home / "retype.json"
    looked = recall(file, int)
    still: dict[CollectionId, int] = {}
    failed: list[CollectionId] = []
    for collection in stores.lake.collections():
        try:
            view = stores.lake.view(collection)
            if view is None:
                continue
            if looked.get(collection) != view.landed_sequence:
                done = retype_columns(
                    stores.lake,
                    collection,
                    stores,
                    rules=stores.rules(collection),
                    clock=machine_clock,
                    chance=secrets.token_bytes,
                    tell=telling(context),
                ).rewritten
                if done is not None:
                    observe(context, collection, done)
        except Exception:  # one table must not keep the others from being looked at
            context.log.exception("%s could not be retyped", collection)
            failed.append(collection)
            continue
        still[collection] = view.landed_sequence
    remember(file, still)
    if failed:
        raise dg.Failure(f"{len(failed)} collections could not be retyped: {failed[0]} …")


class RetypeConfig(dg.Config):
    """Which collection is retyped, and which of its columns if not those that are due."""

    collection: str
    columns: list[str] = Field(default_factory=list)
    """Columns of longs, as in items[].price."""
    dry_run: bool = False


@dg.op(description="Make columns of longs to columns of doubles, in place.")
def make_doubles(
    context: dg.OpExecutionContext, config: RetypeConfig, stores: dg.ResourceParam[Stores]
) -> None:
    """Retype the columns beside landing."""
    faults.arm(os.environ.get(faults.VARIABLE))
    collection = parse_collection(config.collection)
    done = retype_columns(
        stores.lake,
        collection,
        stores,
        rules=stores.rules(collection),
        clock=machine_clock,
        chance=secrets.token_bytes,
        columns=config.columns,
        dry_run=config.dry_run,
        tell=telling(context),
    ).rewritten
    if done is None:
        context.log.info("no column of %s is to be retyped", collection)
        return
    observe(context, collection, done)


@dg.job(
    name=RETYPE,
    executor_def=dg.in_process_executor,
    description="Makes columns of longs of one collection to columns of doubles, in place.",
)
def retype() -> None:
    """Retype one collection."""
    make_doubles()


class RebuildConfig(dg.Config):
    """Which collection's columns are made again."""

    collection: str
    dry_run: bool = False


@dg.op(description="Make the columns of a collection again from all of its payloads, in place.")
def make_columns(
    context: dg.OpExecutionContext, config: RebuildConfig, stores: dg.ResourceParam[Stores]
) -> None:
    """Rebuild the table beside landing."""
    faults.arm(os.environ.get(faults.VARIABLE))
    collection = parse_collection(config.collection)
    done = rebuild_columns(
        stores.lake,
        collection,
        stores,
        rules=stores.rules(collection),
        clock=machine_clock,
        chance=secrets.token_bytes,
        dry_run=config.dry_run,
        tell=telling(context),
    )
    if done is None:
        context.log.info("%s has no rows yet", collection)
        return
    observe(context, collection, done)


@dg.job(
    name=REBUILD,
    executor_def=dg.in_process_executor,
    description="Makes the columns of one collection again from its payloads, in place.",
)
def rebuild() -> None:
    """Rebuild one collection."""
    make_columns()


def telling(context: dg.OpExecutionContext) -> Callable[[Progress], None]:
    """Answer what tells Dagster about progress, every 30 s at most."""
    told = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL_EVERY:
            told = now
            verb = "looked at" if progress.step == "look" else "converted"
            context.log.info("%s %d of %d rows", verb, progress.rows, progress.of)

    return tell


def observe(context: dg.OpExecutionContext, collection: CollectionId, done: Rewritten) -> None:
    """Log what became of a table on its partition."""
    partition = str(collection)
    if not context.instance.has_dynamic_partition(str(COLLECTIONS.name), partition):
        context.instance.add_dynamic_partitions(str(COLLECTIONS.name), [partition])
    context.log_event(dg.AssetObservation(EVENTS, partition=partition, metadata=figures(done)))


def figures(done: Rewritten) -> dict[str, dg.MetadataValue]:
    """Answer what became of a table, as Dagster shows it."""
    changes = [
        {"path": one.path, "what": one.what, "before": one.before, "after": one.after}
        for one in differences(done.before, done.after)
    ]
    return {
        "columns changed": dg.MetadataValue.json(changes),
        "columns before": dg.MetadataValue.int(len(columns_of(done.before))),
        "columns after": dg.MetadataValue.int(len(columns_of(done.after))),
        "misfits before": dg.MetadataValue.int(done.misfits_before.total()),
        "misfits after": dg.MetadataValue.int(done.misfits_after.total()),
        "rows": dg.MetadataValue.int(done.rows),
        "files": dg.MetadataValue.int(done.files),
        # As text: JavaScript's numbers would round it.
        "snapshot": dg.MetadataValue.text(str(done.snapshot_id)),
    }
