"""The log and the replay target on a Kafka that has TLS and users, set up as their page says."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, event
from certificates import make_certificates
from engines.fresh import fresh_name
from engines.places import HOST
from far_sides import HERE, sent
from own_engines import own_engine
from secured import PASSWORD, USER, SecuredKafka, example, keys_of

from penstock.buffer import open_appender, open_buffer, open_keeper, start_of
from penstock.envelope import Position
from penstock.errors import BadSetting, LogUnavailable
from penstock.guard import Guard
from penstock.metadata.records import Destination
from penstock.settings import load_settings
from replay.targets import NOT_LET_IN, NOT_TRUSTED, Delivered, Target
from replay.targets.opening import open_target

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("own engines")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with own_engine(SecuredKafka, tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


def log_of(broker: SecuredKafka, home: Path, **properties: str) -> str:
    """Answer the log's URL of a home that is set up as the page says, but for these properties."""
    servers = "broker-1.example:9093,broker-2.example:9093"
    file = home / "kafka.properties"
    (home / "penstock.toml").write_text(
        example(
            "log_url",
            {
                servers: f"{HOST}:{broker.port}",
                "/etc/penstock/kafka.properties": str(file),
                "/penstock?": f"/{fresh_name()}?",
            },
        )
    )
    lines = example(
        "sasl.password", {"/etc/penstock/ca.pem": f"{keys_of(broker.run)}/ca.pem", "…": PASSWORD}
    ).splitlines()
    file.write_text(
        "\n".join(
            f"{name}={properties.get(name.replace('.', '_'), value)}"
            for name, _, value in (line.partition("=") for line in lines)
        )
    )
    return load_settings(home, {}).log


def test_the_log_works_as_the_page_sets_it_up(broker: SecuredKafka, tmp_path: Path) -> None:
    """Making the topic, appending, reading and the log's identity each have a client of its own."""
    url = log_of(broker, tmp_path)
    keeper, appender, buffer = open_keeper(url), open_appender(url), open_buffer(url)
    assert keeper.ensure(FLIGHTS) == 1

    events = [event("one"), event("two")]
    places = appender.append(FLIGHTS, events).result(timeout=20)
    mark = start_of(buffer.log_id(FLIGHTS), 0)
    read = buffer.read(FLIGHTS, mark, end=2, max_bytes=1 << 20)
    buffer.release(FLIGHTS, [read.mark])

    assert places == [Position(0, 0), Position(0, 1)]
    assert read.rows["payload"].to_pylist() == [b"one", b"two"]
    assert buffer.released([FLIGHTS])[FLIGHTS] == {0: 2}
    appender.close()
    buffer.close()


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"sasl_password": f"not {PASSWORD}"}, r"refuses the sign-in; see .*sasl\.password"),
        ({"ssl_ca_location": "{stranger}/ca.pem"}, r"certificate .* see ssl\.ca\.location"),
        ({"security_protocol": "PLAINTEXT"}, r"expects TLS; see security\.protocol"),
    ],
    ids=["wrong password", "unknown CA", "plain text"],
)
def test_what_is_set_up_wrong_is_told_in_time_and_once(
    broker: SecuredKafka,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    properties: dict[str, str],
    told: str,
) -> None:
    """An operator reads one sentence instead of a client's log, and no password anywhere."""
    caplog.set_level(logging.DEBUG)
    stranger = tmp_path / "stranger"
    make_certificates(stranger)
    wrong = {name: value.format(stranger=stranger) for name, value in properties.items()}
    url = log_of(broker, tmp_path, **wrong)
    appender, buffer = open_appender(url), open_buffer(url)
    begun = time.monotonic()
    answer = appender.append(FLIGHTS, [event("x")])

    with pytest.raises(LogUnavailable, match=told) as refused:
        buffer.log_id(FLIGHTS)
    failure = answer.exception(timeout=20)

    assert time.monotonic() - begun < 12
    assert isinstance(failure, LogUnavailable)
    assert str(failure) == str(refused.value)
    appender.close()
    buffer.close()
    said = capfd.readouterr()
    logged = [line for line in said.out.splitlines() if "cannot make events durable" in line]
    assert len(logged) == 1
    assert "FAIL" not in caplog.text
    for text in (caplog.text, said.out, said.err, str(failure)):
        assert PASSWORD not in text


def test_certificates_that_cannot_be_read_stop_the_start(
    broker: SecuredKafka, tmp_path: Path
) -> None:
    """It will not get better by waiting."""
    url = log_of(broker, tmp_path, ssl_ca_location=str(tmp_path / "none.pem"))

    with pytest.raises(BadSetting, match=r"ssl\.ca\.location"):
        open_appender(url)


def destination(broker: SecuredKafka, topic: str, *, secret: str, **options: object) -> Target:
    """Open the destination that the page makes, but for these options."""
    record = Destination(
        team="main",
        name="orders",
        kind="kafka",
        url=f"kafka://{HOST}:{broker.port}/{topic}",
        options={"tls": True, "sasl": "SCRAM-SHA-512", **options},
        secret=secret,
        created_at=0,
    )
    guard = Guard((HERE,), (broker.port,))
    return open_target(
        record, guard=guard, replay_id="r1", collection=FLIGHTS, clock=lambda: 0, timeout=10
    )


def test_replays_reach_a_topic_behind_tls_and_sign_in(broker: SecuredKafka, tmp_path: Path) -> None:
    """The guard's own connection and the client's are both checked and signed in."""
    url = log_of(broker, tmp_path)
    open_keeper(url).ensure(FLIGHTS)
    topic = f"{url.partition('?')[0].rpartition('/')[2]}.{FLIGHTS}"
    ca = (keys_of(broker.run) / "ca.pem").read_text()
    secret = f"{USER}:{PASSWORD}"

    assert asyncio.run(_examined(destination(broker, topic, secret=secret, ca=ca))) is None
    outcomes = sent(destination(broker, topic, secret=secret, ca=ca), [event("one"), event("two")])

    assert outcomes == [Delivered(None)] * 2
    buffer = open_buffer(url)
    assert buffer.extents(FLIGHTS)[0].end == 2
    buffer.close()
    gc.collect()  # a connection that was not closed says so now, and not in another test


def test_a_replay_that_is_not_let_in_says_why(broker: SecuredKafka, tmp_path: Path) -> None:
    """Nothing is sent, and the books say what to look at."""
    stranger = tmp_path / "stranger"
    make_certificates(stranger)
    ours = (keys_of(broker.run) / "ca.pem").read_text()
    theirs = (stranger / "ca.pem").read_text()
    right = f"{USER}:{PASSWORD}"
    begun = time.monotonic()

    def outcome(secret: str, **options: object) -> object:
        target = destination(broker, "any", secret=secret, **options)
        [found] = sent(target, [event("x")])
        return found

    assert outcome(f"{USER}:wrong", ca=ours) == NOT_LET_IN
    assert outcome(right, ca=ours, sasl="PLAIN") == NOT_LET_IN
    assert outcome(right, ca=theirs) == NOT_TRUSTED
    assert outcome(right) == NOT_TRUSTED
    assert "needs the option tls" in outcome(right, tls=False).reason
    assert time.monotonic() - begun < 10


async def _examined(target: Target) -> str | None:
    try:
        return await target.examine()
    finally:
        await target.close()
