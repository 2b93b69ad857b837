"""What exists is in the reference, and the reference says what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import msgspec
import pytest
from cli_page import PAGE, cli_page, commands
from fastapi.routing import APIRoute
from platform_stand_ins import platform

import penstock
from ingest_api.app import create_control
from ingest_api.framing import MOST_EVENTS
from ingest_api.grpc_server import SERVICE, TOKEN_KEYS, status_of
from ingest_api.ids import LONGEST_ID
from ingest_api.metrics import Metrics as DoorMetrics
from ingest_api.records import MAPPINGS, TOO_LARGE
from lakehouse.sql.statement import _TABLE_FUNCTIONS
from orchestration.digest import Sum
from orchestration.jobs import LaneConfig, figures
from penstock import errors
from penstock.api import (
    collections,
    destinations,
    events,
    quarantine,
    replays,
    rewriting,
    search,
    searches,
    sql,
    stats,
    status,
    tail,
    tokens,
)
from penstock.api.access import Needs
from penstock.api.app import create_app
from penstock.api.metrics import Metrics as PlatformMetrics
from penstock.api.metrics import books_text
from penstock.buffer.memory import MemoryLog
from penstock.codec import ENVELOPE
from penstock.contract.replays import PlanTold, ReplayBooks
from penstock.problem import problem, slug
from penstock.quarantine.release import COPY, STAGE
from penstock.query.parse import field_of, parse
from penstock.query.tree import Payload
from penstock.schema import convert
from penstock.schema.convert import Rules
from penstock.schema.rows import QUARANTINE_TAIL, ROWS_TAIL
from penstock.settings import Settings
from penstock.vocabulary import State
from replay.progress import Attempt
from replay.request import Options
from replay.targets import ADDED

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def rows(name: str) -> dict[str, list[str]]:
    """Answer the rows of a page's tables: what stands in the first cell, and the others."""
    found: dict[str, list[str]] = {}
    for line in page(name).splitlines():
        if line.startswith("| `") and not line.startswith("| `type`"):
            first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
            for word in re.findall(r"`([^`]+)`", first):
                found[word] = rest
    return found


def test_the_command_line_is_told_as_it_is() -> None:
    """`make docs` renews the page."""
    assert PAGE.read_text() == cli_page()


def test_every_command_and_option_is_on_that_page() -> None:
    """The page is made by a program, which could leave something out."""
    text = PAGE.read_text()

    missing = [
        (name, word)
        for name, command in commands()
        for option in command.params
        for word in (option.opts if option.param_type_name == "option" else [option.name.upper()])
        if f"## {name}\n" not in text or word not in text
    ]

    assert missing == []


def test_every_setting_has_its_default_and_meaning() -> None:
    """A default that is told wrong is believed."""
    told = rows("settings")

    def default(value: object) -> str:
        return "" if value in (None, "", ()) else str(value)

    assert told == {
        name: [
            "" if field.is_required() else default(field.default),
            (field.description or "").replace("|", "\\|"),
        ]
        for name, field in Settings.model_fields.items()
    }


def test_every_metric_has_its_kind_and_meaning() -> None:
    """Dashboards are made from this page."""
    door = DoorMetrics()
    door.accepted("http", 1, 1, 0.1)
    door.refused(errors.Unauthorized("no"))
    kinds = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in door.collect()
    }
    text = (PlatformMetrics().text(MemoryLog(), tails=0) + books_text([])).decode()
    kinds |= {
        name: kind
        for name, kind in re.findall(r"^# TYPE (penstock_\w+) (\w+)$", text, re.MULTILINE)
        if not name.endswith("_created")
    }

    told = {name: cells[0] for name, cells in rows("metrics").items()}

    assert told == kinds


def every_error(kind: type[errors.PenstockError] = errors.PenstockError) -> Iterator[type]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from every_error(below)


def bare(kind: type) -> errors.PenstockError:
    """Answer an error without its facts."""
    error = kind.__new__(kind)
    error.__dict__.update(retry_after=1, position=0, query="", text="")
    return error


FAMILIES = {errors.Rejected, errors.Unavailable, errors.Stopped}
ERRORS = [kind for kind in every_error() if kind not in FAMILIES]


def test_every_error_has_its_status() -> None:
    """Clients decide by it what to do."""
    told = rows("errors")
    for no_exception in ("method-not-allowed", "request-header-fields-too-large"):
        del told[no_exception]

    assert {word: cells[0] for word, cells in told.items()} == {
        slug(problem(bare(kind)).title): str(problem(bare(kind)).status)
        for kind in ERRORS
        if kind is not errors.BadSetting
    }
    assert "`bad-setting`" in page("errors")


def test_every_error_has_its_grpc_code() -> None:
    """Relays look at nothing else."""
    told = {}
    for line in page("door-grpc").partition("## Status codes")[2].splitlines():
        if line.startswith("| ") and "|---" not in line:
            names, code = [cell.strip() for cell in line.strip("|").split("|")]
            told.update(dict.fromkeys(names.split(", "), code))

    def said(kind: type[errors.PenstockError]) -> str:
        title = problem(bare(kind)).title
        if issubclass(kind, errors.Stopped):
            return told["and every stop"]
        rest = told["every other error of the sender"]
        return told.get(title, rest if issubclass(kind, errors.Rejected) else "")

    wrong = [
        (kind, said(kind), status_of(bare(kind))[0].name)
        for kind in ERRORS
        if kind is not errors.BadSetting and said(kind) != status_of(bare(kind))[0].name
    ]

    assert wrong == []


def quarantine_reasons() -> set[str]:
    """Answer the reasons that the code gives, by reading it."""
    found = {TOO_LARGE}
    for folder in ("penstock/schema", "penstock/search", "assets"):
        for file in (Path(penstock.__file__).parents[1] / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                if name == "_Verdict" and len(words) > 1:
                    found.add(words[1])
                wish = name == "metadata.get" and "REASON_KEY" in ast.unparse(node)
                if wish or name in ("Refused", "Barred"):
                    found.add(words[0])
    return found


def test_every_quarantine_reason_and_stage_is_told() -> None:
    """Somebody asks in SQL why their events are not there."""
    section = page("rows").partition("## Quarantine")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section, re.MULTILINE)

    assert {reason for _, reason in told} == {*quarantine_reasons(), COPY}
    stages = get_args(get_type_hints(convert._Verdict)["stage"])
    assert {stage for stage, _ in told} == {*stages, STAGE}


def test_every_column_is_told() -> None:
    """And no column that is not there."""
    columns = {*ENVELOPE.names, *ROWS_TAIL.names, *QUARANTINE_TAIL.names, "data"}
    fields = set(Attempt.__struct_fields__)

    stages = set(get_args(get_type_hints(convert._Verdict)["stage"]))
    contracts = set(get_args(get_type_hints(Rules)["contract"]))
    assert contracts <= set(rows("rows"))
    assert set(rows("rows")) - stages - contracts - {STAGE} == columns | fields


def openapi_routes(paths: dict[str, dict[str, object]]) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_route_of_the_door_is_told() -> None:
    """What nobody knows of, nobody guards."""
    described = create_control({}, DoorMetrics()).openapi()

    told = {word for word in rows("door-http") if re.match(r"(GET|POST) /", word)}

    assert told == openapi_routes(described["paths"])


def test_every_route_of_the_platform_is_told_with_its_scope(tmp_path: Path) -> None:
    """A scope that is told wrong makes tokens that can do too much."""
    here = platform(tmp_path)
    described = openapi_routes(create_app(here).openapi()["paths"])
    here.store.close()
    scopes = dict.fromkeys(described, "none")
    for noun in (
        collections,
        destinations,
        events,
        quarantine,
        replays,
        rewriting,
        search,
        searches,
        sql,
        stats,
        status,
        tail,
        tokens,
    ):
        for route in noun.router.routes:
            assert isinstance(route, APIRoute)
            (scope,) = [d.call.scope for d in route.dependant.dependencies if _needs(d.call)]
            scopes.update((f"{m} {_plain(route.path)}", scope) for m in route.methods)

    assert {word: cells[0] for word, cells in rows("api").items()} == scopes
    assert scopes.keys() == described


def _needs(call: object) -> bool:
    return isinstance(call, Needs)


def _plain(path: str) -> str:
    return path.replace(":any}", "}")


def test_every_method_and_field_of_the_grpc_contract_is_told() -> None:
    """Where a field of a record goes is what somebody searches for later."""
    told = rows("door-grpc")
    wrong = []
    for method in SERVICE.methods:
        records = method.input_type.fields_by_name.get("records")
        if records is None:
            continue
        mapping = MAPPINGS[records.message_type.name]
        source, payload, key, headers, time, metadata = told[method.name]
        said = (source, payload, key, headers, time, re.findall(r"`([^`]+)`", metadata))
        meant = (
            f"`{mapping.source}`",
            f"`{mapping.payload}`",
            f"`{mapping.key}`" if mapping.key else "",
            f"`{mapping.headers[0]}`" if mapping.headers else "",
            f"`{mapping.time}`",
            [*mapping.metadata, *mapping.maps],
        )
        if said != meant:
            wrong.append((method.name, said, meant))

    assert wrong == []
    assert [key for key in TOKEN_KEYS if f"`{key}`" not in page("door-grpc")] == []


def test_every_option_of_a_replay_has_its_default() -> None:
    """Nobody sends a million events by an option they had to guess."""
    told = rows("replay")
    words = dict.fromkeys(("rate", "gap", "max_events", "retry_of", "transform"), "none")
    words |= {"pause_after": told["pause_after"][0]}

    def default(name: str, value: object) -> str:
        if value in (None, ()):
            return words[name]
        return f"`{value}`" if isinstance(value, str) else f"{value:g}"

    defaults = msgspec.to_builtins(Options())
    assert {name: told[name][0] for name in defaults} == {
        name: default(name, value) if value is not False else "false"
        for name, value in defaults.items()
    }
    assert Options().patience() == 2 * Options().concurrency
    assert Options(concurrency=1).patience() == 10


@pytest.mark.parametrize(
    "words",
    [ADDED, tuple(PlanTold.model_fields), get_args(State), tuple(ReplayBooks.model_fields)],
    ids=["headers", "plan", "states", "books"],
)
def test_what_a_replay_tells_is_explained(words: tuple[str, ...]) -> None:
    """The page is read by whoever has to decide whether to press resume."""
    text = page("replay")

    assert [word for word in words if not re.search(rf"\b{word}\b", text)] == []


def test_the_fields_of_the_search_language_are_those_that_are_read() -> None:
    """A name that is told but not read would be looked for in the payload, and never be found."""
    section = page("search").partition("## Fields")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w.-]+)`", section)
    known = {name for name in named if not isinstance(field_of(name), Payload)}
    payload = {"total", "data.total", "client.payload.total", "data."}

    assert known == set(named) - payload


def test_every_query_of_the_search_page_can_be_read() -> None:
    """An example that is refused teaches the wrong thing."""
    text = page("search").partition("## Conditions")[2]
    table = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    queries = re.findall(r"`([^`]+)`", table) + re.findall(r"^    (\S.*)$", text, re.MULTILINE)

    assert len(queries) > 25
    for query in queries:
        if query != "( )":
            parse(query, now=0)


def test_the_functions_a_statement_may_read_from_are_told() -> None:
    """They are the only sources beside tables."""
    assert [name for name in _TABLE_FUNCTIONS if f"`{name}`" not in page("sql")] == []


def test_bounds_are_told_as_they_are() -> None:
    """A number in prose is the first thing to rot."""
    assert f"{MOST_EVENTS:,}" in page("door-http")
    assert f"{LONGEST_ID:,}" in page("door-http")


def test_everything_in_dagster_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashboards and alerts are made from these names."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_SEARCH_URL", "elasticsearch://127.0.0.1:1")
    from orchestration.definitions import definitions

    repository = definitions().get_repository_def()
    checks = [key.name for key in repository.asset_graph.asset_check_keys]
    names = {
        *(name for name in repository.job_names if not name.startswith("__")),
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *checks,
    }
    text = page("dagster")

    assert set(rows("dagster")) == names
    assert len(checks) == 5
    for one in (*repository.sensor_defs, *repository.schedule_defs):
        assert f"`{one.name}`" in text
    lane = LaneConfig()
    assert f"`idle_seconds` ({lane.idle_seconds:g}) or `minutes` ({lane.minutes:g})" in text
    newest = SimpleNamespace(lag=0, waiting=0, columns=0, snapshot_id=1, duplicate_window=1)
    assert [name for name in figures(Sum(0, newest=newest)) if f"`{name}`" not in text] == []
