"""A publication in parts, and put together again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata_builders import collection, token

from penstock.cache.parts import Head, Records, cut, put_together, read_head
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable
from penstock.metadata.records import Known


def many(numbers: list[int], version: int = 1) -> Known:
    return Known(
        version=version,
        collections=tuple(collection(CollectionId("main", f"c{n}")) for n in numbers),
        tokens=tuple(
            msgspec.structs.replace(token(1), id=f"{n:08x}", digest=f"{n:064x}") for n in numbers
        ),
    )


@given(st.lists(st.integers(0, 100_000), max_size=3_000))
def test_what_was_cut_is_put_together_in_the_same_order(numbers: list[int]) -> None:
    known = many(numbers)
    head, parts = cut(known)

    assert put_together(read_head(msgspec.json.encode(head)), parts, {}) == known


@pytest.mark.parametrize("changed", [0, 4_321, 9_999])
def test_one_token_more_or_less_changes_one_part(changed: int) -> None:
    """A change must not write megabytes into etcd, which keeps every version for a while."""
    before = many(list(range(10_000)))
    tokens = (*before.tokens[:changed], *before.tokens[changed + 1 :])
    _, old = cut(before)
    _, new = cut(msgspec.structs.replace(before, tokens=tokens))

    assert len(old) > 40
    assert len(new.keys() - old.keys()) <= 1
    assert len(old.keys() - new.keys()) <= 2


def test_no_part_is_larger_than_one_request_takes() -> None:
    """However long the names are, and whatever their ids say."""
    long = tuple(
        msgspec.structs.replace(collection(CollectionId("main", f"c{n}")), notes="é" * 100_000)
        for n in range(30)
    )
    _, parts = cut(Known(version=1, collections=long, tokens=()))

    assert len(parts) > 5


def test_parts_that_one_has_are_not_needed_again_and_others_are_forgotten() -> None:
    """Memory must not grow with the number of publications."""
    had: dict[str, Records] = {}
    first, parts = cut(many(list(range(2_000))))
    put_together(first, parts, had)
    second, fresh = cut(many(list(range(1, 2_000)), version=2))
    only_new = {name: body for name, body in fresh.items() if name not in parts}

    assert put_together(second, only_new, had) == many(list(range(1, 2_000)), version=2)
    assert had.keys() == second.names()


@pytest.mark.parametrize("damage", ["missing", "other", "garbage"])
def test_a_part_that_is_not_what_its_name_says_is_refused(damage: str) -> None:
    """A door would forget tokens, or let in others, without a word."""
    head, parts = cut(many([1, 2, 3]))
    [name] = head.tokens
    other = cut(many([4]))
    spoilt = {
        "missing": {n: b for n, b in parts.items() if n != name},
        "other": {**parts, name: other[1][other[0].tokens[0]]},
        "garbage": {**parts, name: b"garbage"},
    }

    with pytest.raises(EngineUnavailable, match=name):
        put_together(head, spoilt[damage], {})


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 99, "version": 1}'])
def test_a_head_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(EngineUnavailable, match="cache"):
        read_head(content)


def test_a_head_of_another_release_names_its_format() -> None:
    head = Head(format=99, version=1, collections=(), tokens=())

    with pytest.raises(EngineUnavailable, match="format 99"):
        read_head(msgspec.json.encode(head))
