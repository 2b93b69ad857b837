"""The API, described in one page."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.platform import API
from penstock.dashboard.access import Reading
from penstock.dashboard.described import groups

router = APIRouter()


@router.get("/reference", name="reference")
def show_reference(visit: Reading) -> Response:
    """Show every operation of the API: what it takes, what it answers, and how it is called."""
    request = visit.request
    origin = f"{request.url.scheme}://{request.headers.get('host', '')}"
    return visit.show(
        "reference.html",
        groups=groups(request.app.state.describe(), url=origin),
        document=f"{API}/openapi.json",
    )
