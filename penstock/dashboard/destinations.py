"""Destinations: list, make one of any kind, test, delete."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import chain, count
from typing import Annotated, get_args

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from penstock.api import destinations
from penstock.api.destinations import CREDENTIALS
from penstock.api.platform import Here, Platform
from penstock.api.replays import list_replays
from penstock.contract.destinations import DestinationTold, NewDestination, Tried
from penstock.dashboard.access import Administering, Replaying, Visit
from penstock.dashboard.forms import Form, Wrong, asked
from penstock.errors import AlreadyExists, Rejected
from penstock.metadata.states import ENDS
from penstock.vocabulary import Kind

router = APIRouter(prefix="/destinations")

CREATING = "penstock destination create staging https://staging.example/events"
"""The command, for pages where there is none yet."""

_NAMES: Mapping[Kind, str] = {
    "http": "HTTP",
    "kafka": "Kafka",
    "rabbitmq": "RabbitMQ",
    "sqs": "Amazon SQS",
}
# An address of the kind, and what is to be said about it.
_ADDRESSES: Mapping[Kind, tuple[str, str]] = {
    "http": (
        "https://billing.example/events",
        "One request for each event, with the bytes that were received.",
    ),
    "kafka": (
        "kafka://broker1:9092,broker2:9092/topic",
        "Brokers to begin with, and the topic.",
    ),
    "rabbitmq": (
        "amqps://host:5671/vhost",
        "amqps:// with TLS, amqp:// without; the virtual host percent-encoded.",
    ),
    "sqs": (
        "sqs://sqs.eu-central-1.amazonaws.com/123456789012/orders",
        "The queue's own https:// address works as well.",
    ),
}

HEADERS = 4
"""Rows of the form for headers of an HTTP destination."""

_LONGEST = 40
"""Characters of a name that is made here, before what tells it from others."""

# The fields of each kind's form that are options, as `replay.targets.places` has them.
_OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "http": ("method", "signing", "ca", "token_url", "client_id", "scope", "client_auth"),
    "kafka": ("partition", "timestamps", "tls", "sasl", "ca"),
    "rabbitmq": ("exchange", "routing_key", "ca"),
    "sqs": ("region", "group"),
}
_TICKS = frozenset(("tls",))
# A secret is given in parts, and kept as one text: secrets that sign a line each.
_SECRETS: Mapping[Kind, tuple[str, ...]] = {
    "http": ("signing_secret", "signing_before"),
    "kafka": ("user", "password"),
    "rabbitmq": ("user", "password"),
    "sqs": ("key_id", "secret_key", "session"),
}


@router.get("", name="destinations")
def show_destinations(visit: Replaying, here: Here, made: str = "") -> Response:
    """Show where replays can go, and how each answered when it was last tested."""
    return _show(visit, here, made=made)


@router.get("/new", name="new_destination")
def show_new_destination(visit: Administering, kind: Annotated[Kind, Query()] = "http") -> Response:
    """Show the form of a kind: only what it has."""
    return _form(visit, kind)


@router.post("", name="create_destination")
def create_destination(visit: Administering, here: Here) -> Response:
    """Make a destination, or say what is wrong; credentials are never shown again, even then."""
    form = visit.form
    kind = _kind(form.text("kind"))
    try:
        wanted = asked(NewDestination, asked_for(kind, form))
        made = destinations.create_destination(wanted, visit.caller, here)
    except Wrong as error:
        return _form(visit, kind, wrong=error.fields, status=422)
    except (Rejected, AlreadyExists) as error:
        field = "name" if isinstance(error, AlreadyExists) else ""
        return _form(visit, kind, wrong={field: str(error)}, status=422)
    return visit.go(f"/destinations?made={made.name}")


@router.post("/{name}/test", name="try_destination")
async def try_destination(name: str, visit: Replaying, here: Here) -> Response:
    """Test a destination and show what it made of it."""
    tried = await destinations.try_destination(name, visit.caller, here)
    return await run_in_threadpool(_show, visit, here, tested=(name, tried))


@router.post("/{name}/delete", name="delete_destination")
def delete_destination(name: str, visit: Administering, here: Here) -> Response:
    """Forget a destination; refused while a replay needs it."""
    destinations.delete_destination(name, visit.caller, here)
    return _show(visit, here, deleted=name)


def asked_for(kind: Kind, form: Form) -> dict[str, object]:
    """Answer what a form of the kind asks of the API. Pure."""
    options: dict[str, object] = {}
    for name in _OPTIONS[kind]:
        if name in _TICKS:
            options[name] = form.has(name)
        elif form.text(name):
            options[name] = form.text(name)
    parts = [form.raw(name) for name in _SECRETS[kind]]
    while parts and not parts[-1]:
        parts.pop()
    headers = [
        (form.text(f"header{n}"), form.text(f"value{n}"))
        for n in range(HEADERS)
        if form.text(f"header{n}") or form.text(f"value{n}")
    ]
    return {
        "name": form.text("name"),
        "kind": kind,
        "url": form.text("url"),
        "headers": headers if kind == "http" else [],
        "options": options,
        "credentials": _credentials(form) if kind == "http" else {},
        "secret": ("\n" if kind == "http" else ":").join(parts) or None,
    }


def _credentials(form: Form) -> dict[str, str]:
    return {name: form.text(name) for name in CREDENTIALS if form.text(name)}


def destination_at(address: str, visit: Visit, here: Platform) -> str:
    """Answer the name of the destination with this address, made for it where there is none.

    Raises `Wrong` for an address that replays may not reach, and for who may make no destination.
    """
    known = {one.name: one.url for one in destinations.list_destinations(visit.caller, here)}
    for name, url in known.items():
        if url == address:
            return name
    if not visit.may("admin"):
        raise Wrong({"address": "is no destination yet, and making one needs the scope admin"})
    wanted = asked(NewDestination, {"name": named_after(address, known), "url": address})
    try:
        return destinations.create_destination(wanted, visit.caller, here).name
    except Rejected as error:
        raise Wrong({"address": str(error)}) from error


def named_after(address: str, taken: Collection[str]) -> str:
    """Answer a name for a destination, after the host of its address, that none has. Pure."""
    host = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
    name = re.sub("[^a-z0-9]+", "_", host.lower()).strip("_")[:_LONGEST] or "destination"
    if not name[0].isalpha() or name.startswith("penstock"):
        name = f"at_{name}"
    numbered = (f"{name}_{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def shown_options(one: DestinationTold) -> list[tuple[str, str]]:
    """Answer the options of a destination that say something, as texts; certificates are long."""
    return [
        (name, "given" if name == "ca" else {True: "yes", False: "no"}.get(value, str(value)))
        for name, value in one.options.items()
        if value not in (None, "", False)
    ]


def _kind(text: str) -> Kind:
    """Answer the kind that a form says; what is none is left to the form of HTTP."""
    return next((kind for kind in get_args(Kind) if kind == text), "http")


def _form(
    visit: Visit, kind: Kind, *, wrong: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    return visit.show(
        "destination_new.html",
        status=status,
        kind=kind,
        kinds=get_args(Kind),
        names=_NAMES,
        example=_ADDRESSES[kind][0],
        about=_ADDRESSES[kind][1],
        wrong=wrong or {},
        form=visit.form,
        headers=HEADERS,
    )


def _show(
    visit: Visit,
    here: Platform,
    *,
    made: str = "",
    tested: tuple[str, Tried] | None = None,
    deleted: str = "",
) -> Response:
    found = destinations.list_destinations(visit.caller, here)
    replays = list_replays(visit.caller, here)
    return visit.show(
        "destinations.html",
        destinations=found,
        options={one.name: shown_options(one) for one in found},
        last={one.destination: one for one in reversed(replays)},
        busy={one.destination for one in replays if one.state not in ENDS},
        made=made if made in {one.name for one in found} else "",
        tested=tested,
        deleted=deleted,
        creating=CREATING,
    )
