"""The engines' kit agrees with itself, and with what it offers people with Docker."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from itertools import chain, pairwise
from pathlib import Path

import pytest
import yaml
from engines import places, trino
from engines.__main__ import ENGINES, main
from engines.kit import Engine, EngineError, Launch
from engines.postgres import DATABASES
from ports import _PORTS as PORTS_OF_TESTS
from ports import free_port

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_no_two_engines_want_the_same_port(tmp_path: Path) -> None:
    """They all run at once, beside tests that take ports by chance."""
    wanted = sorted(chain.from_iterable(kind(tmp_path).ports for kind in ENGINES.values()))

    assert all(one < another for one, another in pairwise(wanted))
    assert not set(wanted) & set(PORTS_OF_TESTS)


@pytest.mark.parametrize("name", sorted(ENGINES.keys() - {"rest"}))  # of tests alone
def test_docker_offers_each_engine_at_the_same_port(name: str) -> None:
    """One settings file serves both."""
    [published] = COMPOSE[name]["ports"]

    assert published.startswith(f"{places.HOST}:{ENGINES[name].default_port}:")


@pytest.mark.parametrize("name", ["kafka", "s3", "trino", "elasticsearch", "sqs"])
def test_docker_offers_the_version_that_is_tested(name: str) -> None:
    """An image that moved on would be tested by its users."""
    assert COMPOSE[name]["image"].endswith(f":{ENGINES[name].version}")


def test_docker_makes_the_same_databases_and_the_same_catalog() -> None:
    """What tests find on the kit's engines is there on Docker's."""
    folder = ROOT / "deploy" / "compose"
    lines = (folder / "penstock.properties").read_text().splitlines()
    there = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    expected = trino.catalog_properties("lake", f"s3://{places.BUCKET}/lake")
    elsewhere = {"iceberg.jdbc-catalog.connection-url", "s3.endpoint"}
    for_tests = {name for name in expected if name.endswith(".min-retention")}

    assert (folder / "databases.sql").read_text().split() == [
        word for name in DATABASES for word in ("CREATE", "DATABASE", f"{name};")
    ]
    assert there.pop("connector.name") == "iceberg"
    assert {k: v for k, v in there.items() if k not in elsewhere} == {
        k: v for k, v in expected.items() if k not in elsewhere | for_tests
    }


class Sleeper(Engine):
    """Listens, after a while, and starts a child of its own."""

    name = "sleeper"
    version = "1"
    default_port = 1
    patience = 20.0
    program = (
        "import socket, subprocess, sys, time;"
        "subprocess.Popen(['sleep', '1000']);"
        "s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
        "print('listening', flush=True);"
        "time.sleep(1000)"
    )

    def fetch(self) -> None:
        (self.kit / "thing").touch()

    def launch(self) -> Launch:
        return Launch([sys.executable, "-c", self.program, str(self.port)])

    def ready(self) -> bool:
        return "listening" in self.log.read_text()


@pytest.fixture
def sleeper(tmp_path: Path):
    engine = Sleeper(tmp_path, port=free_port())
    yield engine
    engine.stop()


def test_an_engine_is_fetched_once_and_again_where_fetching_broke_off(sleeper: Sleeper) -> None:
    """A download that was interrupted must not look whole."""
    assert sleeper.ensure_fetched()
    assert not sleeper.ensure_fetched()
    (sleeper.kit / ".complete").unlink()
    (sleeper.kit / "half").touch()

    assert sleeper.ensure_fetched()
    assert not (sleeper.kit / "half").exists()


def test_stop_leaves_no_process(sleeper: Sleeper) -> None:
    """Neither the server nor what it started."""
    sleeper.start()
    server = sleeper.process()
    assert server is not None
    family = [server, *server.children(recursive=True)]
    assert len(family) == 2

    assert sleeper.stop()

    assert [one for one in family if one.is_running() and one.status() != "zombie"] == []
    assert sleeper.process() is None
    assert not sleeper.stop()


def test_starting_what_runs_changes_nothing(sleeper: Sleeper) -> None:
    """`make engines` may be typed twice."""
    sleeper.start()
    before = sleeper.process()
    sleeper.start()

    assert sleeper.process() == before


def test_a_port_that_is_taken_is_named(sleeper: Sleeper, tmp_path: Path) -> None:
    """The other program would be taken for the engine."""
    sleeper.start()
    second = Sleeper(tmp_path, run=tmp_path / "second", port=sleeper.port)

    with pytest.raises(EngineError, match=f"port {sleeper.port} is taken"):
        second.start()


def test_an_engine_that_ends_tells_its_last_words(sleeper: Sleeper) -> None:
    """Nothing is skipped silently."""
    sleeper.program = "print('out of luck'); raise SystemExit(3)"

    with pytest.raises(EngineError, match="out of luck"):
        sleeper.start()


def test_the_command_refuses_a_name_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt engine would be missing where it is needed."""
    with pytest.raises(SystemExit):
        main(["start", "kaffka"])

    assert "kaffka" in capsys.readouterr().err


def test_status_fails_unless_everything_runs(tmp_path: Path) -> None:
    """Tests of the engines must not begin without them."""
    assert main(["status", "--root", str(tmp_path)]) == 1


def test_the_kit_runs_as_a_module() -> None:
    """The Makefile calls it so."""
    done = subprocess.run(
        [sys.executable, "-m", "engines", "--help"],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert "elasticsearch" in done.stdout


@pytest.mark.engines
def test_what_a_test_leaves_on_engines_is_forgotten_and_nothing_else() -> None:
    """Engines that hold what thousands of tests left are slow to look through and to start."""
    from confluent_kafka.admin import AdminClient, NewTopic
    from engines.fresh import forget, fresh_name

    admin, index = AdminClient({"bootstrap.servers": places.KAFKA}), places.ELASTICSEARCH
    names = mine, others = fresh_name(), fresh_name()
    made = admin.create_topics([NewTopic(f"{name}.main.flights", 1, 1) for name in names])
    for topic in made.values():
        topic.result()
    for name in names:
        request = urllib.request.Request(f"{index}/{name}-main", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def there() -> set[str]:
        with urllib.request.urlopen(f"{index}/_cat/indices?h=index", timeout=60) as answer:
            indices = answer.read().decode().split()
        topics = admin.list_topics(timeout=60).topics
        return {one for one in (*topics, *indices) if one.startswith(names)}

    assert len(there()) == 4
    forget([mine])
    assert there() == {f"{others}.main.flights", f"{others}-main"}
