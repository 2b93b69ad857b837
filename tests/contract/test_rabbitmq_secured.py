"""Messages and replays on a RabbitMQ that has TLS, set up as their page says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from builders import FLIGHTS, event
from certificates import make_certificates
from engines.places import HOST, PASSWORD, USER
from far_sides import HERE, sent
from own_engines import own_engine
from secured import SecuredRabbitMQ, example, keys_of
from served import until

from penstock.bus import open_bus
from penstock.guard import Guard
from penstock.metadata.records import Destination
from penstock.settings import load_settings
from replay.targets import BROKEN, NOT_LET_IN, NOT_TRUSTED, Outcome
from replay.targets.opening import open_target

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("own engines")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRabbitMQ]:
    with own_engine(SecuredRabbitMQ, tmp_path_factory.mktemp("secured")) as rabbit:
        yield rabbit


def bus_url(broker: SecuredRabbitMQ, home: Path, **instead: str) -> str:
    """Answer the bus of a home that is set up as the page says, but for these parts."""
    parts = {
        "amqps": "amqps",
        "…": PASSWORD,
        "rabbit.example": f"{HOST}:{broker.port}",
        "/etc/penstock/ca.pem": str(keys_of(broker.run) / "ca.pem"),
    }
    (home / "penstock.toml").write_text(example("bus_url", {**parts, **instead}))
    return load_settings(home, {}).bus_url


def test_messages_are_carried_as_the_page_sets_it_up(
    broker: SecuredRabbitMQ, tmp_path: Path
) -> None:
    """The connection is the bus's own, its certificates are named in the address."""
    bus = open_bus(bus_url(broker, tmp_path), lambda: pytest.fail("not asked"))
    heard: list[str] = []
    bus.subscribe("known", heard.append)

    bus.publish("known", "7")

    until(lambda: heard == ["7"])
    bus.close()


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ({"…": "hidden"}, "user and password"),
        ({"/etc/penstock/ca.pem": "{stranger}/ca.pem"}, "cafile"),
        ({"/etc/penstock/ca.pem": "{stranger}/none.pem"}, "cafile"),
        ({"amqps": "amqp"}, "amqps://"),
    ],
    ids=["wrong password", "unknown CA", "no such file", "plain text"],
)
def test_what_is_set_up_wrong_is_told_once(
    broker: SecuredRabbitMQ,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    instead: dict[str, str],
    told: str,
) -> None:
    """Nothing else notices: without messages everything works, a little later."""
    caplog.set_level(logging.DEBUG)
    make_certificates(tmp_path / "stranger")
    wrong = {name: text.format(stranger=tmp_path / "stranger") for name, text in instead.items()}
    with structlog.testing.capture_logs() as lines:
        bus = open_bus(bus_url(broker, tmp_path, **wrong), lambda: pytest.fail("not asked"))
        bus.publish("known", "7")
        until(lambda: bool(lines), seconds=10)
        time.sleep(0.5)  # a few more tries
        bus.close()

    [line] = lines
    assert line["event"] == "messages are not carried"
    assert told in line["reason"]
    for secret in ("hidden", f":{PASSWORD}@"):
        assert secret not in str(line)
        assert secret not in caplog.text


def replayed(
    broker: SecuredRabbitMQ, secret: str, ca: str | None, scheme: str = "amqps"
) -> Outcome:
    """Send one event to a queue that is not there; answer what is said of it."""
    record = Destination(
        team="main",
        name="orders",
        kind="rabbitmq",
        url=f"{scheme}://{HOST}:{broker.port}/%2F",
        options={"routing_key": "none", **({} if ca is None else {"ca": ca})},
        secret=secret,
        created_at=0,
    )
    target = open_target(
        record,
        guard=Guard((HERE,), (broker.port,)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: 0,
        timeout=10,
    )
    [outcome] = sent(target, [event("x")])
    return outcome


def test_replays_reach_an_exchange_behind_tls(broker: SecuredRabbitMQ, tmp_path: Path) -> None:
    """The server's word on a queue that is not there is its answer, over TLS and signed in."""
    ca = (keys_of(broker.run) / "ca.pem").read_text()

    assert "no queue" in replayed(broker, f"{USER}:{PASSWORD}", ca).reason


def test_a_replay_that_is_not_let_in_says_why(broker: SecuredRabbitMQ, tmp_path: Path) -> None:
    """Nothing is sent, and the books say what to look at."""
    make_certificates(tmp_path / "stranger")
    ours = (keys_of(broker.run) / "ca.pem").read_text()
    theirs = (tmp_path / "stranger" / "ca.pem").read_text()

    assert replayed(broker, f"{USER}:wrong", ours) == NOT_LET_IN
    assert replayed(broker, f"{USER}:{PASSWORD}", theirs) == NOT_TRUSTED
    assert replayed(broker, f"{USER}:{PASSWORD}", None) == NOT_TRUSTED
    assert replayed(broker, f"{USER}:{PASSWORD}", None, "amqp") == BROKEN
