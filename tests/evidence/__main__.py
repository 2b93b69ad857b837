"""``python -m evidence faults|soak|mutants [WORD …]``: break everything, or seed bugs.

What was found is kept as it goes, and makes the page; what was not run this time stays as it was
found last. Where a run was stopped, the same command goes on with it, as long as the code is the
same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from evidence import page, seeding
from evidence.mutants import MUTANTS
from evidence.sheet import VARIABLE, Told, read_sheets, together

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "reference" / "faults.md"

UNDER_WAY = ROOT / ".faults"
"""Has the sheets of runs that were stopped."""

_SIZES = {
    "FAULT_KILLS": "75",
    "FAULT_EVENTS": "500000",
    "FAULT_CLIENTS": "200",
    "FAULT_SECONDS": "120",
}
"""What tests take from the environment, where it is not set there: how often each site is killed,
of how many events landing makes its first commits, how many clients attack for how long."""

_ENDED = (0, 1, 5)
"""How pytest ends where it was not stopped: all passed, some failed, or none was left to run."""

_SECONDS, _RATE, _SEARCHES = 600, 2_000, 20_000
"""How long a soak goes on, with how many events a second, and how many searches are asked."""


def main() -> int:
    """Do what the command line names; answer the exit code."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("what", choices=("faults", "soak", "mutants"))
    parser.add_argument("words", nargs="*", help="what has one of them in its name; all without")
    parser.add_argument("--engines", action="store_true", help="what needs the engines")
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="of a soak")
    parser.add_argument("--rate", type=int, default=_RATE, help="events a second of a soak")
    parser.add_argument("--searches", type=int, default=_SEARCHES, help="of a soak")
    parser.add_argument("--seed", type=int, help="of a soak; a new one without")
    # Words may stand behind options.
    asked = parser.parse_intermixed_args()
    if asked.what == "mutants":
        return _mutants(asked.words, engines=asked.engines)
    place = "engines" if asked.engines else "not engines"
    if asked.what == "faults":
        sizes = {name: os.environ.get(name, size) for name, size in _SIZES.items()}
        return _break(f"breaks and not soak and {place}", asked.words, sizes)
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    given = {"SECONDS": asked.seconds, "RATE": asked.rate, "SEARCHES": asked.searches, "SEED": seed}
    sizes = {f"SOAK_{name}": str(value) for name, value in given.items()}
    return _break(f"breaks and soak and {place}", asked.words, sizes, "-s")


def _break(mark: str, words: list[str], sizes: Mapping[str, str], *options: str) -> int:
    """Run the tests with this mark, of these sizes; answer the exit code."""
    sheets = sheets_of([mark, *words], sizes)
    if before := read_sheets(sheets):
        print(f"goes on with a run that was stopped: {len(before)} cases have run", flush=True)
    # All that are in tests, wherever they stand: the mark says which.
    command = [sys.executable, "-m", "pytest", "-q", "tests", "-p", "evidence.going_on"]
    command += ["-m", mark, *options, *(["-k", " or ".join(words)] if words else [])]
    environ = {**os.environ, **sizes, VARIABLE: str(sheets), "PYTHONPATH": str(ROOT / "tests")}
    try:
        code = subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    except KeyboardInterrupt:
        code = 2
    told = together(read_sheets(sheets), now())
    for line in page.short(sorted(told.items())):
        print(line)
    if code not in _ENDED:
        print("stopped: what has run is kept, and the same command goes on")
        return code
    keep(faults=told)
    sheets.unlink()
    return 0 if told and code == 5 else code


def sheets_of(asked: list[str], sizes: Mapping[str, str]) -> Path:
    """Answer the file of what was asked for, with the sheets of a run of it that was stopped.

    What a run of other code left is forgotten: rows of one page are of one code.
    """
    code = hashlib.sha256()
    for folder in sorted(ROOT.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            for file in sorted(folder.rglob("*.py")):
                code.update(str(file).encode() + file.read_bytes())
    what = hashlib.sha256(json.dumps([asked, sorted(sizes.items())]).encode())
    begin = code.hexdigest()[:16]
    UNDER_WAY.mkdir(exist_ok=True)
    for file in UNDER_WAY.iterdir():
        if not file.name.startswith(begin):
            file.unlink()
    sheets = UNDER_WAY / f"{begin}-{what.hexdigest()[:16]}"
    sheets.touch()
    return sheets


def _mutants(words: list[str], *, engines: bool) -> int:
    chosen = [
        one
        for one in MUTANTS
        if one.engines is engines and (not words or any(word in one.title for word in words))
    ]
    if not chosen:
        print(f"no seeded bug has {' or '.join(words)} in its title", file=sys.stderr)
        return 2
    missed = 0
    for one in chosen:
        verdict, said = seeding.run(one, ROOT)
        missed += verdict != "caught"
        shown = verdict if verdict == "caught" else verdict.upper()
        print(f"{shown}: {one.title}\n{said}".rstrip(), flush=True)
        keep(
            mutants={
                one.name: page.Caught(
                    caught=verdict == "caught", broke=verdict == "broke", at=now()
                )
            }
        )
    print(f"{len(chosen) - missed} of {len(chosen)} seeded bugs were caught")
    return 1 if missed else 0


def now() -> str:
    """Answer the minute it is (UTC)."""
    return datetime.now(UTC).isoformat(" ", "minutes")[:16]


def keep(
    *, faults: dict[str, Told] | None = None, mutants: dict[str, page.Caught] | None = None
) -> None:
    """Put what was found in the place of what is kept of the same, and write the page."""
    before = page.read_kept(RESULTS.read_bytes()) if RESULTS.exists() else page.Kept()
    names = [one.name for one in MUTANTS]
    both = before.mutants | (mutants or {})
    kept = page.Kept(
        faults=dict(sorted((before.faults | (faults or {})).items())),
        mutants={name: both[name] for name in names if name in both},
    )
    # Who is stopped here leaves the one or the other, and never a half of it.
    for file, text in ((RESULTS, page.write_kept(kept)), (PAGE, page.page(kept).encode())):
        beside = file.with_name(f".{file.name}")
        beside.write_bytes(text)
        beside.replace(file)


if __name__ == "__main__":
    sys.exit(main())
