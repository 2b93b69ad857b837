"""The columns of a collection: what there are, how they came, and what they would be otherwise."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api import collections, rewriting
from penstock.api.platform import Here, Platform
from penstock.api.status import show_schema
from penstock.contract.collections import ContractTried
from penstock.contract.rewriting import RetypeTold
from penstock.contract.schema import ColumnTold
from penstock.dashboard.access import Administering, Reading, Visit
from penstock.dashboard.forms import Form, Wrong, asked, whole
from penstock.errors import Rejected
from penstock.query.tree import Payload
from penstock.query.writing import field_text
from penstock.schema.names import key_of
from penstock.vocabulary import Contract

router = APIRouter(prefix="/collections/{c}/schema")

CONTRACTS: Mapping[Contract, str] = {
    "evolve": "A new field gets a column. What fits none is kept beside the row, as a misfit.",
    "freeze": "No new columns: what fits none is kept beside the row, as a misfit.",
    "quarantine": "No new columns: an event with anything that fits none goes to quarantine.",
    "drop_value": "No new columns: what fits none is in the payload only.",
}
SAMPLES = (1_000, 10_000, 100_000)
MOST_SHOWN = 1_000
"""Columns, versions and causes that a page shows of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A line of the tree: a column, or an object above some."""

    depth: int
    name: str
    kind: str
    column: ColumnTold | None
    query: str | None
    """The search for events that have it."""


@router.get("", name="schema")
def show(c: str, visit: Reading, here: Here) -> Response:
    """Show the columns; with `look=retype` also which of them would better be doubles."""
    look = visit.request.query_params.get("look") == "retype"
    retype = rewriting.show_retype(c, visit.caller, here) if look else None
    return _show(c, visit, here, retype=retype)


@router.post("/try", name="try_contract")
def try_contract(c: str, visit: Administering, here: Here) -> Response:
    """Say what past events would become under another contract; nothing is changed."""
    form = visit.form
    try:
        sample = whole(form.text("sample"))
        wanted = asked(ContractTried, {"contract": form.text("contract"), "sample": sample})
        trial = collections.contract_tried(c, wanted, visit.caller, here)
    except Wrong as error:
        return _show(c, visit, here, wrong=error.fields, status=422)
    except Rejected as error:
        return _show(c, visit, here, wrong={"contract": str(error)}, status=422)
    return _show(c, visit, here, trial=trial)


@router.post("/rebuild", name="try_rebuild")
def try_rebuild(c: str, visit: Administering, here: Here) -> Response:
    """Say what a rebuild would change; nothing is changed."""
    try:
        return _show(
            c, visit, here, rebuild=rewriting.try_rebuild(c, visit.caller, here), rebuilt=True
        )
    except Rejected as error:
        return _show(c, visit, here, wrong={"rebuild": str(error)}, status=422)


def _show(c: str, visit: Visit, here: Platform, *, status: int = 200, **more: Any) -> Response:
    told = show_schema(c, visit.caller, here, fill=True)
    nothing: Mapping[str, Any] = {
        "retype": None,
        "rebuild": None,
        "rebuilt": False,
        "trial": None,
        "wrong": {},
    }
    return visit.show(
        "schema.html",
        status=status,
        c=c,
        collection=collections.show_collection(c, visit.caller, here),
        schema=told,
        tree=tree(told.columns),
        contracts=CONTRACTS,
        contract_names=get_args(Contract),
        samples=SAMPLES,
        most=MOST_SHOWN,
        retype_command=retype_command(c, more.get("retype")),
        form=visit.form if visit.request.method == "POST" else Form({}),
        **{**nothing, **more},
    )


def retype_command(c: str, told: RetypeTold | None) -> str:
    """Answer what to type to retype now what was told; ``''`` where there is nothing. Pure."""
    if told is None or not told.columns:
        return ""
    chosen = [one.path for one in told.columns if one.due] or [told.columns[0].path]
    named = " ".join(f"--column {shlex.quote(path)}" for path in chosen)
    return f"penstock collection retype {c} {named}"


def tree(columns: Iterable[ColumnTold]) -> list[Branch]:
    """Answer the columns with the objects that they stand in, each before what is below it. Pure.

    Columns of one object stand together, wherever they came.
    """
    top: dict[str, Any] = {}
    for column in columns:
        at = top
        *above, last = column.path.split(".")
        for step in above:
            at = at.setdefault(step, {})
        at[last] = column
    return list(_branches(top, (), 0))


def _branches(at: Mapping[str, Any], keys: tuple[str, ...], depth: int) -> Iterable[Branch]:
    for step, below in at.items():
        bare = step.rstrip("[]")
        lists = (len(step) - len(bare)) // 2
        path = (*keys, key_of(bare))
        column = below if isinstance(below, ColumnTold) else None
        kind = "object" if column is None else column.type
        yield Branch(
            depth=depth,
            name=key_of(bare),
            kind="list of " * lists + (f"{kind}s" if lists else kind),
            column=column,
            query=f"{field_text(Payload(path))}:*",
        )
        if column is None:
            yield from _branches(below, path, depth + 1)
