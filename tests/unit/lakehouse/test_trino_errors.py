"""What Trino says becomes an error of ours: the caller's fault, nobody's, or the operator's."""

from __future__ import annotations

import pytest
import requests
from trino.exceptions import HttpError, TrinoConnectionError, TrinoQueryError

from lakehouse.sql import TableName
from lakehouse.sql.trino import _Told
from lakehouse.sql.trino_statement import checked
from penstock.errors import BadSql, EngineUnavailable, PenstockError


class Flights:
    """Tables of a team that has one."""

    home = "main"

    def names(self) -> tuple[TableName, ...]:
        return (TableName("main", "flights"),)


def told(error: Exception, statement: str = "SELECT 12345 FROM flights") -> PenstockError:
    telling = _Told(statement, 60.0, Flights())
    telling.asked = checked(statement, Flights().names(), home="main", catalog="lake")
    with pytest.raises(PenstockError) as refusal, telling.errors():
        raise error
    return refusal.value


def said(kind: str, name: str, message: str) -> TrinoQueryError:
    return TrinoQueryError({"errorType": kind, "errorName": name, "message": message})


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            said("INSUFFICIENT_RESOURCES", "EXCEEDED_LOCAL_MEMORY_LIMIT", "limit of 1GB [x]"),
            "the statement needs more memory than it may use",
        ),
        (
            said("INSUFFICIENT_RESOURCES", "CLUSTER_OUT_OF_MEMORY", "killed"),
            "the statement needs more memory than it may use",
        ),
        (
            said("INSUFFICIENT_RESOURCES", "EXCEEDED_TIME_LIMIT", "limit of 60s"),
            "the statement took longer than 60 s and was stopped",
        ),
        (
            said("INSUFFICIENT_RESOURCES", "EXCEEDED_SCAN_LIMIT", "limit of 1TB"),
            "the statement needs more than it may use: EXCEEDED_SCAN_LIMIT",
        ),
        (
            said("USER_ERROR", "USER_CANCELED", "killed by x"),
            "the statement was stopped by an operator of Trino",
        ),
        (
            said("USER_ERROR", "TABLE_NOT_FOUND", "line 1:19: Table 'lake.main.x' does not exist"),
            "there is no such table. The tables are: flights",
        ),
        (
            said("USER_ERROR", "SYNTAX_ERROR", "line 1:8: mismatched input 'x'"),
            "mismatched input 'x', at line 1, character 8",
        ),
        (
            said("USER_ERROR", "INVALID_CAST_ARGUMENT", "Cannot cast 'secret' to INT"),
            "Cannot cast '…' to INT",
        ),
        (
            said("USER_ERROR", "NUMERIC_VALUE_OUT_OF_RANGE", "bigint overflow: 4111111 * 12345"),
            "bigint overflow: …",
        ),
        (said("USER_ERROR", "DIVISION_BY_ZERO", "Division by zero"), "Division by zero"),
    ],
)
def test_whoever_wrote_the_statement_is_told_what_to_change(
    error: TrinoQueryError, sentence: str
) -> None:
    """In Trino's own words where they help, without what rows hold."""
    refusal = told(error)

    assert isinstance(refusal, BadSql)
    assert str(refusal) == sentence


@pytest.mark.parametrize(
    "error",
    [
        said("USER_ERROR", "PERMISSION_DENIED", "Access Denied: Cannot select from secret"),
        said("INSUFFICIENT_RESOURCES", "QUERY_QUEUE_FULL", "Too many queued queries"),
        said("EXTERNAL", "ICEBERG_CANNOT_OPEN_SPLIT", "Error opening s3://secret/x.parquet"),
        said("INTERNAL_ERROR", "GENERIC_INTERNAL_ERROR", "secret"),
        HttpError("error 401: b'secret'"),
        TrinoConnectionError("failed to execute: secret"),
        requests.ConnectionError("secret"),
    ],
)
def test_what_is_no_fault_of_the_statement_is_told_as_that(error: Exception) -> None:
    """It can be tried again; what went wrong where is for the log."""
    refusal = told(error)

    assert isinstance(refusal, EngineUnavailable)
    assert "secret" not in str(refusal)
