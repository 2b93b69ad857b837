"""Schemas of a registry: asked for once, kept for good, and what becomes of events meanwhile."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from avros import FIRST, THIRD, Shelf, registry, text, wire
from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake
from metadata_builders import KEYS, collection
from msgspec.structs import replace
from receiving import Reply

from assets.decoders import Decoders, over_http
from assets.landing import Landed
from assets.registered import Away, Registry, Unusable, key_of
from assets.registry import Http
from penstock.buffer.memory import MemoryLog
from penstock.errors import EngineUnavailable
from penstock.guard import Guard
from penstock.metadata.keys import NO_KEYS
from penstock.metadata.records import RegistrySecret
from penstock.metadata.store import Store, open_store
from penstock.schema.convert import Rules
from penstock.schema.formats import Format
from penstock.schema.formats.avro import RegisteredSchema
from penstock.schema.gate import Refused

LOCAL = Guard(allow_networks=(ip_network("127.0.0.0/8"),))
READING = {"value": 5, "place": "a"}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with registry() as here:
        here.register(1, FIRST)
        yield here


def reaching(shelf: Shelf, secret: str | None = None, seconds: float = 5.0) -> Http:
    guard = LOCAL.with_ports([shelf.server.port])
    return Http(shelf.url, secret, guard=guard, seconds=seconds)


class TestHttp:
    def test_a_schema_comes_with_all_that_it_refers_to(self, shelf: Shelf) -> None:
        """Each after those that it uses itself, once."""
        shelf.register(
            7,
            "a",
            references=[
                {"name": "b", "subject": "b/s", "version": 2},
                {"name": "c", "subject": "c", "version": 1},
            ],
        )
        shelf.subjects["b%2Fs/2"] = {
            "schema": "B",
            "references": [{"name": "c", "subject": "c", "version": 1}],
        }
        shelf.subjects["c/1"] = {"schema": "C"}

        assert reaching(shelf)(7) == RegisteredSchema(schema='"a"', references=("C", "B"))
        assert shelf.asked() == [
            "/schemas/ids/7",
            "/subjects/b%2Fs/versions/2",
            "/subjects/c/versions/1",
        ]
        assert reaching(shelf)(8) is None

    def test_it_signs_in_and_says_nothing_of_the_secret(self, shelf: Shelf) -> None:
        basic = base64.b64encode(b"me:hidden").decode()
        for secret, header in (("me:hidden", f"Basic {basic}"), ("t0ken", "Bearer t0ken")):
            shelf.needs = header
            assert reaching(shelf, secret)(1) == RegisteredSchema(schema=text(FIRST))
        with pytest.raises(Away, match="401") as why:
            reaching(shelf, "me:wrong")(1)
        assert why.value.whole
        assert "wrong" not in str(why.value)

    @pytest.mark.parametrize(
        ("reply", "words", "whole"),
        [
            (Reply(500, body=b"{}"), "500", False),
            (Reply(503), "503", True),
            (Reply(302, (("location", "http://127.0.0.1:1/"),)), "302", True),
            (Reply(404, body=b"<html>"), "not as a registry", True),
            (Reply(404, body=b'{"error_code": 404}'), "404", True),
            (Reply(200, body=b"<html>"), "not as a registry", True),
            (Reply(200, body=b'{"schema": 5}'), "not as a registry", True),
            (Reply(how="reset"), "no answer", True),
            (Reply(how="garbage"), "no answer", True),
            (Reply(how="break off"), "no answer", True),
            (Reply(how="hang"), "within", True),
            (Reply(how="slow body"), "within", True),
        ],
    )
    def test_what_is_no_answer_is_told_apart(
        self, shelf: Shelf, reply: Reply, words: str, whole: bool
    ) -> None:
        """A schema that fails by itself must not make the others wait."""
        shelf.broken = reply

        with pytest.raises(Away, match=words) as why:
            reaching(shelf, seconds=0.5)(1)
        assert why.value.whole == whole
        assert str(shelf.server.port) not in str(why.value)

    def test_an_answer_without_an_end_and_references_in_a_circle_are_no_use(
        self, shelf: Shelf
    ) -> None:
        shelf.register(2, "a", references=[{"name": "c", "subject": "c", "version": 1}])
        with pytest.raises(Unusable, match="lacks"):
            reaching(shelf)(2)
        shelf.subjects["c/1"] = {
            "schema": "C",
            "references": [{"name": "c", "subject": "c", "version": 1}],
        }
        with pytest.raises(Unusable, match="circle"):
            reaching(shelf)(2)
        shelf.broken = Reply(how="endless body")
        with pytest.raises(Unusable, match="too long"):
            reaching(shelf)(1)

    def test_an_address_that_the_guard_does_not_let_through_is_not_asked(
        self, shelf: Shelf
    ) -> None:
        """Also where a name leads there, and where the operator took the exception back."""

        async def here(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        port = shelf.server.port
        for address in (shelf.url, f"http://registry.example:{port}"):
            asks = Http(address, "me:hidden", guard=Guard(allow_ports=(port,)), lookup=here)
            with pytest.raises(Away, match="not public"):
                asks(1)
        assert shelf.server.connections == 0

    def test_nobody_listening_is_no_answer(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            guard = LOCAL.with_ports([port])
            with pytest.raises(Away, match="no answer"):
                Http(f"http://127.0.0.1:{port}", None, guard=guard)(1)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """A registry that answers what it is told; counts what it is asked."""

    def __init__(self, **answers: RegisteredSchema | Exception | None) -> None:
        self.answers = {int(number[1:]): answer for number, answer in answers.items()}
        self.asked: list[int] = []

    def __call__(self, number: int) -> RegisteredSchema | None:
        self.asked.append(number)
        answer = self.answers.get(number)
        if isinstance(answer, Exception):
            raise answer
        return answer


class TestRegistry:
    def test_it_is_left_alone_for_a_while_after_it_did_not_answer(self) -> None:
        asks, hand = Answers(_1=Away("no")), Hand()
        rests = Registry(asks, hand)

        times = []
        while hand.now < 100:
            before = len(asks.asked)
            with pytest.raises(Away):
                rests.schema(1)
            if len(asks.asked) > before:
                times.append(hand.now)
            hand.now += 0.5
        assert times == [0, 1, 3, 7, 15, 31, 61, 91]
        assert rests.away_for(5) == hand.now
        asks.answers[1] = RegisteredSchema(schema="1")
        hand.now += 30
        assert rests.schema(1) is not None
        assert rests.away_for(1) == 0

    def test_a_schema_that_fails_by_itself_does_not_make_others_wait(self) -> None:
        """One sender could stop all collections of a registry with an id that it chokes on."""
        asks = Answers(_1=Away("500", whole=False), _2=RegisteredSchema(schema="2"))
        hand = Hand()
        rests = Registry(asks, hand)

        with pytest.raises(Away):
            rests.schema(1)
        hand.now = 400.0
        with pytest.raises(Away):
            rests.schema(1)
        assert rests.schema(2) == RegisteredSchema(schema="2")
        assert (rests.away_for(1), rests.away_for(2)) == (400.0, 0.0)

    def test_an_id_of_no_use_is_asked_for_again_after_a_minute(self) -> None:
        """It may be registered by then; a thousand events of it are one question."""
        asks, hand = Answers(_2=Unusable("in a circle")), Hand()
        rests = Registry(asks, hand)

        for _ in range(3):
            assert rests.schema(1) is None
            with pytest.raises(Unusable, match="circle"):
                rests.schema(2)
        assert asks.asked == [1, 2]
        hand.now = 61.0
        asks.answers[1] = RegisteredSchema(schema="1")
        assert rests.schema(1) is not None

    def test_an_id_that_no_registry_can_have_is_not_asked_for(self) -> None:
        asks = Answers()

        assert Registry(asks, Hand()).schema(2**31) is None
        assert asks.asked == []


CONFLUENT = Format(name="avro", framing="confluent", registry="http://r", schema="d", versions=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'metadata.db'}", KEYS)
    body = json.dumps({"versions": [text(THIRD)], "secret_id": "s1"}).encode()
    opened.create_collection(
        replace(collection(), format=Format(name="avro", schema="d")),
        schema=body,
        secret=RegistrySecret("s1", "me:hidden"),
    )
    yield opened
    opened.close()


def decoded(decoders: Decoders, payload: bytes, **more: Any) -> Any:
    decoder = decoders.of(FLIGHTS, CONFLUENT, **more)
    assert decoder is not None
    found = decoder.decode(pa.array([payload], pa.binary()))
    for why in found.refused.values():
        raise why
    return json.loads(found.texts[0].as_py())


class TestKept:
    def test_a_schema_is_kept_so_that_the_registry_may_go(self, store: Store) -> None:
        """A collection is made again from its payloads long after."""
        asks = Answers(_1=RegisteredSchema(schema=text(FIRST)))
        asked_for = []

        def fetch(address: str, secret: str | None) -> Answers:
            asked_for.append((address, secret))
            return asks

        payload = wire(1, FIRST, READING)
        assert decoded(Decoders(store, fetch), payload)["value"] == 5.0
        gone = Answers(_1=Away("gone"))
        assert decoded(Decoders(store, lambda *_: gone), payload)["site"] == "a"
        assert (asks.asked, gone.asked) == ([1], [])
        assert asked_for == [("http://r", "me:hidden")]

    def test_the_ids_of_another_registry_are_other_ids(self, store: Store) -> None:
        decoded(
            Decoders(store, lambda *_: Answers(_1=RegisteredSchema(schema=text(FIRST)))),
            wire(1, FIRST, READING),
        )
        other = Answers(_1=Away("gone"))
        elsewhere = Format(name="avro", framing="confluent", registry="http://other")
        decoder = Decoders(store, lambda *_: other).of(FLIGHTS, elsewhere)

        assert decoder is not None
        with pytest.raises(EngineUnavailable):
            decoder.decode(pa.array([wire(1, FIRST, READING)], pa.binary()))

    def test_landing_waits_searches_do_not_and_others_never_give_up(self, store: Store) -> None:
        asks, hand = Answers(_1=Away("no answer")), Hand()
        decoders = Decoders(store, lambda *_: asks, steady=hand)
        payload = wire(1, FIRST, READING)

        with pytest.raises(EngineUnavailable, match=r"registry of main\.flights is away"):
            decoded(decoders, payload, patience=300.0)
        with pytest.raises(Refused, match="schema 1"):
            decoded(decoders, payload, patience=0.0)
        hand.now = 300.0
        with pytest.raises(Refused) as why:
            decoded(decoders, payload, patience=300.0)
        assert why.value.reason == "schema_unavailable"
        with pytest.raises(EngineUnavailable):
            decoded(decoders, payload)
        asks.answers[1] = RegisteredSchema(schema=text(FIRST))
        hand.now = 400.0
        for patience in (None, 0.0, 300.0):
            assert decoded(decoders, payload, patience=patience)["site"] == "a"

    def test_while_the_metadata_is_away_nothing_is_decided_either(self, store: Store) -> None:
        """What was not kept could not be read again."""

        class Locked:
            def format_schema(self, *_: Any) -> bytes:
                if self.begun:
                    raise EngineUnavailable("locked")
                self.begun = True
                return b"{}"

            begun = False

            def keep_format_schema(self, *_: Any) -> None:
                raise AssertionError

            def registry_secret(self, *_: Any) -> str:
                raise AssertionError

        decoders = Decoders(Locked(), lambda *_: Answers())
        with pytest.raises(EngineUnavailable):
            decoded(decoders, wire(1, FIRST, READING))

    def test_a_collection_waits_while_the_key_of_its_secret_is_missing(self, store: Store) -> None:
        """It goes on by itself once the key is back; read in another way it could not be undone."""
        asks = Answers(_1=RegisteredSchema(schema=text(FIRST)))
        decoders = Decoders(Store(store._engine, NO_KEYS), lambda *_: asks)

        with pytest.raises(EngineUnavailable, match=r"cannot be asked: .* under the key") as waits:
            decoders.of(FLIGHTS, CONFLUENT)

        assert "hidden" not in str(waits.value)

    def test_events_land_once_the_registry_is_back(
        self, store: Store, shelf: Shelf, tmp_path: Path
    ) -> None:
        """And what a sender made up meanwhile is in quarantine, with what can be read in rows."""
        address = shelf.url
        format_ = Format(name="avro", framing="confluent", registry=address)
        guard = LOCAL.with_ports([shelf.server.port])
        hand = Hand()
        decoders = Decoders(store, over_http(guard), steady=hand)
        log, lake = MemoryLog(), new_lake(tmp_path / "lake")
        work = landing(log, lake)
        work._rules = lambda _: Rules(decoder=decoders.of(FLIGHTS, format_, patience=300.0))
        shelf.register(2, THIRD)
        made = {**READING, "site": "b", "unit": "C", "by": {"name": "n", "no": 1}}
        sent = [
            wire(1, FIRST, READING),
            wire(2, THIRD, made),
            wire(9, FIRST, READING),
            b"\x00",
            wire(1, FIRST, READING),
        ]
        for number, payload in enumerate(sent):
            log.append(FLIGHTS, [event(payload, id=f"e{number}", received_at=NOON + number)])

        def land() -> tuple[int, int]:
            landed = work.land_once(FLIGHTS)
            assert isinstance(landed, Landed)
            return landed.rows, landed.quarantined

        known = json.dumps({"schema": text(FIRST)}).encode()
        store.keep_format_schema(FLIGHTS, key_of(address, 1), known)
        shelf.broken = Reply(503)
        # What stands before the first event that waits need not.
        assert land() == (1, 0)
        with pytest.raises(EngineUnavailable, match="503"):
            land()
        shelf.broken, hand.now = None, 2.0
        assert land() == (2, 2)
        assert work.land_once(FLIGHTS) is None
