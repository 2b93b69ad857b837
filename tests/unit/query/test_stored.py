"""Which columns tell rows of documents from opaque ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.query.stored import telling
from penstock.schema.shape import Leaf, List, Struct

SHAPE = Struct(
    (
        ("carrier", Leaf("string")),
        ("tailnum", Leaf("string")),
        ("tags", List(Leaf("string"))),
        ("customer", Struct((("id", Leaf("string")),))),
        ("total", Leaf("long")),
        ("gift", Leaf("bool")),
    )
)


def paths(filled: dict[str, int], rows: int) -> list[str]:
    return [column.path for column in telling(SHAPE, filled, rows)]


def test_each_kind_of_event_has_a_column_that_tells_it() -> None:
    """With one column for all, the payloads of every other kind were read as JSON."""
    filled = {"carrier": 660, "tailnum": 655, "customer.id": 330, "total": 320, "gift": 20}

    assert paths(filled, 1_000) == ["carrier", "customer.id"]


def test_of_columns_that_are_as_full_the_shallow_one_is_read() -> None:
    """Engines plan deep ones for minutes."""
    assert paths({"customer.id": 1_000, "total": 1_000}, 1_000) == ["total"]


def test_where_nothing_is_known_nothing_is_chosen() -> None:
    """Files of other engines say nothing; the compiler then takes any column."""
    assert paths({}, 1_000) == []
    assert paths({"total": 0}, 1_000) == []


@given(st.dictionaries(st.sampled_from([f"f{n}" for n in range(30)]), st.integers(0, 100)))
def test_few_columns_are_chosen_whatever_is_said_of_them(filled: dict[str, int]) -> None:
    """Each one that is read costs time: more than six would cost more than they save."""
    shape = Struct(tuple((f"f{n}", Leaf("long")) for n in range(30)))

    chosen = telling(shape, filled, 100)

    assert len(chosen) <= 6
    assert sum(filled[column.path] for column in chosen) <= 100
    assert bool(chosen) == any(filled.values())
