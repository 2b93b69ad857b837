r"""From the tree of a search to a SQL condition on a collection's table.

The relation has the columns of `penstock.schema.rows`: the envelope, `data` in the given shape
(no such column while it is empty) and `misfits`. Where a leaf is stored never changes an answer,
so a condition asks the columns at its path *and* the misfits.

Values are parameters, in the order of their marks in the text. A condition may be NULL, which is
as good as false: only NOT minds, and is written `IS NOT TRUE`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from penstock.envelope import Micros
from penstock.query.comparing import compared, double, in_any_case, iso_form, long
from penstock.query.dialects import DUCKDB, Dialect
from penstock.query.pieces import (
    ALWAYS,
    NEVER,
    Sql,
    all_of,
    any_of,
    listed,
    negated,
    quoted,
    sql,
    value,
)
from penstock.query.spelling import ANY_CASE, FOLDS, UNKNOWN, Fold, Spelt
from penstock.query.stored import LeafColumn, all_values, columns_of, read
from penstock.query.tree import (
    And,
    Bound,
    Column,
    Condition,
    Equals,
    Everything,
    Exists,
    Field,
    Header,
    IsNull,
    Length,
    Like,
    Metadata,
    Node,
    Not,
    NumberRange,
    Or,
    Payload,
    Quarantine,
    Query,
    TextBound,
    TextRange,
    Time,
    TimeRange,
    Wild,
    Words,
    conditions,
)
from penstock.schema.names import path_text
from penstock.schema.shape import Kind, Struct

Rows = Literal["rows", "quarantine"]
"""Which relation is searched: the rows of the collection, or the events in its quarantine."""


def compile_sql(
    query: Query,
    shape: Struct,
    *,
    dialect: Dialect = DUCKDB,
    rows: Rows = "rows",
    misfits: bool = True,
    spelt: Spelt = UNKNOWN,
) -> Sql:
    """Answer the condition that is true for exactly the events found, false or NULL for others.

    The relation needs a column for each of `query.facts`. In the quarantine `misfits` holds every
    leaf of a payload, and the shape is empty. Of rows that have no misfit at any of `misfits_asked`
    none need be read, and columns that are `spelt` in one way are compared as they are.
    """
    compiler = _Compiler(dialect, rows, columns_of(shape), misfits=misfits, spelt=spelt)
    return compiler.of(query.where)


def misfits_asked(query: Query) -> frozenset[str] | None:
    """Answer at which paths a misfit can decide whether an event is found; None: at any path."""
    paths = set()
    for condition in conditions(query.where):
        match condition:
            case Exists(Payload()) | Words(None):
                return None
            case Words(Payload(keys)):
                paths.add(path_text(keys))
            case Everything() | TimeRange() | IsNull() | Length() | Words():
                continue
            case _ if isinstance(condition.field, Payload):
                paths.add(path_text(condition.field.keys))
    return frozenset(paths)


def compared_texts(query: Query) -> frozenset[str]:
    """Answer at which paths texts are compared as a whole, or with a pattern."""
    return frozenset(
        path_text(condition.field.keys)
        for condition in conditions(query.where)
        if isinstance(condition, Equals | Like) and isinstance(condition.field, Payload)
    )


class Parts(NamedTuple):
    """Two conditions, at most one of which is true for an event.

    What `opaque` finds has a payload that is text and no JSON; it is NEVER where `stored` finds
    those as well.
    """

    stored: Sql
    opaque: Sql


def compile_parts(
    query: Query,
    shape: Struct,
    *,
    dialect: Dialect = DUCKDB,
    rows: Rows = "rows",
    telling: Sequence[LeafColumn] = (),
) -> tuple[Sql, ...]:
    """Answer conditions of which exactly one is true for an event found, and none for others.

    They are the parts of `part_query` that can be true at all.
    """
    parts = part_query(query, shape, dialect=dialect, rows=rows, telling=telling)
    return tuple(part for part in parts if part != NEVER)


def part_query(
    query: Query,
    shape: Struct,
    *,
    dialect: Dialect = DUCKDB,
    rows: Rows = "rows",
    telling: Sequence[LeafColumn] = (),
    misfits: bool = True,
    spelt: Spelt = UNKNOWN,
) -> Parts:
    """Answer the condition in two parts.

    Words are looked for in opaque payloads by a part of its own, which few rows come into
    question for: reading every payload beside the columns takes four times as long as reading
    the columns (2 million events of 440 bytes). With NOT before the words there is one part.

    Whoever knows columns of which most rows have one (`penstock.query.stored.telling`) gives them:
    the payloads of rows that have none of them are read. `misfits` and `spelt` are as for
    `compile_sql`.
    """
    columns = columns_of(shape)
    here = [column for column in telling if column in columns]
    whole = _Compiler(dialect, rows, columns, telling=here, misfits=misfits, spelt=spelt)
    if rows == "quarantine" or not _wants_words(query.where):
        return Parts(whole.of(query.where), NEVER)

    stored = _Compiler(dialect, rows, columns, opaque=False, misfits=misfits, spelt=spelt)
    # An opaque payload has no leaf but itself, so that no column and no misfit has to be asked.
    bare = _Compiler(dialect, rows, (), misfits=False)
    envelope = _Compiler(dialect, rows, (), misfits=False, opaque=False)
    return Parts(
        stored.of(query.where),
        all_of(*whole.opaque(bare.of(query.where)), negated(envelope.of(query.where), dialect)),
    )


def compile_before(
    query: Query, shape: Struct, *, dialect: Dialect = DUCKDB, rows: Rows = "rows"
) -> Sql:
    """Answer a condition that every event found fulfils, and that needs no column but stored ones.

    What payloads have to be read for is asked of its rows only: of the facts, and in the
    quarantine of all leaves.
    """
    compiler = _Compiler(dialect, rows, columns_of(shape))

    def needs_payload(node: Node) -> bool:
        if rows == "quarantine":
            return Query("", node).reads_payload
        return bool(Query("", node).facts)

    def before(node: Node) -> Sql:
        if not needs_payload(node):
            return compiler.of(node)
        match node:
            case And(parts):
                return all_of(*(before(part) for part in parts))
            case Or(parts):
                return any_of(*(before(part) for part in parts))
            case _:
                return ALWAYS

    return before(query.where)


def opaque_text(shape: Struct, *, dialect: Dialect = DUCKDB) -> Sql:
    """Answer the text of a payload that is text and no JSON; NULL of every other one."""
    compiler = _Compiler(dialect, "rows", columns_of(shape))
    opaque = all_of(*compiler.opaque())
    return sql(f"CASE WHEN {{0}} THEN {dialect.text_of_bytes.format('payload')} END", opaque)


def _wants_words(node: Node) -> bool:
    """Say whether opaque payloads can answer this, and no NOT stands before what they answer."""
    match node:
        case And(parts) | Or(parts):
            asked = [part for part in parts if reads_opaque(part)]
            return bool(asked) and all(_wants_words(part) for part in asked)
        case Not():
            return False
        case _:
            return reads_opaque(node)


def reads_opaque(node: Node) -> bool:
    """Say whether the leaf with the empty path can decide."""
    match node:
        case And(parts) | Or(parts):
            return any(reads_opaque(part) for part in parts)
        case Not(part):
            return reads_opaque(part)
        case Words(None):
            return True
        case Everything() | TimeRange() | IsNull() | Length() | NumberRange():
            return False
        case _:
            return isinstance(node.field, Payload) and not path_text(node.field.keys)


def _asks_all_leaves(node: Node) -> bool:
    """Say whether words are looked for in every leaf, which takes longer than all else."""
    return any(isinstance(c, Words) and c.field is None for c in conditions(node))


_Test = Callable[[Sql], Sql]


class _Tests(NamedTuple):
    """What a condition asks of a leaf, by the type of the leaf; None: such a leaf never passes."""

    string: _Test | None = None
    long: _Test | None = None
    double: _Test | None = None
    bool: _Test | None = None
    folded: Callable[[Fold], _Test] | None = None
    """Answers what is asked of a text in place of `string` where its column is spelt in one way."""

    def of(self, kind: Kind, fold: Fold | None) -> _Test | None:
        if kind == "string" and fold is not None and self.folded is not None:
            return self.folded(fold)
        return {
            "string": self.string,
            "long": self.long,
            "double": self.double,
            "bool": self.bool,
        }[kind]


class _Compiler:
    def __init__(
        self,
        dialect: Dialect,
        rows: Rows,
        columns: Sequence[LeafColumn],
        *,
        misfits: bool = True,
        opaque: bool = True,
        telling: Sequence[LeafColumn] = (),
        spelt: Spelt = UNKNOWN,
    ) -> None:
        self._telling = telling
        self._spelt = dict(spelt)
        self._dialect = dialect
        self._quarantine = rows == "quarantine"
        self._columns = columns
        self._misfits = misfits
        # In the quarantine the text of an opaque payload is among the misfits.
        self._opaque = opaque and not self._quarantine

    def of(self, node: Node) -> Sql:
        match node:
            case Everything():
                return ALWAYS
            case And(parts):
                # DuckDB asks the next one only of rows that passed the one before.
                return all_of(*(self.of(part) for part in sorted(parts, key=_asks_all_leaves)))
            case Or(parts):
                return any_of(*(self.of(part) for part in parts))
            case Not(part):
                return negated(self.of(part), self._dialect)
            case _:
                return self._condition(node)

    def opaque(self, *conditions: Sql) -> Iterator[Sql]:
        """Answer what makes a payload opaque, the cheap signs before the conditions.

        Payloads are text with one leaf at the empty path if they are UTF-8 but no JSON.
        """
        yield from self._signs_of_opaque()
        yield sql("{0} IS NOT NULL", self._payload_text())
        yield from conditions
        yield sql("NOT {0}", sql(self._dialect.is_json, self._payload_text()))

    def _signs_of_opaque(self) -> Iterator[Sql]:
        # Any column will do. Trino planned one that is 30 objects deep, in here, for minutes.
        single = [column for column in self._columns if None not in column.steps]
        shallow = [min(single, key=lambda column: len(column.steps))] if single else []
        for column in self._telling or shallow:
            yield sql("{0} IS NULL", read(column))
        yield sql("coalesce({0}, 0) = 0", sql(self._dialect.length, Sql("misfits")))

    def _if_opaque(self, condition: Sql) -> Sql:
        """Whether a payload is opaque and fulfils this; few are read for it, whatever is around.

        AND would not do: below a NOT engines compute all of its sides for every row, and reading a
        million payloads as JSON takes 9 s of a processor.
        """
        signs = all_of(*self._signs_of_opaque())
        text = self._payload_text()
        opaque = sql("NOT {0}", sql(self._dialect.is_json, text))
        here = all_of(sql("{0} IS NOT NULL", text), condition)
        return sql(
            "CASE WHEN {0} THEN CASE WHEN {1} THEN {2} ELSE FALSE END ELSE FALSE END",
            signs,
            here,
            opaque,
        )

    def _condition(self, condition: Condition) -> Sql:
        match condition:
            case TimeRange(field, start, end):
                return all_of(*self._time_range(field, start, end))
            case Exists(field):
                return self._exists(field)
            case IsNull(field):
                return self._any("nulls", "n", sql("n = {0}", value(path_text(field.keys))))
            case Length(field, low, high):
                here = sql("l.path = {0}", value(path_text(field.keys)))
                return self._any("lengths", "l", all_of(here, long(Sql("l.length"), low, high)))
            case Words(None | Payload() as field, words):
                path = None if field is None else path_text(field.keys)
                return self._payload(path, self._tests(condition), words)
            case Equals(Column("event_id"), text):
                # Ids of one time lie together, and few row groups have some of it.
                near = in_any_case("event_id", text)
                return all_of(*near, self._of_field(condition.field, self._tests(condition)))
            case _:
                return self._of_field(condition.field, self._tests(condition))

    # Fields

    def _of_field(self, field: Field | None, tests: _Tests) -> Sql:
        match field:
            case Payload(keys):
                return self._payload(path_text(keys), tests)
            case Column("log_partition" | "log_offset" as number):
                return tests.long(Sql(number)) if tests.long else NEVER
        if tests.string is None:
            return NEVER
        match field:
            case Header(str(name)):
                return self._header(name, tests.string(self._bytes("h.value")))
            case Metadata(str(name)):
                return tests.string(self._metadata(name))
            case Column("key"):
                return tests.string(self._bytes("key"))
            case Column():
                return tests.string(Sql(field.name))
            case Quarantine() if self._quarantine:
                return tests.string(Sql(field.name))
            case _:
                return NEVER

    def _exists(self, field: Field) -> Sql:
        match field:
            case Payload(keys):
                return self._payload_exists(keys)
            case Header(None):
                return sql("{0} > 0", sql(self._dialect.length, Sql("headers")))
            case Header(str(name)):
                return self._header(name, ALWAYS)
            case Metadata(None):
                return Sql("cardinality(metadata) > 0")
            case Metadata(str(name)):
                return sql("{0} IS NOT NULL", self._metadata(name))
            case Quarantine() if not self._quarantine:
                return NEVER
            case Column(name) | Time(name) | Quarantine(name):
                return Sql(f"{name} IS NOT NULL")
            case _:
                return NEVER

    def _header(self, name: str, condition: Sql) -> Sql:
        return self._any("headers", "h", all_of(sql("lower(h.key) = {0}", value(name)), condition))

    def _metadata(self, name: str) -> Sql:
        return sql(self._dialect.map_value, Sql("metadata"), value(name))

    def _time_range(self, field: Time, start: Micros | None, end: Micros | None) -> Iterator[Sql]:
        # Bare comparisons of the column: engines leave out partitions and row groups by them.
        for sign, moment in ((">=", start), ("<", end)):
            if moment is not None:
                yield sql(f"{field.name} {sign} {{0}}", sql(self._dialect.time, value(moment)))

    # Leaves of the payload

    def _payload(self, path: str | None, tests: _Tests, words: Sequence[str] = ()) -> Sql:
        """Whether some leaf at the path (None: anywhere) passes."""
        stored = tests._replace(string=None) if words else tests
        columns = [c for c in self._columns if path is None or c.path == path]
        found = [
            self._in_column(column, test)
            for column in columns
            if (test := stored.of(column.kind, self._fold_of(column))) is not None
        ]
        found.append(self._in_misfits(path, stored))
        if words:
            found.append(self._stored_words(columns, path, words))
        if self._opaque and not path and tests.string:
            found.append(self._if_opaque(tests.string(self._payload_text())))
        return any_of(*found)

    def _stored_words(
        self, columns: Sequence[LeafColumn], path: str | None, words: Sequence[str]
    ) -> Sql:
        """Whether some string leaf in columns or misfits contains the words in a row.

        All leaves go through one expression together, parted by a character that is in no word:
        engines take some 8 ms to compile one that knows all letters, before the first row.
        """
        tests = _Tests(string=lambda leaf: self._has_part(leaf, words))
        strings = [column for column in columns if column.kind == "string"]
        found = [
            self._in_column(column, lambda leaf: self._has_part(leaf, words)) for column in strings
        ]
        texts = [self._joined_values(column) for column in strings]
        if self._misfits:
            found.append(self._in_misfits(path, tests))
            texts.append(self._joined_misfits(path))
        if not texts:
            return NEVER
        together = sql(f"lower(concat_ws({_PARTING}, {{0}}))", listed(texts))
        return self._first_cheaply(any_of(*found), together, words)

    def _joined_values(self, column: LeafColumn) -> Sql:
        if None not in column.steps:
            return _unparted(read(column))
        values = all_values(self._dialect, column, _unparted)
        return sql(self._dialect.joined, values, Sql(_PARTING))

    def _joined_misfits(self, path: str | None) -> Sql:
        named = Sql("m")
        here = ALWAYS if path is None else sql("m.path = {0}", value(path))
        strings = sql(
            self._dialect.filtered, Sql("misfits"), named, all_of(here, Sql(IS_JSON_STRING))
        )
        text = _unparted(sql(self._dialect.text_of_json, Sql("m.value")))
        texts = sql(self._dialect.mapped, strings, named, text)
        return sql(self._dialect.joined, texts, Sql(_PARTING))

    def _payload_exists(self, keys: Sequence[str]) -> Sql:
        path = path_text(keys)
        below = f"{path}."
        found = [
            self._in_column(column, lambda leaf: sql("{0} IS NOT NULL", leaf))
            for column in self._columns
            if not keys or column.path == path or column.path.startswith(below)
        ]
        if self._misfits and not keys:
            found.append(sql("{0} > 0", sql(self._dialect.length, Sql("misfits"))))
        elif self._misfits:
            here = sql("m.path = {0}", value(path))
            under = sql("starts_with(m.path, {0})", value(below))
            found.append(self._any_misfit(any_of(here, under)))
        if self._opaque and not path:
            found.append(self._if_opaque(ALWAYS))
        return any_of(*found)

    def _fold_of(self, column: LeafColumn) -> Fold | None:
        spelling = self._spelt.get(column)
        return None if spelling is None else FOLDS[spelling]

    def _in_column(self, column: LeafColumn, test: _Test) -> Sql:
        return self._nested("data", column.steps, test, 0)

    def _nested(self, at: str, steps: Sequence[str | None], test: _Test, depth: int) -> Sql:
        for taken, step in enumerate(steps, 1):
            if step is None:
                name = f"v{depth}"
                inner = self._nested(name, steps[taken:], test, depth + 1)
                return inner if inner == NEVER else self._any(at, name, inner)
            at = f"{at}.{quoted(step)}"
        return test(Sql(at))

    def _in_misfits(self, path: str | None, tests: _Tests) -> Sql:
        if not self._misfits:
            return NEVER
        json = Sql("m.value")
        passes = []
        if tests.string:
            text = sql(self._dialect.text_of_json, json)
            passes.append(all_of(Sql(IS_JSON_STRING), tests.string(text)))
        if tests.double:
            passes.append(tests.double(sql(self._dialect.double_of_json, json)))
        if tests.bool:
            passes.append(
                all_of(Sql("m.value IN ('true', 'false')"), tests.bool(Sql("(m.value = 'true')")))
            )
        here = ALWAYS if path is None else sql("m.path = {0}", value(path))
        condition = all_of(here, any_of(*passes))
        return NEVER if condition == NEVER else self._any_misfit(condition)

    def _any(self, elements: str, name: str, condition: Sql) -> Sql:
        return sql(self._dialect.any_element, Sql(elements), Sql(name), condition)

    def _any_misfit(self, condition: Sql) -> Sql:
        # Few rows have any, and asking that first takes a quarter off a search over columns.
        return all_of(Sql("misfits IS NOT NULL"), self._any("misfits", "m", condition))

    def _payload_text(self) -> Sql:
        return self._bytes("payload")

    def _bytes(self, column: str) -> Sql:
        return sql(self._dialect.text_of_bytes, Sql(column))

    # What is asked of one leaf

    def _tests(self, condition: Condition) -> _Tests:
        match condition:
            case Words(_, words, number):
                return self._with_number(lambda leaf: self._contains(leaf, words), number)
            case Equals(_, text, number, flag):
                folded = partial(_equals, text)
                tests = self._with_number(folded(ANY_CASE), number)._replace(folded=folded)
                if flag is None:
                    return tests
                return tests._replace(bool=lambda leaf: leaf if flag else sql("NOT {0}", leaf))
            case Like(_, pattern):
                folded = partial(self._like, pattern)
                return _Tests(string=folded(ANY_CASE), folded=folded)
            case NumberRange(_, low, high):
                return _Tests(
                    long=lambda leaf: long(leaf, low, high),
                    double=lambda leaf: double(leaf, low, high),
                )
            case TextRange(_, first, last):
                return _Tests(string=lambda leaf: self._text_range(leaf, first, last))
            case _:
                return _Tests()

    def _with_number(self, string: _Test, number: float | None) -> _Tests:
        if number is None:
            return _Tests(string=string)
        bound = Bound(number, inclusive=True)
        return _Tests(
            string=string,
            long=lambda leaf: long(leaf, bound, bound),
            double=lambda leaf: double(leaf, bound, bound),
        )

    def _contains(self, leaf: Sql, words: Sequence[str]) -> Sql:
        text = sql("lower({0})", _unparted(leaf))
        return self._first_cheaply(self._has_part(leaf, words), text, words)

    def _has_part(self, leaf: Sql, words: Sequence[str]) -> Sql:
        text = sql("lower({0})", leaf)
        rarest_first = sorted(set(words), key=len, reverse=True)
        return all_of(*(sql(self._dialect.contains, text, value(w)) for w in rarest_first))

    def _first_cheaply(self, likely: Sql, text: Sql, words: Sequence[str]) -> Sql:
        """Whether the text contains the words in a row, asked only where that is likely.

        The search for a part is four times as fast as the expression, and seldom passes. AND would
        not do: below a NOT engines compute both of its sides for every row.
        """
        gap = rf"[^\p{{L}}\p{{N}}{_PARTING_IN_CLASS}]+"
        expression = rf"(?:\A|[^\p{{L}}\p{{N}}]){gap.join(words)}(?:[^\p{{L}}\p{{N}}]|\z)"
        passes = sql(self._dialect.matches, text, value(expression))
        return sql("CASE WHEN {0} THEN {1} ELSE FALSE END", likely, passes)

    def _like(self, pattern: Sequence[str | Wild], fold: Fold) -> _Test:
        parts: list[str | Wild] = []
        for part in pattern:
            text = part if isinstance(part, Wild) else fold.of_text(part)
            if text is None:
                return _never
            parts.append(text)
        if parts[:-1].count(Wild.ANY) > 1:
            # LIKE tries every place of one asterisk for every place of the other: with four of
            # them, a text of 2 kB takes minutes in which nothing can interrupt it.
            expression = "".join(
                _EXPRESSION_OF[part] if isinstance(part, Wild) else re.escape(part)
                for part in parts
            )
            whole = value(f"(?s){expression}")
            return lambda leaf: sql(self._dialect.matches_whole, fold.leaf(leaf), whole)
        like = "".join(
            _LIKE_OF[part] if isinstance(part, Wild) else re.sub(r"([%_\\])", r"\\\1", part)
            for part in parts
        )
        return lambda leaf: sql("{0} LIKE {1} ESCAPE '\\'", fold.leaf(leaf), value(like))

    def _text_range(self, leaf: Sql, low: TextBound | None, high: TextBound | None) -> Sql:
        sides = []
        for bound, sign in ((low, ">"), (high, "<")):
            if bound is not None:
                start = sql("substr({0}, 1, {1})", leaf, value(len(bound.text)))
                sides.append(sql(self._dialect.matches_whole, leaf, value(iso_form(bound))))
                sides.append(compared(start, sign, inclusive=bound.inclusive, to=bound.text))
        return all_of(*sides)


# Parts the leaves that are searched for words together. A leaf that has this character itself gets
# a blank for it, which makes no difference to its words.
_PARTING = "chr(31)"
_PARTING_IN_CLASS = r"\x{1F}"

_LIKE_OF = {Wild.ONE: "_", Wild.ANY: "%"}
_EXPRESSION_OF = {Wild.ONE: ".", Wild.ANY: ".*"}

IS_JSON_STRING = "starts_with(m.value, '\"')"


def _equals(text: str, fold: Fold) -> _Test:
    spelt = fold.of_text(text)
    if spelt is None:
        return _never
    return lambda leaf: sql("{0} = {1}", fold.leaf(leaf), value(spelt))


def _never(leaf: Sql) -> Sql:  # noqa: ARG001 - a test of a leaf
    return NEVER


def _unparted(leaf: Sql) -> Sql:
    return sql(f"replace({{0}}, {_PARTING}, ' ')", leaf)
