"""Tokens: list, make, revoke."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import get_args

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api import tokens
from penstock.api.collections import list_collections
from penstock.api.platform import Doors, Here, Platform
from penstock.contract.tokens import CreatedToken, NewToken, RevokedToken
from penstock.dashboard.access import Administering, Visit
from penstock.dashboard.forms import Form, Wrong, asked
from penstock.dashboard.ids import in_path
from penstock.dashboard.questions import Question
from penstock.envelope import Micros
from penstock.errors import NotFound, Rejected
from penstock.vocabulary import Scope

router = APIRouter(prefix="/tokens")

_DAYS = (1, 7, 30, 90, 365)


@router.get("", name="tokens")
def show_tokens(visit: Administering, here: Here) -> Response:
    """Show the team's tokens, and a form for another."""
    return _show(visit, here)


@router.post("", name="create_token")
def create_token(visit: Administering, here: Here, doors: Doors) -> Response:
    """Make a token and show its text, this once; or say what is wrong with the form."""
    form = visit.form
    try:
        wanted = asked(
            NewToken,
            {
                "name": form.text("name"),
                "scopes": form.all("scopes"),
                "collection": form.text("collection"),
                "expires_at": _end(form.text("days"), here.clock()),
            },
        )
        made = tokens.create_token(wanted, visit.caller, here, doors)
    except Wrong as error:
        return _show(visit, here, wrong=error.fields, status=422)
    except Rejected as error:
        return _show(visit, here, wrong={"": str(error)}, status=422)
    return _show(visit, here, made=made)


@router.post("/{token_id}/revoke", name="revoke_token")
def revoke_token(token_id: str, visit: Administering, here: Here, doors: Doors) -> Response:
    """Ask whether a token shall be worthless; or make it so, and say which doors refuse it."""
    if not visit.form.has("sure"):
        return _show(visit, here, question=_question(token_id, visit, here))
    revoked = tokens.revoke_token(token_id, visit.caller, here, doors)
    if revoked.id == visit.token.id:
        return visit.go("/sign-in")
    return _show(visit, here, revoked=revoked)


def _question(token_id: str, visit: Visit, here: Platform) -> Question:
    known = tokens.list_tokens(visit.caller, here)
    token = next((one for one in known if one.id == token_id), None)
    if token is None:
        raise NotFound("token", token_id)
    says = ["Whoever uses it is refused within half a second, and signed out. That is for good."]
    if token.id == visit.token.id:
        says.insert(0, "You are signed in with it: you will need another one to come back.")
    return Question(
        title=f"Revoke {token.name}?",
        says=tuple(says),
        action=f"/tokens/{in_path(token.id)}/revoke",
        sure="Revoke it",
        danger=True,
        back="/tokens",
    )


def _show(
    visit: Visit,
    here: Platform,
    *,
    question: Question | None = None,
    made: CreatedToken | None = None,
    revoked: RevokedToken | None = None,
    wrong: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    return visit.show(
        "tokens.html",
        status=status,
        tokens=tokens.list_tokens(visit.caller, here),
        collections=[one.name for one in list_collections(visit.caller, here)],
        scopes=get_args(Scope),
        days=_DAYS,
        made=made,
        revoked=revoked,
        question=question,
        wrong=wrong or {},
        form=visit.form if wrong else Form({}),
    )


def _end(days: str, now: Micros) -> str | None:
    """Answer the end that was chosen; what is none of the choices is left to the API to refuse."""
    if days not in map(str, _DAYS):
        return days or None
    at = datetime.fromtimestamp(now // 1_000_000, UTC) + timedelta(days=int(days))
    return at.isoformat()
