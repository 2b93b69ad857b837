"""Templates, and how values are written in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from penstock.contract.base import moment as contract_moment
from penstock.dashboard.files import Files
from penstock.dashboard.ids import in_path
from penstock.dashboard.payload import json_text, shortened, visible_in_line
from penstock.dashboard.policy import Addresses
from penstock.envelope import Clock, Micros
from penstock.vocabulary import Scope

if TYPE_CHECKING:
    from penstock.dashboard.access import Visit

TEMPLATES = Path(__file__).parent / "templates"

NOT_KNOWN = "\u2013"

# What htmx may do: nothing that a content security policy would have to be opened for, and no
# copies of pages in the browser's storage.
HTMX = {
    "allowEval": False,
    "allowScriptTags": False,
    "includeIndicatorStyles": False,
    # What was swapped in works at once: until it is settled, its forms would be sent without htmx.
    "defaultSettleDelay": 0,
    # A style attribute that is copied counts as inline style, even an empty one.
    "attributesToSettle": ["class", "width", "height"],
    "selfRequestsOnly": True,
    "historyCacheSize": 0,
    "refreshOnHistoryMiss": True,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        {"code": "[45]..", "swap": True, "error": True},
    ],
}


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation. `key` is what follows ``g`` on the keyboard."""

    title: str
    path: str
    key: str
    scope: Scope = "read"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request is answered."""

    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    visit: Visit | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Renderer:
    """Makes pages and parts of them."""

    def __init__(
        self, files: Files, addresses: Addresses, places: Sequence[Place], *, clock: Clock
    ) -> None:
        self._places = places
        self._addresses = addresses
        self._clock = clock
        self._environment = environment(files.address)

    def page(self, request: Request, shown: Shown) -> Response:
        """Answer the whole page; for htmx the block that is named like its target, if there is one.

        Every template has `visit` (None where nobody is signed in), `places`, `path`, `now`, and
        `dagster`, the address of Dagster's pages.
        """
        visit = shown.visit
        values = {
            "visit": visit,
            "places": [p for p in self._places if visit is not None and visit.may(p.scope)],
            "path": request.url.path,
            "now": self._clock(),
            "dagster": self._addresses.dagster_pages(request.headers.get("host", "")),
            "request": request,
            **shown.values,
        }
        template = self._environment.get_template(shown.template)
        block = template.blocks.get(request.headers.get("hx-target", "").replace("-", "_"))
        if is_htmx(request) and block is not None:
            context = template.new_context(values)
            text = "".join(block(context))
        else:
            text = template.render(values)
        return HTMLResponse(text, shown.status, {"Vary": "HX-Request", **shown.headers})

    def part(self, request: Request, shown: Shown) -> Response:
        """Answer a template that is no whole page."""
        template = self._environment.get_template(shown.template)
        values = {"visit": shown.visit, "request": request, "now": self._clock(), **shown.values}
        return HTMLResponse(
            template.render(values), shown.status, {"Vary": "HX-Request", **shown.headers}
        )


def environment(static: Callable[[str], str]) -> Environment:
    """Answer the environment of all templates. A name that is not there is an error.

    `ui` are the macros of ``parts.html``; they are there without an import, in blocks too.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "short": short,
        "bytes": size,
        "percent": percent,
        "seconds": seconds,
        "moment": moment,
        "ago": ago,
        "short_id": short_id,
        "in_path": in_path,
        "visible": visible_in_line,
        "shortened": shortened,
        "json_text": json_text,
    }
    made.tests["past"] = is_past
    made.tests["own"] = is_own
    made.globals |= {
        "static": static,
        "htmx": HTMX,
        "points": points,
        "link": link,
    }
    made.globals["ui"] = made.get_template("parts.html").module
    return made


def is_htmx(request: Request) -> bool:
    """Say whether htmx asks, which wants a part of a page."""
    return request.headers.get("hx-request") == "true"


@pass_context
def link(context: Context, name: str, **parameters: object) -> str:
    """Answer the path of a page by its route's name; raise `NoMatchFound` where there is none."""
    request: Request = context["request"]
    quoted = {key: in_path(str(value)) for key, value in parameters.items()}
    return str(request.app.url_path_for(name, **quoted))


# Values


def number(value: float) -> str:
    """``1,234,567``; fractions as far as they say anything, and never as nothing."""
    if 0 < value < 0.05:  # noqa: PLR2004 - what one digit would round away
        return "< 0.1"
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"  # noqa: PLR2004 - three digits


def short(value: float) -> str:
    """``1.2 M``: three digits, for places where the order of magnitude counts."""
    return _scaled(value, ("", "k", "M", "G", "T", "P"), sign="\u202f")


def size(value: float) -> str:
    """``1.2 GB``, in powers of a thousand."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB", "PB"), sign="\u00a0")


def _scaled(value: float, units: Sequence[str], *, sign: str) -> str:
    at = 0
    # Compared as it will be written: 999.95 k would be 1000 k.
    while at + 1 < len(units) and abs(value) >= 999.5:  # noqa: PLR2004
        value, at = value / 1_000, at + 1
    few = at and abs(value) < 99.95  # noqa: PLR2004 - three digits
    text = f"{value:.1f}" if few else number(round(value, 1) if at == 0 else round(value))
    return f"{text}{sign}{units[at]}" if units[at] else text


def percent(value: float) -> str:
    """``0.3 %``; what is more than nothing never reads as nothing, nor less than all as all."""
    if 0 < value < 0.001:  # noqa: PLR2004 - a tenth of a percent
        return "< 0.1\u00a0%"
    if 0.999 < value < 1:  # noqa: PLR2004
        return "> 99.9\u00a0%"
    return f"{value * 100:.4g}\u00a0%" if value in (0, 1) else f"{value * 100:.1f}\u00a0%"


def seconds(value: float | None) -> str:
    """``850 ms``, ``12 s``, ``3 min``, ``5 h``, ``2 d``; a dash for what is not known."""
    if value is None:
        return NOT_KNOWN
    if value == 0:
        return "0\u00a0s"
    if value < 1:
        return f"{max(1, round(value * 1_000))}\u00a0ms"
    for limit, length, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if value < limit:
            return f"{math.floor(value / length)}\u00a0{unit}"
    return f"{math.floor(value / 86_400):,}\u00a0d"


def moment(time: Micros | datetime | None) -> Markup:
    """Write a time in UTC to the second, with all digits for who points at it; a dash for None."""
    if time is None:
        return Markup("&ndash;")
    at = _at(time)
    return _time(at, f"{at:%Y-%m-%d %H:%M:%S}")


def ago(time: Micros | datetime | None, now: Micros | datetime) -> Markup:
    """Tell how long ago a time was (or how far off it is), with the time for who points at it."""
    if time is None:
        return Markup("&ndash;")
    at = _at(time)
    distance = (_at(now) - at).total_seconds()
    said = f"{seconds(distance)} ago" if distance >= 1 else "now"
    if distance <= -1:
        said = f"in {seconds(-distance)}"
    return _time(at, said)


def is_own(name: str) -> bool:
    """Say whether a collection is one of Penstock's own: their names have a dot."""
    return "." in name


def is_past(time: Micros | datetime | None, now: Micros | datetime) -> bool:
    """Say whether a time has come; None never does."""
    return time is not None and _at(time) <= _at(now)


def _at(time: Micros | datetime) -> datetime:
    return time if isinstance(time, datetime) else contract_moment(time)


def _time(at: datetime, text: str) -> Markup:
    stamp = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    title = f"{at:%Y-%m-%d %H:%M:%S.%f} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, title, text)


def short_id(text: str, most: int = 13) -> Markup:
    """Write the beginning of an id, with all of it for who points at it.

    Senders choose ids: what cannot be seen in one is an escape.
    """
    said = visible_in_line(text)
    if len(said) <= most:
        return Markup("<code>{}</code>").format(said)
    return Markup('<code title="{}">{}</code>').format(said, shortened(said, most))


def points(values: Sequence[float], width: float = 100, height: float = 24) -> str:
    """Answer the points of a line through the values, in a box of this size, zero at its bottom."""
    most = max([*values, 0]) or 1
    step = width / max(1, len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{height - 1 - value / most * (height - 2):.1f}"
        for place, value in enumerate(values)
    )
