"""What the URL of a log on Kafka may say, and what it must not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from builders import FLIGHTS

from penstock.buffer import open_appender, open_buffer, open_keeper
from penstock.buffer.kafka_cluster import read_place
from penstock.buffer.kafka_trouble import Trouble, meaning_of
from penstock.envelope import CollectionId
from penstock.errors import BadSetting


def test_a_url_names_brokers_and_a_prefix() -> None:
    """Several brokers, so that one may be away at the start."""
    place = read_place("kafka://one:9092,two:9092/bus?replication_factor=2")

    assert place.client(Trouble())["bootstrap.servers"] == "one:9092,two:9092"
    assert place.topic(FLIGHTS) == "bus.main.flights"
    assert place.group == "bus.landing"
    assert place.replication == 2
    assert read_place("kafka://one:9092").topic(FLIGHTS) == "penstock.main.flights"


def test_topics_that_are_no_collections_are_left_out() -> None:
    """Others may have topics that begin alike."""
    topics = [
        "bus.main.flights",
        "bus.shop.orders",
        "bus.x",
        "bus.main.a.b",
        "bus.Main.A",
        "busy.a.b",
    ]

    assert read_place("kafka://one:9092/bus").collections(topics) == [
        FLIGHTS,
        CollectionId("shop", "orders"),
    ]


def test_secrets_come_from_a_file_and_are_never_shown(tmp_path: Path) -> None:
    """URLs and objects end up in logs."""
    file = tmp_path / "client.properties"
    file.write_text("# sign-in\n\nsecurity.protocol = SASL_SSL\nsasl.password=hush=hush\n")

    place = read_place(f"kafka://one:9092?config={file}")

    assert place.client(Trouble())["sasl.password"] == "hush=hush"
    assert place.client(Trouble())["security.protocol"] == "SASL_SSL"
    assert "hush" not in repr(place)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka:///penstock", "no broker"),
        ("kafka://me:secret@one:9092", "sign-in"),
        ("kafka://one:9092?acks=1", "acks"),
        ("kafka://one:9092?replication_factor=none", "copies"),
        ("kafka://one:9092/a/b", "topic"),
        ("kafka://one:9092?config=/nowhere/x", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(url: str, reason: str) -> None:
    """A misspelt option must not be ignored, and no message may show a password."""
    with pytest.raises(BadSetting, match=reason) as refused:
        read_place(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "line", ["acks=1", "isolation.level=read_uncommitted", "retries=0", "no equals"]
)
def test_what_the_promises_stand_on_cannot_be_set(tmp_path: Path, line: str) -> None:
    """A log with acks=1 would acknowledge what is on one disk."""
    file = tmp_path / "client.properties"
    file.write_text(line)

    with pytest.raises(BadSetting):
        read_place(f"kafka://one:9092?config={file}")


def test_a_property_that_the_client_does_not_know_is_named(tmp_path: Path) -> None:
    """Its value is not: it may be a password under a misspelt name."""
    file = tmp_path / "client.properties"
    file.write_text("sasl.pasword=hush\n")

    with pytest.raises(BadSetting, match=r"sasl\.pasword") as refused:
        open_appender(f"kafka://one:9092?config={file}")

    assert "hush" not in str(refused.value)


def test_a_value_that_the_client_refuses_is_named_and_not_shown(tmp_path: Path) -> None:
    """The client quotes it in its own message."""
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=hush\n")

    with pytest.raises(BadSetting, match=r"the value of security\.protocol is refused") as refused:
        open_appender(f"kafka://one:9092?config={file}")

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("SASL authentication error: Authentication failed (after 5ms in state AUTH_REQ)", "sasl."),
        ("SASL PLAIN mechanism handshake failed (after 3ms in state AUTH_HANDSHAKE)", "sasl."),
        ("SSL handshake failed: certificate verify failed: broker certificate", "ssl.ca.location"),
        ("SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "TLS"),
        ("Disconnected: closed by peer (after 1ms in state APIVERSION_QUERY)", "security.protocol"),
    ],
)
def test_what_the_client_logs_tells_which_property_to_look_at(line: str, named: str) -> None:
    """The call itself says no more than that no broker answered in time."""
    trouble = Trouble()
    trouble.log(20, "%s [%s] %s", "FAIL", "p#1", f"[thrd:ssl://SSL:1]: ssl://SSL:1: {line}")

    assert meaning_of(line) is not None
    assert named in trouble.told("nothing")
    trouble.forget()
    assert trouble.told("nothing") == "nothing"


def test_a_broker_that_is_away_says_nothing_of_settings() -> None:
    """Its own name is no sign either."""
    trouble = Trouble()
    words = "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)"
    trouble.log(
        20, "%s [%s] %s", "FAIL", "p#1", f"[thrd:SSL:1/bootstrap]: SSL:1/bootstrap: {words}"
    )

    assert trouble.told("nothing") == "nothing"


@pytest.mark.parametrize("opens", [open_appender, open_buffer, open_keeper])
def test_without_its_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, opens) -> None:
    """The embedded default needs none of it."""
    for name in [name for name in sys.modules if name.startswith("penstock.buffer.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("penstock.buffer.kafka", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(BadSetting, match=r"penstock\[kafka\]"):
        opens("kafka://one:9092")
