"""What was sent is what is in the lake and what a replay delivers, byte for byte."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice

import aiohttp
import psutil
import pytest
from installing import send_kafka_records
from ugly import Message, messages

from lakehouse.catalog import main_table, quarantine_table
from penstock.cli.receiver import digest
from penstock.envelope import CollectionId

pytestmark = [
    pytest.mark.trip,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("bytes"),
]

COUNT = 10_000
UGLY = CollectionId("main", "ugly")


def test_ten_thousand_ugly_messages_survive_the_whole_trip(here) -> None:
    """One changed byte would make replays lies; one refused shape would make the lake a sieve."""
    here.cli("collection", "create", "ugly")
    here.cli("destination", "create", "bytes", f"http://127.0.0.1:{here.receiver.port}/")
    made = here.json("token", "create", "ugly", "--scope", "ingest", "--collection", "ugly")
    before = processes(here)
    sent = list(messages(COUNT))
    over_http, over_grpc = sent[: COUNT // 2], sent[COUNT // 2 :] + list(islice(sent, 100))

    statuses = asyncio.run(post_all(here, over_http))
    send_kafka_records(here, made["token"], over_grpc, topic="ugly")

    assert statuses == Counter({202: len(over_http)})
    status = here.landed("ugly", seconds=180)
    expected = Counter(digest(m.payload) for m in (*over_http, *over_grpc))
    assert status.rows + status.quarantined == expected.total()
    assert status.quarantined > 0
    assert lake_digests(here) == expected
    assert replayed_digests(here) == expected
    assert processes(here) == before, "a process died on the way"


async def post_all(here, messages: list[Message]) -> Counter[int]:
    """Post every message by itself, 16 at a time; answer how often each status came."""
    statuses: Counter[int] = Counter()
    waiting = iter(messages)
    async with aiohttp.ClientSession(skip_auto_headers=("Content-Type",)) as session:

        async def sender() -> None:
            for message in waiting:
                headers = [("Authorization", f"Bearer {here.token}"), *message.headers]
                if message.content_type is not None:
                    headers.append(("Content-Type", message.content_type))
                url = f"{here.door}/v1/events/ugly"
                async with session.post(url, data=message.payload, headers=headers) as answer:
                    await answer.read()
                    statuses[answer.status] += 1

        await asyncio.gather(*(sender() for _ in range(16)))
    return statuses


def lake_digests(here) -> Counter[bytes]:
    """Read the payloads of both tables straight from the lake."""
    lake = here.lake()
    found: Counter[bytes] = Counter()
    for name in (main_table(UGLY), quarantine_table(UGLY)):
        rows = lake.table(name).scan(selected_fields=("payload",)).to_arrow()
        found.update(digest(payload) for payload in rows["payload"].to_pylist())
    return found


def replayed_digests(here) -> Counter[bytes]:
    """Replay both tables and answer what was received."""
    found: Counter[bytes] = Counter()
    for view in ([], ["--quarantine"]):
        replay = here.json("replay", "start", "ugly", "--to", "bytes", "--wait", *view)
        assert replay["state"] == "finished", replay
        found += here.receiver.payloads[replay["id"]]
    return found


def processes(here) -> dict[str, int]:
    """Answer the pids of what `penstock up` keeps alive, by what they are."""
    return {
        " ".join(child.cmdline()[1:5]): child.pid
        for child in psutil.Process(here.process.pid).children()
    }
