from __future__ import annotations

import pytest
from builders import FLIGHTS, NOON
from door_builders import (
    ADMIN,
    BOUND,
    EXPIRED,
    REVOKED,
    SHIPS,
    TOKEN,
    UNKNOWN,
    known,
    token_record,
)

from ingest_api.auth import Grant, Keyring
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable, NotFound, Unauthorized


def test_a_good_token_grants_what_its_record_says() -> None:
    keyring = Keyring(known())

    assert keyring.grant(TOKEN, NOON) == Grant("main", frozenset({"ingest"}), None, "sender")
    assert keyring.grant(BOUND, NOON) == Grant("main", frozenset({"ingest"}), FLIGHTS, "bound")
    assert keyring.grant(ADMIN, NOON).scopes == {"ingest", "read", "replay", "tunnel", "admin"}


@pytest.mark.parametrize("token", [UNKNOWN, REVOKED, EXPIRED, "", "pst_", "ü", TOKEN + "0"])
def test_every_other_token_gets_the_same_answer(token: str) -> None:
    """A different text would tell a thief that the token was real once."""
    with pytest.raises(Unauthorized) as refused:
        Keyring(known()).grant(token, NOON)

    assert str(refused.value) == (
        "unauthorized: the token is missing, unknown, revoked or out of date"
    )


def test_a_token_ends_at_its_time_and_not_before() -> None:
    keyring = Keyring(known())

    assert keyring.grant(EXPIRED, NOON - 1).token_id == "expired"
    with pytest.raises(Unauthorized):
        keyring.grant(EXPIRED, NOON)


def test_a_revocation_holds_even_if_its_time_is_ahead_of_the_doors_clock() -> None:
    """The clock that wrote it was another machine's."""
    with pytest.raises(Unauthorized):
        Keyring(known()).grant(REVOKED, NOON - 10**15)


def test_what_is_known_is_replaced_as_a_whole() -> None:
    """A revoked token must stop working, and a new one start, without a restart."""
    keyring = Keyring(known(tokens=[token_record(UNKNOWN, "new")]))
    assert keyring.grant(UNKNOWN, NOON).token_id == "new"

    keyring.replace(known(version=2))

    assert keyring.version == 2
    with pytest.raises(Unauthorized):
        keyring.grant(UNKNOWN, NOON)


def test_a_door_that_knows_nothing_does_not_call_a_token_wrong() -> None:
    """401 makes clients give up and drop what they hold; 503 makes them wait."""
    keyring = Keyring()

    assert keyring.version is None
    with pytest.raises(EngineUnavailable):
        keyring.grant(TOKEN, NOON)
    with pytest.raises(EngineUnavailable):
        keyring.collection(FLIGHTS)


def test_a_collection_is_found_by_team_and_name() -> None:
    keyring = Keyring(known())

    assert keyring.collection(SHIPS).id == SHIPS
    with pytest.raises(NotFound, match=r"main\.trains"):
        keyring.collection(CollectionId("main", "trains"))
