"""How many events have each value of a field: the statement that counts them. Pure.

Values that a search cannot tell apart are one: texts that differ in case, numbers that are the
same double. A number and a text are two, also where ``f:40`` finds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.query.pieces import Sql, listed, sql
from penstock.query.sql import Rows
from penstock.query.tree import Field
from penstock.query.values import values_of
from penstock.schema.shape import Struct


def facet_columns(fields: Sequence[Field], shape: Struct, *, rows: Rows = "rows") -> Sql:
    """Answer what to select of each event: `number_0`, `text_0`, `numbers_0`, `texts_0`, and so on.

    Lists are NULL where there is no misfit and no list: then equal events are counted together.
    The relation is as for `compile_sql`; DuckDB only, as the statement is.
    """
    return listed(
        [
            column
            for place, field in enumerate(fields)
            for column in _columns_of(field, place, shape, rows)
        ]
    )


def _columns_of(field: Field, place: int, shape: Struct, rows: Rows) -> Iterator[Sql]:
    found = values_of(field, shape, rows=rows)
    yield sql(f"CAST({{0}} AS DOUBLE) AS number_{place}", found.number or _NULL)
    yield sql(f"CAST({{0}} AS VARCHAR) AS text_{place}", found.text or _NULL)
    for name, kind, values in (
        ("numbers", "DOUBLE[]", found.numbers),
        ("texts", "VARCHAR[]", found.texts),
    ):
        some = _NULL if values is None else sql("CASE WHEN len({0}) > 0 THEN {0} END", values)
        yield sql(f"CAST({{0}} AS {kind}) AS {name}_{place}", some)


_NULL = Sql("NULL")


# All fields are counted in one reading. An event counts once for each value, however often it has
# it. Those with one value at most are counted before anything is taken apart, which nearly all are.
_STATEMENT = """\
WITH grouped AS MATERIALIZED (
  SELECT *, count(*) AS n, {told} FROM ({events}) GROUP BY GROUPING SETS ({sets})
), counted AS MATERIALIZED (
  {counted}
), listed AS (
  SELECT row_number() OVER () AS event, * FROM counted
  WHERE numbers IS NOT NULL OR texts IS NOT NULL
), of_texts AS (
  SELECT field, lower(text) AS folded, text AS shown, n FROM counted
  WHERE text IS NOT NULL AND numbers IS NULL AND texts IS NULL
  UNION ALL
  SELECT any_value(field), lower(one) AS folded, min(one), any_value(n)
  FROM (SELECT field, event, n, unnest(list_append(texts, text)) AS one FROM listed)
  WHERE one IS NOT NULL GROUP BY event, folded
), of_numbers AS (
  SELECT field, number + 0.0 AS value, n FROM counted
  WHERE number IS NOT NULL AND numbers IS NULL AND texts IS NULL
  UNION ALL
  SELECT any_value(field), one + 0.0 AS value, any_value(n)
  FROM (SELECT field, event, n, unnest(list_append(numbers, number)) AS one FROM listed)
  WHERE one IS NOT NULL GROUP BY event, value
), found AS MATERIALIZED (
  SELECT field, NULL AS number, min(shown) AS text, sum(n) AS n FROM of_texts GROUP BY field, folded
  UNION ALL
  SELECT field, value, NULL, sum(n) FROM of_numbers GROUP BY field, value
), totals AS (
  SELECT
    field, sum(n) AS events,
    coalesce(sum(n) FILTER (
      number IS NULL AND text IS NULL
      AND len(coalesce(list_filter(numbers, lambda v: v IS NOT NULL), [])) = 0
      AND len(coalesce(list_filter(texts, lambda v: v IS NOT NULL), [])) = 0
    ), 0) AS missing
  FROM counted GROUP BY field
), distinct_ones AS (
  SELECT field, count(*) AS distinct_values FROM found GROUP BY field
), most AS (
  {most}
)
SELECT
  field, CAST(events AS BIGINT) AS events, CAST(missing AS BIGINT) AS missing,
  coalesce(distinct_values, 0) AS distinct_values, number, text, CAST(n AS BIGINT) AS n
FROM totals LEFT JOIN distinct_ones USING (field) LEFT JOIN most USING (field)
ORDER BY field, n DESC, number NULLS LAST, text"""


def facet_statement(events: Sequence[Sql], fields: int, most: int) -> Sql:
    """Answer the statement that counts the values of these selections of `facet_columns`.

    Its rows are the values that most events have, each with its `field` (a number) and the totals
    of that: `events`, those of them that have no value, and how many values there are. A field
    without values has one row, with `n` NULL; there are no rows without events.
    """
    places = range(fields)
    columns = [[f"{name}_{place}" for name in _NAMES] for place in places]
    text = _STATEMENT.format(
        events=" UNION ALL ".join(one.text for one in events),
        told=", ".join(f"grouping(text_{place}) AS other_{place}" for place in places),
        sets=", ".join(f"({', '.join(some)})" for some in columns),
        counted=" UNION ALL ".join(
            f"SELECT {place} AS field, {_renamed(some)}, n FROM grouped WHERE other_{place} = 0"  # noqa: S608 - ours
            for place, some in zip(places, columns, strict=True)
        ),
        most=" UNION ALL ".join(
            f"(SELECT * FROM found WHERE field = {place} "  # noqa: S608 - ours
            f"ORDER BY n DESC, number NULLS LAST, text LIMIT {most:d})"
            for place in places
        ),
    )
    return Sql(text, tuple(parameter for one in events for parameter in one.parameters))


_NAMES = ("number", "text", "numbers", "texts")


def _renamed(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} AS {name}" for column, name in zip(columns, _NAMES, strict=True))
