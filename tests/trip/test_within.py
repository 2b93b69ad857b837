"""Replays that stay in the installation: to another collection, and to a file and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from installing import Installation, send_kafka_records
from ugly import messages

from lakehouse.catalog import main_table
from penstock.envelope import CollectionId
from replay.targets import ADDED

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600)]

COUNT = 300

Told = tuple[str, bytes, bytes | None, tuple[tuple[str, bytes], ...]]


def rows(here: Installation, name: str) -> list[Told]:
    """Answer what a collection shows of each event: id, payload, key, and the sender's headers."""
    names = ("event_id", "payload", "key", "headers", "duplicate_of")
    table = here.lake().table(main_table(CollectionId("main", name)))
    return sorted(
        (
            row["event_id"],
            row["payload"],
            row["key"],
            tuple((h["key"], h["value"]) for h in row["headers"] or () if h["key"] not in ADDED),
        )
        for row in table.scan(selected_fields=names).to_arrow().to_pylist()
        if row["duplicate_of"] is None
    )


@pytest.mark.parametrize("here", ["embedded"], indirect=True)
def test_events_come_to_a_collection_and_through_a_file_as_they_are(
    here: Installation, tmp_path: Path
) -> None:
    """Twice to the collection: what it has had it does not show again."""
    for name in ("source", "copied", "restored"):
        here.cli("collection", "create", name, "--format", "plain")
    made = here.json("token", "create", "within", "--scope", "ingest", "--collection", "source")
    sent = [m for m in messages(COUNT) if len(m.payload) < 100_000]
    send_kafka_records(here, made["token"], sent, topic="source")
    here.landed("source")
    here.cli("destination", "create", "copied", "collection://copied")
    here.cli("destination", "create", "out", "file://out")
    for name in ("copied", "out"):
        here.cli("destination", "test", name)

    for name in ("copied", "copied", "out"):
        replay = here.json("replay", "start", "source", "--to", name, "--wait")
        assert replay["state"] == "finished", replay
        assert replay["progress"]["delivered"] == len(sent)
    file = tmp_path / "out.ndjson"
    here.cli("replay", "download", replay["id"], "--out", str(file))
    here.cli("send", "restored", str(file), "--envelopes")
    for name in ("copied", "restored"):
        here.landed(name)

    there = rows(here, "source")
    assert len(there) == len(sent)
    assert rows(here, "copied") == there
    assert rows(here, "restored") == there
    assert file.read_bytes().count(b"\n") == len(sent)
