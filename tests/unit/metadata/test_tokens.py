from __future__ import annotations

import hashlib

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from penstock.metadata.tokens import digest, hint, issue, looks_like_token, new_token

CHANCE = bytes(range(32))


def test_a_token_is_made_of_its_chance_alone() -> None:
    assert new_token(CHANCE) == new_token(CHANCE)
    assert new_token(CHANCE).startswith("pst_")
    assert len(new_token(bytes(32))) == len(new_token(b"\xff" * 32)) == 53


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_different_chance_gives_different_tokens(one: bytes, other: bytes) -> None:
    """A token that forgets some of its 256 bits could be guessed."""
    assert (new_token(one) == new_token(other)) == (one == other)


def test_too_little_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        new_token(b"short")


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(min_value=4, max_value=52),
    st.sampled_from("0189AZaz"),
)
def test_one_wrong_character_is_noticed(chance: bytes, place: int, instead: str) -> None:
    """A token that was copied badly is refused without asking the database."""
    token = new_token(chance)
    wrong = token[:place] + instead + token[place + 1 :]

    assert looks_like_token(wrong) == (wrong == token)


@pytest.mark.parametrize(
    "text",
    ["", "pst_", "abc", new_token(CHANCE)[:-1], new_token(CHANCE) + "0", new_token(CHANCE) + "\n"],
)
def test_what_is_no_token_does_not_look_like_one(text: str) -> None:
    assert not looks_like_token(text)


def test_a_record_holds_nothing_that_gives_the_token_away() -> None:
    """Whoever reads the database must not be able to use what is in it."""
    text, record = issue(
        lambda size: CHANCE[:size], team="main", name="ci", scopes=("read",), created_at=NOON
    )

    assert record.digest == digest(text) == hashlib.sha256(text.encode()).hexdigest()
    assert record.hint == hint(text) == text[:8]
    assert text not in repr(record)
    assert text[8:] not in repr(record)
