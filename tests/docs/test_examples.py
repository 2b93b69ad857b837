"""The examples of the documents: commands can be typed as they stand, and the tour works.

A block ```sh of README and quickstart is run, in order, in one shell; a block ```text behind it is
what that printed, line by line, with … for what is another every time. A comment ``<!-- not run``
before a block says why it is not. Blocks ```python are run too. Every line that begins with
``penstock`` anywhere in the documents is read by the command line's own parser, and what is shown
as JSON, TOML or YAML by whatever takes it.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import typer
import yaml
from ports import free_ports

from penstock.cli.home import Running
from penstock.cli.main import app
from penstock.client import Client
from penstock.contract.quarantine import ReleaseAsked
from penstock.contract.search import Completed, LookedForEvents, LookedForFacets
from penstock.contract.searches import NewSavedSearch
from penstock.query import parse
from penstock.settings import load_settings
from replay.job import ReplayConfig

# Replays reach these without a setting, and the tour replays to the door.
REACHABLE = range(8_100, 9_900)

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TOUR = (ROOT / "docs" / "quickstart.md", ROOT / "README.md")
PROGRAMS = (ROOT / "docs" / "howto" / "send.md", ROOT / "docs" / "reference" / "api.md")

_BLOCK = re.compile(
    r"^(?P<not_run><!-- not run.*?-->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of commands, and what it prints."""

    commands: str
    printed: list[str]


def blocks(page: Path) -> Iterator[Block]:
    found = list(_BLOCK.finditer(page.read_text()))
    for place, block in enumerate(found):
        if block["kind"] != "sh" or block["not_run"]:
            continue
        after = found[place + 1] if place + 1 < len(found) else None
        told = after is not None and after["kind"] == "text"
        yield Block(block["text"], after["text"].splitlines() if after and told else [])


def commands(page: Path) -> Iterator[list[str]]:
    """Answer the words of every line that types ``penstock`` with something behind it."""
    text = re.sub(r"\\\n", " ", page.read_text())
    for line in text.splitlines():
        typed = re.match(r"\s*(?:PENSTOCK_\w+=\S+ )*(penstock [a-z].*)$", line)
        if typed and (line.startswith(" ") or page in TOUR):
            words = shlex.split(typed[1], comments=True)
            yield list(takewhile(lambda word: word not in {">", ">>", "|"}, words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_typed_as_they_stand(page: Path) -> None:
    """An option that went away must go away here too."""
    for words in commands(page):
        command, name, rest = typer.main.get_command(app), "penstock", words[1:]
        while below := getattr(command, "commands", None):
            name, *rest = rest
            assert name in below, words
            command = below[name]
        if "[options]" in rest:
            continue  # the usage lines of the reference
        with command.make_context(name, rest) as typed:
            if "query" in typed.params:
                parse(" ".join(typed.params["query"] or ()), now=0)


def test_the_tour_can_be_read_by_this_test() -> None:
    """A block that is not found is not run, and nobody would notice."""
    assert [len(list(blocks(page))) for page in TOUR] == [9, 3]
    assert sum(bool(block.printed) for block in blocks(TOUR[0])) == 9


def snippets(kind: str) -> list[tuple[Path, str]]:
    return [
        (page, block["text"])
        for page in PAGES
        for block in _BLOCK.finditer(page.read_text())
        if block["kind"] == kind
    ]


def test_what_is_shown_as_json_is_json() -> None:
    """It is copied into programs."""
    shown = snippets("json")

    assert len(shown) >= 4
    for _, text in shown:
        json.loads(text)
    search, facets, writing, saved, repair = [text for page, text in shown if page.name == "api.md"]
    LookedForEvents.model_validate_json(search)
    LookedForFacets.model_validate_json(facets)
    Completed.model_validate_json(writing)
    NewSavedSearch.model_validate_json(saved)
    ReleaseAsked.model_validate_json(repair)


def test_settings_that_are_shown_are_taken(tmp_path: Path) -> None:
    """A file that is refused keeps everything from starting."""
    shown = snippets("toml")

    assert shown
    for _, text in shown:
        (tmp_path / "penstock.toml").write_text(text)
        load_settings(tmp_path, {})


def test_the_launchpads_configuration_is_taken() -> None:
    """Dagster tells about a wrong name only when somebody presses the button."""
    text = (ROOT / "docs" / "howto" / "replay-to-staging.md").read_text()
    (shown,) = re.findall(r"^    ops:\n(?:     .*\n)+", text, re.MULTILINE)
    config = yaml.safe_load(shown)["ops"]["send"]["config"]

    assert ReplayConfig(**config).asked() == {**ReplayConfig().asked(), **config}


@pytest.mark.trip
@pytest.mark.xdist_group("trip")
def test_the_tour_works_as_it_is_told(tmp_path: Path) -> None:
    """These are the first commands that anybody types."""
    home = tmp_path / ".penstock"
    with started(home) as what:
        for page in TOUR:
            for block in blocks(page):
                if "penstock sql" in block.commands:
                    wait_landed(what, "shop" if page == TOUR[0] else "hello")
                assert_told(block.printed, run(block.commands, what, tmp_path), page)
        for page in PROGRAMS:
            run_python(page, what)
        ask(ROOT / "docs" / "howto" / "find-and-ask.md", what)
        assert_every_file_is_told(home)
        assert_nothing_is_told_on(home, what.token)


@contextmanager
def started(home: Path) -> Iterator[Running]:
    """Run `penstock up` for the block, on ports that replays may reach."""
    names = ("http", "grpc", "platform", "dagster")
    given = [
        f"--{name}-port={port}"
        for name, port in zip(names, free_ports(4, among=REACHABLE), strict=True)
    ]
    with (home.parent / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "up", "--home", str(home), *given],
            env={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    try:
        # It prints what runs where, once all of it does.
        ready = process.stdout.readline()
        assert ready, (home.parent / "up.log").read_text()
        yield msgspec.json.decode(ready, type=Running)
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def wait_landed(what: Running, collection: str) -> None:
    with Client(what.platform, what.token) as client:
        deadline = time.monotonic() + 120
        while client.collection_status(collection).waiting:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def run(text: str, what: Running, folder: Path) -> str:
    """Run a block as a person would, in the same folder with what the blocks before left."""
    state = folder / "state.sh"
    state.touch()
    script = (
        f"set -euo pipefail\n. {state}\n{local(text, what)}\ndeclare -px TOKEN > {state} || :\n"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        timeout=120,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def local(text: str, what: Running) -> str:
    """Answer the text with the addresses of this installation."""
    for told, real in (
        ("http://127.0.0.1:8080", what.door),
        ("127.0.0.1:9000", what.grpc),
        ("http://127.0.0.1:8000", what.platform),
    ):
        text = text.replace(told, real)
    return text


def assert_told(told: list[str], printed: str, page: Path) -> None:
    """Each line of the page is one of those printed, in order; … stands for anything."""
    rest = iter(printed.splitlines())
    for line in told:
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        pattern = re.sub(r"(\\ )+", r"\\s+", pattern)
        assert any(re.fullmatch(rf"\s*{pattern}\s*", one) for one in rest), (
            page.name,
            line,
            printed,
        )


def run_python(page: Path, what: Running) -> None:
    programs = [b["text"] for b in _BLOCK.finditer(page.read_text()) if b["kind"] == "python"]
    assert programs
    for program in programs:
        exec(compile(local(program, what), page.name, "exec"), {"token": what.token})


def ask(page: Path, what: Running) -> None:
    """Run the statements and the searches of a page; what they find is not looked at."""
    with Client(what.platform, what.token) as client:
        for _, verb, first, *rest in commands(page):
            if verb == "sql":
                client.sql(first)
            elif verb == "search" and first == "--saved":
                client.saved_search(rest[0])
            elif verb == "search":
                if "--save" in rest:
                    name = rest[rest.index("--save") + 1]
                    client.save_search(name, first, rest[0])
                client.search(first, next((word for word in rest if word[0] != "-"), ""), limit=1)


def assert_every_file_is_told(home: Path) -> None:
    text = (ROOT / "docs" / "reference" / "home.md").read_text()
    names = {re.sub(r"(\.db).*", r"\1", file.name) for file in home.iterdir()}
    assert [name for name in names if f"`{name}`" not in text and f"`{name}/`" not in text] == []


def assert_nothing_is_told_on(home: Path, token: str) -> None:
    """No log of a process, and nothing that Dagster keeps, holds a token or a payload.

    The token is a sender's, the operator's and, as a header of its own, the destination's.
    """
    files = [file for part in ("logs", "dagster") for file in (home / part).rglob("*")]
    contents = {file: file.read_bytes() for file in files if file.is_file()}

    assert any(b"replay" in content for content in contents.values())
    assert [file for file, content in contents.items() if token.encode() in content] == []
    assert [file for file, content in contents.items() if b"leek" in content] == []
