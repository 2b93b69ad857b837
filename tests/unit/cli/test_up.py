"""What `penstock up` starts, in which order."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from pathlib import Path

import msgspec
from cli_home import every_command
from rich.console import Console

from penstock.cli.demo import FIGURES, PLAY_ON, Books, books_table
from penstock.cli.home import Running
from penstock.cli.up import describe, environment, programs, reaching_itself
from penstock.settings import load_settings


def test_dagsters_programs_start_one_after_the_other(tmp_path: Path) -> None:
    """Each of them makes Dagster's database when there is none.

    Two at a time left it with two versions: the daemon could not open it ever after, and nothing
    landed.
    """
    after = {
        program.name: program.after
        for program in programs(load_settings(tmp_path, {}), code_port=4000)
        if "dagster" in " ".join(program.argv)
    }

    assert after == {
        "code-server": None,
        "dagster-webserver": "code-server",
        "dagster-daemon": "dagster-webserver",
    }


def test_replays_reach_this_machine_where_nobody_else_can_ask_for_one(tmp_path: Path) -> None:
    """A first receiver is on the same machine; the guard has to hold where others can come."""

    def allowed(**variables: str) -> str:
        settings = load_settings(tmp_path, {f"PENSTOCK_{k}": v for k, v in variables.items()})
        return environment(reaching_itself(settings), {})["PENSTOCK_ALLOW_NETWORKS"]

    assert allowed() == "127.0.0.1/32,::1/128"
    assert allowed(HOST="0.0.0.0") == ""
    assert allowed(HOST="10.1.2.3") == ""
    assert allowed(DASHBOARD_URL="https://events.example.com") == ""
    assert allowed(ALLOW_NETWORKS="10.0.0.0/8") == "10.0.0.0/8"
    assert allowed(ALLOW_NETWORKS="") == ""


RUNNING = Running(
    supervisor=1,
    door="http://127.0.0.1:1",
    grpc="127.0.0.1:2",
    platform="http://127.0.0.1:3",
    dagster="http://127.0.0.1:4",
    token="pst_x",
)


def test_what_is_printed_to_type_next_works_for_this_home(tmp_path: Path) -> None:
    """A search without --home would look into another installation."""
    home = tmp_path / "a home"
    shown = io.StringIO()

    describe(RUNNING, home, Console(file=shown, width=20, soft_wrap=True))

    assert f"penstock search hello world --home '{home}'" in shown.getvalue()
    assert f"{home}/logs" in shown.getvalue()


def test_the_link_into_the_browser_keeps_the_token_behind_the_hash(tmp_path: Path) -> None:
    """What stands before it is in requests, in logs, and in what other sites are told."""
    shown = io.StringIO()

    describe(RUNNING, tmp_path, Console(file=shown, width=20, soft_wrap=True))

    assert "open in a browser:  http://127.0.0.1:3/sign-in#pst_x\n" in shown.getvalue()
    behind = msgspec.structs.replace(RUNNING, dashboard="https://penstock.example")
    assert behind.sign_in == "https://penstock.example/sign-in#pst_x"


def test_what_the_demo_says_to_play_with_are_commands() -> None:
    """Somebody types them to the letter."""
    for words in PLAY_ON:
        typed = shlex.split(words)
        assert any(typed[: len(known)] == known for known in every_command()), words


def test_the_demos_books_name_what_went_wrong() -> None:
    """An event too few, one too many and one that was changed are three things."""
    books = Books("orders", sent=Counter([b"a", b"b"]), expected=Counter([b"a", b"b"]))
    books.landed = books.found = 2
    books.replayed = 2
    books.received = Counter([b"a", b"x"])

    assert not books.balanced
    told = dict(zip(FIGURES, books.figures(), strict=True))
    assert (told["missing"], told["doubled"], told["bytes differing"]) == (1, 0, 1)
    books.received = Counter([b"a", b"b"])
    assert books.balanced


def test_the_demos_table_fits_a_small_terminal() -> None:
    """Cut headings ask for a guess at the one moment that counts."""
    books = [Books(name) for name in ("airlines", "planes", "weather", "flights", "orders")]
    for one in books:
        one.landed = one.found = one.replayed = 336_776
    shown = io.StringIO()

    Console(file=shown, width=80).print(books_table(books))

    lines = shown.getvalue().splitlines()
    assert lines[1].split() == ["airlines", "planes", "weather", "flights", "orders"]
    assert [line.split("  ")[0].strip() for line in lines[2:]] == list(FIGURES)
