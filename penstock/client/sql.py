"""SQL over the team's collections."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.client.wire import Wire, asked, path_of
from penstock.contract.sql import SqlAnswer, Statement, TablesTold, TableTold


class Sql(Wire):
    """Statements, and their rows."""

    def sql(self, statement: str) -> SqlAnswer:
        """Answer a SELECT or EXPLAIN over the team's collections."""
        return self._post(path_of("sql"), SqlAnswer, asked(Statement, statement=statement))

    def sql_csv(self, statement: str) -> Iterator[bytes]:
        """Yield the answer of a statement as CSV, in pieces."""
        body = asked(Statement, statement=statement)
        yield from self._stream("POST", path_of("sql"), body, accept="text/csv")

    def sql_parquet(self, statement: str) -> Iterator[bytes]:
        """Yield the answer of a statement as a Parquet file, in pieces."""
        body = asked(Statement, statement=statement)
        accept = "application/vnd.apache.parquet"
        yield from self._stream("POST", path_of("sql"), body, accept=accept)

    def sql_tables(self) -> TablesTold:
        """Answer the tables there are for statements, and what one may take."""
        return self._get(path_of("sql", "tables"), TablesTold)

    def sql_table(self, name: str) -> TableTold:
        """Answer the columns of a table, as statements name them."""
        return self._get(path_of("sql", "tables", name), TableTold)
