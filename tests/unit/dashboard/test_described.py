"""The API's description as a page shows it."""

from __future__ import annotations

import re
import shlex

from fastapi import FastAPI
from forms import URL as PAGES
from forms import browser
from platform_stand_ins import grant

from penstock.api.platform import Platform
from penstock.dashboard.described import Field, Operation, groups, type_of

URL = "http://penstock.example"


def operations(app: FastAPI) -> dict[str, Operation]:
    found = groups(app.openapi(), url=URL)
    return {one.id: one for group in found for one in group.operations}


def field(fields: list[Field], path: str) -> Field:
    [found] = [one for one in fields if one.path == path]
    return found


def test_every_operation_is_there_once_with_what_it_needs(app: FastAPI) -> None:
    document = app.openapi()
    count = sum(len(methods) for methods in document["paths"].values())
    found = operations(app)

    assert len(found) == count
    assert found["search"].scope == "read"
    assert found["create_replay"].scope == "replay"
    assert found["create_token"].scope == "admin"
    assert {one.id for one in found.values() if not one.scope} == {"prometheus", "healthz"}
    assert all(one.said for one in found.values())


def test_a_body_is_told_field_by_field(app: FastAPI) -> None:
    search = operations(app)["search"]

    assert field(search.body, "query").said == "Nothing finds everything. Up to 10,000 characters."
    assert field(search.body, "view").type == '"main", "quarantine"'
    assert field(search.body, "view").default == '"main"'
    assert field(search.body, "since").type == "time or null"
    assert field(search.body, "limit").said == "At least 1, at most 1,000."
    assert field(search.answer, "events[].event_id").type == "string"
    assert field(search.answer, "events").needed


def test_every_call_is_one_that_a_shell_can_run(app: FastAPI) -> None:
    for one in operations(app).values():
        words = shlex.split(one.curl)
        assert words[0] == "curl"
        assert words[-1].startswith(f"{URL}/")
        assert not re.search(r"[{}]", words[-1]), one.curl
        method = (
            words[words.index("-X") + 1] if "-X" in words else "POST" if "-d" in words else "GET"
        )
        assert method == one.method, one.curl
        assert ("Authorization: Bearer $PENSTOCK_TOKEN" in words) is bool(one.scope)


def test_types_are_told_in_words() -> None:
    document = {"components": {"schemas": {"Row": {"type": "object"}}}}
    row = {"$ref": "#/components/schemas/Row"}

    assert (
        type_of(document, {"anyOf": [{"type": "integer"}, {"type": "null"}]}) == "integer or null"
    )
    assert type_of(document, {"type": "array", "items": row}) == "list of object"
    assert type_of(document, {}) == "anything"


def test_the_page_is_for_who_may_read(app: FastAPI, here: Platform) -> None:
    page = browser(app, grant(here.store, "read")).get("/reference").text

    assert "/api/v1/collections/{c}/search" in page
    assert browser(app).get("/reference").status_code == 303


def test_an_operation_is_told_when_it_is_opened_and_has_a_page_without_script(
    app: FastAPI, here: Platform
) -> None:
    """All of them at once are a page of 300 kB, of which people read one or two."""
    visitor = browser(app, grant(here.store, "read"))

    whole = visitor.get("/reference").text
    assert 'href="/reference/search"' in whole
    for name in ("cursor", "pause_after", "progress.delivered"):
        assert f" {name}, " in whole, "a browser looks for it in what is closed, too"
    assert "Body of search" not in whole
    assert len(whole) < 64_000

    page = visitor.get("/reference/search").text
    part = visitor.get("/reference/search", **{"HX-Request": "true"}).text
    for told in (page, part):
        assert "Body of search" in told
        assert f"{PAGES}/api/v1/collections/flights/search" in told
    assert ("<html" in page, "<html" in part) == (True, False)
    assert visitor.get("/reference/nothing").status_code == 404
