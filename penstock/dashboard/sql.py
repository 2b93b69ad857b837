"""SQL: a statement, its rows, and the tables that it may read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response

from penstock.api import sql
from penstock.api.platform import Here, Platform
from penstock.contract.sql import SqlAnswer, Statement, TableTold
from penstock.dashboard.access import Reading, Visit
from penstock.dashboard.forms import Wrong, asked
from penstock.errors import NotFound, PenstockError, Rejected, Unavailable

router = APIRouter(prefix="/sql")

MOST_ROWS = 500
"""Rows that a page shows; the files hold all of them."""

_MOST_BARS = 40
_MOST_POINTS = 2_000
_CELL = 120
_FOLDED = 4_000
_MOST_COLUMNS = 100
_NUMBERS = ("int", "uint", "float", "double", "half", "decimal", "bigint")
_TIMES = ("timestamp", "date")
_LINE = re.compile(r"\bLINE (\d+):|, at line (\d+)")
_QUOTED = re.compile(r"[\"']([\w.]+)[\"']")
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_FILES = {"csv": (sql.CSV, "csv"), "parquet": (sql.PARQUET, "parquet")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A value as it is shown: its text, and all of it where it is folded."""

    text: str
    kind: str = ""
    """``null``, ``number``, ``nested`` or nothing."""
    whole: str = ""
    cut: int = 0
    """Characters that are not shown even unfolded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What two columns draw: points over time, or a bar for each text."""

    label: str
    starts: Sequence[float] = ()
    values: Sequence[float] = ()
    bars: Sequence[tuple[str, float, float]] = ()
    """Text, value, and its width of 100."""


@router.get("", name="sql")
def show_sql(
    visit: Reading,
    here: Here,
    q: Annotated[str, Query()] = "",
    table: Annotated[str, Query()] = "",
) -> Response:
    """Show the editor, with a statement that a link brings: it is not run."""
    return _show(visit, here, statement=q, table=table)


@router.post("", name="run_sql")
def run(visit: Reading, here: Here) -> Response:
    """Run the statement of the form, and show its rows."""
    statement, table = visit.form.raw("statement"), visit.form.text("table")
    try:
        wanted = asked(Statement, {"statement": statement.strip()})
        answer = sql.ask(wanted, visit.caller, here, accept="")
    except Wrong as error:
        said = "Write a statement first." if not statement.strip() else error.fields["statement"]
        return _show(visit, here, statement=statement, table=table, error=said, status=422)
    except (Rejected, Unavailable) as error:
        return _refused(visit, here, error, statement, table)
    told = SqlAnswer.model_validate(json.loads(bytes(answer.body)))
    return _show(visit, here, statement=statement, table=table, answer=told)


@router.post("/{kind}", name="sql_file")
def download(kind: str, visit: Reading, here: Here) -> Response:
    """Send all rows of the statement as a file."""
    if kind not in _FILES:
        raise NotFound("page", f"/sql/{kind}")
    accept, ending = _FILES[kind]
    statement = visit.form.raw("statement")
    try:
        wanted = asked(Statement, {"statement": statement.strip()})
        answer = sql.ask(wanted, visit.caller, here, accept=accept)
    except Wrong as error:
        said = "; ".join(error.fields.values())
        return _show(visit, here, statement=statement, error=said, status=422)
    except (Rejected, Unavailable) as error:
        return _refused(visit, here, error, statement)
    answer.headers["Content-Disposition"] = f'attachment; filename="penstock.{ending}"'
    return answer


def _refused(
    visit: Visit, here: Platform, error: PenstockError, statement: str, table: str = ""
) -> Response:
    """Show why a statement has no rows, and the statement as it was typed."""
    status = 503 if isinstance(error, Unavailable) else 422
    return _show(visit, here, statement=statement, table=table, error=str(error), status=status)


def _show(
    visit: Visit,
    here: Platform,
    *,
    statement: str,
    table: str = "",
    answer: SqlAnswer | None = None,
    error: str = "",
    status: int = 200,
) -> Response:
    told = sql.list_tables(visit.caller, here)
    chosen: TableTold | None = None
    name = table or (told.tables[0] if told.tables else "")
    if name:
        try:
            chosen = sql.show_table(name, visit.caller, here)
        except NotFound:
            chosen = None
    rows = [] if answer is None else answer.rows[:MOST_ROWS]
    shown = [] if answer is None else list(zip(answer.columns, answer.types, strict=True))
    examples = examples_of(chosen) if chosen else []
    return visit.show(
        "sql.html",
        status=status,
        told=told,
        chosen=chosen,
        examples=examples,
        statement=statement or (examples[0][1] if examples else ""),
        error=error,
        bad_line=line_of(error, statement),
        answer=answer,
        columns=[(name, kind, is_number(kind)) for name, kind in shown[:_MOST_COLUMNS]],
        more_columns=max(0, len(shown) - _MOST_COLUMNS),
        rows=[[cell(value) for value in row[:_MOST_COLUMNS]] for row in rows],
        chart=None if answer is None else chart_of(answer),
        most_rows=MOST_ROWS,
        most_listed=_MOST_COLUMNS,
    )


def line_of(error: str, statement: str) -> int | None:
    """Answer the line of the statement that an engine's sentence is about; None if it is not known.

    It names the line, or quotes a name that the statement has in one line alone.
    """
    # The page sends a statement without the blank lines before it, which people still see.
    before = statement[: len(statement) - len(statement.lstrip())].count("\n")
    found = _LINE.search(error)
    if found is not None:
        return before + int(found[1] or found[2])
    quoted = _QUOTED.search(error)
    if quoted is None:
        return None
    word = re.compile(rf"(?<!\w){re.escape(quoted[1])}(?!\w)")
    lines = [n for n, line in enumerate(statement.split("\n"), 1) if word.search(line)]
    return lines[0] if len(lines) == 1 else None


def is_number(kind: str) -> bool:
    """Say whether an Arrow type is one of numbers."""
    return kind.lower().startswith(_NUMBERS)


def cell(value: Any) -> Cell:
    """Answer how a value is shown: long and nested ones are folded, and none is shown endlessly."""
    match value:
        case None:
            return Cell(text="null", kind="null")
        case bool():
            return Cell(text="true" if value else "false")
        case int() | float():
            return Cell(text=str(value), kind="number")
        case str():
            written, kind = value, ""
        case {"base64": str(packed), **rest} if not rest:
            size = len(packed) * 3 // 4 - packed.count("=")
            return Cell(text=f"{size:,} bytes, no text", kind="null")
        case _:
            written, kind = msgspec.json.encode(value).decode(), "nested"
    if len(written) <= _CELL and (kind == "" or len(written) <= _CELL // 2):
        return Cell(text=written, kind=kind)
    cut = max(0, len(written) - _FOLDED)
    return Cell(text=f"{written[: _CELL // 2]}…", kind=kind, whole=written[:_FOLDED], cut=cut)


def chart_of(answer: SqlAnswer) -> Chart | None:
    """Answer what the first two columns draw, if they are a time or a text, and a number."""
    if len(answer.columns) < 2 or len(answer.rows) < 2 or not is_number(answer.types[1]):  # noqa: PLR2004 - two columns
        return None
    pairs = [
        (row[0], float(row[1]))
        for row in answer.rows
        if row[0] is not None and isinstance(row[1], int | float)
    ]
    label = f"{answer.columns[1]} by {answer.columns[0]}"
    if answer.types[0].startswith(_TIMES):
        if not 1 < len(pairs) <= _MOST_POINTS:
            return None
        timed = sorted((_seconds(str(at)), number) for at, number in pairs)
        return Chart(
            label=label, starts=[one[0] for one in timed], values=[one[1] for one in timed]
        )
    if not 1 < len(pairs) <= _MOST_BARS or any(number < 0 for _, number in pairs):
        return None
    most = max(number for _, number in pairs) or 1.0
    bars = [(cell(at).text, number, round(number / most * 100, 2)) for at, number in pairs]
    return Chart(label=label, bars=bars)


def _seconds(text: str) -> float:
    """Answer a time or a day of an answer in seconds since 1970; without a zone it is UTC."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def examples_of(table: TableTold) -> list[tuple[str, str]]:
    """Answer statements about a table that use its own columns, in words of both engines."""
    name = table.name
    if not _SIMPLE.fullmatch(name):
        return []
    fields = [one for one in table.columns if _SIMPLE.fullmatch(one.name)]
    data = [one for one in fields if one.name.startswith("data.")]
    texts = [one.name for one in data if one.type == "string"]
    numbers = [one.name for one in data if one.type in ("long", "double")]
    found = [
        ("Events over time", _counted("date_trunc('minute', received_at) AS minute", name, "1"))
    ]
    if any(one.name == "reason" for one in fields):
        found.append(("Causes", _counted("reason", name, "2 DESC")))
    if texts:
        found.append((f"The most frequent {texts[0]}", _counted(texts[0], name, "2 DESC")))
    if numbers:
        one = numbers[-1]
        spread = [f"{how}({one}) AS {said}" for how, said in _SPREAD]
        found.append((f"How {one} is spread", f"SELECT {', '.join(spread)}\nFROM {name}"))
    shown = ", ".join(["event_id", "received_at", *[one.name for one in data[:4]]])
    newest = f"SELECT {shown}\nFROM {name}\nORDER BY received_at DESC\nLIMIT 50"
    return [*found, ("The newest", newest)]


_SPREAD = (("count", "n"), ("min", "least"), ("avg", "mean"), ("max", "greatest"))


def _counted(by: str, name: str, order: str) -> str:
    lines = [f"SELECT {by}, count(*) AS events", f"FROM {name}", "GROUP BY 1", f"ORDER BY {order}"]
    return "\n".join([*lines, "LIMIT 500"])
