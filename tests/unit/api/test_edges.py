"""Errors, limits, health, metrics and the first page."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from builders import FLIGHTS
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from metadata_builders import replay
from platform_stand_ins import Caller, InProcess, StandInBuffer, StandInLake, grant, platform

from penstock.api.app import MAX_BODY_BYTES, create_app
from penstock.api.health import Probes
from penstock.api.platform import Platform
from penstock.api.turnstile import Turnstile
from penstock.contract.base import Asked
from penstock.contract.replays import NewReplay
from penstock.contract.search import Looked
from penstock.contract.status import Health
from penstock.envelope import Extent
from penstock.errors import EngineUnavailable, Overloaded
from penstock.problem import CONTENT_TYPE
from replay.progress import Progress

_LATER = "2025-11-24T17:00:00Z"
_AT_FAULT: list[tuple[str, dict[str, object], str]] = [
    ("replays/plan", {"collection": "trains"}, "collection"),
    ("replays/plan", {"collection": "Trains"}, "collection"),
    ("replays/plan", {"destination": "nowhere"}, "destination"),
    ("replays/plan", {"destination": None}, "destination"),
    ("replays/plan", {"query": "carrier:>"}, "query"),
    ("replays/plan", {"query": "a ${LIMIT 5}"}, "query"),
    ("replays/plan", {"since": _LATER, "until": _LATER}, "until"),
    ("replays/plan", {"since": "soon"}, "since"),
    ("replays/plan", {"rate": -1}, "rate"),
    ("replays/plan", {"concurrency": 5_000}, "concurrency"),
    ("replays/plan", {"transform": ["drop b"]}, "transform"),
    ("replays/plan", {"destination": "filed", "missing": True}, "missing"),
    ("replays/plan", {"destination": "back"}, "destination"),
    ("replays/plan", {"spede": 1}, "spede"),
    ("replays/r1/retry", {"options": {"rate": -1}}, "options.rate"),
    ("replays/r1/retry", {"options": {"query": "a"}}, "options.query"),
    ("destinations", {"name": "A"}, "name"),
    ("destinations", {"name": "billing"}, "name"),
    ("destinations", {"url": "ftp://a.example/"}, "url"),
    ("destinations", {"url": "http://169.254.169.254/"}, "url"),
    ("destinations", {"url": "collection://trains"}, "url"),
    ("destinations", {"url": "kafka://a.example:9092/penstock.x"}, "url"),
    ("destinations", {"url": "kafka://a.example:9092/x", "secret": "u"}, "secret"),
    ("destinations", {"headers": [["Host", "x"]]}, "headers"),
    ("destinations", {"options": {"method": "GET"}}, "options.method"),
    ("destinations", {"options": {"signing": "stripe"}}, "secret"),
    ("destinations", {"options": {"ca": "x"}}, "options.ca"),
    ("destinations", {"credentials": {"client_key": "x"}}, "credentials.client_certificate"),
    ("destinations", {"rate": 0}, "rate"),
]
"""What is asked of which path that cannot be, and the field that is at fault."""


class TestProblems:
    @pytest.mark.parametrize(
        ("asked", "status", "kind"),
        [
            (("GET", "/api/v1/nothing", None), 404, "not-found"),
            (("PUT", "/api/v1/collections", None), 405, "method-not-allowed"),
            (("GET", "/api/v1/collections/nothing", None), 404, "not-found"),
            (("POST", "/api/v1/collections", {"name": "A"}), 400, "bad-name"),
            (("POST", "/api/v1/collections", {"name": "a", "x": 1}), 400, "bad-request"),
            (("POST", "/api/v1/collections", {"name": "taken"}), 409, "already-exists"),
            (("POST", "/api/v1/collections", ["a"]), 400, "bad-request"),
            (("POST", "/api/v1/collections", None), 400, "bad-request"),
        ],
    )
    def test_every_error_is_a_problem(
        self, admin: Caller, asked: tuple[str, str, object], status: int, kind: str
    ) -> None:
        admin("POST", "/api/v1/collections", {"name": "taken"})

        answer = admin(*asked)

        assert (answer.status_code, answer.headers["Content-Type"]) == (status, CONTENT_TYPE)
        told = answer.json()
        assert (told["type"], told["status"]) == (f"urn:penstock:{kind}", status)
        assert told["title"]
        assert told["detail"]

    def test_an_error_names_the_field_that_is_at_fault(self, admin: Caller, here: Platform) -> None:
        """A form puts what is wrong where it was typed, and goes by no word of the sentence."""
        admin("POST", "/api/v1/collections", {"name": "flights"})
        for name, url in (
            ("billing", "https://billing.example/"),
            ("filed", "file://flights"),
            ("back", "collection://flights"),
        ):
            assert admin("POST", "/api/v1/destinations", {"name": name, "url": url}).is_success
        failed = Progress(failed=1).as_dict()
        here.store.create_replay(msgspec.structs.replace(replay(state="finished"), progress=failed))
        whole: dict[str, dict[str, object]] = {
            "destinations": {"name": "new", "url": "https://new.example/"},
            "replays/plan": {"collection": "flights", "destination": "billing"},
            "replays/r1/retry": {},
        }

        answers = [
            admin("POST", f"/api/v1/{noun}", {**whole[noun], **body}) for noun, body, _ in _AT_FAULT
        ]
        answers.append(admin("POST", "/api/v1/destinations", ["a"]))

        assert {answer.status_code for answer in answers} == {400, 404, 409}
        told = [answer.json().get("field") for answer in answers]
        assert told == [*(field for _, _, field in _AT_FAULT), None]

    def test_a_refused_body_is_not_repeated(self, admin: Caller) -> None:
        """What was typed into the wrong field may be a credential."""
        answer = admin(
            "POST",
            "/api/v1/destinations",
            {"name": "x", "url": ["very-hidden"], "very-hidden": "very-hidden-2"},
        )

        assert answer.status_code == 400
        assert "very-hidden-2" not in answer.text
        assert "['very-hidden']" not in answer.text

    def test_broken_json_is_said_to_be_that(self, admin: Caller, app: FastAPI) -> None:
        answer = admin("POST", "/api/v1/collections", headers={"Content-Type": "application/json"})
        assert answer.status_code == 400

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    @pytest.mark.parametrize(
        ("noun", "body"),
        [
            ("destinations", '{"name": "k", "url": "kafka://h:9092/t", "options": {"tls": %s}}'),
            ("destinations", '{"name": "w", "url": "https://h.example/", "options": {"x": [%s]}}'),
            ("replays", '{"collection": "c", "destination": "d", "rate": %s}'),
            ("replays", '{"collection": "c", "destination": "d", "timeout": %s}'),
        ],
    )
    def test_a_number_that_json_does_not_have_is_a_bad_request(
        self, app: FastAPI, admin: Caller, noun: str, body: str, number: str
    ) -> None:
        """Parsers let it in; what it says about a rate is nothing."""
        headers = {"Authorization": f"Bearer {admin.token}", "Content-Type": "application/json"}
        with httpx.Client(transport=InProcess(app), base_url="http://penstock") as http:
            answer = http.post(f"/api/v1/{noun}", content=body % number, headers=headers)

        assert (answer.status_code, answer.json()["type"]) == (400, "urn:penstock:bad-request")
        assert admin("GET", f"/api/v1/{noun}").json() == []

    def test_an_error_nobody_thought_of_says_nothing_about_itself(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its text may hold a row, a path or a credential; the log says where it was."""

        class Broken(StandInLake):
            def view(self, collection: object) -> None:
                raise RuntimeError("very-hidden")

        here = platform(tmp_path, lake=Broken())
        admin = Caller(create_app(here), grant(here.store, "admin"))
        admin("POST", "/api/v1/collections", {"name": "flights"})

        answer = admin("GET", "/api/v1/collections/flights/status")

        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:penstock:internal-error"
        logged = capsys.readouterr().out
        assert "hidden" not in answer.text + logged
        assert "RuntimeError" in logged
        assert "test_edges.py" in logged
        here.store.close()

    def test_what_may_pass_says_when_to_come_back(self, tmp_path: Path) -> None:
        class Away(StandInLake):
            def view(self, collection: object) -> None:
                raise EngineUnavailable("the lake does not answer", retry_after=7)

        here = platform(tmp_path, lake=Away())
        admin = Caller(create_app(here), grant(here.store, "admin"))
        admin("POST", "/api/v1/collections", {"name": "flights"})

        answer = admin("GET", "/api/v1/collections/flights/status")

        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        here.store.close()

    def test_a_change_the_doors_were_not_told_of_is_not_reported_as_made(
        self, tmp_path: Path
    ) -> None:
        """Whoever revokes a token must not believe that doors refuse it already."""
        here = platform(tmp_path)
        admin = Caller(create_app(here), grant(here.store, "admin"))
        (tmp_path / "cache").write_text("a file where the folder should be")

        assert admin("POST", "/api/v1/collections", {"name": "flights"}).status_code == 503
        here.store.close()


class TestLimits:
    def test_a_body_over_the_limit_is_refused(self, admin: Caller) -> None:
        answer = admin("POST", "/api/v1/collections", {"name": "x", "notes": "n" * MAX_BODY_BYTES})

        assert (answer.status_code, answer.json()["type"]) == (413, "urn:penstock:too-large")
        assert admin("GET", "/api/v1/collections").json() == []

    def test_a_turnstile_lets_so_many_in_and_so_many_wait(self) -> None:
        turnstile = Turnstile("searches", inside=2, waiting=1)
        leave, entered = threading.Event(), threading.Semaphore(0)

        def stay() -> None:
            with turnstile:
                entered.release()
                leave.wait(10)

        threads = [threading.Thread(target=stay) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert entered.acquire(timeout=5)
        assert entered.acquire(timeout=5)
        until(lambda: turnstile._line._value == 0)

        with pytest.raises(Overloaded, match="too many searches"), turnstile:
            pytest.fail("one too many was let in")
        assert not entered.acquire(timeout=0.05), "a third was inside"

        leave.set()
        for thread in threads:
            thread.join()
        with turnstile:
            pass

    def test_an_error_inside_gives_the_place_back(self) -> None:
        turnstile = Turnstile("searches", inside=1, waiting=0)
        for _ in range(3):
            with pytest.raises(RuntimeError), turnstile:
                raise RuntimeError


class TestHealth:
    def test_each_adapter_is_named(self, app: FastAPI) -> None:
        answer = Caller(app, None)("GET", "/healthz")

        assert answer.status_code == 200
        told = answer.json()
        assert told["status"] == "ok"
        assert {name: a["responds"] for name, a in told["adapters"].items()} == {
            "metadata": True,
            "cache": True,
            "log": True,
            "lake": True,
        }

    def test_an_adapter_that_is_away_is_named_without_its_reasons(self, here: Platform) -> None:
        """The answer needs no token, so that it must not tell of addresses."""

        def away() -> None:
            raise EngineUnavailable("no answer from 10.1.2.3")

        app = create_app(here, others={"dagster": away})
        answer = Caller(app, None)("GET", "/healthz")

        assert answer.status_code == 200, "the platform is well without Dagster"
        assert answer.json()["adapters"]["dagster"]["reason"] == "EngineUnavailable"
        assert "10.1.2.3" not in answer.text

    def test_an_adapter_that_hangs_does_not_hang_health(self) -> None:
        """Else whoever looks whether we are well would believe us dead, and restart us."""
        leave = threading.Event()
        asked = []

        def hang() -> None:
            asked.append(1)
            leave.wait(20)

        probes = Probes({"lake": hang, "metadata": lambda: None}, {}, patience=0.2)

        async def twice() -> tuple[Health, Health]:
            try:
                return await probes.health("1"), await probes.health("1")
            finally:
                leave.set()

        begun = time.monotonic()
        first, second = asyncio.run(twice())

        assert time.monotonic() - begun < 5
        assert (first.status, second.status) == ("unavailable", "unavailable")
        assert first.adapters["lake"].reason == "it does not respond in time"
        assert second.adapters["metadata"].responds
        assert len(asked) == 1, "a second thread was sent after the one that hangs"


class TestPages:
    def test_the_contract_names_every_answer_and_refuses_unknown_fields(self, app: FastAPI) -> None:
        contract = Caller(app, None)("GET", "/api/v1/openapi.json").json()

        for path, operations in contract["paths"].items():
            for method, operation in operations.items():
                good = [c for c in operation["responses"] if c.startswith("2")]
                assert good, f"{method} {path}"
                assert list(operation["responses"]["default"]["content"]) == [CONTENT_TYPE]
                assert "422" not in operation["responses"], "wrong fields are answered with 400"
        for name, schema in contract["components"]["schemas"].items():
            if name.startswith("New"):
                assert schema["additionalProperties"] is False, name

    def test_the_contract_is_valid_openapi(self, app: FastAPI) -> None:
        """Clients are generated from it."""
        contract = Caller(app, None)("GET", "/api/v1/openapi.json").json()
        operations = [o for path in contract["paths"].values() for o in path.values()]
        names = [operation["operationId"] for operation in operations]
        refs = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(contract))

        assert OpenAPI.model_validate(contract).openapi.startswith("3.1")
        assert len(set(names)) == len(names)
        assert set(refs) == set(contract["components"]["schemas"])

    @pytest.mark.parametrize(
        "model", [*Asked.__subclasses__(), *Looked.__subclasses__(), NewReplay]
    )
    def test_what_may_be_sent_has_an_example_that_is_taken(self, model: type[Asked]) -> None:
        (example,) = model.model_json_schema()["examples"]

        assert model.model_validate(example).model_dump(exclude_unset=True).keys() == example.keys()

    def test_metrics_count_by_pattern_and_name_nobody(self, admin: Caller) -> None:
        admin("POST", "/api/v1/collections", {"name": "secret_project"})
        admin("GET", "/api/v1/collections/secret_project")
        admin("GET", "/api/v1/elsewhere/secret_project")

        text = admin("GET", "/metrics").text

        assert "secret_project" not in text
        assert (
            'penstock_platform_requests_total{method="GET",route="/api/v1/collections/{c}",'
            'status="200"} 1.0'
        ) in text
        assert 'route="none",status="404"' in text

    def test_metrics_say_how_much_waits_to_land(self, app: FastAPI, here: Platform) -> None:
        """Whoever is woken at night needs one number that does not come from Dagster."""
        buffer = here.buffer
        assert isinstance(buffer, StandInBuffer)
        buffer.held = {FLIGHTS: {0: Extent(10, 100), 1: Extent(0, 7)}}
        buffer.let_go = {FLIGHTS: {0: 60}}

        text = Caller(app, None)("GET", "/metrics").text

        assert "\npenstock_waiting_events 47.0\n" in text


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.005)


def test_the_body_of_an_error_is_valid_json_always(admin: Caller) -> None:
    answer = admin("GET", "/api/v1/collections/%22%00%F0%9F%92%A9")

    assert msgspec.json.decode(answer.content)["status"] == 404
