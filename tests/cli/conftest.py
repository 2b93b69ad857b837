from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from cli_home import BYTES, HOSTILE, Installation, Penstock, Said
from door_builders import ADMIN, FailingLog, client_on, door_on, token_record
from platform_stand_ins import StandInSearcher, StandInSql, found, platform
from served import served

from penstock.api.app import create_app
from penstock.cli.home import Running, write_running
from penstock.cli.main import main
from penstock.metadata.records import CollectionRecord


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    folder = tmp_path / "a home"
    folder.mkdir(mode=0o700)
    sql, searcher = StandInSql(), StandInSearcher(events=[HOSTILE, BYTES, found()], number=3)
    made = platform(folder, sql=sql, searcher=searcher, files=folder / "replay-files")
    made.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=NOON))
    made.store.add_token(token_record(ADMIN, "admin", scopes=("admin",)))
    log = FailingLog()
    with ExitStack() as stack:
        stack.callback(made.store.close)
        door = stack.enter_context(served(client_on(door_on(log)).app, lifespan="off"))
        api = stack.enter_context(served(create_app(made), lifespan="off"))
        running = Running(
            supervisor=os.getpid(),
            door=door,
            grpc="127.0.0.1:9",
            platform=api,
            dagster="",
            token=ADMIN,
        )
        write_running(folder, running)
        yield Installation(folder, made, log, sql, searcher, running)


@pytest.fixture
def penstock(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Penstock:
    """Run a command in this process, as the shell would."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)

    def run(*words: str, home: Path | None = None) -> Said:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*words, *(("--home", str(home)) if home else ())])
        said = capfdbinary.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Said(code or 0, said.out.decode(), said.err.decode())

    return run
