"""The whole trip to each bus: what a replay delivers there is what the lake has."""

from __future__ import annotations

from collections import Counter

import pytest
from far_sides import SECRETS, Took, far_side
from installing import Installation, outside, send_kafka_records
from ugly import messages

from lakehouse.catalog import main_table
from penstock.envelope import CollectionId
from replay.targets import ADDED

pytestmark = [
    pytest.mark.trip,
    pytest.mark.engines,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("buses"),
]

COUNT = 2_000
# The engine that stands for SQS takes 256 KiB, and Base64 is a third longer.
LARGEST = 150_000
SENT = CollectionId("main", "to_buses")

# What targets add of themselves.
OURS = {*ADDED, "penstock-key", "penstock-encoding"}

Told = tuple[bytes, bytes | None, tuple[tuple[str, bytes], ...]]
"""Payload, key, and the headers that the sender gave."""


@pytest.fixture(scope="module")
def there(here: Installation) -> Counter[Told]:
    """Send messages with keys and headers, wait until they landed, and read them in the lake."""
    here.cli("collection", "create", SENT.name, "--partitions", "3")
    made = here.json("token", "create", "buses", "--scope", "ingest", "--collection", SENT.name)
    sent = [m for m in messages(COUNT) if len(m.payload) <= LARGEST]
    send_kafka_records(here, made["token"], sent, topic=SENT.name)
    status = here.landed(SENT.name)
    assert status.rows + status.quarantined == len(sent)

    rows = here.lake().table(main_table(SENT)).scan(selected_fields=("payload", "key", "headers"))
    return Counter(
        (row["payload"], row["key"], tuple((h["key"], h["value"]) for h in row["headers"] or ()))
        for row in rows.to_arrow().to_pylist()
    )


@pytest.mark.parametrize("here", ["engines"], indirect=True)
@pytest.mark.parametrize("kind", ["kafka", "rabbitmq", "sqs"])
def test_a_replay_delivers_bytes_keys_and_headers(
    here: Installation, there: Counter[Told], kind: str
) -> None:
    """What a target cannot carry as it is arrives in the way that its page documents."""
    with far_side(kind) as far:
        options = [word for k, v in far.options.items() for word in ("--option", f"{k}={v}")]
        given = {}
        if SECRETS[kind] is not None:
            given["env"] = {**outside(), "PENSTOCK_SECRET": SECRETS[kind]}
        here.cli("destination", "create", kind, far.url, *options, **given)
        here.cli("destination", "test", kind)
        planned = here.json("replay", "plan", SENT.name, "--to", kind)["count"]
        replay = here.json("replay", "start", SENT.name, "--to", kind, "--wait")
        arrived = far.took(planned)
    books = here.json("replay", "report", replay["id"])

    assert replay["state"] == "finished", replay
    assert planned == there.total() == books["matched"] == books["delivered"] == len(arrived)
    assert Counter(told(kind, one) for one in arrived) == Counter(
        as_carried(kind, one) for one in there.elements()
    )


def as_carried(kind: str, sent: Told) -> Told:
    """Answer what a kind can carry of an event: tables have no order, SQS no empty key."""
    payload, key, headers = sent
    if kind == "kafka":
        return sent
    return payload, (key or None) if kind == "sqs" else key, tuple(sorted(headers))


def told(kind: str, arrived: Took) -> Told:
    """Read an arrived message as the reference says that it is to be read."""
    from replay.targets import rabbitmq, sqs

    values = dict(arrived.headers)
    own = [(n, v) for n, v in arrived.headers if n not in OURS]
    match kind:
        case "kafka":
            return arrived.payload, arrived.key, tuple(own)
        case "rabbitmq":
            key = values.get("penstock-key")
            headers = rabbitmq.headers_of(dict(own))
            return arrived.payload, None if key is None else bytes(key), tuple(sorted(headers))
        case _:
            key = values.get("penstock-key")
            if isinstance(key, str):
                key = key.encode()
            body = sqs.payload_of(arrived.payload.decode(), values.get("penstock-encoding"))
            return body, key, tuple(sorted(sqs.headers_of(own)))
