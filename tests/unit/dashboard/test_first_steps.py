"""From an empty installation to a planned replay, as pages without a browser."""

from __future__ import annotations

import re

import pytest
from builders import FLIGHTS
from fastapi import FastAPI
from forms import Browser, browser
from metadata_builders import collection, destination
from platform_stand_ins import grant

from penstock.api.platform import Platform
from penstock.dashboard.destinations import named_after
from penstock.metadata.tokens import digest


@pytest.fixture
def admin(app: FastAPI, here: Platform) -> Browser:
    return browser(app, grant(here.store, "admin"))


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Browser:
    return browser(app, grant(here.store, "read"))


def test_the_first_page_begins_with_a_collection(admin: Browser, reader: Browser) -> None:
    assert 'action="/collections"' in admin.get("/").text
    assert 'action="/collections"' not in reader.get("/").text
    assert "Begin with a collection" in reader.get("/").text


def test_a_new_collection_shows_how_to_send_to_it_with_a_token_that_does(
    admin: Browser, here: Platform
) -> None:
    page = admin.post("/collections", name=" orders ").text

    made = re.search(r"Bearer (pst_\w+)", page)
    assert made is not None
    token = here.store.token_by_digest(digest(made[1]))
    assert token is not None
    assert (token.scopes, token.collection) == (("ingest",), "orders")
    assert 'data-address="/collections/orders"' in page


def test_a_collection_leads_to_its_asset_in_dagster(admin: Browser, here: Platform) -> None:
    here.store.create_collection(collection(FLIGHTS))

    for page in ("", "/schema", "/quarantine", "/settings"):
        assert "/assets/events?view=partitions&amp;partition=main.flights" in (
            admin.get(f"/collections/flights{page}").text
        )


def test_the_same_form_again_leads_to_the_collection(admin: Browser, here: Platform) -> None:
    admin.post("/collections", name="orders")
    tokens = len(here.store.tokens("main"))

    again = admin.post("/collections", name="orders")

    assert (again.status_code, again.headers["location"]) == (303, "/collections/orders")
    assert len(here.store.tokens("main")) == tokens


@pytest.mark.parametrize("name", ["", "No Name", "penstock_x", "<b>"])
def test_a_name_that_cannot_be_is_told_at_the_field_and_kept(admin: Browser, name: str) -> None:
    answer = admin.post("/collections", name=name)

    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text
    assert "<b>" not in answer.text


def test_making_a_collection_takes_the_scope_admin(reader: Browser, here: Platform) -> None:
    assert reader.post("/collections", name="orders").status_code == 403
    assert here.store.collections("main") == []


# A replay to an address


PLAN = {"collection": "flights", "query": "", "view": "main"}


def test_an_address_becomes_the_destination_of_the_plan(admin: Browser, here: Platform) -> None:
    here.store.create_collection(collection(FLIGHTS))

    page = admin.get("/replays/new").text
    assert 'name="address"' in page
    assert 'name="destination"' not in page
    planned = admin.post("/replays/new", **PLAN, address="http://localhost:9000/hook")

    [made] = here.store.destinations("main")
    assert (made.name, made.url) == ("localhost_9000", "http://localhost:9000/hook")
    assert planned.status_code == 200
    assert '<option value="localhost_9000" selected>' in planned.text
    assert 'value="http://localhost:9000/hook"' not in planned.text


def test_an_address_that_is_a_destination_is_taken_as_that(admin: Browser, here: Platform) -> None:
    here.store.create_collection(collection(FLIGHTS))
    here.store.add_destination(destination())
    [known] = here.store.destinations("main")

    planned = admin.post("/replays/new", **PLAN, address=known.url)

    assert f'<option value="{known.name}" selected>' in planned.text
    assert here.store.destinations("main") == [known]


@pytest.mark.parametrize(
    "address", ["nowhere", "ftp://files.example/", "http://169.254.169.254/latest"]
)
def test_an_address_that_replays_may_not_reach_is_told_at_its_field(
    admin: Browser, here: Platform, address: str
) -> None:
    here.store.create_collection(collection(FLIGHTS))

    answer = admin.post("/replays/new", **PLAN, address=address)

    assert answer.status_code == 422
    assert 'id="address-error"' in answer.text
    assert f'value="{address}"' in answer.text
    assert here.store.destinations("main") == []


def test_who_may_replay_alone_makes_no_destination(app: FastAPI, here: Platform) -> None:
    here.store.create_collection(collection(FLIGHTS))
    replayer = browser(app, grant(here.store, "read", "replay"))

    assert 'name="address"' not in replayer.get("/replays/new").text
    answer = replayer.post("/replays/new", **PLAN, address="http://localhost:9000/hook")

    assert answer.status_code == 422
    assert here.store.destinations("main") == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://billing.example/events", "billing_example"),
        ("http://127.0.0.1:9000/", "at_127_0_0_1_9000"),
        ("kafka://Broker-1:9092,broker2/topic", "broker_1_9092_broker2"),
        ("https://penstock.example/", "at_penstock_example"),
        ("amqp://[::1]/%2F", "at_1"),
        ("https://" + "a" * 70 + "/", "a" * 40),
        ("nothing", "destination"),
    ],
)
def test_a_destination_is_named_after_its_host(address: str, name: str) -> None:
    assert named_after(address, ()) == name
    assert named_after(address, {name, f"{name}_2"}) == f"{name}_3"
