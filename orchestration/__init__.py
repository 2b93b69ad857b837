"""Everything that is Dagster: definitions, sensors, schedules."""
