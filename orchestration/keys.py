"""The names Dagster shows: assets, checks, partitions, jobs, tags. Renaming one loses history."""

from __future__ import annotations

import dagster as dg

EVENTS = dg.AssetKey("events")
QUARANTINE = dg.AssetKey("quarantine")

COLLECTIONS = dg.DynamicPartitionsDefinition(name="collection")

LAND = "land"
UPKEEP = "upkeep"

LANE_TAG = "penstock/lane"
