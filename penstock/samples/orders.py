"""A stream of shop orders that goes wrong in every way streams go wrong, the same for a seed.

Most are plain nested JSON. As in life, a field appears halfway, a price turns into text, a total
gets cents, a list holds unlike things, and now and then something arrives that is no JSON at all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal[
    "plain", "new_field", "changed_type", "mixed_list", "not_an_object", "binary", "garbage"
]

_SHARE: dict[Kind, int] = {
    "plain": 880,
    "new_field": 60,
    "changed_type": 25,
    "mixed_list": 15,
    "not_an_object": 5,
    "binary": 10,
    "garbage": 5,
}
_PRODUCTS = (
    *("artichoke", "beetroot", "celeriac", "daikon", "endive", "fennel", "garlic", "kohlrabi"),
    *("leek", "okra", "parsnip", "radicchio", "salsify", "turnip", "yam", "zucchini"),
)
_CITIES = ("Antwerp", "Bergen", "Córdoba", "Đà Nẵng", "Espoo", "Fez", "Gdańsk", "Hà Nội", "İzmir")
_STATES = ("new", "paid", "packed", "sent", "returned")

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Order:
    """One message of the stream, and which kind of trouble it is."""

    kind: Kind
    payload: bytes
    content_type: str
    key: bytes
    headers: tuple[tuple[str, str], ...]


def orders(count: int, *, seed: int = 13) -> Iterator[Order]:
    """Answer `count` messages; the same seed gives the same bytes."""
    chance = random.Random(seed)  # noqa: S311 - a test stream, no secret
    kinds, weights = list(_SHARE), list(_SHARE.values())
    for number in range(1, count + 1):
        kind = chance.choices(kinds, weights)[0]
        customer = f"customer-{chance.randint(1, 400)}"
        order = _order(number, customer, chance)
        yield Order(
            kind=kind,
            payload=_payload(kind, order, chance),
            content_type="application/octet-stream" if kind == "binary" else "application/json",
            key=customer.encode(),
            headers=(("x-shop", chance.choice(("web", "app"))), ("x-attempt", "1")),
        )


def _order(number: int, customer: str, chance: random.Random) -> dict[str, object]:
    lines = [
        {
            "sku": f"{name[:3].upper()}-{chance.randint(100, 999)}",
            "name": name,
            "quantity": chance.randint(1, 5),
            "price": chance.randint(1, 15),
            "tags": chance.sample(["fresh", "organic", "local", "offer"], chance.randint(0, 3)),
        }
        for name in chance.sample(_PRODUCTS, chance.randint(1, 4))
    ]
    return {
        "order_id": f"order-{number:07d}",
        "state": chance.choice(_STATES),
        "customer": {"id": customer, "city": chance.choice(_CITIES), "vip": chance.random() < 0.1},
        "lines": lines,
        "total": sum(int(str(line["quantity"])) * int(str(line["price"])) for line in lines),
        "placed_at": 1_735_689_600 + number * 7,
        "note": None,
    }


def _payload(kind: Kind, order: dict[str, object], chance: random.Random) -> bytes:
    match kind:
        case "plain":
            return _encode(order)
        case "new_field":
            discount = {"code": f"SPRING{chance.randint(10, 30)}", "percent": chance.randint(5, 30)}
            return _encode({**order, "discount": discount, "gift": chance.random() < 0.5})
        case "changed_type":
            total = order["total"]
            return _encode(
                {**order, "total": chance.choice([f"{total} EUR", float(str(total)) + 0.99])}
            )
        case "mixed_list":
            return _encode({**order, "coupons": [chance.randint(1, 9), "two", {"three": 3}, None]})
        case "not_an_object":
            return _encode(chance.choice([[1, "a", None], "only text", 42]))
        case "binary":
            return chance.randbytes(chance.randint(1, 2_000))
        case "garbage":
            return _encode(order)[: chance.randint(1, 60)]
