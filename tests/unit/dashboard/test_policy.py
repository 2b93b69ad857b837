from __future__ import annotations

import pytest

from penstock.dashboard.policy import Addresses, host_and_port, is_ours, refusal

OURS = Addresses(host="127.0.0.1", dashboard="https://penstock.example")
HOST = "127.0.0.1:8000"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8000", "localhost:8000", "[::1]:8000", "192.168.1.5", "penstock.example"),
        *("a.localhost", "PENSTOCK.example:443"),
    ],
)
def test_our_own_addresses_and_numbers_are_let_in(host: str) -> None:
    assert is_ours(host, OURS.names)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "", "user@localhost", "localhost/x", "[::1"),
        *("localhost:x", "evil.example:8000", "penstock.example.evil.example", "a b"),
    ],
)
def test_a_name_that_somebody_else_can_point_here_is_refused(host: str) -> None:
    """Else a page of theirs reads ours as one of its own (DNS rebinding)."""
    assert not is_ours(host, OURS.names)
    assert refusal("GET", {"host": host}, OURS) is not None


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"sec-fetch-site": "same-origin", "origin": f"http://{HOST}"}, True),
        ({"origin": f"http://{HOST}"}, True),
        ({"origin": "https://penstock.example"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({}, False),
        ({"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9000"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://127.0.0.1:9000"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": f"http://{HOST}.evil.example"}, False),
        ({"origin": "http://[x"}, False),
    ],
)
def test_what_changes_something_has_to_come_from_a_page_of_ours(
    headers: dict[str, str], let_in: bool
) -> None:
    assert (refusal("POST", {"host": HOST, **headers}, OURS) is None) is let_in


def test_a_link_from_anywhere_may_show_a_page() -> None:
    assert refusal("GET", {"host": HOST, "sec-fetch-site": "cross-site"}, OURS) is None


def test_a_host_is_taken_apart() -> None:
    assert host_and_port("a.example:80") == ("a.example", 80)
    assert host_and_port("[::1]:80") == ("[::1]", 80)
    assert host_and_port("a.example") == ("a.example", None)


def test_dagsters_pages_are_on_the_host_that_the_browser_came_to() -> None:
    """Behind 0.0.0.0 nobody finds anything."""
    assert Addresses(host="0.0.0.0").dagster_pages("10.0.0.7:8000") == "http://10.0.0.7:3000"
    assert Addresses(dagster="https://d.example/").dagster_pages(HOST) == "https://d.example"
