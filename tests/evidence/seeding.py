"""Runs the test of a mutant with its bug in the code, and says whether the test found it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from evidence.mutants import MUTANTS, Mutant

VARIABLE = "FAULT_MUTANT"
"""Names the mutant whose bug `pytest_runtest_call` puts in."""

Verdict = Literal["caught", "missed", "broke"]
"""Whether a test found the bug by what it asserts, passed, or met something else than it looks for.

What broke proves nothing: the bug may not fit the code any more, or the test cannot be run.
"""

_PASSED, _FAILED = 0, 1
"""How pytest ends where tests passed, and where some did not."""

_FOUND, _BROKE = 10, 11
"""How it ends here where the test found the bug, and where something else was raised."""

_FINDINGS = (AssertionError, pytest.fail.Exception)
"""What tests raise, `pytest.raises` among them, if it is not as they say."""


class Outcome(NamedTuple):
    """How a mutant fared; `said` is the end of what pytest told of one that broke."""

    verdict: Verdict
    said: str = ""


def run(mutant: Mutant, root: Path) -> Outcome:
    """Say whether the test finds the bug: by an assertion, or it passes and seeds it by itself."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", mutant.test]
    command += ["-p", "evidence.seeding"] if mutant.seed else []
    command += ["-m", "engines"] if mutant.engines else []
    environ = os.environ | {VARIABLE: mutant.name, "PYTHONPATH": str(root / "tests")}
    ended = subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    verdict = verdict_of(ended.returncode, seeded=mutant.seed is not None)
    return Outcome(verdict, ended.stdout[-3_000:] if verdict == "broke" else "")


def verdict_of(code: int, *, seeded: bool) -> Verdict:
    """Read how pytest ended; `seeded` where the bug was put in from outside of the test."""
    if seeded:
        # Where the test itself was not called, as after an error of a fixture, it found nothing.
        return {_FOUND: "caught", _PASSED: "missed"}.get(code, "broke")
    return {_PASSED: "caught", _FAILED: "missed"}.get(code, "broke")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Put the bug in while the test runs, and end with what the test says to it."""
    [mutant] = [one for one in MUTANTS if one.name == os.environ.get(VARIABLE)]
    assert mutant.seed is not None
    with pytest.MonkeyPatch.context() as patch:
        mutant.seed(patch)
        try:
            return (yield)
        except (*_FINDINGS, *mutant.raises) as error:
            pytest.exit(f"{mutant.name} was found: {error!r}", returncode=_FOUND)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test did not look for it
            pytest.exit(f"{mutant.name} broke its test: {error!r}", returncode=_BROKE)
