"""Keeping the search index up to date: beside landing, by a schedule, and made again by hand."""

# No postponed annotations here: Dagster reads the classes in them.

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from assets.landing import Landed, Trouble
from assets.searchable import Beside, Indexed, Indexing, catch_up
from assets.stores import Stores
from orchestration.digest import EVERY
from orchestration.keys import COLLECTIONS, INDEX, REINDEX, SEARCHABLE
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Micros, parse_collection

SECOND = 1_000_000


class Filled:
    """Sums of what was indexed, each told to Dagster at most once per 30 s and collection."""

    def __init__(self, context: dg.OpExecutionContext, every: Micros = EVERY) -> None:
        self._context = context
        self._every = every
        self._sums: dict[CollectionId, list[Indexed]] = {}
        self._told: dict[CollectionId, Micros] = {}

    def add(self, outcome: Indexed | Trouble) -> None:
        """Take one span in, or say what went wrong."""
        if isinstance(outcome, Trouble):
            self._context.log.warning(
                "%s is not indexed now: %s", outcome.collection, outcome.reason
            )
            return
        self._sums.setdefault(outcome.collection, []).append(outcome)
        now = machine_clock()
        if now - self._told.get(outcome.collection, 0) >= self._every:
            self._tell(outcome.collection, now)

    def rest(self) -> None:
        """Tell everything that was not told yet."""
        for collection in list(self._sums):
            self._tell(collection, machine_clock())

    def _tell(self, collection: CollectionId, now: Micros) -> None:
        spans = self._sums.pop(collection)
        self._told[collection] = now
        instance, partition = self._context.instance, str(collection)
        if not instance.has_dynamic_partition(str(COLLECTIONS.name), partition):
            instance.add_dynamic_partitions(str(COLLECTIONS.name), [partition])
        self._context.log_event(
            dg.AssetMaterialization(SEARCHABLE, partition=partition, metadata=figures(spans))
        )


def figures(spans: list[Indexed]) -> dict[str, dg.MetadataValue]:
    """Answer some spans of one collection as Dagster shows them."""
    return {
        "rows": dg.MetadataValue.int(sum(span.rows for span in spans)),
        "refused": dg.MetadataValue.int(sum(span.refused for span in spans)),
        "bytes": dg.MetadataValue.int(sum(span.bytes for span in spans)),
        "lag seconds": dg.MetadataValue.float(spans[-1].lag / SECOND),
        "waiting": dg.MetadataValue.int(spans[-1].waiting),
    }


class Quiet:
    """Stands where a search index would be filled, if there were one."""

    def landed(self, _outcome: Landed) -> None:
        """Do nothing."""

    def ended(self) -> None:
        """Do nothing."""


class Following:
    """Fills the search index behind a landing, and tells Dagster about it."""

    def __init__(self, beside: Beside, filled: Filled) -> None:
        self._beside = beside
        self._filled = filled

    def landed(self, outcome: Landed) -> None:
        """Let it be indexed, and tell what has been so far."""
        self._beside.landed(outcome.collection)
        self._tell()

    def ended(self) -> None:
        """Tell the rest."""
        self._tell()
        self._filled.rest()

    def _tell(self) -> None:
        for outcome in self._beside.told():
            self._filled.add(outcome)


@contextmanager
def following(
    context: dg.OpExecutionContext, stores: Stores, stopping: Callable[[], bool]
) -> Iterator[Following | Quiet]:
    """Index for the block what it lands, in a thread of its own; in a hurry when `stopping`."""
    with stores.indexing() as indexing:
        if indexing is None:
            yield Quiet()
            return
        beside = Beside(indexing, clock=machine_clock)
        behind = Following(beside, Filled(context))
        with beside:
            yield behind
            if stopping():
                beside.end(0.0)
        behind.ended()


@dg.op(description="Bring the search index up to the lake, drop and merge old days.")
def fill(context: dg.OpExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Index what landing did not get to: it was killed, or the engine was away."""
    filled = Filled(context)
    troubles = []
    with stores.indexing() as indexing:
        if indexing is None:
            context.log.info("no search index is used here")
            return
        for outcome in catch_up(indexing, indexing.collections(), clock=machine_clock):
            filled.add(outcome)
            troubles += [outcome] if isinstance(outcome, Trouble) else []
        filled.rest()
        if not troubles:
            context.log.info("%d indices dropped", tidy(indexing))
            merged = sum(map(indexing.merge, indexing.collections()))
            context.log.info("%d indices merged", merged)
    if troubles:
        raise dg.Failure(f"not indexed: {troubles[0].collection}: {troubles[0].reason}")


def tidy(indexing: Indexing) -> int:
    """Drop days that are not kept, and what is left of indices that were replaced."""
    return sum(
        indexing.retain(collection) + indexing.sweep(collection)
        for collection in indexing.collections()
    )


@dg.job(
    name=INDEX,
    executor_def=dg.in_process_executor,
    description="Brings the search index up to the lake.",
)
def index() -> None:
    """Index every collection."""
    fill()


class ReindexConfig(dg.Config):
    """Which collection's index is made again."""

    collection: str


@dg.op(description="Make the search index of a collection again from the lake, beside the old one.")
def make_again(
    context: dg.OpExecutionContext, config: ReindexConfig, stores: dg.ResourceParam[Stores]
) -> None:
    """Fill the new index; searches use the old one until it is complete."""
    filled = Filled(context)
    with stores.indexing() as indexing:
        if indexing is None:
            raise dg.Failure("no search index is used here: search_url is not set")
        for done in indexing.reindex(parse_collection(config.collection)):
            filled.add(done)
        filled.rest()


@dg.job(
    name=REINDEX,
    executor_def=dg.in_process_executor,
    description="Makes the search index of one collection again from the lake.",
)
def reindex() -> None:
    """Reindex one collection."""
    make_again()
