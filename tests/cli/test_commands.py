"""The commands against a platform and a door that are really there."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import zstandard
from avros import FIRST, SECOND, text
from builders import FLIGHTS, NOON, event
from cli_home import BYTES, Installation, Penstock, every_command, hears_ctrl_c
from descriptors import SHOP
from door_builders import ADMIN
from metadata_builders import destination, replay
from platform_stand_ins import found
from served import until

from penstock.cli.collection import _share
from penstock.cli.home import write_running
from penstock.envelope import Position, Span
from penstock.lines import line_of
from penstock.stats import MINUTE, Batch, Minute
from replay.files import About, Segments
from replay.progress import Progress
from replay.request import rfc3339


def test_every_command_explains_itself(penstock: Penstock) -> None:
    """Help is the first thing a stranger asks for."""
    for words in every_command():
        said = penstock(*words, "--help")

        assert said.code == 0, words
        assert "Usage" in said.out
        assert said.err == ""


def test_the_first_screen_names_every_command(penstock: Penstock) -> None:
    """What is not on it is not found."""
    said = penstock("--help")

    for words in every_command():
        assert words[0] in said.out


TOKEN = re.compile(r"pst_\w{20,}")

ASKS = [
    ["status"],
    ["status", "flights"],
    ["search", "flights"],
    ["search", "flights", "--count"],
    ["search", "flights", "--histogram"],
    ["event", "flights", "e1"],
    ["sql", "select 1"],
    ["collection", "list"],
    ["collection", "show", "flights"],
    ["collection", "schema", "flights"],
    ["collection", "contract", "flights"],
    ["collection", "contract", "flights", "quarantine", "--try", "--since", "7d"],
    ["collection", "contract", "flights", "freeze"],
    ["collection", "schema", "flights", "--history"],
    ["collection", "stats", "flights"],
    ["collection", "format", "flights"],
    ["collection", "format", "flights", "plain", "--try", "--sample", "9"],
    ["collection", "format", "flights", "plain"],
    ["collection", "pause", "flights"],
    ["collection", "resume", "flights"],
    ["collection", "create", "ships"],
    ["destination", "create", "shop", "https://example.com/in", "--header", "A: hidden"],
    ["destination", "list"],
    ["destination", "show", "shop"],
    ["replay", "plan", "flights", "--to", "shop"],
    ["replay", "start", "flights", "--to", "shop"],
    ["replay", "list"],
    ["token", "create", "sender", "--scope", "ingest"],
    ["token", "list"],
    ["destination", "create", "spare", "https://example.com/spare", "--rate", "100"],
    ["destination", "change", "spare", "--rate", "none", "--option", "method=PUT"],
    ["destination", "delete", "spare"],
]


def test_what_is_asked_as_json_is_answered_as_json(here: Installation, penstock: Penstock) -> None:
    """A program reads stdout; a line for people on it breaks the program."""
    for words in ASKS:
        said = penstock(*words, "--json", home=here.home)

        assert said.code == 0, (words, said.err)
        assert said.err == ""
        for line in said.out.splitlines():
            json.loads(line)
        assert said.out


def test_no_command_prints_a_token_but_those_that_make_one(
    here: Installation, penstock: Penstock
) -> None:
    """What is printed ends up in logs and in screenshots."""
    for flag in ([], ["--json"]):
        for words in ASKS:
            # Names are taken the second time.
            named = [
                f"{word}_too" if flag and word in {"ships", "shop"} else word for word in words
            ]
            said = penstock(*named, *flag, home=here.home)
            printed = said.out + said.err

            assert said.code == 0, (named, printed)
            assert ADMIN not in printed
            assert "hidden" not in printed
            makes = words[:2] in (["collection", "create"], ["token", "create"])
            assert (TOKEN.search(printed) is not None) == makes, words


def test_a_descriptor_set_is_uploaded_from_its_file(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """What protoc wrote is all that somebody has."""
    file = tmp_path / "shop.fds"
    file.write_bytes(SHOP)
    words = ["collection", "format", "flights"]
    options = ["--descriptor", str(file), "--message", "shop.Order"]

    said = penstock(*words, "protobuf", *options, home=here.home)
    assert (said.code, said.out[:38]) == (0, "flights is protobuf shop.Order, since ")
    assert penstock(*words, "--json", home=here.home).json()["format"]["message"] == "shop.Order"
    assert penstock(*words, *options, home=here.home).code == 2
    gone = ["--descriptor", str(tmp_path / "no.fds"), "--message", "shop.Order"]
    assert penstock(*words, "protobuf", *gone, home=here.home).code == 2


def test_a_schema_is_uploaded_from_its_file_and_a_secret_is_read_from_another(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    file, secret = tmp_path / "reading.avsc", tmp_path / "secret"
    secret.write_text("me:hidden\n")
    words = ["collection", "format", "flights"]

    for number, schema in enumerate((FIRST, SECOND), 1):
        file.write_text(text(schema))
        said = penstock(*words, "avro", "--schema", str(file), home=here.home)
        many = f"{number} schema{'s'[: number - 1]}"
        assert said.out.startswith(f"flights is avro (datum), with {many}, since ")
    options = ["--registry", "http://registry.example:8081", "--secret-file", str(secret)]
    said = penstock(*words, "avro", *options, home=here.home)
    with_ = "with http://registry.example:8081 and 2 schemas"
    assert said.out.startswith(f"flights is avro (confluent), {with_}, since ")
    told = penstock(*words, "--json", home=here.home)
    assert told.json()["format"]["registry_secret"] is True
    assert "hidden" not in told.out + said.out + said.err
    file.write_bytes(b"\xff")
    assert penstock(*words, "avro", "--schema", str(file), home=here.home).code == 2
    assert penstock(*words, "--schema", str(file), home=here.home).code == 2


@pytest.mark.parametrize(
    ("words", "code", "title"),
    [
        (["search", "flihts"], 1, "Not found"),
        (["search", "flights", "--since", "yesterday"], 2, "Bad request"),
        (["search", "flights", "--limit", "0"], 2, "Bad request"),
        (["search"], 2, "Bad request"),
        (["fly"], 2, "Bad request"),
        (["replay", "plan", "flights"], 2, "Bad request"),
        (["replay", "status", "nothing"], 1, "Not found"),
        (["collection", "create", "Bad-Name"], 2, "Bad name"),
        (["destination", "create", "near", "http://127.0.0.1:1/"], 1, "Address refused"),
        (["send", "flights", "/no/such/file"], 2, "Bad request"),
    ],
)
def test_errors_are_problems_on_stderr_with_the_right_code(
    here: Installation, penstock: Penstock, words: list[str], code: int, title: str
) -> None:
    """0 done, 1 failed, 2 wrong use: scripts go by them."""
    options = [] if words == ["fly"] else ["--home", str(here.home)]
    said = penstock(*words, "--json", *options)

    assert (said.code, said.problem()["title"], said.out) == (code, title, "")
    told = penstock(*words, *options)
    assert told.code == code
    assert told.out == ""
    assert "Traceback" not in told.err
    assert "rror" in told.err


@pytest.mark.parametrize(
    ("filled", "rows", "share"),
    [(3, 3, "100.0 %"), (9_999, 10_000, "99.9 %"), (0, 5, "0.0 %"), (None, 5, ""), (0, 0, "0 %")],
)
def test_a_column_is_full_only_if_every_row_has_a_value(
    filled: int | None, rows: int, share: str
) -> None:
    """Whoever reads 100 % may leave out the check for null."""
    assert _share(filled, rows) == share


def test_a_contract_is_tried_and_then_changed(here: Installation, penstock: Penstock) -> None:
    """Nobody closes a collection on a guess."""
    tried = penstock("collection", "contract", "flights", "quarantine", "--try", home=here.home)

    lines = [line.split() for line in tried.out.splitlines()]
    assert lines[0] == ["quarantine", "tried", "on", "2", "events", "of", "flights"]
    assert ["1", "would", "go", "to", "quarantine"] in lines
    assert ["quarantine", "new_field", "a", "1", "e2"] in lines
    shown = penstock("collection", "contract", "flights", home=here.home)
    assert shown.out.startswith("flights: evolve, ")
    changed = penstock("collection", "contract", "flights", "quarantine", home=here.home)
    assert changed.out.startswith("flights: quarantine, ")
    assert "--try" in changed.err
    assert here.platform.store.collection(FLIGHTS).contract == "quarantine"
    empty = penstock("collection", "show", "flights", home=here.home)
    assert "no columns, and none will come while its contract is quarantine" in empty.out
    history = penstock("collection", "schema", "flights", "--history", home=here.home)
    assert history.out.splitlines()[1].split()[3:] == ["contract", "evolve", "quarantine"]
    wrong = penstock("collection", "contract", "flights", "freeze", "--since", "7d", home=here.home)
    assert (wrong.code, "--try" in wrong.err) == (2, True)


def test_a_format_is_tried_before_it_is_set(here: Installation, penstock: Penstock) -> None:
    """The same events, read otherwise; nothing is changed."""
    words = ["collection", "format", "flights"]

    tried = penstock(*words, "plain", "--try", "--since", "7d", home=here.home)
    lines = [line.split() for line in tried.out.splitlines()]
    assert lines[0] == ["plain", "tried", "on", "2", "events", "of", "flights"]
    assert not any("columns" in line for line in lines[2:])
    as_json = penstock(*words, "json", "--try", "--json", home=here.home).json()
    assert [change["path"] for change in as_json["columns"]] == ["a"]
    assert here.platform.store.collection(FLIGHTS).format.name == "json"
    for wrong in (["--try"], ["plain", "--sample", "5"]):
        assert penstock(*words, *wrong, home=here.home).code == 2


def test_statistics_are_drawn(here: Installation, penstock: Penstock) -> None:
    """A bar a step, as long as its share of the busiest; quarantine is seen without reading."""
    hour = 60 * MINUTE
    minutes = [
        Minute(
            partition=0,
            start=NOON // MINUTE * MINUTE - back * hour,
            events=events,
            bytes=10 * events,
            quarantined=apart,
            duplicates=apart // 4,
        )
        for back, events, apart in ((3, 1_000, 500), (2, 10, 0))
    ]
    here.platform.stats().add(
        Batch(
            collection=FLIGHTS,
            log_id="log-1",
            spans=(Span(FLIGHTS, 0, 0, 1_010),),
            minutes=tuple(minutes),
            landed_at=NOON - hour,
            lag=2_500_000,
        )
    )
    said = penstock(
        *("collection", "stats", "flights", "--since", "2025-11-24T12:00:00Z"),
        *("--until", "2025-11-24T16:00:00Z", "--step", "60"),
        home=here.home,
    ).out

    assert [line.count("█") for line in said.splitlines() if "2025-11-24" in line] == [0, 30, 1, 0]
    assert "2.5 s" in said
    assert "1,010 events, 500 of them went to quarantine, 125 repeat others" in said


def test_a_name_that_is_nearly_right_is_told(here: Installation, penstock: Penstock) -> None:
    """Most unknown collections are misspelt ones."""
    assert "did you mean flights?" in penstock("search", "flihts", home=here.home).err
    assert "did you mean flights?" in penstock("collection", "show", "flihgts", home=here.home).err
    assert "there are: flights" in penstock("collection", "show", "zzz", home=here.home).err
    nowhere = penstock("replay", "plan", "flights", "--to", "shop", home=here.home)
    assert "'penstock destination create shop URL'" in nowhere.err


def test_a_refused_address_names_the_setting(here: Installation, penstock: Penstock) -> None:
    """Nobody finds a setting by its absence."""
    said = penstock("destination", "create", "near", "http://127.0.0.1:8000/", home=here.home)

    assert "PENSTOCK_ALLOW_NETWORKS" in said.err


def test_a_home_where_nothing_runs_says_what_to_type(tmp_path: Path, penstock: Penstock) -> None:
    """The next command has the home in it, quoted as the shell needs it."""
    said = penstock("status", home=tmp_path / "no home")

    assert said.code == 1
    assert f"penstock up --home '{tmp_path}/no home'" in said.err


def test_a_home_whose_platform_was_killed_says_so(here: Installation, penstock: Penstock) -> None:
    """`connection refused` would send people to their firewall."""
    import msgspec

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_running(here.home, msgspec.structs.replace(here.running, supervisor=gone.pid))

    said = penstock("status", home=here.home)

    assert "was killed" in said.err
    assert "penstock up" in said.err


def test_a_wrong_token_says_where_tokens_come_from(
    here: Installation, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten variable is the usual reason."""
    monkeypatch.setenv("PENSTOCK_TOKEN", "pst_wrong")

    said = penstock("collection", "list", home=here.home)

    assert said.code == 1
    assert "PENSTOCK_TOKEN" in said.err
    assert "pst_wrong" not in said.err


# What is shown


def test_a_payload_cannot_steer_the_terminal(here: Installation, penstock: Penstock) -> None:
    """Whoever may send an event must not colour, clear or retitle the reader's screen."""
    shown = [
        penstock("search", "flights", home=here.home),
        penstock("event", "flights", "[red]e2\x1b[2J", home=here.home),
    ]

    for said in shown:
        assert said.code == 0
        assert "[red]e2\\x1b[2J" in said.out
        assert "\\x1b[31mred\\x07 [/] [bold]" in said.out
        assert set(said.out + said.err) & set("\x1b\x07") == set()


def test_search_shows_when_what_and_how_it_begins(here: Installation, penstock: Penstock) -> None:
    """Time, id and an excerpt; what did not fit its column is named."""
    lines = penstock("search", "flights", home=here.home).out.splitlines()

    assert lines[0].startswith("2025-11-24 16:00:00.000000Z [red]e2")
    assert lines[1] == "  misfits: total"
    assert lines[2].startswith('  {"order": 17,\\n "note"')
    assert "512 bytes, no text" in lines[4]


def test_search_goes_from_page_to_page_and_says_when_there_is_more(
    here: Installation, penstock: Penstock
) -> None:
    """The limit is the reader's, not the API's."""
    here.searcher.cursor = "next"

    said = penstock("search", "flights", "--limit", "4", home=here.home)

    assert [asked.limit for asked in here.searcher.asked] == [4, 1]
    assert "there are more" not in said.err
    assert "there are more" in penstock("search", "flights", "--limit", "3", home=here.home).err


def test_search_says_what_it_did_not_look_at(here: Installation, penstock: Penstock) -> None:
    """`nothing found` would be wrong."""
    here.searcher.events, here.searcher.unsearched = (), 70

    said = penstock("search", "flights", "x", home=here.home)

    assert "70 acknowledged events were not looked at" in said.err


def test_one_whole_event_is_shown_with_all_that_is_known(
    here: Installation, penstock: Penstock
) -> None:
    """Headers, metadata and misfits are why somebody looks at one event."""
    said = penstock("event", "flights", "[red]e2\x1b[2J", home=here.home)

    for expected in ("x-shop", "web", "/g== (base64)", "exchange", "shop", "total", '"9 EUR"'):
        assert expected in said.out
    assert "0000  00 01 02" in penstock("event", "flights", "e3", home=here.home).out


def test_an_event_is_shown_whatever_its_id_is(here: Installation, penstock: Penstock) -> None:
    """Senders choose ids; on the page of another event everything would be wrong."""
    for one, shown in (("a\nb", "a\\nb"), ("..", ".."), ("%2F/", "%2F/")):
        here.searcher.events = [found(event_id=one)]

        said = penstock("event", "flights", one, home=here.home)

        assert re.search(rf"event_id +{re.escape(shown)} *\n", said.out), said


def test_a_payload_comes_out_byte_for_byte(here: Installation) -> None:
    """Somebody wants to have it, not to look at it."""
    argv = [sys.executable, "-m", "penstock", "event", "flights", "e3", "--payload"]
    printed = subprocess.run(
        [*argv, "--home", str(here.home)], capture_output=True, check=True, env=_clean()
    )

    assert printed.stdout == BYTES.payload


def test_sql_shows_any_value_in_a_line_a_row(here: Installation, penstock: Penstock) -> None:
    """Years are no amounts, nothing is markup, and a file is not cut to a width."""
    long = "x" * 3_000
    here.sql.rows = pa.table(
        {
            "year": [2013, 2014],
            "mark[/]": ["[/] [red]", None],
            "nested": [{"a": [1, None]}, {"a": []}],
            "bytes": [b"\xff\x00", b"text\nmore"],
            "long": [long, long],
        }
    )

    said = penstock("sql", "select", home=here.home)

    head, first, second = said.out.splitlines()
    assert head.split() == ["year", "mark[/]", "nested", "bytes", "long"]
    assert first.split()[:4] == ["2013", "[/]", "[red]", '{"a":[1,null]}']
    assert long in first
    assert "null" in second
    assert "text\\nmore" in second


# Sending

LINES = b'{"n":1}\n\n{"n":2}\n{"n":3}'
EVENTS = [b'{"n":1}', b'{"n":2}', b'{"n":3}']


@pytest.mark.parametrize(
    "content",
    [LINES, gzip.compress(LINES), zstandard.compress(LINES), gzip.compress(LINES[:8]) * 3],
    ids=["plain", "gzip", "zstd", "gzip in parts"],
)
def test_a_file_is_sent_line_by_line_packed_or_not(
    here: Installation, penstock: Penstock, tmp_path: Path, content: bytes
) -> None:
    """Exports come packed; sent as they are they would be a few events of garbage."""
    file = tmp_path / "events"
    file.write_bytes(content)

    said = penstock("send", "flights", str(file), home=here.home)

    assert said.code == 0, said.err
    assert said.out.startswith("3 accepted, 0 refused")
    assert here.log.payloads[0] == EVENTS[0]
    assert len(here.log.payloads) == len(EVENTS)


def test_stdin_is_sent(here: Installation) -> None:
    """`-` and nothing at all mean the same."""
    for words in ([], ["-"]):
        argv = [sys.executable, "-m", "penstock", "send", "flights", *words]
        subprocess.run(
            [*argv, "--home", str(here.home)], input=LINES, check=True, env=_clean(), timeout=60
        )

    assert here.log.payloads == EVENTS * 2


def test_what_is_piped_in_goes_out_as_it_comes_and_ctrl_c_says_how_much(
    here: Installation,
) -> None:
    """A log that is followed is quiet for hours between two lines."""
    argv = [sys.executable, "-m", "penstock", "send", "flights", "--home", str(here.home)]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_clean(),
        bufsize=0,
        preexec_fn=hears_ctrl_c,  # noqa: PLW1509 - one system call
    ) as sending:
        assert sending.stdin is not None
        for times in (1, 2):
            sending.stdin.write(b"".join(b"%s\n" % event for event in EVENTS))
            until(lambda: here.log.payloads == EVENTS * times)  # noqa: B023 - asked at once

        sending.send_signal(signal.SIGINT)
        # Before its input is closed: the end of it would be as good a reason to end.
        sending.wait(120)
        out, err = sending.communicate(timeout=30)

    assert sending.returncode == 1
    # The answer to the second request may be on its way still.
    assert out.startswith((b"3 accepted, 0 refused", b"6 accepted, 0 refused"))
    assert b"stopped; of the last request nothing is known" in err
    assert b"Traceback" not in err


def test_a_refused_line_is_named_by_its_number_in_the_file(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """Somebody has to find it; the others are in."""
    file = tmp_path / "events"
    small = b'{"n":1}\n' * 1_500
    file.write_bytes(small + b"\n" + b'"%s"\n' % (b"x" * 2_000) + small)

    said = penstock("send", "flights", str(file), home=here.home)

    assert said.code == 1
    assert said.out.startswith("3,000 accepted, 1 refused")
    assert "line 1,502: the event has 2,002 bytes" in said.err


def test_a_file_with_nothing_but_refused_lines_counts_them(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """The door answers such a batch with an error of its own."""
    file = tmp_path / "events"
    file.write_bytes(b'"%s"\n' % (b"x" * 2_000) * 2)

    said = penstock("send", "flights", str(file), "--json", home=here.home)

    assert said.code == 1
    assert (said.json()["accepted"], said.json()["refused"]) == (0, 2)


def test_bytes_are_not_cut_at_line_ends_unless_told_to(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """A picture sent as lines would be thirty events of garbage."""
    file = tmp_path / "picture"
    content = b"\x89PNG\x00\n\x01\n\x02"
    file.write_bytes(content)

    said = penstock("send", "flights", str(file), home=here.home)
    assert said.code == 2
    assert "--type application/octet-stream" in said.err
    assert here.log.payloads == []

    penstock("send", "flights", str(file), "--type", "application/octet-stream", home=here.home)
    assert here.log.payloads == [content]
    penstock("send", "flights", str(file), "--type", "application/x-ndjson", home=here.home)
    assert len(here.log.payloads) == 4


def test_a_pack_that_is_cut_off_says_so_and_how_much_went_out(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """The rest must be sent by somebody who knows where to begin."""
    file = tmp_path / "events.gz"
    chance = os.urandom(60_000).hex().encode()
    lines = b"".join(b'"%s"\n' % chance[at : at + 60] for at in range(0, 120_000, 60))
    file.write_bytes(gzip.compress(lines)[:-2_000])

    said = penstock("send", "flights", str(file), home=here.home)

    assert said.code == 2
    assert "cannot be unpacked" in said.err
    told = re.search(r"acknowledged before that: ([\d,]+) events", said.err)
    assert told is not None
    assert int(told[1].replace(",", "")) == len(here.log.payloads) > 0


def test_an_empty_file_sends_nothing_and_says_so(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """Nothing went wrong, but hardly as meant."""
    file = tmp_path / "empty"
    file.touch()

    said = penstock("send", "flights", str(file), home=here.home)

    assert said.code == 0
    assert "there was no event" in said.err


def test_a_file_of_a_replay_is_taken_away_and_sent_again(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """What came out goes in with everything that stood beside it."""
    progress = Progress(delivered=3, failed=1_200).as_dict()
    here.platform.store.create_replay(
        msgspec.structs.replace(replay("f1", state="finished"), progress=progress)
    )
    assert here.platform.files is not None
    segments = Segments(here.platform.files / "f1", About("main", "orders", "ndjson"))
    events = {
        Position(0, n): event(b"\xff%d" % n if n else b'{"n": 0}', id=f"e{n}", key=b"k\xfe")
        for n in range(3)
    }
    lines = {
        place: line_of(
            one,
            place,
            headers=(("x", b"\xff"), ("x", b"y")),
            received_at=rfc3339(NOON),
            event_time=rfc3339(NOON - 1),
        )
        for place, one in events.items()
    }
    segments.append(lines)
    segments.close()
    file = tmp_path / "orders.ndjson"

    said = penstock("replay", "download", "f1", "--out", str(file), home=here.home)
    assert (said.code, file.read_bytes()) == (0, b"".join(lines.values()))
    assert "not in the file: 1,200 events failed; 'penstock replay failures f1'" in said.err
    assert penstock("replay", "download", "f1", home=here.home).out == file.read_text()
    sent = penstock("send", "flights", str(file), "--envelopes", "--json", home=here.home)

    assert (sent.code, sent.json()["accepted"]) == (0, 3)
    assert [(e.payload, e.id, e.key, e.headers, e.event_time) for e in here.log.events] == [
        (one.payload, one.id, one.key, (("x", b"\xff"), ("x", b"y")), NOON - 1)
        for one in events.values()
    ]
    assert list(tmp_path.glob("*.part")) == []


def test_a_retry_is_sent_as_it_was_or_changed_in_another_way(
    here: Installation, penstock: Penstock
) -> None:
    """Often a step is why events failed: then they are sent with others, or with none."""
    failed = msgspec.structs.replace(
        replay("r1", state="finished"),
        options={"transform": ["mask card"]},
        progress=Progress(failed=2).as_dict(),
    )
    here.platform.store.create_replay(failed)
    here.platform.store.add_destination(destination())

    def steps(*words: str) -> object:
        said = penstock("replay", "retry", "r1", *words, "--json", home=here.home)
        assert said.code == 0, said
        return said.json()["options"].get("transform")

    assert steps() == ["mask card"]
    assert steps("--remove", "debug", "--mask", "card.number") == [
        "mask card.number",
        "remove debug",
    ]
    assert steps("--no-transform") == []
    both = penstock("replay", "retry", "r1", "--no-transform", "--mask", "a", home=here.home)
    assert (both.code, "give none" in both.err) == (2, True)


def test_a_file_that_is_not_there_leaves_none(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    """Half a file, or an empty one, would be taken for the whole."""
    file = tmp_path / "orders.ndjson"
    here.platform.store.create_replay(replay("f1", state="finished"))

    said = penstock("replay", "download", "f1", "-o", str(file), home=here.home)

    assert (said.code, list(tmp_path.glob("orders*"))) == (1, [])
    assert "no file of the replay" in said.err


def test_a_line_without_an_envelope_is_named(
    here: Installation, penstock: Penstock, tmp_path: Path
) -> None:
    file = tmp_path / "events"
    file.write_bytes(b'{"payload": 1}\n\n{"n": 1}\n')

    said = penstock("send", "flights", str(file), "--envelopes", home=here.home)

    assert said.code == 2
    assert "line 3: a line has one of payload and payload_base64" in said.err
    assert here.log.payloads == []
    both = penstock("send", "flights", str(file), "--envelopes", "--type", "a/b", home=here.home)
    assert both.code == 2


def test_a_door_that_is_not_there_is_not_waited_for(
    here: Installation, penstock: Penstock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two minutes of silence are no answer to a wrong address."""
    monkeypatch.setenv("PENSTOCK_DOOR", "http://127.0.0.1:9")
    file = tmp_path / "events"
    file.write_bytes(LINES)

    said = penstock("send", "flights", str(file), home=here.home)

    assert said.code == 1
    assert "no door answers at http://127.0.0.1:9" in said.err


def _clean() -> dict[str, str]:
    return {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
