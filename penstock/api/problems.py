"""Every error of the API leaves as `application/problem+json`."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from penstock.contract.base import ProblemTold, field_at_fault, what_is_wrong
from penstock.errors import BadRequest, PenstockError
from penstock.problem import CONTENT_TYPE, Problem, problem

log = structlog.get_logger()

_SERVER_ERROR = 500
_UNAUTHORIZED = 401


def add_problems(app: FastAPI) -> None:
    """Let the app answer every error that was raised on purpose as a problem."""
    app.add_exception_handler(PenstockError, _penstock)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def problem_response(error: Exception) -> Response:
    """Answer the response that tells a client about an error."""
    return _response(problem(error))


def problem_contract() -> dict[str, Any]:
    """Answer what the contract says of every error, whatever its status."""
    return {
        "description": "An error, by the status of its kind.",
        "content": {CONTENT_TYPE: {"schema": ProblemTold.model_json_schema()}},
    }


async def _penstock(request: Request, error: Exception) -> Response:
    told = problem(error)
    if told.status >= _SERVER_ERROR:
        log.warning("request failed", path=request.url.path, error=str(error))
    return _response(told)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the handler's registration
    # Where the value came from, body or query, is known to who sent it.
    mistakes = [{**wrong, "loc": wrong["loc"][1:]} for wrong in error.errors()]
    return problem_response(BadRequest(what_is_wrong(mistakes)).at(field_at_fault(mistakes)))


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler's registration
    told = Problem(error.status_code, error.detail, error.detail, None, {})
    return _response(told, dict(error.headers or {}))


def _response(told: Problem, headers: dict[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if told.retry_after is not None:
        headers["Retry-After"] = str(told.retry_after)
    if told.status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(told.body(), told.status, headers, CONTENT_TYPE)
