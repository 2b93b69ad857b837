"""The tables of a team, as its statements name them."""

from __future__ import annotations

from collections.abc import Collection

from lakehouse.catalog import QUARANTINE_SUFFIX
from lakehouse.sql import DISTINCT, TableName
from lakehouse.tables import Lake, TableView
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import NotFound


class LakeTables:
    """A team's collections, their quarantine, and for whom they are meant Penstock's own tables.

    ``flights`` has every row, ``flights__distinct`` only those that repeat no other one, and
    ``<team>__quarantine.flights`` the events that could not become rows.
    """

    def __init__(self, lake: Lake, team: str, *, system: bool = False) -> None:
        self._lake = lake
        self._team = team
        self._teams = {team, SYSTEM_TEAM} if system else {team} - {SYSTEM_TEAM}

    @property
    def home(self) -> str:
        """The team's own schema."""
        return self._team

    def names(self) -> Collection[TableName]:
        """Answer every table of the team."""
        names = []
        for team, name in self._lake.collections():
            if team in self._teams:
                names += [
                    TableName(team, name),
                    TableName(team, name + DISTINCT),
                    TableName(team + QUARANTINE_SUFFIX, name),
                ]
        return names

    def view(self, name: TableName) -> TableView:
        """Answer one of them as it is now; raises `NotFound` if it was dropped meanwhile."""
        collection = CollectionId(
            name.schema.removesuffix(QUARANTINE_SUFFIX), name.name.removesuffix(DISTINCT)
        )
        quarantine = name.schema.endswith(QUARANTINE_SUFFIX)
        look = self._lake.quarantine_view if quarantine else self._lake.view
        view = look(collection)
        if view is None:
            raise NotFound("table", str(name))
        return view
