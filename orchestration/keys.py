"""The names Dagster shows: assets, checks, partitions, jobs, tags. Renaming one loses history."""

from __future__ import annotations

import dagster as dg

EVENTS = dg.AssetKey("events")
QUARANTINE = dg.AssetKey("quarantine")
SEARCHABLE = dg.AssetKey("searchable")

COLLECTIONS = dg.DynamicPartitionsDefinition(name="collection")

LAND = "land"
UPKEEP = "upkeep"
INDEX = "index"
REINDEX = "reindex"
RETYPE = "retype"
REBUILD = "rebuild"

LANE_TAG = "penstock/lane"
