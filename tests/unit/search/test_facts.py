"""What only payloads tell."""

from __future__ import annotations

from log_batches import log_batch

from penstock.query import Fact
from penstock.search.facts import with_facts, with_leaves

PAYLOADS = (
    b'{"a": null, "b": [null, {"c": null}], "d": "null"}',
    b'{"l": [1, [2, 3]], "o": [{"l": []}, {"l": [4]}]}',
    b'{"a": null, "a": 1}',
    b"null",
    b"[[]]",
    b'no "JSON": null [1]',
    b"\xff null [",
)


def batch():
    from builders import event

    return log_batch(*(event(p, id=str(n)) for n, p in enumerate(PAYLOADS)))


def test_explicit_nulls_are_told_by_path() -> None:
    """Positions in lists are dropped, and of the same key twice the last one counts."""
    nulls = with_facts(batch(), frozenset({Fact.NULLS})).column("nulls").to_pylist()

    assert nulls == [["a", "b", "b.c"], None, [], [""], None, None, None]


def test_lengths_are_told_of_every_list() -> None:
    """Also of those within lists."""
    lengths = with_facts(batch(), frozenset({Fact.LENGTHS})).column("lengths").to_pylist()
    told = [[(x["path"], x["length"]) for x in row] if row is not None else None for row in lengths]

    assert told == [
        [("b", 2)],
        [("l", 2), ("l", 2), ("o", 2), ("o.l", 0), ("o.l", 1)],
        None,
        None,
        [("", 1), ("", 0)],
        None,
        None,
    ]


def test_quarantined_payloads_show_their_leaves() -> None:
    """And what landing could not read is one leaf, if it is text at all."""
    misfits = with_leaves(batch()).column("misfits").to_pylist()
    told = [[(x["path"], x["value"]) for x in row] for row in misfits]

    assert told[0] == [("d", '"null"')]
    assert told[2] == [("a", "1")]
    assert told[5] == [("", '"no \\"JSON\\": null [1]"')]
    assert told[6] == []
