"""What `penstock token revoke` says of doors."""

from __future__ import annotations

from penstock.cli.token import confirmations


def test_doors_that_confirmed_are_counted_and_the_others_are_named() -> None:
    """Somebody has to go there and stop them."""
    assert confirmations({"a:8080": True, "b:8080": True}, 0.5) == ["refused by 2 of 2 doors"]
    assert confirmations({"a:8080": True, "b:8080": False}, 9.0) == [
        "refused by 1 of 2 doors",
        (
            "not confirmed by b:8080: refused there 9 s after the cache is reached again; "
            "stop that door to be sure now"
        ),
    ]


def test_what_nobody_knows_is_not_told_as_if_it_were_good() -> None:
    assert confirmations({}, 0.5) == ["no door is running"]
    assert confirmations(None, 0.5) == [
        "which doors refuse it is not known: their cache does not answer"
    ]
