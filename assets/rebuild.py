"""A collection's columns made again from its payloads, in place."""

from __future__ import annotations

from collections.abc import Callable

from assets.landing import History
from assets.retype import Tell, note, silent
from lakehouse import Lake
from lakehouse.rewrite import Rewritten, rewrite
from penstock.envelope import Clock, CollectionId
from penstock.schema.again import Payloads, discovered
from penstock.schema.convert import Rules
from penstock.schema.retype import differences
from penstock.schema.shape import EMPTY, Struct


def rebuild(
    lake: Lake,
    collection: CollectionId,
    history: History | None = None,
    *,
    rules: Rules,
    clock: Clock,
    chance: Callable[[int], bytes],
    dry_run: bool = False,
    tell: Tell = silent,
) -> Rewritten | None:
    """Put all payloads of the table through landing's conversion again; None if it has no row.

    The columns are those of a table that had known the whole shape from the start, the values and
    misfits too. Where the contract lets no new columns in, the columns stay and only values and
    misfits are sorted anew. What changed is entered in `history`. Raises as
    `lakehouse.rewrite.rewrite` does; interrupted anywhere, the table is as before or as after.
    """
    done = rewrite(
        lake,
        collection,
        _Rebuilding(rules),
        why={"penstock.upkeep": "rebuild"},
        new_name=lambda: f"rebuilt-{chance(8).hex()}",
        clock=clock,
        tell=tell,
        dry_run=dry_run,
    )
    if done is not None and not dry_run:
        changes = differences(done.before, done.after)
        note(history, collection, clock(), changes, why=lambda _path: "rebuilt from the payloads")
    return done


class _Rebuilding:
    """What `lakehouse.rewrite` asks: the shape of all payloads.

    Those that land while the table is converted add to it as they would in landing: types that
    were found stay.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._found: Struct | None = None

    @property
    def rules(self) -> Rules:
        """The collection's contract and bounds."""
        return self._rules

    @property
    def keeps_columns(self) -> bool:
        """Answer no: columns are what the format and the contract of today make of the payloads."""
        return False

    def shape(self, present: Struct, payloads: Payloads) -> Struct:
        """Answer the shape of all payloads that were there up to now."""
        if self._rules.contract != "evolve":
            return present
        self._found = discovered(payloads, self._found or EMPTY, self._rules)
        return self._found
