from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from penstock.api.dagster import Dagster
from penstock.errors import EngineUnavailable


def dagster(answer: Callable[[httpx.Request], httpx.Response]) -> Dagster:
    return Dagster("http://dagster.test:3000", transport=httpx.MockTransport(answer))


def launched(result: object) -> httpx.Response:
    return httpx.Response(200, json={"data": {"launchRun": result}})


def test_a_replay_is_launched_by_its_id_and_nothing_else() -> None:
    """Run config is shown to everybody who may open Dagster's pages."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, json.loads(request.content)["variables"]["params"]))
        return launched({"__typename": "LaunchRunSuccess", "run": {"runId": "run-1"}})

    assert dagster(answer).launch("r1") == "run-1"
    assert asked == [
        (
            "/graphql",
            {
                "selector": {
                    "repositoryLocationName": "penstock",
                    "repositoryName": "__repository__",
                    "jobName": "replay",
                },
                "runConfigData": {"ops": {"send": {"config": {"replay_id": "r1"}}}},
                "executionMetadata": {"tags": [{"key": "penstock/replay_id", "value": "r1"}]},
            },
        )
    ]


def refuse(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused to 10.1.2.3")


@pytest.mark.parametrize(
    "answer",
    [
        refuse,
        lambda _: httpx.Response(502, text="bad gateway"),
        lambda _: httpx.Response(200, text="<html>another page</html>"),
        lambda _: httpx.Response(200, json={"errors": [{"message": "no such mutation"}]}),
        lambda _: httpx.Response(200, json={"data": None}),
        lambda _: launched({"__typename": "PipelineNotFoundError"}),
        lambda _: launched({"__typename": "PythonError", "message": "/home/me/secret"}),
    ],
)
def test_a_dagster_that_does_not_launch_is_an_engine_that_is_away(
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    """The replay stays requested and a sensor starts it later."""
    with pytest.raises(EngineUnavailable) as raised:
        dagster(answer).launch("r1")

    assert "10.1.2.3" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_ping_asks_something_small() -> None:
    dagster(lambda _: httpx.Response(200, json={"dagster_version": "1"})).ping()
    with pytest.raises(EngineUnavailable):
        dagster(refuse).ping()
