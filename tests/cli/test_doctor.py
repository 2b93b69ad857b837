"""`penstock doctor` where things are as they should be, and where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from cli_home import Installation, Penstock
from served import served

from penstock.cli.home import write_running


class StandInWebserver:
    """A Dagster webserver that says what a test says."""

    def __init__(self, *, healthy: bool = True, loaded: bool = True) -> None:
        self.healthy = healthy
        self.loaded = loaded

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/server_info":
            answer: Any = {"dagster_version": "1.2.3"}
        else:
            answer = {"data": self._data()}
        body = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _data(self) -> Any:
        kind = "RepositoryLocation" if self.loaded else "PythonError"
        location = {"__typename": kind, "message": "ImportError: no module\n  File …"}
        daemons = [
            {"daemonType": "SENSOR", "required": True, "healthy": self.healthy},
            {"daemonType": "BACKFILL", "required": False, "healthy": None},
        ]
        entry = {"name": "penstock", "loadStatus": "LOADED", "locationOrLoadError": location}
        return {
            "instance": {"daemonHealth": {"allDaemonStatuses": daemons}},
            "workspaceOrError": {"locationEntries": [entry]},
        }


def findings(penstock: Penstock, home: Path, dagster: str, here: Installation) -> dict[str, Any]:
    write_running(home, msgspec.structs.replace(here.running, dagster=dagster))
    said = penstock("doctor", "--json", home=home)
    assert said.err == ""
    return {one["name"]: one for one in said.json()["checks"]}


def test_each_store_and_each_process_is_named(here: Installation, penstock: Penstock) -> None:
    """`something is wrong` helps nobody."""
    with served(StandInWebserver(), lifespan="off") as dagster:
        found = findings(penstock, here.home, dagster, here)

    assert list(found) == [
        *("settings", "home", "disk", "clock", "log", "catalog", "lake"),
        *("books", "metadata", "credentials", "statistics", "cache"),
        *("processes", "door HTTP", "door gRPC", "platform", "platform token"),
        *("Dagster webserver", "Dagster daemon", "code location"),
    ]
    # Not there in this small installation: the door's gRPC and its page of health. Nothing was
    # published to the cache, and the platform's clock stands still at noon.
    bad = {name for name, one in found.items() if not one["ok"]}
    assert bad <= {"door gRPC", "door HTTP", "cache", "platform", "platform token"}
    assert "door gRPC" in bad
    assert "s apart" in found["platform token"]["detail"]
    assert all(one["do"] for name, one in found.items() if name in bad)
    assert found["Dagster webserver"]["detail"].endswith("version 1.2.3")


def test_a_silent_daemon_and_code_that_does_not_load_are_told_apart(
    here: Installation, penstock: Penstock
) -> None:
    """Nothing lands in both cases; the log to read is another."""
    with served(StandInWebserver(healthy=False, loaded=False), lifespan="off") as dagster:
        found = findings(penstock, here.home, dagster, here)

    assert found["Dagster daemon"]["detail"] == "no heartbeat of sensor: nothing lands"
    assert "dagster-daemon.log" in found["Dagster daemon"]["do"]
    assert found["code location"]["detail"] == "penstock is not loaded: ImportError: no module"
    assert "code-server.log" in found["code location"]["do"]


def test_a_token_others_may_read_is_found(here: Installation, penstock: Penstock) -> None:
    """A copied home often has lost its modes."""
    here.home.chmod(0o700)
    (here.home / "admin.token").touch(0o644)

    said = penstock("doctor", home=here.home)

    assert said.code == 1
    assert "others may read" in said.out
    assert "chmod 700" in said.out


def test_where_nothing_runs_the_stores_are_looked_at_all_the_same(
    here: Installation, penstock: Penstock
) -> None:
    """That is when a doctor is called."""
    (here.home / "running.json").unlink()

    said = penstock("doctor", home=here.home)

    assert said.code == 1
    assert "ok   log" in said.out
    assert "do: start it: 'penstock up --home" in said.out


def test_a_home_that_does_not_exist_is_not_made(tmp_path: Path, penstock: Penstock) -> None:
    """Looking changes nothing."""
    home = tmp_path / "none"

    said = penstock("doctor", home=home)

    assert said.code == 1
    assert f"'penstock up --home {home}' makes it" in said.out
    assert not home.exists()


def test_a_setting_that_cannot_be_read_is_the_only_finding(
    here: Installation, penstock: Penstock
) -> None:
    """Without settings nobody knows where to look."""
    (here.home / "penstock.toml").write_text("http_prot = 1\n")

    said = penstock("doctor", "--json", home=here.home)

    assert said.code == 1
    [only] = said.json()["checks"]
    assert "http_prot" in only["detail"]
