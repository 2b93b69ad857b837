"""How many events have each value of a field: the statement that counts them. Pure.

Values that a search cannot tell apart are one: texts that differ in case, numbers that are the
same double. A number and a text are two, also where ``f:40`` finds both.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.query.pieces import Sql, sql
from penstock.query.sql import Rows
from penstock.query.tree import Field
from penstock.query.values import values_of
from penstock.schema.shape import Struct


def facet_columns(field: Field, shape: Struct, *, rows: Rows = "rows") -> Sql:
    """Answer what to select of each event: the columns `number`, `text`, `numbers` and `texts`.

    Lists are NULL where there is no misfit and no list: then equal events are counted together.
    The relation is as for `compile_sql`; DuckDB only, as the statement is.
    """
    found = values_of(field, shape, rows=rows)
    number = found.number or Sql("NULL")
    text = found.text or Sql("NULL")
    numbers, texts = (
        Sql("NULL") if values is None else sql("CASE WHEN len({0}) > 0 THEN {0} END", values)
        for values in (found.numbers, found.texts)
    )
    return sql(
        "CAST({0} AS DOUBLE) AS number, CAST({1} AS VARCHAR) AS text, "
        "CAST({2} AS DOUBLE[]) AS numbers, CAST({3} AS VARCHAR[]) AS texts",
        number,
        text,
        numbers,
        texts,
    )


# An event counts once for each value, however often it has it. Those with one value at most are
# counted before anything is taken apart, which nearly all are.
_STATEMENT = """\
WITH counted AS MATERIALIZED (
  SELECT number, text, numbers, texts, count(*) AS n
  FROM ({events}) GROUP BY number, text, numbers, texts
), listed AS (
  SELECT row_number() OVER () AS event, * FROM counted
  WHERE numbers IS NOT NULL OR texts IS NOT NULL
), of_texts AS (
  SELECT lower(text) AS folded, text AS shown, n FROM counted
  WHERE text IS NOT NULL AND numbers IS NULL AND texts IS NULL
  UNION ALL
  SELECT lower(one) AS folded, min(one), any_value(n)
  FROM (SELECT event, n, unnest(list_append(texts, text)) AS one FROM listed)
  WHERE one IS NOT NULL GROUP BY event, folded
), of_numbers AS (
  SELECT number + 0.0 AS value, n FROM counted
  WHERE number IS NOT NULL AND numbers IS NULL AND texts IS NULL
  UNION ALL
  SELECT one + 0.0 AS value, any_value(n)
  FROM (SELECT event, n, unnest(list_append(numbers, number)) AS one FROM listed)
  WHERE one IS NOT NULL GROUP BY event, value
), found AS MATERIALIZED (
  SELECT NULL AS number, min(shown) AS text, sum(n) AS n FROM of_texts GROUP BY folded
  UNION ALL
  SELECT value, NULL, sum(n) FROM of_numbers GROUP BY value
), totals AS (
  SELECT
    coalesce(sum(n), 0) AS events,
    coalesce(sum(n) FILTER (
      number IS NULL AND text IS NULL
      AND len(coalesce(list_filter(numbers, lambda v: v IS NOT NULL), [])) = 0
      AND len(coalesce(list_filter(texts, lambda v: v IS NOT NULL), [])) = 0
    ), 0) AS missing,
    (SELECT count(*) FROM found) AS distinct_values
  FROM counted
), most AS (
  SELECT * FROM found ORDER BY n DESC, number NULLS LAST, text LIMIT {most:d}
)
SELECT
  CAST(events AS BIGINT) AS events, CAST(missing AS BIGINT) AS missing, distinct_values,
  number, text, CAST(n AS BIGINT) AS n
FROM totals LEFT JOIN most ON TRUE ORDER BY n DESC, number NULLS LAST, text"""


def facet_statement(events: Sequence[Sql], most: int) -> Sql:
    """Answer the statement that counts the values of these selections of `facet_columns`.

    Its rows are the values that most events have, each with the same totals: `events`, those of
    them that have no value, and how many values there are. Without values there is one row, with
    `n` NULL.
    """
    together = " UNION ALL ".join(one.text for one in events)
    parameters = tuple(parameter for one in events for parameter in one.parameters)
    return Sql(_STATEMENT.format(events=together, most=most), parameters)
