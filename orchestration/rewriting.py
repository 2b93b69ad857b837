"""Columns made anew, in place: those that are due at each upkeep, and what somebody asks for."""

# No postponed annotations here: Dagster reads the classes in them.

import os
import time
from collections.abc import Callable
from typing import TypeVar

import dagster as dg
from pydantic import Field

from assets.rewriting import Rewriting
from assets.stores import Stores
from lakehouse.rewrite import Progress, Rewritten
from orchestration.fitting import Fitted, fit_home
from orchestration.keys import COLLECTIONS, EVENTS, REBUILD, RETYPE
from penstock import faults
from penstock.envelope import CollectionId, parse_collection
from penstock.errors import WrongState
from penstock.schema.retype import columns_of, differences

_TELL_EVERY = 30.0


@dg.op(description="Retype columns of longs to which fractions were sent, where these add up.")
def fit_types(context: dg.OpExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Look at every collection into which something has landed since the last time.

    One that cannot be retyped fails the run after the others are done, and is looked at again.
    """
    failed: list[CollectionId] = []
    try:
        for outcome in fit_home(
            stores, stores.lake.collections(), holder=context.run_id, tell=telling(context)
        ):
            if isinstance(outcome, Fitted):
                observe(context, outcome.collection, outcome.rewritten)
                continue
            # Without the error's own words: a library may quote what it could not read.
            context.log.error(
                "%s could not be retyped: %s", outcome.collection, type(outcome.error).__name__
            )
            failed.append(outcome.collection)
    except WrongState as error:
        context.log.info("%s", error)
    if failed:
        raise dg.Failure(f"{len(failed)} collections could not be retyped: {failed[0]} …")


class RebuildConfig(dg.Config):
    """Which collection's columns are made anew."""

    collection: str
    dry_run: bool = False


class RetypeConfig(RebuildConfig):
    """Which of its columns, too, if not those that are due."""

    columns: list[str] = Field(default_factory=list)
    """Columns of longs, as in items[].price."""


_Config = TypeVar("_Config", bound=RebuildConfig)


def _job(
    name: str,
    op: str,
    config: type[_Config],
    act: Callable[[Rewriting, _Config], Rewritten | None],
    description: str,
) -> dg.JobDefinition:
    """Answer a job of one op: it makes a collection's columns anew, beside landing."""

    @dg.op(
        name=op,
        description=description,
        config_schema=config.to_config_schema().as_field(),
        required_resource_keys={"stores"},
    )
    def make_anew(context: dg.OpExecutionContext) -> None:
        faults.arm(os.environ.get(faults.VARIABLE))
        asked = config(**context.op_config)
        collection = parse_collection(asked.collection)
        work = Rewriting(
            stores=context.resources.stores,
            collection=collection,
            dry_run=asked.dry_run,
            tell=telling(context),
        )
        done = act(work, asked)
        if done is None:
            context.log.info("no column of %s is to be made anew", collection)
            return
        observe(context, collection, done)

    @dg.job(name=name, executor_def=dg.in_process_executor, description=description)
    def job() -> None:
        make_anew()

    return job


retype = _job(
    RETYPE,
    "make_doubles",
    RetypeConfig,
    lambda work, asked: work.retype(asked.columns).rewritten,
    "Makes columns of longs of one collection to columns of doubles, in place.",
)

rebuild = _job(
    REBUILD,
    "make_columns",
    RebuildConfig,
    lambda work, _asked: work.rebuild(),
    "Makes the columns of one collection again from its payloads, in place.",
)


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
