"""What Dagster keeps up to date; free of Dagster itself."""
