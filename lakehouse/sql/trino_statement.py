"""What a caller's statement may be on Trino, decided from its text. Pure.

Trino has no locked database for a caller: whoever may ask it anything reads every table of the
catalog. So a statement is read here before Trino sees it. Three rules carry it:

- A statement that begins with SELECT, WITH, VALUES, TABLE or a parenthesis is a query: by Trino's
  grammar nothing else begins so, and a query writes nothing. A session property or a function may
  stand behind that WITH, and is refused.
- A name that stands alone is looked for in the session's schema, which is the caller's own. So
  only names with a dot could leave it, and each one where a table may stand has to be the
  caller's.
- Functions that make tables out of their arguments are refused, all but three that read nothing
  else: ``TABLE(table_changes(…))`` takes the names of a table as texts.

Trino is then asked which tables it is going to read (`lakehouse.sql.trino`), so that nothing
depends on this reading alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lakehouse.sql import DISTINCT, TableName
from lakehouse.sql.statement import known_tables
from penstock.errors import BadSql

Kind = Literal["query", "explain", "describe"]

METADATA_TABLES = frozenset({
    "all_entries", "all_manifests", "entries", "files", "history", "manifests",
    "metadata_log_entries", "partitions", "position_deletes", "properties", "refs", "snapshots",
})  # fmt: skip
"""What Iceberg tells of a table, as in ``"flights$snapshots"``."""

_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\r\n]*|/\*.*?\*/)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][A-Za-z0-9_]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)

_QUERY_STARTS = {"SELECT", "WITH", "VALUES", "TABLE"}
# They end the list of tables behind FROM. All of them are reserved: none can be an alias.
_ENDS_TABLES = {"WHERE", "GROUP", "HAVING", "ORDER", "UNION", "EXCEPT", "INTERSECT", "VALUES"}
_MAKES_ROWS = {"UNNEST", "LATERAL", "JSON_TABLE"}
_TABLE_FUNCTIONS = {"SEQUENCE"}
# `fail` would make an error of a payload.
_REFUSED_FUNCTIONS = {"FAIL"}


class Token(NamedTuple):
    """A piece of a statement: `word` is what it means, in upper case unless it is quoted."""

    kind: str
    word: str
    start: int
    end: int


class Edit(NamedTuple):
    """What stands in place of a part of the statement when it is run."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that may be run: `text` is what to run, without the word EXPLAIN."""

    kind: Kind
    text: str
    used: frozenset[TableName]
    edits: tuple[Edit, ...]

    def origin(self, line: int, column: int) -> int | None:
        """Answer which character of the statement as it was written stands here in `text`.

        None for what was put in. Both count from 1, as Trino does; the answer from 0.
        """
        lines = self.text.split("\n")
        place = sum(len(one) + 1 for one in lines[: line - 1]) + column - 1
        moved = 0
        for edit in self.edits:
            if place < edit.start + moved:
                break
            if place < edit.start + moved + len(edit.text):
                return None
            moved += len(edit.text) - (edit.end - edit.start)
        return place - moved


def checked(statement: str, tables: Collection[TableName], *, home: str, catalog: str) -> Checked:
    """Answer the statement as it may be run, and the tables that it names.

    Raises `BadSql` for whatever is no query, EXPLAIN or DESCRIBE, and for a table that is not
    among `tables`.
    """
    tokens = _tokens(statement)
    if not tokens:
        raise BadSql("one statement at a time; these are 0")
    if any(token.kind == "sign" and token.word == ";" for token in tokens):
        raise BadSql("one statement at a time; these are more")
    kind, first = _kind(tokens)
    reading = _Reading(tokens=tokens, tables=frozenset(tables), home=home, catalog=catalog)
    if kind == "describe":
        reading.described(first)
    else:
        reading.query(first)
    begin = tokens[first].start
    edits = (*_prologue(tokens, first, reading), *reading.edits)
    text, at = "", begin
    for edit in edits:
        text += statement[at : edit.start] + edit.text
        at = edit.end
    text += statement[at : tokens[-1].end]
    if kind == "describe":
        text = f"DESCRIBE {text}"
        edits = (Edit(begin, begin, "DESCRIBE "),)
    return Checked(kind, text, frozenset(reading.used), (Edit(0, begin, ""), *edits))


def _tokens(statement: str) -> list[Token]:
    tokens = []
    for match in _TOKEN.finditer(statement):
        kind, word = match.lastgroup or "", match[0]
        if kind == "blank":
            continue
        if kind == "sign" and word in "'\"`":
            raise BadSql(f"a {word} at character {match.start() + 1} has no end")
        if kind == "name":
            word = word.upper()
        if kind == "quoted":
            word = word[1:-1].replace('""', '"')
        tokens.append(Token(kind, word, match.start(), match.end()))
    while tokens and tokens[-1].kind == "sign" and tokens[-1].word == ";":
        tokens.pop()
    return tokens


def _kind(tokens: list[Token]) -> tuple[Kind, int]:
    """Answer what the statement is, and where the query or the table in it begins."""
    first = _word(tokens, 0)
    if first in ("DESCRIBE", "DESC"):
        return "describe", 1
    if first == "EXPLAIN":
        begin = _word(tokens, 1)
        if begin in ("ANALYZE", "VERBOSE") or (
            begin == "(" and _word(tokens, 2) not in {*_QUERY_STARTS, "("}
        ):
            raise BadSql("EXPLAIN takes no options here: it shows the plan and runs nothing")
        _refuse_others(begin)
        return "explain", 1
    _refuse_others(first)
    return "query", 0


def _refuse_others(first: str) -> None:
    if first not in {*_QUERY_STARTS, "("}:
        raise BadSql(f"only SELECT and EXPLAIN are run here, not {first or 'nothing'}")


def _word(tokens: list[Token], place: int) -> str:
    """Answer the keyword or sign at a place; nothing for what could not be one."""
    if not 0 <= place < len(tokens):
        return ""
    token = tokens[place]
    return token.word if token.kind in ("name", "sign") else ""


def _prologue(tokens: list[Token], first: int, reading: _Reading) -> Iterator[Edit]:
    """Answer what defines the distinct events of the tables that are asked for them."""
    if not reading.distinct:
        return
    views = ", ".join(
        f"{_quoted(name)} AS (SELECT * FROM {_quoted(table.schema)}.{_quoted(table.name)}"  # noqa: S608 - quoted
        " WHERE duplicate_of IS NULL)"
        for name, table in reading.distinct.items()
    )
    if _word(tokens, first) != "WITH":
        yield Edit(tokens[first].start, tokens[first].start, f"WITH {views} ")
        return
    if _word(tokens, first + 1) == "RECURSIVE":
        (name, *_) = reading.distinct
        raise BadSql(
            f"{name} cannot be read in WITH RECURSIVE; "
            f"read {name.removesuffix(DISTINCT)} and ask for duplicate_of IS NULL"
        )
    yield Edit(tokens[first].end, tokens[first].end, f" {views},")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(slots=True)
class _Level:
    """The inside of a parenthesis. In a `call` no table can stand but in parentheses of its own."""

    call: bool
    table_next: bool = False
    """A table stands here."""
    tables_listed: bool = False
    """A comma parts tables."""
    name_next: bool = False
    """The name of a subquery stands here."""
    names_listed: bool = False
    """A comma parts subqueries with names."""


@dataclass(slots=True, kw_only=True)
class _Reading:
    """Goes through the tokens once; knows at each of them whether a table may stand there."""

    tokens: list[Token]
    tables: frozenset[TableName]
    home: str
    catalog: str
    used: set[TableName] = field(default_factory=set)
    distinct: dict[str, TableName] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    named: set[str] = field(default_factory=set)

    def described(self, first: int) -> None:
        """Take a name of a table, and nothing behind it."""
        if first >= len(self.tokens) or self.tokens[first].kind not in ("name", "quoted"):
            raise BadSql(f"DESCRIBE needs a table. {self._known()}")
        if self._table(first) != len(self.tokens):
            raise BadSql("DESCRIBE takes the name of one table")
        if self.edits:
            # A view of distinct events has the columns of its table.
            (table,) = self.distinct.values()
            (edit,) = self.edits
            name = f"{_quoted(table.schema)}.{_quoted(table.name)}"
            self.edits[:] = [edit._replace(text=name)]
            self.distinct.clear()

    def query(self, first: int) -> None:
        """Take a whole query."""
        levels = [_Level(call=False)]
        place, begins = first, True
        while place < len(self.tokens):
            level, word = levels[-1], _word(self.tokens, place)
            if word == "(":
                levels.append(self._opened(level, place))
                place, begins = place + 1, True
                continue
            if word == ")":
                levels.pop()
                if not levels:
                    raise BadSql(f"a ) at character {self.tokens[place].start + 1} closes nothing")
                place, begins = place + 1, False
                continue
            place = self._step(level, place, word, begins=begins)
            begins = False
        if len(levels) > 1:
            raise BadSql("a ( is not closed")

    def _opened(self, level: _Level, place: int) -> _Level:
        following = _word(self.tokens, place + 1)
        if following in _QUERY_STARTS:
            level.table_next = False
            return _Level(call=False)
        inside = _Level(call=not level.table_next and following != "(", table_next=level.table_next)
        level.table_next = False
        return inside

    def _step(  # noqa: C901 - a case a keyword
        self, level: _Level, place: int, word: str, *, begins: bool
    ) -> int:
        """Take what stands here; answer where to go on."""
        token = self.tokens[place]
        if begins and word == "WITH":
            return self._with(level, place)
        if level.name_next and token.kind in ("name", "quoted"):
            self.named.add(token.word.lower())
            level.name_next, level.names_listed = False, True
            return place + 1
        match word:
            case "SELECT":
                level.names_listed = level.tables_listed = level.table_next = False
                return place + 1
            case "FROM" if not level.call and not self._compares(place):
                level.table_next = level.tables_listed = True
                return place + 1
            case "JOIN":
                level.table_next = True
                return place + 1
            case "TABLE":
                return self._table_keyword(level, place)
            case ",":
                level.name_next = level.names_listed
                level.table_next = level.tables_listed
                return place + 1
            case "WINDOW" if _word(self.tokens, place + 2) == "AS":
                level.tables_listed = False
                return place + 1
        if word in _ENDS_TABLES and not self._word_is(place - 1, "WITHIN"):
            level.names_listed = level.tables_listed = level.table_next = False
            return place + 1
        if level.table_next:
            return self._relation(level, place, word)
        return self._expression(place)

    def _with(self, level: _Level, place: int) -> int:
        recursive = _word(self.tokens, place + 1) == "RECURSIVE"
        place += 1 + recursive
        if _word(self.tokens, place) in ("FUNCTION", "SESSION") and _word(
            self.tokens, place + 1
        ) not in ("AS", "("):
            raise BadSql("WITH names subqueries here, no functions and no session properties")
        level.name_next = True
        return place

    def _compares(self, place: int) -> bool:
        """Say whether this FROM belongs to IS DISTINCT FROM."""
        return _word(self.tokens, place - 1) == "DISTINCT" and (
            _word(self.tokens, place - 2) == "IS"
            or (_word(self.tokens, place - 2), _word(self.tokens, place - 3)) == ("NOT", "IS")
        )

    def _table_keyword(self, level: _Level, place: int) -> int:
        """Take ``TABLE flights``, or a function that makes a table."""
        if _word(self.tokens, place + 1) != "(":
            level.table_next = False
            return self._table(place + 1)
        name = _word(self.tokens, place + 2)
        if not level.table_next or name not in _TABLE_FUNCTIONS or self._word_is(place + 3, "."):
            raise BadSql(f"a statement reads tables only, no TABLE(…). {self._known()}")
        level.table_next = False
        return place + 1

    def _relation(self, level: _Level, place: int, word: str) -> int:
        if self.tokens[place].kind not in ("name", "quoted"):
            raise BadSql(f"a table has to stand at character {self.tokens[place].start + 1}")
        level.table_next = False
        if word in _MAKES_ROWS and self._word_is(place + 1, "("):
            return place + 1
        return self._table(place)

    def _expression(self, place: int) -> int:
        """Refuse functions that are not offered."""
        token = self.tokens[place]
        if token.kind in ("name", "quoted") and self._word_is(place + 1, "("):
            if token.word.upper() in _REFUSED_FUNCTIONS:
                raise BadSql(f"{token.word.lower()}(…) is not offered here")
            if self._word_is(place - 1, "."):
                raise BadSql("functions are named without a schema here")
        return place + 1

    def _word_is(self, place: int, word: str) -> bool:
        return _word(self.tokens, place) == word

    def _table(self, place: int) -> int:
        """Take the name of a table; answer where to go on."""
        parts: list[str] = []
        end = place
        while True:
            if end >= len(self.tokens) or self.tokens[end].kind not in ("name", "quoted"):
                written = ".".join(parts)
                raise BadSql(f"there is no table {written!r}. {self._known()}")
            parts.append(self.tokens[end].word.lower())
            end += 1
            if not self._word_is(end, "."):
                break
            end += 1
        if self._word_is(end, "("):
            raise BadSql(f"a statement reads tables only, not {parts[-1]}(…). {self._known()}")
        if len(parts) > 1 or parts[0] not in self.named:
            self._use(parts, self.tokens[place].start, self.tokens[end - 1].end)
        return end

    def _use(self, parts: list[str], start: int, end: int) -> None:
        *catalog, schema, name = [self.home, *parts] if len(parts) == 1 else parts
        base, dollar, about = name.partition("$")
        wanted = TableName(schema, base)
        foreign = bool(catalog) and catalog != [self.catalog]
        if foreign or wanted not in self.tables or (dollar and about not in METADATA_TABLES):
            raise BadSql(f"there is no table {'.'.join(parts)!r}. {self._known()}")
        if not base.endswith(DISTINCT):
            self.used.add(wanted)
            return
        table = TableName(schema, base.removesuffix(DISTINCT))
        if dollar or table not in self.tables:
            raise BadSql(f"there is no table {'.'.join(parts)!r}. {self._known()}")
        shown = base if schema == self.home else f"{schema}.{base}"
        self.used.add(table)
        self.distinct[shown] = table
        self.edits.append(Edit(start, end, _quoted(shown)))

    def _known(self) -> str:
        return known_tables(self.tables, self.home)
