"""What the pages answer, without a browser: who gets in, what is refused, what errors look like."""

from __future__ import annotations

import re

import httpx
import pytest
from builders import NOON
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from forms import OURS, URL, Browser, browser
from platform_stand_ins import Caller, InProcess, grant

from penstock.api.platform import Platform
from penstock.dashboard.access import May
from penstock.dashboard.app import VIEWS, add_dashboard
from penstock.dashboard.files import read_files
from penstock.dashboard.policy import HEADERS, Addresses
from penstock.errors import EngineUnavailable

HTMX = {"HX-Request": "true", "HX-Current-URL": f"{URL}/tokens?a=b"}


@pytest.fixture
def visitor(app: FastAPI, here: Platform) -> Browser:
    made = browser(app)
    assert made.sign_in(grant(here.store, "admin")).status_code == 303
    return made


def needs(dependant: Dependant) -> list[May]:
    below = [one for part in dependant.dependencies for one in needs(part)]
    return [*below, *([dependant.call] if isinstance(dependant.call, May) else [])]


def test_every_page_but_signing_in_needs_somebody_who_is_signed_in() -> None:
    """A page that forgot to ask shows everything to everybody, and takes any form."""
    routes = [route for view in VIEWS for route in view.router.routes]
    pages = [route for route in routes if isinstance(route, APIRoute)]

    assert len(pages) == len(routes) > 3
    assert {route.path for route in pages if not needs(route.dependant)} == {"/sign-in"}


def test_signing_in_leads_back_and_the_cookie_is_the_browsers_alone(
    app: FastAPI, here: Platform
) -> None:
    visitor = browser(app)
    asked = visitor.get("/tokens?a=b%26c")
    assert asked.headers["location"] == "/sign-in?next=/tokens%3Fa%3Db%2526c"
    way_back = httpx.URL(asked.headers["location"]).params["next"]

    answer = visitor.sign_in(grant(here.store, "admin"), way_back=way_back)

    assert (answer.status_code, answer.headers["location"]) == (303, "/tokens?a=b%26c")
    said = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=604800"} <= set(said)
    assert "Secure" not in said
    assert visitor.get("/tokens").status_code == 200


@pytest.mark.parametrize("path", ["%E6%97%A5", "a%3Fb%23c", "50%2525", "a%20b"])
def test_signing_in_leads_back_to_an_event_whatever_its_id(
    app: FastAPI, here: Platform, path: str
) -> None:
    """Senders choose ids, and one beyond Latin-1 can stand in no header."""
    visitor = browser(app)
    asked = visitor.get(f"/collections/shop/payload/x{path}?a=b")
    way_back = httpx.URL(asked.headers["location"]).params["next"]

    answer = visitor.sign_in(grant(here.store, "read"), way_back=way_back)

    assert answer.headers["location"] == f"/collections/shop/payload/x{path}?a=b"


def test_over_tls_the_cookie_never_goes_without(app: FastAPI, here: Platform) -> None:
    secure = FastAPI()
    secure.state.platform, secure.state.publisher = here, app.state.publisher
    add_dashboard(secure, Addresses(dashboard="https://penstock.example"))
    with httpx.Client(transport=InProcess(secure), base_url="http://penstock.example") as http:
        answer = http.post(
            "/sign-in",
            data={"token": grant(here.store, "read")},
            headers={"Origin": "https://penstock.example"},
        )

    assert answer.headers["set-cookie"].startswith("__Host-penstock_443=")
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("scopes", [("ingest",), ("replay",)])
def test_a_token_that_may_not_read_opens_no_session(
    app: FastAPI, here: Platform, scopes: tuple[str, ...]
) -> None:
    visitor = browser(app)

    answer = visitor.sign_in(grant(here.store, *scopes))  # type: ignore[arg-type]

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "scope read" in answer.text


@pytest.mark.parametrize("token", ["", "pst_", "x" * 53])
def test_a_wrong_token_opens_no_session_and_is_not_repeated(app: FastAPI, token: str) -> None:
    answer = browser(app).sign_in(token)

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "x" * 53 not in answer.text


def test_a_revoked_token_ends_its_sessions_at_once(visitor: Browser, here: Platform) -> None:
    [token] = here.store.tokens("main")

    here.store.revoke_token("main", token.id, NOON)

    assert visitor.get("/").headers["location"] == "/sign-in"


def test_a_session_is_over_after_a_week(app: FastAPI, here: Platform, visitor: Browser) -> None:
    object.__setattr__(here, "clock", lambda: NOON + 7 * 86_400_000_000)

    assert visitor.get("/").headers["location"] == "/sign-in"


def test_signing_out_forgets_the_session_itself(visitor: Browser) -> None:
    """A cookie that somebody copied must not go on."""
    [kept] = visitor.http.cookies.jar

    assert visitor.post("/sign-out").headers["location"] == "/sign-in"
    visitor.http.cookies.set(kept.name, str(kept.value), domain=kept.domain)

    assert visitor.get("/").headers["location"] == "/sign-in"


def test_no_cookie_opens_the_api_and_no_bearer_a_page(
    app: FastAPI, here: Platform, visitor: Browser
) -> None:
    assert visitor.get("/api/v1/tokens").status_code == 401
    caller = Caller(app, grant(here.store, "read"))
    with httpx.Client(transport=InProcess(app), base_url=URL) as http:
        page = http.get("/", headers={"Authorization": f"Bearer {caller.token}"})
    assert page.headers["location"] == "/sign-in"


@pytest.mark.parametrize(
    ("headers", "csrf"),
    [
        (OURS, None),
        (OURS, ""),
        (OURS, "0" * 64),
        ({"Origin": "https://evil.example"}, "right"),
        ({}, "right"),
    ],
)
def test_a_forged_form_changes_nothing(
    visitor: Browser, here: Platform, headers: dict[str, str], csrf: str | None
) -> None:
    fields = {"name": "mine", "scopes": "admin"}
    if csrf == "right":
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', visitor.get("/").text)
        assert found is not None
        csrf = found[1]

    answer = visitor.http.post(
        "/tokens", data=fields | ({} if csrf is None else {"csrf": csrf}), headers=headers
    )

    assert answer.status_code == 403
    assert len(here.store.tokens("main")) == 1


def test_what_a_token_may_not_do_is_not_shown_and_refused_if_forged(
    app: FastAPI, here: Platform
) -> None:
    reader = browser(app)
    reader.sign_in(grant(here.store, "read"))

    assert 'href="/tokens"' not in reader.get("/").text
    assert reader.get("/tokens").status_code == 403
    assert reader.post("/tokens", name="mine", scopes="admin").status_code == 403
    assert [token.name for token in here.store.tokens("main")] == ["test"]


def test_a_token_is_made_shown_once_and_revoked(visitor: Browser, here: Platform) -> None:
    made = visitor.post("/tokens", name="<b>shop</b>", scopes=["ingest", "read"], days="7")

    [text] = re.findall(r"<code>(pst_\w{49})</code>", made.text)
    assert "&lt;b&gt;shop&lt;/b&gt;" in made.text
    [record] = [one for one in here.store.tokens("main") if one.name == "<b>shop</b>"]
    assert (record.scopes, record.expires_at) == (("ingest", "read"), NOON + 7 * 86_400_000_000)
    assert text not in visitor.get("/tokens").text

    asked = visitor.post(f"/tokens/{record.id}/revoke")
    assert "Revoke &lt;b&gt;shop&lt;/b&gt;?" in asked.text
    assert "You are signed in with it" not in asked.text
    assert [one.revoked_at for one in here.store.tokens("main") if one.id == record.id] == [None]
    gone = visitor.post(f"/tokens/{record.id}/revoke", sure="yes")
    assert "is revoked" in gone.text
    assert [one.revoked_at for one in here.store.tokens("main") if one.id == record.id] == [NOON]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"scopes": "read"}, "is needed"),
        ({"name": "x" * 201, "scopes": "read"}, "at most 200"),
        ({"name": "shop"}, "Tick one at least"),
        ({"name": "shop", "scopes": "all"}, "Tick one at least"),
        ({"name": "shop", "scopes": "read", "collection": "orders"}, "no other scope"),
        ({"name": "shop", "scopes": "read", "days": "soon"}, "write a time as"),
    ],
)
def test_a_form_that_cannot_be_used_says_so_at_the_field_and_keeps_what_was_typed(
    visitor: Browser, here: Platform, fields: dict[str, str], told: str
) -> None:
    answer = visitor.post("/tokens", **fields)

    assert answer.status_code == 422
    assert told in answer.text
    assert f'value="{fields.get("name", "")}"' in answer.text
    assert len(here.store.tokens("main")) == 1


def test_every_answer_has_the_headers_also_what_is_refused_or_fails(
    visitor: Browser, here: Platform
) -> None:
    found = visitor.get("/")
    refused = visitor.get("/", Host="evil.example")
    style = re.search(r'href="(/static/[0-9a-f]+/penstock.css)"', found.text)
    assert style is not None
    kept = visitor.get(style[1])
    object.__setattr__(here, "clock", lambda: 1 // 0)
    failed = visitor.get("/")

    statuses = [one.status_code for one in (found, refused, kept, failed)]
    assert statuses == [200, 403, 200, 500]
    for answer in (found, refused, kept, failed):
        assert {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS)
    assert [one.headers["cache-control"] for one in (found, refused, kept, failed)] == [
        *("no-store", "no-store", "public, max-age=31536000, immutable", "no-store")
    ]
    assert "ZeroDivisionError" not in failed.text
    assert "Internal error" in failed.text


def test_a_page_brings_what_every_page_runs_and_leaves_the_rest_for_later(visitor: Browser) -> None:
    """Each file is a request and an evaluation before a page is there."""
    files = read_files().by_path
    module = files["app.js"].decode()
    at_once = set(re.findall(r'from "\./([\w-]+\.js)"', module))
    later = set(re.findall(r'import\("\./([\w-]+\.js)"\)', module))

    page = visitor.get("/").text

    assert set(re.findall(r'"modulepreload" href="/static/[0-9a-f]+/([^"]+)"', page)) == at_once
    assert re.findall(r'<script src="/static/[0-9a-f]+/([^"]+)"', page) == [
        *("theme.js", "vendor/htmx.min.js", "app.js")
    ]
    assert "uPlot" not in page
    assert at_once | later <= files.keys()
    assert not at_once & later


def test_a_file_under_an_older_stamp_is_not_kept(visitor: Browser) -> None:
    answer = visitor.get("/static/0000/penstock.css")

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert visitor.get("/static/0000/../app.py").status_code == 404


def test_htmx_is_given_the_part_that_it_asked_for(visitor: Browser) -> None:
    part = visitor.get("/", **HTMX, **{"HX-Target": "live"})

    assert "<html" not in part.text
    assert "Figures" in part.text
    assert part.headers["vary"] == "HX-Request"


def test_htmx_is_sent_to_sign_in_as_a_whole_page_and_back_to_the_one_it_had(app: FastAPI) -> None:
    """Else the sign-in page would appear in the middle of another one."""
    answer = browser(app).get("/", **HTMX, **{"HX-Target": "live"})

    assert answer.headers["hx-redirect"] == "/sign-in?next=/tokens%3Fa%3Db"


def test_an_error_of_a_change_is_told_at_the_top_and_one_of_a_part_in_its_place(
    visitor: Browser, here: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_team: str) -> None:
        raise EngineUnavailable("the metadata does not answer", retry_after=5)

    mark = re.search(r'name="csrf" value="([0-9a-f]+)"', visitor.get("/").text)
    assert mark is not None
    change = visitor.http.post(
        "/tokens/nope/revoke", headers={**OURS, **HTMX, "X-CSRF-Token": mark[1]}
    )
    monkeypatch.setattr(here.store, "collections", away)
    part = visitor.get("/", **HTMX, **{"HX-Target": "live"})
    page = visitor.get("/")

    assert (change.status_code, change.headers["hx-retarget"]) == (404, "#notices")
    assert "there is no token" in change.text
    assert (part.status_code, part.headers["retry-after"]) == (503, "5")
    assert "hx-retarget" not in part.headers
    assert "<html" not in part.text
    for one in (part, page):
        assert "the metadata does not answer" in one.text
        assert "Try again in a moment" in one.text


def test_what_is_wrong_below_the_api_is_told_as_the_api_does(visitor: Browser) -> None:
    assert visitor.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"
    assert visitor.get("/nothing").headers["content-type"] == "text/html; charset=utf-8"


def test_a_form_that_is_too_large_is_refused(visitor: Browser) -> None:
    answer = visitor.post("/tokens", name="x" * 600_000)

    assert answer.status_code == 413
    assert "the limit is" in answer.text
