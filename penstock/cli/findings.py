"""How checks are made: side by side, each with an answer in time, and none with a secret in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import NamedTuple

from penstock.errors import PenstockError

Censor = Callable[[str], str]
"""Takes out of a text what nobody may read."""


class Check(NamedTuple):
    """Something to look at, and what to do where it is not well."""

    look: Callable[[], str]
    """Answers a sentence, or raises."""
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found; `do` says what to do about it."""

    name: str
    ok: bool
    detail: str
    do: str | None = None
    seconds: float = 0.0


def findings(
    checks: Mapping[str, Check], *, seconds: float, censor: Censor = str
) -> Iterator[Finding]:
    """Answer what each check found, in their order; all have answered when `seconds` are over.

    One that does not come back is left alone: its thread keeps nobody from ending.
    """
    until = time.monotonic() + seconds
    under_way = {name: _begun(name, check, censor) for name, check in checks.items()}
    for name, answer in under_way.items():
        try:
            yield answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            detail = f"it did not answer within {seconds:g} s"
            do = checks[name].remedy
            yield Finding(name=name, ok=False, detail=detail, do=do, seconds=seconds)


def _begun(name: str, check: Check, censor: Censor) -> Future[Finding]:
    answer: Future[Finding] = Future()
    # Not a pool's thread: those are waited for when the process ends.
    Thread(
        target=lambda: answer.set_result(found(name, check, censor)), name=name, daemon=True
    ).start()
    return answer


def found(name: str, check: Check, censor: Censor = str) -> Finding:
    """Answer what one check found, however long it takes."""
    begun = time.monotonic()
    try:
        detail, ok = check.look(), True
    except (PenstockError, OSError) as error:
        detail, ok = censor(str(error)), False
    except Exception as error:  # noqa: BLE001 - whatever a store raises is what is wrong with it
        first = (str(error).splitlines() or [""])[0]
        detail, ok = censor(f"{type(error).__name__}: {first}"), False
    took = time.monotonic() - begun
    do = None if ok else check.remedy
    return Finding(name=name, ok=ok, detail=detail, do=do, seconds=took)
