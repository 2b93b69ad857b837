"""SQL over the team's collections."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.client.wire import Wire, asked, path_of
from penstock.contract.sql import SqlAnswer, Statement


class Sql(Wire):
    """Statements, and their rows."""

    def sql(self, statement: str) -> SqlAnswer:
        """Answer a SELECT or EXPLAIN over the team's collections."""
        return self._post(path_of("sql"), SqlAnswer, asked(Statement, statement=statement))

    def sql_csv(self, statement: str) -> Iterator[bytes]:
        """Yield the answer of a statement as CSV, in pieces."""
        body = asked(Statement, statement=statement)
        yield from self._stream("POST", path_of("sql"), body, accept="text/csv")
