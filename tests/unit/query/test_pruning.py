"""What rows need to be found: never more than the search asks."""

from __future__ import annotations

import pytest

from penstock.query import parse
from penstock.query.pruning import (
    NOTHING,
    All,
    Any,
    Need,
    Token,
    digest,
    need_of,
    number_text,
    opaque,
    text_text,
    word_text,
)


def of(text: str) -> Need:
    return need_of(parse(text, now=0).where, lambda word: [word])


def word(text: str) -> Token:
    return Token(digest(word_text(text)))


def test_words_need_all_of_them() -> None:
    assert of("zucchini") == word("zucchini")
    assert of('"Two Words"') == All((word("two"), word("words")))
    assert of("two words") == All((word("two"), word("words")))
    assert of("name:~zucchini") == word("zucchini")


def test_a_value_needs_its_word_or_its_text_and_perhaps_its_number() -> None:
    assert of("dest:LAX") == word("lax")
    assert of("sku:KOH-777") == Token(digest(text_text("koh-777")))
    forty = Token(digest(number_text(40)))
    assert of("n:40") == Any((word("40"), forty))
    assert of("40") == Any((word("40"), forty))
    assert of("n:40.5") == Any((Token(digest(text_text("40.5"))), forty))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NOT zucchini",
        "zucchini OR NOT zucchini",
        "zucchini OR n:>5",
        "s:zucch*",
        "_exists_:s",
        "flag:true",
        "headers.x:zucchini",
        "event_id:zucchini",
        "n:[1 TO 5]",
        "n:null",
    ],
)
def test_what_a_filter_does_not_know_needs_nothing(text: str) -> None:
    """A row without any of the words may be found by these."""
    assert of(text) == NOTHING


def test_what_is_known_of_a_part_holds_for_the_whole() -> None:
    assert of("zucchini NOT carrot") == word("zucchini")
    assert of("zucchini n:>5") == word("zucchini")
    assert of("zucchini OR carrot") == Any((word("zucchini"), word("carrot")))


def test_letters_that_the_engine_does_not_know_part_a_word() -> None:
    """Then the pieces are in the filter, and the word is not."""
    need = need_of(parse("aéb", now=0).where, lambda text: text.split("é"))

    assert need == All((word("a"), word("b")))


def test_what_is_text_and_no_json_needs_a_row_with_such_a_payload() -> None:
    need = opaque(word("zucchini"))

    assert need == All((Token(digest("o")), word("zucchini")))
    assert opaque(NOTHING) == Token(digest("o"))
