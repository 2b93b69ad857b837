"""The API, described in one page, and each of its operations by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.platform import API
from penstock.dashboard.access import Reading, Visit, renderer
from penstock.dashboard.described import Document, Group, groups
from penstock.dashboard.render import Shown, is_htmx
from penstock.errors import NotFound

router = APIRouter()

Described = Callable[[str], Sequence[Group]]

_ORIGINS = 8


def described(document: Callable[[], Document]) -> Described:
    """Answer what tells the operations by the address they are asked at.

    The document is the same for as long as the process runs, so it is read once for an address.
    """
    return lru_cache(maxsize=_ORIGINS)(lambda origin: groups(document(), url=origin))


@router.get("/reference", name="reference")
def show_reference(visit: Reading) -> Response:
    """Show every operation of the API; what one takes and answers comes when it is opened."""
    return visit.show("reference.html", groups=_groups(visit), document=f"{API}/openapi.json")


@router.get("/reference/{operation}", name="operation")
def show_operation(operation: str, visit: Reading) -> Response:
    """Show an operation: what it takes, what it answers, and how it is called."""
    for group in _groups(visit):
        for one in group.operations:
            if one.id == operation:
                if is_htmx(visit.request):
                    part = Shown("operation_told.html", {"one": one}, visit=visit)
                    return renderer(visit.request).part(visit.request, part)
                return visit.show("operation.html", one=one)
    raise NotFound("operation", operation)


def _groups(visit: Visit) -> Sequence[Group]:
    request = visit.request
    told: Described = request.app.state.described
    return told(f"{request.url.scheme}://{request.headers.get('host', '')}")
