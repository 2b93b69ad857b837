"""Somebody at the pages without a browser: keeps cookies and fills forms, as browsers do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from platform_stand_ins import InProcess

URL = "http://127.0.0.1:8000"
OURS = {"Origin": URL}


@dataclass
class Browser:
    """Keeps cookies and fills forms, as browsers do."""

    http: httpx.Client

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def post(self, path: str, **fields: object) -> httpx.Response:
        """Send a form of our own page, with the session's mark."""
        return self.send(path, fields)

    def send(
        self, path: str, fields: Mapping[str, object] | None = None, *, htmx: str = ""
    ) -> httpx.Response:
        """Send a form of our own page; with `htmx`, for the part of the page with that id."""
        mark = re.search(r'name="csrf" value="([0-9a-f]+)"', self.http.get("/").text)
        data = {"csrf": mark[1] if mark else "", **(fields or {})}
        asked = {"HX-Request": "true", "HX-Target": htmx} if htmx else {}
        return self.http.post(path, data=data, headers={**OURS, **asked})

    def sign_in(self, token: str, *, way_back: str = "/") -> httpx.Response:
        data = {"token": token, "next": way_back}
        return self.http.post("/sign-in", data=data, headers=OURS)


def browser(app: FastAPI, token: str = "") -> Browser:
    """Answer somebody at the pages; signed in if there is a token."""
    made = Browser(httpx.Client(transport=InProcess(app), base_url=URL))
    if token:
        assert made.sign_in(token).status_code == 303
    return made
