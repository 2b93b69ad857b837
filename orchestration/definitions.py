"""The code location: `dagster api grpc -m orchestration.definitions`."""

from __future__ import annotations

import dagster as dg

from assets.stores import Stores, stores_of_environment
from orchestration import indexing, jobs, rewriting, sensors
from orchestration.keys import COLLECTIONS, EVENTS, QUARANTINE, SEARCHABLE
from penstock.logs import set_up_logs
from replay.job import REPLAYS, replay

TEND_EVERY = "*/10 * * * *"
CHECK_EVERY = "5-59/10 * * * *"
INDEX_EVERY = "3-59/10 * * * *"


@dg.definitions
def definitions() -> dg.Definitions:
    """Answer everything that Dagster shows and runs.

    Reads the settings of ``PENSTOCK_HOME``; the stores are opened when they are first used.
    """
    set_up_logs()
    check_books = dg.define_asset_job(
        "check_books",
        selection=dg.AssetSelection.checks(jobs.books, jobs.kept_up),
        executor_def=dg.in_process_executor,
    )
    stores = stores_of_environment()
    index = searchable() if stores.settings.search_url else dg.Definitions()
    lake = dg.Definitions(
        assets=[
            dg.AssetSpec(
                EVENTS,
                partitions_def=COLLECTIONS,
                group_name="lake",
                kinds={"iceberg", "parquet"},
                description="One Iceberg table per collection: envelope, payload, typed columns.",
            ),
            dg.AssetSpec(
                QUARANTINE,
                partitions_def=COLLECTIONS,
                group_name="lake",
                kinds={"iceberg", "parquet"},
                description="Events that could not become rows, with stage and reason.",
            ),
            dg.AssetSpec(
                REPLAYS,
                group_name="replays",
                description="The books of every replay; each attempt is a row of the collection "
                "penstock_system.replay_attempts.",
            ),
        ],
        asset_checks=[jobs.books, jobs.kept_up],
        jobs=[
            jobs.land,
            jobs.upkeep,
            rewriting.retype,
            rewriting.rebuild,
            replay,
            check_books,
        ],
        sensors=[sensors.landing, sensors.replays],
        schedules=[
            every(jobs.upkeep, TEND_EVERY, "Keeps the tables fast."),
            every(check_books, CHECK_EVERY, "Proves that nothing was lost or doubled."),
        ],
        resources=resources(stores),
    )
    return dg.Definitions.merge(lake, index)


def searchable() -> dg.Definitions:
    """Answer what is there only where a search index is used."""
    return dg.Definitions(
        assets=[
            dg.AssetSpec(
                SEARCHABLE,
                deps=[EVENTS],
                partitions_def=COLLECTIONS,
                group_name="search",
                kinds={"elasticsearch"},
                description="The search index of each collection: it follows the lake.",
            )
        ],
        jobs=[indexing.index, indexing.reindex],
        schedules=[every(indexing.index, INDEX_EVERY, "Catches up with the lake.")],
    )


def resources(stores: Stores) -> dict[str, object]:
    """Answer what ops are given; `s3` is there where the lake is in an object store."""
    options = stores.settings.s3
    if options is None:
        return {"stores": stores}
    from orchestration.compute_logs import LakeStore

    return {"stores": stores, "s3": LakeStore(endpoint_url=options.endpoint or None)}


def every(
    job: dg.JobDefinition | dg.UnresolvedAssetJobDefinition, cron: str, why: str
) -> dg.ScheduleDefinition:
    """Answer a schedule that runs from the start."""
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule=cron,
        description=why,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
