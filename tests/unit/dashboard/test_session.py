from __future__ import annotations

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st
from metadata_builders import token, token_text
from msgspec.structs import replace
from platform_stand_ins import chances

from penstock.dashboard import session


def test_the_token_can_be_read_with_the_secret_alone() -> None:
    """A copy of the database signs nobody in, and neither does a cookie without it."""
    secret, record = session.begun(token(1), token_text(1), now=NOON, chance=chances())
    other, _ = session.begun(token(1), token_text(1), now=NOON, chance=lambda size: b"x" * size)

    assert session.unsealed(record, secret) == token_text(1)
    assert token_text(1).encode() not in record.sealed
    assert secret not in repr(record)
    assert (
        record.sealed
        != session.begun(token(1), token_text(1), now=NOON, chance=lambda size: b"x" * size)[
            1
        ].sealed
    )
    assert session.digest(secret) != session.digest(other) == session.digest(other)


def test_a_form_of_another_session_is_none_of_this_one() -> None:
    assert session.is_csrf(session.csrf("a" * 64), "a" * 64)
    assert not session.is_csrf(session.csrf("b" * 64), "a" * 64)
    assert not session.is_csrf("", "a" * 64)
    assert not session.is_csrf("é", "a" * 64)
    assert session.csrf("a" * 64) != session.digest("a" * 64)


def test_a_session_lasts_for_a_week_or_as_long_as_its_token() -> None:
    _, long = session.begun(token(1), "t", now=NOON, chance=chances())
    _, brief = session.begun(
        replace(token(1), expires_at=NOON + 5), "t", now=NOON, chance=chances()
    )

    assert (long.expires_at, brief.expires_at) == (NOON + session.LASTS, NOON + 5)
    assert session.alive(brief, NOON + 4)
    assert not session.alive(brief, NOON + 5)


def test_installations_on_one_host_do_not_share_a_cookie() -> None:
    names = [
        session.cookie_name(port, secure=secure)
        for port, secure in ((8000, False), (8001, False), (None, False), (None, True))
    ]

    assert names == ["penstock_8000", "penstock_8001", "penstock_80", "__Host-penstock_443"]


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""),
        *("/sign-in", "/sign-out", "evil", "/a\nb", "///evil.example", "http:/evil.example"),
    ],
)
def test_the_way_back_leads_to_no_other_site(wanted: str) -> None:
    """A link to our sign-in page would else be a link to anywhere, with our name on it."""
    assert session.way_back(wanted) == "/"


def test_the_way_back_keeps_what_was_asked() -> None:
    assert session.way_back("/collections/a?q=b%2Fc%3A1") == "/collections/a?q=b%2Fc%3A1"
    assert (
        session.way_back("/collections/日 本?q=é") == "/collections/%E6%97%A5%20%E6%9C%AC?q=%C3%A9"
    )
    assert session.way_back(None) == "/"


@given(st.text(max_size=20))
def test_the_way_back_always_begins_with_one_slash(wanted: str) -> None:
    way = session.way_back(wanted)

    assert way.startswith("/")
    assert not way.startswith(("//", "/\\"))
    assert way.isascii()
