"""How many events have each value of a field: the statement that counts them. Pure.

Values that a search cannot tell apart are one: texts that differ in case, numbers that are the
same double. A number and a text are two, also where ``f:40`` finds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from penstock.query.pieces import Sql, listed, sql
from penstock.query.sql import Rows
from penstock.query.tree import Field
from penstock.query.values import Values, values_of
from penstock.schema.shape import Struct

Has = tuple[tuple[str, ...], ...]
"""Which columns some events have anything in, of each field: `number`, `text`, `numbers`, `texts`.
"""


class Selected(NamedTuple):
    """What to select of each event of a relation, and in which columns there is anything."""

    columns: Sql
    has: Has


def facet_columns(
    fields: Sequence[Field], shape: Struct, *, rows: Rows = "rows", misfits: bool = True
) -> Selected:
    """Answer what to select of each event: `number_0`, `text_0`, `numbers_0`, `texts_0`, and so on.

    Only those that can be anything, and one of each field at least. Lists are NULL where there is
    no misfit and no list: then equal events are counted together.
    The relation is as for `compile_sql`; DuckDB only, as the statement is. Without `misfits` it has
    none of these fields.
    """
    columns, has = [], []
    for place, field in enumerate(fields):
        found = dict(_columns_of(values_of(field, shape, rows=rows, misfits=misfits)))
        found = found or {"text": sql("CAST(NULL AS VARCHAR)")}
        columns += [sql(f"{{0}} AS {name}_{place}", column) for name, column in found.items()]
        has.append(tuple(found))
    return Selected(listed(columns), tuple(has))


def _columns_of(found: Values) -> Iterator[tuple[str, Sql]]:
    for name, values in zip(_NAMES, found, strict=True):
        if values is not None:
            some = sql("CASE WHEN len({0}) > 0 THEN {0} END", values) if name in _LISTS else values
            yield name, sql(f"CAST({{0}} AS {_TYPES[name]})", some)


# All fields are counted in one reading. An event counts once for each value, however often it has
# it. Those with one value at most are counted before anything is taken apart, which nearly all are.
_STATEMENT = """\
WITH {grouped}, counted AS MATERIALIZED (
  {counted}
), listed AS (
  SELECT row_number() OVER () AS event, * FROM counted
  WHERE numbers IS NOT NULL OR texts IS NOT NULL
), of_texts AS (
  SELECT field, lower(text) AS folded, text AS shown, text AS last, n FROM counted
  WHERE text IS NOT NULL AND numbers IS NULL AND texts IS NULL
  UNION ALL
  SELECT any_value(field), lower(one) AS folded, min(one), max(one), any_value(n)
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
  SELECT
    field, NULL AS number, min(shown) AS text, min(shown) < max(last) AS varies, sum(n) AS n
  FROM of_texts GROUP BY field, folded
  UNION ALL
  SELECT field, value, NULL, false, sum(n) FROM of_numbers GROUP BY field, value
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
  coalesce(distinct_values, 0) AS distinct_values, number, text, varies, CAST(n AS BIGINT) AS n
FROM totals LEFT JOIN distinct_ones USING (field) LEFT JOIN most USING (field)
ORDER BY field, n DESC, number NULLS LAST, text"""


# Events of which only some can have lists are grouped by themselves: to group by a list takes as
# long as everything else, also where it is always NULL.
_GROUPED = """\
{name} AS MATERIALIZED (
  SELECT *, count(*) AS n, {told} FROM ({events}) GROUP BY GROUPING SETS ({sets})
)"""


def facet_statement(events: Mapping[Has, Sequence[Sql]], fields: int, most: int) -> Sql:
    """Answer the statement that counts the values of these selections of `facet_columns`.

    They are put together by the columns that they have. Its rows are the values that most events
    have, each with its `field` (a number) and the totals of that: `events`, those of them that have
    no value, and how many values there are. A text that is spelt in several ways `varies`. A field
    without values has one row, with `n` NULL; there are no rows without events.
    """
    places = range(fields)
    text = _STATEMENT.format(
        grouped=", ".join(
            _GROUPED.format(
                name=f"grouped_{number}",
                told=", ".join(
                    f"grouping({names[0]}_{place}) AS other_{place}"
                    for place, names in enumerate(has)
                ),
                events=" UNION ALL ".join(one.text for one in some),
                sets=", ".join(
                    f"({', '.join(f'{name}_{place}' for name in names)})"
                    for place, names in enumerate(has)
                ),
            )
            for number, (has, some) in enumerate(events.items())
        ),
        counted=" UNION ALL ".join(
            f"SELECT {place} AS field, {_renamed(names, place)}, n "  # noqa: S608 - ours
            f"FROM grouped_{number} WHERE other_{place} = 0"
            for number, has in enumerate(events)
            for place, names in enumerate(has)
        ),
        most=" UNION ALL ".join(
            f"(SELECT * FROM found WHERE field = {place} "  # noqa: S608 - ours
            f"ORDER BY n DESC, number NULLS LAST, text LIMIT {most:d})"
            for place in places
        ),
    )
    given = (one.parameters for some in events.values() for one in some)
    return Sql(text, tuple(parameter for parameters in given for parameter in parameters))


_TYPES = {"number": "DOUBLE", "text": "VARCHAR", "numbers": "DOUBLE[]", "texts": "VARCHAR[]"}
_NAMES = tuple(_TYPES)
_LISTS = frozenset({"numbers", "texts"})


def _renamed(names: Sequence[str], place: int) -> str:
    return ", ".join(
        f"{f'{name}_{place}' if name in names else f'CAST(NULL AS {kind})'} AS {name}"
        for name, kind in _TYPES.items()
    )
