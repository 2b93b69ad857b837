"""Ask Dagster, by GraphQL, for the run of a replay."""

from __future__ import annotations

import httpx

from penstock.errors import EngineUnavailable

LOCATION = "penstock"
REPOSITORY = "__repository__"
JOB = "replay"
# The sensor that looks after replays finds their runs by it.
REPLAY_TAG = "penstock/replay_id"

# A launch takes 1 to 2 s of Dagster's time, up to 7 s on a busy machine.
PATIENCE_SECONDS = 20.0

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


class Dagster:
    """Dagster's webserver at `url`. Threads may share it."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        # trust_env off: a proxy of the environment is for other hosts than this one.
        self._http = httpx.Client(
            base_url=url, transport=transport, timeout=PATIENCE_SECONDS, trust_env=False
        )

    def launch(self, replay_id: str) -> str:
        """Start the run of a replay and answer its run id.

        Raises `EngineUnavailable` when Dagster does not answer or cannot start it: the replay
        stays as it is, and a sensor starts it later.
        """
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": REPOSITORY,
                "jobName": JOB,
            },
            "runConfigData": {"ops": {"send": {"config": {"replay_id": replay_id}}}},
            "executionMetadata": {"tags": [{"key": REPLAY_TAG, "value": replay_id}]},
        }
        try:
            answer = self._http.post(
                "/graphql", json={"query": _LAUNCH, "variables": {"params": params}}
            )
            answer.raise_for_status()
            result = answer.json()["data"]["launchRun"]
            kind = result["__typename"]
            if kind == "LaunchRunSuccess":
                run_id: str = result["run"]["runId"]
                return run_id
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                "Dagster does not answer; the replay starts once it does", retry_after=5
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable("what answers is not Dagster", retry_after=5) from error
        raise EngineUnavailable(f"Dagster did not start the replay: {kind}", retry_after=5)

    def ping(self) -> None:
        """Return if the webserver answers; raise `EngineUnavailable`."""
        try:
            self._http.get("/server_info", timeout=2.0).raise_for_status()
        except httpx.HTTPError as error:
            raise EngineUnavailable("Dagster does not answer", retry_after=5) from error

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()
