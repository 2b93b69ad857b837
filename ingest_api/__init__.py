"""The door: one event in, acknowledged when it is on the log."""
