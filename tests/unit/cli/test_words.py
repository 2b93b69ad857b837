"""What the command line reads and writes, without a platform."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from penstock.cli.console import WRONG_USE, moment, plain, print_table, report, size
from penstock.cli.destination import parse_credential, parse_header, parse_option, read_secret
from penstock.cli.moments import parse_end, parse_moment, parse_start
from penstock.cli.send import Sent, bodies
from penstock.errors import BadQuery, BadRequest, NotFound

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", datetime(2026, 11, 23, 11, 45, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 23, 10, 0, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 16, 12, 0, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T10:00:00+02:00", datetime(2026, 11, 22, 8, 0, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_read_as_people_type_them(text, expected) -> None:
    """A zone left out is UTC, everywhere."""
    assert parse_moment(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", datetime(2026, 12, 23, 12, 0, tzinfo=UTC)),
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        (None, None),
    ],
)
def test_what_a_token_is_given_lies_ahead(text, expected) -> None:
    """A token that ended thirty days ago would be refused, not made."""
    assert parse_end(text, NOW) == expected


@pytest.mark.parametrize(
    ("at", "after", "expected"),
    [
        (None, "2h", NOW + timedelta(hours=2)),
        ("2027-01-01T03:00:00Z", None, datetime(2027, 1, 1, 3, tzinfo=UTC)),
        (None, None, None),
    ],
)
def test_a_start_is_a_time_or_so_much_later(at, after, expected) -> None:
    assert parse_start(at, after, NOW) == expected


@pytest.mark.parametrize(
    ("at", "after", "says"),
    [("2h", None, "--in 2h"), (None, "2027-01-01", "15m, 2h"), ("2027-01-01", "2h", "not both")],
)
def test_a_start_that_could_be_meant_in_two_ways_is_refused(at, after, says) -> None:
    """Two hours ago is when --since 2h begins."""
    with pytest.raises(BadRequest, match=says):
        parse_start(at, after, NOW)


def test_a_time_that_cannot_be_read_says_how_to_write_one() -> None:
    """The message is the manual."""
    with pytest.raises(BadRequest, match="15m"):
        parse_moment("yesterday-ish", NOW)


def test_lines_become_bodies_that_keep_every_byte() -> None:
    """A body may be cut between events only."""
    events = [b'{"n":%d}\n' % n for n in range(2_500)]

    made = list(bodies(events, most_lines=1_000))

    assert b"".join(made) == b"".join(events)
    assert [body.count(b"\n") for body in made] == [1_000, 1_000, 500]


def test_large_lines_make_small_bodies() -> None:
    """The door refuses bodies over its limit."""
    made = list(bodies([b"x" * 900] * 10, most_bytes=2_000))

    assert [len(body) for body in made] == [2_700, 2_700, 2_700, 900]


def test_refusals_are_counted_and_each_reason_is_shown_once() -> None:
    """A thousand equal refusals are one thing to tell."""
    sent = Sent()
    sent.add(
        {
            "accepted": 1,
            "outcomes": [{"status": 202}, {"detail": "too large"}, {"detail": "too large"}],
        }
    )

    assert (sent.accepted, sent.refused, list(sent.reasons)) == (1, 2, ["too large"])


def test_a_wrong_query_is_wrong_use_and_points_at_the_character(capsys) -> None:
    """Exit codes are 0 done, 1 failed, 2 wrong use."""
    code = report(BadQuery("a AND", 5, "expected a condition"), as_json=False)

    assert code == WRONG_USE
    assert capsys.readouterr().err.splitlines()[1:] == ["a AND", "     ^"]


def test_errors_are_problem_json_when_json_is_asked_for(capsysbinary) -> None:
    """Programs read errors as well."""
    report(NotFound("collection", "flights"), as_json=True)

    assert b'"status":404' in capsysbinary.readouterr().err


def test_a_headers_value_is_in_no_message() -> None:
    """It is most often a credential."""
    with pytest.raises(BadRequest) as refused:
        parse_header("Authorization Bearer-secret")

    assert "secret" not in str(refused.value)
    assert parse_header("X-Key:  a:b ") == ("X-Key", "a:b")


def test_figures_read_well() -> None:
    """Tables are for people."""
    assert [size(n) for n in (0, 999, 1_500, 2_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB"]
    assert moment(1_764_000_000_000_000) == "2025-11-24 16:00:00Z"


def test_text_of_others_stays_on_its_line_and_steers_nothing() -> None:
    """Controls, and what turns the direction of text around, are shown, not obeyed."""
    assert plain("a\x1b[2J\n\tb\x9b\u202e") == r"a\x1b[2J\n\tb\x9b\u202e"
    assert plain("Đà Nẵng 東京 [/]") == "Đà Nẵng 東京 [/]"


def shown(width: int, *, terminal: bool = True) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    rows = [("d78a693392312a3f", "dep_delay:>120 AND [a TO b]", 104), ("0e8df240ac479a73", "*", 2)]
    print_table(["id", "query", "delivered#"], rows, console)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_table_wider_than_the_terminal_is_told_row_by_row() -> None:
    """Columns of three characters can be read by nobody."""
    assert shown(60) == [
        " id                query                        delivered",
        " d78a693392312a3f  dep_delay:>120 AND [a TO b]        104",
        " 0e8df240ac479a73  *                                    2",
    ]
    assert shown(40) == [
        "d78a693392312a3f",
        "  query        dep_delay:>120 AND [a",
        "               TO b]",
        "  delivered    104",
        "0e8df240ac479a73",
        "  query        *",
        "  delivered    2",
    ]


def test_an_option_is_a_name_and_a_value() -> None:
    assert parse_option("tls=true") == ("tls", True)
    assert parse_option("routing_key=a=b") == ("routing_key", "a=b")
    with pytest.raises(BadRequest, match="name=value"):
        parse_option("tls")


def test_a_secret_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never from a flag, which every process of the machine can read."""
    file = tmp_path / "secret"
    file.write_text("user:pass word\n")

    assert read_secret(file) == "user:pass word"
    assert read_secret(None) is None
    monkeypatch.setenv("PENSTOCK_SECRET", "u:p")
    assert read_secret(None) == "u:p"
    monkeypatch.setattr("sys.stdin", io.StringIO("a:b\n"))
    assert read_secret(Path("-")) == "a:b"


def test_a_credential_is_read_from_a_file_of_text(tmp_path: Path) -> None:
    """What a mistyped name points at is said, and never what is in it."""
    key, garbage = tmp_path / "key.pem", tmp_path / "key.der"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    garbage.write_bytes(b"0\x82\x04\xa4hidden\xff")

    assert parse_credential(f"client_key={key}") == ("client_key", "-----BEGIN PRIVATE KEY-----")
    with pytest.raises(BadRequest, match="NAME=FILE"):
        parse_credential(str(key))
    for read in (lambda: parse_credential(f"client_key={garbage}"), lambda: read_secret(garbage)):
        with pytest.raises(BadRequest, match="is no text") as refused:
            read()
        assert "hidden" not in str(refused.value)
