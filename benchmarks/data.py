"""The events that are measured: nested JSON of about 700 bytes, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from penstock.buffer import open_appender
from penstock.envelope import CollectionId, Event, Micros

_encode = msgspec.json.encode
_AGENTS = ("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101", "okhttp/4.12.0", "curl/8.5.0")


def nested(count: int, *, misfits: float = 0.0, seed: int = 7) -> list[bytes]:
    """Answer `count` payloads; a share of `misfits` has text where the others have a number."""
    chance = random.Random(seed)
    return [_nested(number, chance, misfit=chance.random() < misfits) for number in range(count)]


def _nested(number: int, chance: random.Random, *, misfit: bool) -> bytes:
    price = chance.randint(100, 99_999) / 100
    return _encode(
        {
            "id": f"{chance.getrandbits(128):032x}",
            "sequence": number,
            "type": chance.choice(("order.placed", "order.paid", "order.sent")),
            "at": f"2026-11-{chance.randint(1, 28):02d}T{chance.randint(0, 23):02d}:15:00Z",
            "customer": {
                "id": chance.randint(1, 1_000_000),
                "name": f"customer {chance.randint(1, 5_000)}",
                "email": f"c{chance.randint(1, 1_000_000)}@example.com",
                "address": {"city": chance.choice(("Oslo", "Bern", "Riga")), "zip": "01234"},
            },
            "items": [
                {"sku": f"SKU-{chance.randint(1, 999):04d}", "quantity": chance.randint(1, 9),
                 "price": chance.randint(100, 9_999) / 100}
                for _ in range(3)
            ],
            "total": f"{price} EUR" if misfit else price,
            "currency": "EUR",
            "paid": chance.random() < 0.7,
            "client": {"agent": chance.choice(_AGENTS), "ip": f"10.0.{chance.randint(0, 255)}.7"},
            "note": "left with the neighbour on the second floor, rang twice, no answer",
            "shipping": {"carrier": "post", "service": "standard", "days": chance.randint(1, 9)},
            "trace": {"id": f"{chance.getrandbits(64):016x}", "sampled": True, "depth": 3},
        }
    )  # fmt: skip


def repeated(payloads: Sequence[bytes], share: float, *, seed: int = 7) -> list[int]:
    """Answer for each place which event is sent there: its own, or for a share an earlier one."""
    chance = random.Random(seed)
    return [
        chance.randrange(place) if place and chance.random() < share else place
        for place in range(len(payloads))
    ]


def append(
    url: str,
    collection: CollectionId,
    payloads: Iterable[bytes],
    *,
    received_at: Callable[[int], Micros],
    first: int = 0,
    sent: Sequence[int] | None = None,
) -> None:
    """Put events into a log; the one at place n has the id `event_id` of it.

    With `sent`, which says it for each place, senders gave the ids.
    """
    appender = open_appender(url)
    try:
        for batch in _batches(payloads, 1_000):
            events = [
                Event(
                    id=event_id(place if sent is None else sent[place]),
                    named=sent is not None,
                    received_at=received_at(place),
                    payload=payload,
                    source="http",
                    content_type="application/json",
                )
                for place, payload in enumerate(batch, first)
            ]
            appender.append(collection, events).result(30)
            first += len(batch)
    finally:
        appender.close()


def event_id(place: int) -> str:
    """Answer an id as long as those that the door gives."""
    return f"{place:036d}"


def _batches(payloads: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    left = iter(payloads)
    while batch := list(islice(left, size)):
        yield batch
