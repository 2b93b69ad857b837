"""Which target a destination is opened as, and what it takes for one."""

from __future__ import annotations

import sys

import pytest
from builders import FLIGHTS, NOON

from penstock.errors import BadRequest
from penstock.guard import Guard
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
from replay.targets.opening import checked, log_topics, open_target
from replay.targets.places import collection_place, kind_of, rabbit_place, sqs_options, sqs_place

URLS: dict[Kind, str] = {
    "kafka": "kafka://b.example/topic",
    "rabbitmq": "amqp://b.example/",
    "sqs": "sqs://sqs.eu-west-1.amazonaws.com/1/q",
}


@pytest.mark.parametrize(
    ("kind", "driver", "extra"),
    [
        ("kafka", "confluent_kafka", "kafka"),
        ("rabbitmq", "aiormq", "rabbitmq"),
        ("sqs", "botocore.auth", "sqs"),
    ],
)
def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, driver: str, extra: str
) -> None:
    """And how to get it."""
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(sys.modules, f"replay.targets.{kind}", raising=False)
    record = Destination(
        team="main", name="d", kind=kind, url=URLS[kind], secret="a:b", created_at=NOON
    )
    with pytest.raises(BadRequest, match=rf"pip install 'penstock\[{extra}\]'"):
        open_target(record, guard=Guard(), replay_id="r", collection=FLIGHTS, clock=lambda: NOON)


def test_the_embedded_default_loads_no_client() -> None:
    """They are extras, and slow to load."""
    import subprocess

    program = (
        "import sys, replay.job, penstock.api.destinations; "
        "print([n for n in ('confluent_kafka', 'aiormq', 'botocore') if n in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


def test_a_scheme_says_the_kind_and_only_https_may_be_sqs_too() -> None:
    assert [kind_of(url) for url in URLS.values()] == list(URLS)
    assert kind_of("https://sqs.eu-west-1.amazonaws.com/1/q", "sqs") == "sqs"
    assert kind_of("https://b.example/") == "http"


def test_a_virtual_host_is_percent_encoded() -> None:
    place = rabbit_place("amqp://b.example/a%2Fb%20c", Guard())

    assert place.vhost == "a/b c"
    assert place.url == "amqp://b.example:5672/a%2Fb%20c"
    assert rabbit_place("amqp://b.example", Guard()).vhost == "/"


def test_a_collection_is_one_of_the_destinations_own_team() -> None:
    assert kind_of("collection://archive") == "collection"
    assert collection_place("collection://archive", "billing") == ("billing", "archive")
    for url in ("main.flights", "", "a/b", "penstock_system.replay_attempts", "../flights", "a?b"):
        with pytest.raises(BadRequest):
            collection_place(f"collection://{url}", "main")


@pytest.mark.parametrize(
    "more", [{"secret": "s"}, {"options": {"x": 1}}, {"headers": (("A", "b"),)}]
)
def test_a_collection_has_nothing_but_a_name(more) -> None:
    record = Destination(
        team="main", name="d", kind="collection", url="collection://x", created_at=NOON, **more
    )
    with pytest.raises(BadRequest):
        checked(record, Guard())


@pytest.mark.parametrize(
    "more",
    [
        {"secret": "s"},
        {"options": {"x": 1}},
        {"headers": (("A", "b"),)},
        {"url": "tunnel://"},
        {"url": "tunnel://a/b"},
        {"url": "tunnel://-a"},
        {"url": f"tunnel://{'a' * 101}"},
    ],
)
def test_a_tunnel_has_nothing_but_a_name(more) -> None:
    place = {"url": "tunnel://Orders-2.eu_1", **more}
    record = Destination(team="main", name="d", kind="tunnel", created_at=NOON, **place)
    with pytest.raises(BadRequest):
        checked(record, Guard())
    whole = Destination(
        team="main", name="d", kind="tunnel", url="TUNNEL://Orders-2.eu_1", created_at=NOON
    )
    assert kind_of(whole.url) == "tunnel"
    assert checked(whole, Guard()).url == "tunnel://Orders-2.eu_1"


def test_a_queue_is_fifo_by_its_name() -> None:
    for name, fifo in (("q", False), ("q.fifo", True)):
        url = f"sqs://sqs.eu-west-1.amazonaws.com/1/{name}"
        place = sqs_place(url, sqs_options({}), Guard())
        assert (place.fifo, place.region) == (fifo, "eu-west-1")
        assert place.queue_url == f"https://sqs.eu-west-1.amazonaws.com/1/{name}"
        assert place.url == url


def test_the_topics_of_our_own_log_begin_as_its_address_says() -> None:
    assert log_topics("embedded:///home/log") == "penstock."
    assert log_topics("kafka://b:9092") == "penstock."
    assert log_topics("kafka://b:9092,c:9092/prod?config=/x") == "prod."
