"""Tokens, credentials and payloads are where they belong, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from installing import Installation, installation, outside
from receiving import Reply, Request, receiving

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600), pytest.mark.xdist_group("secrets")]

OF_PAYLOADS = {("home", "log"), ("home", "lake")}
"""The folders in which payloads are; `filters/` has bits of them, and no words."""


def canary() -> str:
    """Answer a word that is nowhere else."""
    return f"canary{uuid4().hex}"


def telling(request: Request) -> Reply:
    """Refuse an event, and tell all that came with it: some destinations do."""
    told = b"; ".join(name + b": " + value for name, value in request.headers) + request.body
    return Reply(400, (("x-told", told.decode("latin-1").replace("\n", " ")),), told)


def files_with(folder: Path, word: str) -> Iterator[Path]:
    """Answer which files have the word, by their path from the folder."""
    for file in folder.rglob("*"):
        if file.is_file() and word.encode() in file.read_bytes():
            yield file.relative_to(folder)


def test_an_installation_keeps_and_says_no_secret(tmp_path: Path) -> None:
    """Used rightly and wrongly, and sent to who refuses it and tells; then every file is read."""
    home = tmp_path / "home"
    payloads = {name: canary() for name in ("value", "quarantined")}
    secrets = {"header": canary(), "signing": canary(), "unknown token": f"pst_{canary()}"}
    with (
        receiving(telling) as teller,
        installation(home, more_ports=(teller.port,)) as here,
    ):
        said = sent(here, secrets, payloads)
        said += replayed(here, secrets, teller.url)
        said += [here.cli("destination", "list"), here.cli("token", "list")]
        here.landed("penstock_system.replay_attempts")
        secrets["admin token"] = (home / "admin.token").read_text().strip()
    assert any(secrets["header"] in str(request.headers) for request in teller.requests)

    found = {name: {*files_with(tmp_path, word)} for name, word in secrets.items()}
    # `penstock up` says it on its terminal.
    assert found.pop("admin token") == {Path("home/admin.token"), Path("up.log")}
    assert not any(found.values()), found
    for name, word in payloads.items():
        there = {file.parts[:2] for file in files_with(tmp_path, word)}
        assert ("home", "log") in there, f"the {name} was not sent, or cannot be found"
        assert there <= OF_PAYLOADS, name
    for name, word in secrets.items():
        assert not any(word in answer for answer in said), name


def sent(here: Installation, secrets: dict[str, str], payloads: dict[str, str]) -> list[str]:
    """Send an event and a broken one, and show tokens where they do not count; answer the answers.

    Adds the tokens to the secrets.
    """
    here.cli("collection", "create", "cards")
    for scope in ("ingest", "read"):
        made = here.json("token", "create", scope, "--scope", scope)
        secrets[f"{scope} token"] = made["token"]
    good, broken = (f'{{"card": "{payloads[name]}"' for name in ("value", "quarantined"))
    ways: list[tuple[str, dict[str, str]]] = [
        (secrets["ingest token"], {}),
        (secrets["read token"], {}),
        (secrets["unknown token"], {}),
        ("none", {"token": secrets["ingest token"]}),
    ]
    door = [
        httpx.post(
            f"{here.door}/v1/events/cards",
            content=f"{good}}}\n{broken}",
            params=params,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"},
            timeout=60,
            trust_env=False,
        )
        for token, params in ways
    ]
    platform = [
        httpx.get(
            f"{here.platform}/api/v1/tokens",
            params=params,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
        )
        for token, params in ways
    ]
    assert [one.status_code for one in door] == [202, 403, 401, 401]
    assert [one.status_code for one in platform] == [403, 403, 401, 401]
    assert here.landed("cards").quarantined == 1
    return [one.text for one in door + platform]


def replayed(here: Installation, secrets: dict[str, str], to: str) -> list[str]:
    """Replay to a destination that refuses everything; answer what is said of it."""
    here.cli(
        *("destination", "create", "teller", to, "--option", "signing=github"),
        *("--header", f"X-Api-Key: {secrets['header']}"),
        env={**outside(), "PENSTOCK_SECRET": secrets["signing"]},
    )
    tested = here.cli("destination", "test", "teller", code=1)
    replay = here.json("replay", "start", "cards", "--to", "teller", "--wait")
    assert replay["progress"]["failed"] == 1
    told = [here.cli("replay", what, replay["id"]) for what in ("failures", "report", "status")]
    return [tested, str(replay), *told]
