"""Small files merged by Trino's `optimize`, see `lakehouse.optimize`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog
from pyiceberg.typedef import Identifier
from trino.exceptions import Error, HttpError, TrinoQueryError

from lakehouse.optimize import Due, Ended
from lakehouse.retention import date_of
from lakehouse.sql.trino_session import LateError, TrinoSession, away, begin
from penstock.errors import BadSetting, EngineUnavailable

log = structlog.get_logger()

LONGEST_SECONDS = 3_600.0
"""How long a day may take. What was written by then is deleted by the orphan sweep."""

_CHECK_SECONDS = 10.0

_CONFLICTS = frozenset({"ICEBERG_COMMIT_ERROR", "TRANSACTION_CONFLICT"})

_LATE = "EXCEEDED_TIME_LIMIT"

# Packed; readers skip whole row groups, and with Trino's own 128 MB a file is one.
_ROW_GROUP_BYTES = 16 << 20


class TrinoMerger:
    """Keeps the promise of `lakehouse.optimize.Merger`. Threads may share it."""

    def __init__(self, url: str, *, password: str = "", token: str = "") -> None:
        """Sign in as somebody who may execute `optimize`. Raises `BadSetting`."""
        self._session = TrinoSession(url, password=password, token=token, setting="compact_url")

    def merge(
        self, name: Identifier, due: Due, *, target: int, committing: Callable[[], None]
    ) -> Ended:
        """Have the files of a day merged; wait until that ended."""
        told = False

        def watch(stats: Mapping[str, Any]) -> None:
            nonlocal told
            if not told and only_commits(stats):
                told = True
                committing()

        query = self._session.prepared(
            statement_of(name, due),
            schema=name[0],
            seconds=LONGEST_SECONDS,
            until=time.monotonic() + LONGEST_SECONDS,
            properties=properties_of(self._session.at.catalog, target=target),
            watch=watch,
        )
        try:
            begin(query)
        except LateError:
            return Ended(query.query_id or "", _LATE)
        except TrinoQueryError as error:
            failed = error.error_name or "unknown"
            return Ended(query.query_id or "", failed, conflict=failed in _CONFLICTS)
        except (HttpError, Error, OSError) as error:
            raise away(error) from error
        return Ended(query.query_id or "")

    def check(self, name: Identifier | None) -> None:
        """Let Trino plan the statement, which shows whether it may be executed."""
        text = "SELECT 1" if name is None else f"EXPLAIN {statement_of(name, Due(0, 0, 0))}"
        query = self._session.prepared(
            text,
            schema=name[0] if name is not None else "",
            seconds=_CHECK_SECONDS,
            until=time.monotonic() + _CHECK_SECONDS,
        )
        try:
            begin(query)
        except LateError:
            raise EngineUnavailable("Trino does not answer Penstock now") from None
        except TrinoQueryError as error:
            about = "the catalog" if name is None else ".".join(name)
            raise BadSetting(f"it does not merge files of {about}: {error.error_name}") from error
        except (HttpError, Error, OSError) as error:
            raise away(error) from error


def only_commits(stats: Mapping[str, Any]) -> bool:
    """Say whether all of a statement is done but its commit, which is in the first of its stages.

    That one waits for the files of the others, and then tries to commit for some seconds.
    """
    first = stats.get("rootStage") or {}
    stages = list(first.get("subStages", ()))
    for stage in stages:
        stages += stage["subStages"]
    return (
        first.get("state") == "RUNNING"
        and bool(stages)
        and all(stage["state"] == "FINISHED" for stage in stages)
    )


def statement_of(name: Identifier, due: Due) -> str:
    """Answer what is asked of Trino: a day, which is a partition, and files up to a size."""
    table = ".".join('"{}"'.format(part.replace('"', '""')) for part in name)
    first = date_of(due.day)
    # It takes the files below the threshold.
    return (
        f"ALTER TABLE {table} EXECUTE optimize(file_size_threshold => '{due.largest + 1}B')"
        f" WHERE received_at >= TIMESTAMP '{first} 00:00:00 UTC'"
        f" AND received_at < TIMESTAMP '{first + timedelta(days=1)} 00:00:00 UTC'"
    )


def properties_of(catalog: str, *, target: int) -> dict[str, str]:
    """Answer what Trino's session has to know of the files to write."""
    return {
        f"{catalog}.target_max_file_size": f"{target}B",
        f"{catalog}.parquet_writer_block_size": f"{_ROW_GROUP_BYTES}B",
        f"{catalog}.sorted_writing_enabled": "true",
    }
