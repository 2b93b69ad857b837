"""Destinations: list, make one of any kind, change, test, delete."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import chain, count
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from penstock.api import destinations
from penstock.api.destinations import CREDENTIALS
from penstock.api.platform import Here, Platform
from penstock.api.replays import list_replays
from penstock.contract.destinations import (
    ChangedDestination,
    DestinationTold,
    NewDestination,
    Tried,
)
from penstock.dashboard.access import Administering, Replaying, Visit, addresses
from penstock.dashboard.forms import Form, Wrong, asked, wrong_at
from penstock.dashboard.ids import in_path
from penstock.dashboard.questions import Question
from penstock.errors import Rejected
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
    "collection": "A collection",
    "file": "A file",
    "tunnel": "A tunnel",
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
    "collection": (
        "collection://archive",
        "Another collection of this team: collection:// and its name.",
    ),
    "file": (
        "file://orders",
        "file:// and a name: the file is kept here, and taken away from the page of the replay.",
    ),
    "tunnel": (
        "tunnel://warehouse",
        "tunnel:// and the name that a plumber inside another network gives when it connects.",
    ),
}

HEADERS = 4
"""Rows of the form for headers of an HTTP destination."""

_LONGEST = 40
"""Characters of a name that is made here, before what tells it from others."""

# The fields of each kind's form that are options, as `replay.targets.places` has them.
_OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "http": (
        "method",
        "signing",
        "ca",
        "token_url",
        "client_id",
        "scope",
        "client_auth",
        "compare_url",
        "compare",
    ),
    "kafka": ("partition", "timestamps", "tls", "sasl", "ca"),
    "rabbitmq": ("exchange", "routing_key", "ca"),
    "sqs": ("region", "group"),
    "collection": (),
    "file": ("format",),
    "tunnel": (),
}
_TICKS = frozenset(("tls",))
# A secret is given in parts, and kept as one text: secrets that sign a line each.
_SECRETS: Mapping[Kind, tuple[str, ...]] = {
    "http": ("signing_secret", "signing_before"),
    "kafka": ("user", "password"),
    "rabbitmq": ("user", "password"),
    "sqs": ("key_id", "secret_key", "session"),
    "collection": (),
    "file": (),
    "tunnel": (),
}


@router.get("", name="destinations")
def show_destinations(visit: Replaying, here: Here, made: str = "", changed: str = "") -> Response:
    """Show where replays can go, and how each answered when it was last tested."""
    return _show(visit, here, made=made, changed=changed)


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
    except Rejected as error:
        return _form(visit, kind, wrong=at_fields(kind, error), status=422)
    return visit.go(f"/destinations?made={made.name}")


@router.get("/{name}/change", name="change_destination")
def show_change(name: str, visit: Administering, here: Here) -> Response:
    """Show the form of what a destination is, filled but for its credentials."""
    one = destinations.show_destination(name, visit.caller, here)
    return _form(visit, one.kind, changing=one, form=filled(one))


@router.post("/{name}/change", name="save_destination")
def save_change(name: str, visit: Administering, here: Here) -> Response:
    """Change a destination, or say what is wrong; a credential that was left empty stays."""
    one = destinations.show_destination(name, visit.caller, here)
    try:
        wanted = change_for(one, visit.form)
        destinations.change_destination(name, wanted, visit.caller, here)
    except Wrong as error:
        return _form(visit, one.kind, changing=one, wrong=error.fields, status=422)
    except Rejected as error:
        return _form(visit, one.kind, changing=one, wrong=at_fields(one.kind, error), status=422)
    return visit.go(f"/destinations?changed={one.name}")


@router.post("/{name}/test", name="try_destination")
async def try_destination(name: str, visit: Replaying, here: Here) -> Response:
    """Test a destination and show what it made of it."""
    tried = await destinations.try_destination(name, visit.caller, here)
    return await run_in_threadpool(_show, visit, here, tested=(name, tried))


@router.post("/{name}/delete", name="delete_destination")
def delete_destination(name: str, visit: Administering, here: Here) -> Response:
    """Ask whether a destination shall be forgotten; or forget it, unless a replay needs it."""
    if not visit.form.has("sure"):
        destinations.show_destination(name, visit.caller, here)
        return _show(visit, here, deleting=name)
    destinations.delete_destination(name, visit.caller, here)
    return _show(visit, here, deleted=name)


def asked_for(kind: Kind, form: Form) -> dict[str, Any]:
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
        "rate": form.text("rate"),
        "credentials": _credentials(form) if kind == "http" else {},
        "secret": ("\n" if kind == "http" else ":").join(parts) or None,
    }


def change_for(one: DestinationTold, form: Form) -> ChangedDestination:
    """Answer what a form wants of a destination that there is; raise `Wrong`. Pure.

    Options are all in the form, so one that is empty is taken away.
    """
    given = asked_for(one.kind, form)
    options = {name for name in _OPTIONS[one.kind] if name in one.options} - {*given["options"]}
    without = sorted({*options, *form.all("without")})
    names = ("headers", "options", "credentials", "secret", "rate")
    wanted = asked(
        ChangedDestination, {**{name: given[name] for name in names}, "without": without}
    )
    return wanted if given["rate"] else wanted.model_copy(update={"rate": None})


def filled(one: DestinationTold) -> Form:
    """Answer the form of a destination as it is; nothing in it is a credential. Pure."""
    fields = {
        name: [str(value)] for name, value in one.options.items() if value not in (None, False)
    }
    if one.rate is not None:
        fields["rate"] = [f"{one.rate:.15g}"]
    return Form(fields)


def at_fields(kind: Kind, error: Rejected) -> dict[str, str]:
    """Answer what is wrong at the fields of the kind's form. Pure.

    A secret is told at the first part of it that the form has.
    """
    parts = _SECRETS[kind]
    names = {"name", "url", "rate", *_OPTIONS[kind], *(("secret",) if parts else ())}
    names |= {"headers", *CREDENTIALS} if kind == "http" else set()
    wrong = wrong_at(error, names)
    return {parts[0] if name == "secret" else name: said for name, said in wrong.items()}


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


def _question(name: str, *, busy: bool) -> Question:
    says = (
        "Its address, options and credentials are forgotten. That cannot be undone.",
        "Replays that went there stay in the list, with their books.",
    )
    waits = ("A replay still sends to it: cancel that first, else this is refused.",)
    return Question(
        title=f"Delete {name}?",
        says=(*waits, *says) if busy else says,
        action=f"/destinations/{in_path(name)}/delete",
        sure="Delete it",
        danger=True,
        back="/destinations",
    )


def _kind(text: str) -> Kind:
    """Answer the kind that a form says; what is none is left to the form of HTTP."""
    return next((kind for kind in get_args(Kind) if kind == text), "http")


def _form(
    visit: Visit,
    kind: Kind,
    *,
    wrong: Mapping[str, str] | None = None,
    status: int = 200,
    changing: DestinationTold | None = None,
    form: Form | None = None,
) -> Response:
    given = asked_for(kind, visit.form)
    return visit.show(
        "destination_new.html",
        status=status,
        kind=kind,
        kinds=get_args(Kind),
        names=_NAMES,
        example=_ADDRESSES[kind][0],
        about=_ADDRESSES[kind][1],
        wrong=wrong or {},
        # They are not shown again.
        typed=any(given[name] for name in ("headers", "secret", "credentials")),
        form=form or visit.form,
        headers=HEADERS,
        changing=changing,
        door=addresses(visit.request).doors(visit.request.headers.get("host", ""))[1],
    )


def _show(
    visit: Visit,
    here: Platform,
    *,
    made: str = "",
    changed: str = "",
    tested: tuple[str, Tried] | None = None,
    deleted: str = "",
    deleting: str = "",
) -> Response:
    found = destinations.list_destinations(visit.caller, here)
    replays = list_replays(visit.caller, here)
    busy = {one.destination for one in replays if one.state not in ENDS}
    return visit.show(
        "destinations.html",
        destinations=found,
        options={one.name: shown_options(one) for one in found},
        last={one.destination: one for one in reversed(replays)},
        made=made if made in {one.name for one in found} else "",
        changed=changed if changed in {one.name for one in found} else "",
        tested=tested,
        deleted=deleted,
        question=_question(deleting, busy=deleting in busy) if deleting else None,
        creating=CREATING,
    )
