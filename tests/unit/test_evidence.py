"""What `make faults` and `make mutants` say of tests, and that it can say no."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from balance import Findings, compare
from evidence import seeding
from evidence.__main__ import PAGE, RESULTS, ROOT, main, sheets_of
from evidence.mutants import MUTANTS, PROMISES, RULES, Mutant
from evidence.page import Caught, Kept, page, read_kept, short, write_kept
from evidence.sheet import VARIABLE, found, happened, measured, read_sheets, sheet_of, together

GOOD = compare({1: b"a", 2: b"b"}, [(1, b"a"), (2, b"b")])
BAD = compare({1: b"a", 2: b"b"}, [(1, b"c"), (1, b"a")])


@pytest.fixture
def sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "sheets"))
    return tmp_path / "sheets"


def one_case(findings: Findings, *, case: str = "tests/faults/test_x.py::test_a_door_dies") -> None:
    with sheet_of(case, "a door", "here"):
        happened("kills", 2)
        found(tables=findings, search=findings)


def test_what_a_test_broke_and_found_is_added_up(sheets: Path) -> None:
    """The same events in each store are counted once, and what is wrong in any of them."""
    for letter in "ab":
        one_case(GOOD, case=f"tests/faults/test_x.py::test_a_door_dies[{letter}]")
    with pytest.raises(AssertionError, match=r"tables: .* nowhere: \[2\]"):
        one_case(BAD, case="tests/faults/test_x.py::test_a_door_dies[c]")

    [(name, told)] = together(read_sheets(sheets), "2026-01-01 00:00").items()

    assert name == "tests/faults/test_x.py::test_a_door_dies@here"
    assert (told.cases, told.failed, told.injected) == (3, 1, {"kills": 6})
    assert told.stores == ["search", "tables"]
    assert (told.found.events, told.found.lost, told.found.altered) == (6, 2, 2)


def test_a_store_that_is_looked_at_again_has_no_more_events(sheets: Path) -> None:
    """Whoever looks after each of ten deaths has not ten times the events."""
    with sheet_of("t", "a door", "here"):
        happened("kills")
        for _ in range(10):
            found(tables=GOOD)

    [sheet] = read_sheets(sheets)
    assert sheet.found["tables"].events == 2


def test_what_was_measured_is_the_most_of_all_cases(sheets: Path) -> None:
    for case, seconds in (("a", 3), ("b", 7), ("c", 5)):
        with sheet_of(f"t.py::test_t[{case}]", "a door", "here"):
            happened("kills")
            measured("seconds to wait", seconds)
            found(tables=GOOD)

    told = together(read_sheets(sheets), "2026-01-01 00:00")
    assert "| 3 kills; measured: 7 seconds to wait |" in page(Kept(faults=told))
    assert list(short(told.items())) == ["t: 3 kills; 7 seconds to wait; 6 events, nothing wrong"]


@pytest.mark.parametrize("breaks", [True, False])
def test_who_breaks_or_counts_nothing_is_no_evidence(*, breaks: bool) -> None:
    """A test whose kill no longer hits would stand in the page with what it did not lose."""

    def test() -> None:
        with sheet_of("t", "a door", "here"):
            if breaks:
                happened("kills")
            else:
                found(tables=GOOD)

    with pytest.raises(AssertionError, match="broke or counted nothing"):
        test()


def test_what_is_wrong_is_in_the_page_and_on_the_terminal(sheets: Path) -> None:
    """A table without its verdict is read as good news."""
    one_case(GOOD, case="tests/faults/test_x.py::test_a_door_dies")
    with pytest.raises(AssertionError):
        one_case(BAD, case="tests/faults/test_x.py::test_a_log_dies")
    told = together(read_sheets(sheets), "2026-01-01 00:00")

    text = page(Kept(faults=told))
    lines = list(short(told.items()))

    assert "In all: 4 kills; 4 events acknowledged, **2 lost" in text
    assert (
        "[a log dies](../../tests/faults/test_x.py) | a door; **1 of 1 failed** | 2 kills" in text
    )
    assert lines[0] == "a door dies: 2 kills; 2 events, nothing wrong"
    assert lines[1].endswith("1 FAILED")


def test_a_bug_that_was_missed_says_so() -> None:
    first, second, third = MUTANTS[:3]
    verdicts = {
        first.name: Caught(caught=True, at="2026-01-01 00:00"),
        second.name: Caught(caught=False, at="2026-01-01 00:00"),
        third.name: Caught(caught=False, broke=True, at="2026-01-01 00:00"),
    }

    text = page(Kept(mutants=verdicts))

    assert text.count("| caught |") == 1
    assert text.count("| **missed** |") == 1
    assert text.count("| **broke** |") == 1
    assert text.count("| not run yet |") == len(MUTANTS) - 3


def test_what_is_kept_is_read_as_it_was_written(sheets: Path) -> None:
    one_case(GOOD)
    kept = Kept(faults=together(read_sheets(sheets), "2026-01-01 00:00"))

    assert read_kept(write_kept(kept)) == kept


TESTS = """
import os
import re
import signal
from pathlib import Path

import pytest
from balance import compare
from evidence import __main__ as keeping
from evidence.sheet import found, happened, sheet_of

keeping.RESULTS, keeping.PAGE = Path("results.json").absolute(), Path("faults.md").absolute()


def broken(request, *, wrong=False):
    with Path("ran").open("a") as out:
        out.write(request.node.name + " ")
    with sheet_of(request.node.nodeid, "a door", "here"):
        happened("kills")
        found(tables=compare({1: None}, [] if wrong else [(1, None)]))


@pytest.mark.parametrize("case", "ab")
def test_first(request, case):
    broken(request)


@pytest.mark.parametrize("case", "cd")
def test_second(request, case):
    if case == "d" and not Path("twice").exists():
        Path("twice").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    broken(request, wrong=case == "c")
"""


def test_a_run_that_is_stopped_keeps_what_has_run_and_goes_on(sheets: Path) -> None:
    """Killed in the second case of its second test, of which the first one has failed."""
    folder = sheets.parent
    (folder / "test_x.py").write_text(TESTS)
    sheets.touch()
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["-p", "evidence.going_on", "-p", "no:cacheprovider", "test_x.py"]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "tests")}

    def run() -> int:
        ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=False)
        return ended.returncode

    def rows() -> dict[str, tuple[int, int]]:
        kept = read_kept((folder / "results.json").read_bytes()).faults
        return {name: (one.cases, one.failed) for name, one in kept.items()}

    assert run() == -signal.SIGKILL
    assert rows() == {"test_x.py::test_first@here": (2, 0)}
    assert run() == 1
    assert (folder / "ran").read_text().split() == [
        *("test_first[a]", "test_first[b]", "test_second[c]"),
        *("test_second[c]", "test_second[d]"),
    ]
    assert rows() == {
        "test_x.py::test_first@here": (2, 0),
        "test_x.py::test_second@here": (2, 1),
    }
    assert "first" in (folder / "faults.md").read_text()


def test_a_run_is_gone_on_with_only_by_what_asks_the_same_of_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of other code would be told as rows of this one."""
    monkeypatch.setattr("evidence.__main__.ROOT", tmp_path)
    monkeypatch.setattr("evidence.__main__.UNDER_WAY", tmp_path / ".faults")
    code = tmp_path / "penstock" / "code.py"
    code.parent.mkdir()
    code.write_text("1")
    first = sheets_of(["--here"], {"FAULT_KILLS": "1"})

    assert sheets_of(["--here"], {"FAULT_KILLS": "1"}) == first
    assert sheets_of(["--here"], {"FAULT_KILLS": "2"}) != first
    assert sheets_of(["landing", "--here"], {"FAULT_KILLS": "1"}) != first
    assert first.exists()
    code.write_text("2")
    assert sheets_of(["--here"], {"FAULT_KILLS": "1"}) != first
    assert not first.exists()


def test_words_may_stand_behind_options_and_have_to_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make` puts them; that nothing was asked for is no success."""
    words = ["evidence", "mutants", "--engines", "no bug", "has this"]
    monkeypatch.setattr(sys, "argv", words)

    assert main() == 2
    assert "no bug or has this" in capsys.readouterr().err


def test_the_page_is_what_was_found_last() -> None:
    """Nobody writes evidence by hand; `make mutants` and `make faults` renew it."""
    assert PAGE.read_text() == page(read_kept(RESULTS.read_bytes()))


def test_every_rule_has_a_bug_and_every_bug_a_rule() -> None:
    assert {one.rule for one in MUTANTS} == RULES.keys()
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)


def test_every_promise_of_the_readme_has_a_rule_that_it_falls_with() -> None:
    """What nothing breaks may not be kept."""
    readme = (ROOT / "README.md").read_text()
    promised = re.findall(r"^\d+\. \*\*(.+?)\.?\*\*", readme, re.MULTILINE)

    assert list(PROMISES) == promised
    assert all(PROMISES.values())
    assert {rule for rules in PROMISES.values() for rule in rules} <= RULES.keys()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name for one in MUTANTS])
def test_the_test_of_a_bug_is_there(mutant: Mutant) -> None:
    """A test that was given another name finds nothing any more."""
    file, _, name = mutant.test.partition("::")
    tree = ast.parse((ROOT / file).read_text())

    assert name.partition("[")[0].rpartition("::")[2] in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }


def test_a_bug_that_no_test_finds_is_missed() -> None:
    """A runner that believes everything would say that all were caught."""
    [mutant] = [one for one in MUTANTS if one.name == "key not held up"]
    file, _, _ = mutant.test.partition("::")
    elsewhere = mutant._replace(test=f"{file}::test_an_empty_replay_finishes")

    assert seeding.run(mutant, ROOT).verdict == "caught"
    assert seeding.run(elsewhere, ROOT).verdict == "missed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AssertionError(), 10),
        (FileExistsError(), 10),
        (KeyError(), 11),
        (NameError(), 11),
    ],
)
def test_what_a_test_raises_is_what_it_asserts_or_broke_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """An error of any kind would do otherwise, also that of a bug which does not fit the code."""
    mutant = Mutant("x", "key", "", "", seed=lambda _: None, raises=(FileExistsError,))
    monkeypatch.setattr(seeding, "MUTANTS", (mutant,))
    monkeypatch.setenv(seeding.VARIABLE, "x")
    calling = seeding.pytest_runtest_call(None)  # type: ignore[arg-type]  # it is not looked at
    next(calling)

    with pytest.raises(pytest.exit.Exception) as ended:
        calling.throw(error)

    assert ended.value.returncode == code


@pytest.mark.parametrize(
    ("code", "seeded", "verdict"),
    [
        (10, True, "caught"),
        (0, True, "missed"),
        (1, True, "broke"),
        (11, True, "broke"),
        (0, False, "caught"),
        (1, False, "missed"),
        (4, False, "broke"),
    ],
)
def test_how_a_test_ended_says_what_it_found(
    code: int,
    seeded: bool,
    verdict: str,
) -> None:
    """With a bug put in from outside, a fixture that fails ends like a test that fails."""
    assert seeding.verdict_of(code, seeded=seeded) == verdict
