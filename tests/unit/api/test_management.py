"""Collections, tokens and destinations."""

from __future__ import annotations

import base64
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from avros import FIRST, SECOND, text
from builders import FLIGHTS, NOON
from descriptors import SHOP
from fastapi import FastAPI
from lakes import landing, log_of, new_lake
from metadata_builders import collection
from platform_stand_ins import LOG_ID, Caller, StandInBuffer, StandInLake, grant, platform, table

from lakehouse.tables import Gap
from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.envelope import CollectionId, Extent, Mark
from penstock.metadata.tokens import digest
from penstock.schema.formats import Format
from penstock.schema.formats.avro import schemas_of
from penstock.schema.formats.protobuf import without_comments
from penstock.schema.shape import Leaf, List, Struct

NOON_TEXT = "2025-11-24T16:00:00.000000Z"
SET = base64.b64encode(SHOP).decode()
JSON = {
    "name": "json",
    "descriptor_digest": None,
    "message": None,
    "payload_field": None,
    "payload_message": None,
    "framing": None,
    "versions": None,
    "registry": None,
    "registry_secret": False,
    "changed_at": None,
}


class TestCollections:
    def test_a_collection_is_made_shown_and_listed(self, admin: Caller) -> None:
        made = admin("POST", "/api/v1/collections", {"name": "flights", "notes": "from 2013"})

        assert made.status_code == 201
        expected = {
            "name": "flights",
            "created_at": NOON_TEXT,
            "paused": False,
            "contract": "evolve",
            "format": JSON,
            "notes": "from 2013",
            "allow_loops": False,
            "partitions": 1,
            "keep_days": None,
        }
        assert made.json() == {**expected, "token": None}
        assert admin("GET", "/api/v1/collections/flights").json() == expected
        assert admin("GET", "/api/v1/collections").json() == [expected]

    def test_a_collection_is_of_a_format_and_may_become_another(
        self, admin: Caller, here: Platform
    ) -> None:
        """Doors and landing go by what was answered; asking for the same changes nothing."""
        made = admin(
            "POST", "/api/v1/collections", {"name": "flights", "format": {"name": "plain"}}
        )
        path = "/api/v1/collections/flights/format"

        assert made.json()["format"] == {**JSON, "name": "plain"}
        same = admin("POST", path, {"name": "plain"})
        assert same.json()["format"] == {**JSON, "name": "plain"}
        changed = admin("POST", path, {"name": "json"})
        assert changed.json()["format"] == {**JSON, "changed_at": NOON_TEXT}
        assert here.store.collection(FLIGHTS).format == Format(name="json", changed_at=NOON)
        assert here.cache.read() == here.store.known()
        assert admin("POST", path, {"name": "xml"}).status_code == 400
        missing = admin("POST", "/api/v1/collections/trains/format", {"name": "plain"})
        assert missing.status_code == 404

    def test_a_format_of_messages_comes_with_their_descriptors(
        self, admin: Caller, here: Platform
    ) -> None:
        """They are kept once, without comments, and never told; another message needs no upload."""
        admin("POST", "/api/v1/collections", {"name": "flights"})
        path = "/api/v1/collections/flights/format"
        bare = without_comments(SHOP)
        digest_ = sha256(bare).hexdigest()

        asked = {"name": "protobuf", "descriptor": SET, "message": "shop.Order"}
        told = admin("POST", path, asked).json()["format"]
        assert told == {
            **JSON,
            "name": "protobuf",
            "descriptor_digest": digest_,
            "message": "shop.Order",
            "changed_at": NOON_TEXT,
        }
        assert here.store.format_schema(FLIGHTS, digest_) == bare
        shallow = {
            "name": "protobuf",
            "message": "bus.Envelope",
            "envelope": "shallow",
            "payload_field": 2,
            "payload_message": "shop.Order",
        }
        told = admin("POST", path, shallow).json()["format"]
        assert (told["payload_field"], told["payload_message"]) == (2, "shop.Order")
        assert told["descriptor_digest"] == digest_
        assert here.cache.read() == here.store.known()

    def test_a_format_of_avro_knows_every_version_of_its_schema(
        self, admin: Caller, here: Platform
    ) -> None:
        """An upload adds one, the same one again changes nothing, and what is not said stays."""
        admin("POST", "/api/v1/collections", {"name": "flights"})
        path = "/api/v1/collections/flights/format"
        first = {"name": "avro", "avro_schema": text(FIRST), "framing": "single-object"}

        told = admin("POST", path, first).json()["format"]
        assert told == {
            **JSON,
            "name": "avro",
            "descriptor_digest": told["descriptor_digest"],
            "framing": "single-object",
            "versions": 1,
            "changed_at": NOON_TEXT,
        }
        version = here.store.version()
        again = admin("POST", path, {"name": "avro", "avro_schema": f" {text(FIRST)}"})
        assert again.json()["format"] == told
        assert here.store.version() == version
        second = admin("POST", path, {"name": "avro", "avro_schema": text(SECOND)}).json()["format"]
        assert (second["framing"], second["versions"]) == ("single-object", 2)
        kept = [
            schemas_of(here.store.format_schema(FLIGHTS, one["descriptor_digest"])).versions
            for one in (told, second)
        ]
        assert kept[1][:1] == kept[0]
        assert here.cache.read() == here.store.known()

    def test_a_secret_of_a_registry_is_never_told_and_goes_with_its_address(
        self, admin: Caller, here: Platform
    ) -> None:
        """Neither to callers and doors, nor to whoever sets another address."""
        admin("POST", "/api/v1/collections", {"name": "flights"})
        path = "/api/v1/collections/flights/format"

        def set_(**asked: object) -> Any:
            answer = admin("POST", path, {"name": "avro", **asked})
            assert "hidden" not in answer.text
            return answer.json()["format"]

        def secret() -> str | None:
            known = here.store.collection(FLIGHTS).format.schema
            body = here.store.format_schema(FLIGHTS, known) if known else None
            secret_id = schemas_of(body).secret_id
            return secret_id and here.store.registry_secret(FLIGHTS, secret_id)

        told = set_(registry="http://Registry.example:8081/", registry_secret="me:hidden")
        assert (told["framing"], told["registry"]) == ("confluent", "http://registry.example:8081")
        assert told["registry_secret"]
        assert secret() == "me:hidden"
        assert "hidden" not in str(here.cache.read())
        told = set_(avro_schema=text(FIRST))
        assert (told["registry_secret"], secret()) == (True, "me:hidden")
        told = set_(registry="http://elsewhere.example:8081")
        assert (told["registry_secret"], secret()) == (False, None)
        set_(registry_secret="me:hidden")
        set_(framing="datum")
        assert secret() is None

    def test_the_digest_of_schemas_is_no_hint_at_a_secret(
        self, admin: Caller, here: Platform
    ) -> None:
        """Two collections with the same settings have different ones."""
        asked = {"name": "avro", "registry": "http://r.example", "registry_secret": "me:hidden"}
        digests = [
            admin("POST", "/api/v1/collections", {"name": name, "format": asked}).json()["format"]
            for name in ("flights", "trains")
        ]

        assert digests[0]["registry_secret"]
        assert digests[0]["descriptor_digest"] != digests[1]["descriptor_digest"]

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            ({"name": "avro"}, "needs a schema"),
            ({"name": "avro", "avro_schema": "{"}, "no JSON"),
            ({"name": "avro", "avro_schema": '"a.B"'}, "no type 'a.B'"),
            ({"name": "avro", "framing": "confluent"}, "address of a registry"),
            (
                {"name": "avro", "framing": "datum", "registry": "http://r.example"},
                "address of a registry",
            ),
            ({"name": "avro", "registry": "http://10.0.0.1"}, "not public"),
            ({"name": "avro", "registry": "http://me:pw@r.example"}, "user name"),
            ({"name": "avro", "registry": "http://r.example/?a=b"}, "parameters"),
            ({"name": "avro", "avro_schema": '"int"', "registry_secret": "a:b"}, "there is none"),
            (
                {"name": "avro", "registry": "http://r.example", "registry_secret": "a:\r\nb"},
                "no header",
            ),
            ({"name": "avro", "avro_schema": '"int"', "message": "a.B"}, "protobuf"),
            ({"name": "avro", "avro_schema": '"int"', "envelope": "shallow"}, "envelope"),
            ({"name": "json", "framing": "datum"}, "framing"),
            ({"name": "plain", "envelope": "shallow"}, "envelope"),
            ({"name": "protobuf", "message": "shop.Order"}, "descriptor set"),
            ({"name": "protobuf", "descriptor": "!", "message": "a"}, "base64"),
            ({"name": "protobuf", "descriptor": "//8=", "message": "a"}, "FileDescriptorSet"),
            ({"name": "protobuf", "descriptor": SET, "message": "shop.No"}, "shop.No"),
            ({"name": "protobuf", "descriptor": SET}, "name of a message"),
            ({"name": "plain", "message": "shop.Order"}, "plain"),
            (
                {"name": "protobuf", "descriptor": SET, "message": "a", "envelope": "shallow"},
                "payload_field",
            ),
            (
                {"name": "protobuf", "descriptor": SET, "message": "a", "payload_field": 1},
                "payload_field",
            ),
        ],
    )
    def test_a_format_that_landing_could_not_read_is_refused(
        self, admin: Caller, here: Platform, asked: dict[str, object], why: str
    ) -> None:
        """Else every event would be in quarantine, or stop its collection."""
        admin("POST", "/api/v1/collections", {"name": "flights"})

        refused = admin("POST", "/api/v1/collections/flights/format", asked)

        assert refused.status_code == 400
        assert why in refused.json()["detail"]
        assert here.store.collection(FLIGHTS).format == Format()
        made = admin("POST", "/api/v1/collections", {"name": "trains", "format": asked})
        assert made.status_code == 400

    def test_the_log_decides_about_partitions(self, admin: Caller) -> None:
        """The embedded log has one of each collection; a refusal leaves nothing behind."""
        wide = admin("POST", "/api/v1/collections", {"name": "flights", "partitions": 4})

        assert wide.status_code == 400
        assert "embedded" in wide.json()["detail"]
        assert admin("GET", "/api/v1/collections").json() == []
        admin("POST", "/api/v1/collections", {"name": "flights", "partitions": 1})
        grown = admin("POST", "/api/v1/collections/flights/grow", {"partitions": 1})
        assert grown.json()["partitions"] == 1
        more = admin("POST", "/api/v1/collections/flights/grow", {"partitions": 2})
        assert more.status_code == 400

    def test_how_long_rows_are_kept_is_looked_at_before_it_is_said(
        self, admin: Caller, here: Platform
    ) -> None:
        """What is dropped does not come back: a dry run changes nothing."""
        made = admin("POST", "/api/v1/collections", {"name": "flights", "keep_days": 90})
        path = "/api/v1/collections/flights/keep"

        tried = admin("POST", path, {"days": 7, "dry_run": True})
        assert (tried.status_code, made.json()["keep_days"]) == (200, 90)
        assert here.store.collection(FLIGHTS).keep_days == 90
        kept = admin("POST", path, {"days": None})
        assert kept.json() == {"name": "flights", "keep_days": None, "days": [], "pinned_by": []}
        assert here.store.collection(FLIGHTS).keep_days is None
        assert admin("POST", path, {"days": 0}).status_code in {400, 422}

    def test_a_grown_collection_says_so(self, admin: Caller, here: Platform) -> None:
        """The log is asked first; what it has is what is told."""
        admin("POST", "/api/v1/collections", {"name": "flights"})

        grown = admin("POST", "/api/v1/collections/flights/grow", {"partitions": 1})

        assert grown.status_code == 200
        assert here.store.collection(FLIGHTS).partitions == 1

    def test_its_ingest_token_is_shown_once_and_bound_to_it(
        self, admin: Caller, here: Platform
    ) -> None:
        text = admin("POST", "/api/v1/collections", {"name": "flights", "token": True}).json()[
            "token"
        ]

        record = here.store.token_by_digest(digest(text))
        assert record is not None
        assert (record.team, record.scopes, record.collection) == ("main", ("ingest",), "flights")
        assert text not in admin("GET", "/api/v1/tokens").text
        assert text not in admin("GET", "/api/v1/collections/flights").text

    def test_a_collection_may_take_back_what_replays_took_from_it(
        self, admin: Caller, here: Platform
    ) -> None:
        made = admin("POST", "/api/v1/collections", {"name": "flights", "allow_loops": True})

        assert made.json()["allow_loops"] is True
        assert [one.allow_loops for one in here.store.known().collections] == [True]

    @pytest.mark.parametrize("name", ["", "Flights", "a b", "a__b", "penstock_x", "x" * 64, "../x"])
    def test_a_name_that_could_be_no_table_is_refused(self, admin: Caller, name: str) -> None:
        refused = admin("POST", "/api/v1/collections", {"name": name})

        assert refused.status_code == 400
        assert refused.json()["type"] == "urn:penstock:bad-name"

    def test_doors_learn_of_every_change_before_it_is_answered(
        self, admin: Caller, here: Platform
    ) -> None:
        """Whoever was told "made" or "revoked" may rely on it at once."""
        admin("POST", "/api/v1/collections", {"name": "flights"})
        assert here.cache.read() == here.store.known()
        admin("POST", "/api/v1/collections/flights/pause")
        assert here.cache.read() == here.store.known()
        token = admin("POST", "/api/v1/tokens", {"name": "ci", "scopes": ["ingest"]}).json()
        assert here.cache.read() == here.store.known()
        admin("DELETE", f"/api/v1/tokens/{token['id']}")
        assert here.cache.read() == here.store.known()

        known = here.cache.read()
        assert known is not None
        assert [c.paused for c in known.collections] == [True]
        assert token["id"] not in {t.id for t in known.tokens}

    def test_pause_and_resume_answer_what_is_so_now(self, admin: Caller) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})

        assert admin("POST", "/api/v1/collections/flights/pause").json()["paused"] is True
        assert admin("POST", "/api/v1/collections/flights/pause").json()["paused"] is True
        assert admin("POST", "/api/v1/collections/flights/resume").json()["paused"] is False
        assert admin("POST", "/api/v1/collections/trains/pause").status_code == 404

    def test_a_contract_is_changed_and_entered_in_the_history(
        self, admin: Caller, here: Platform
    ) -> None:
        """Whoever asks why no column came since is told; doors know it as landing does."""
        admin("POST", "/api/v1/collections", {"name": "flights"})

        closed = admin("POST", "/api/v1/collections/flights/contract", {"contract": "quarantine"})
        again = admin("POST", "/api/v1/collections/flights/contract", {"contract": "quarantine"})

        assert closed.json()["contract"] == again.json()["contract"] == "quarantine"
        assert admin("GET", "/api/v1/collections/flights").json() == closed.json()
        assert here.cache.read() == here.store.known()
        assert admin("GET", "/api/v1/collections/flights/schema").json()["versions"] == [
            {
                "version": 1,
                "at": NOON_TEXT,
                "changes": [
                    {
                        "path": "",
                        "what": "contract",
                        "before": "evolve",
                        "type": "quarantine",
                        "event_id": None,
                        "why": None,
                    }
                ],
            }
        ]

    @pytest.mark.parametrize("contract", ["", "Freeze", "drop", None])
    def test_a_contract_that_is_none_is_refused(self, admin: Caller, contract: object) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})
        asked = {"contract": contract}

        assert admin("POST", "/api/v1/collections/flights/contract", asked).status_code == 400
        assert admin("GET", "/api/v1/collections/flights").json()["contract"] == "evolve"
        asked = {"contract": "freeze"}
        assert admin("POST", "/api/v1/collections/trains/contract", asked).status_code == 404

    def test_the_schema_says_how_full_columns_are_if_asked(self, tmp_path: Path) -> None:
        """It is read from the counts that files keep, and only then."""
        lake = new_lake(tmp_path)
        here = platform(tmp_path, lake=lake)
        admin = Caller(create_app(here), grant(here.store, "admin"))
        admin("POST", "/api/v1/collections", {"name": "flights"})
        log = log_of('{"a": 1}', '{"a": null, "l": ["x"]}')
        landing(log, lake, history=here.store).land_once(FLIGHTS)

        plain = admin("GET", "/api/v1/collections/flights/schema").json()
        full = admin("GET", "/api/v1/collections/flights/schema?fill=true").json()
        here.store.close()

        assert [(c["path"], c["filled"]) for c in plain["columns"]] == [("a", None), ("l[]", None)]
        assert plain["rows"] is None
        assert [(c["path"], c["filled"]) for c in full["columns"]] == [("a", 1), ("l[]", None)]
        assert full["rows"] == 2
        brought = [(c["since"], c["event_id"]) for c in full["columns"]]
        assert brought == [(NOON_TEXT, "e0"), (NOON_TEXT, "e1")]

    def test_the_schema_shows_columns_and_how_they_came(
        self, admin: Caller, here: Platform
    ) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})
        assert admin("GET", "/api/v1/collections/flights/schema").json() == {
            "columns": [],
            "versions": [],
            "rows": None,
        }
        lake = here.lake
        assert isinstance(lake, StandInLake)
        lake.views[FLIGHTS] = table(
            FLIGHTS,
            shape=Struct(
                (("carrier", Leaf("string")), ("legs", List(Struct((("km", Leaf("long")),)))))
            ),
        )
        change = {"path": "carrier", "what": "added", "type": "string", "event_id": "e1"}
        here.store.add_schema_version(FLIGHTS, NOON, [change])
        brought, unknown = {"since": NOON_TEXT, "event_id": "e1"}, {"since": None, "event_id": None}
        retyped = {
            "path": "km",
            "what": "retyped",
            "type": "double",
            "event_id": None,
            "before": "long",
            "why": "117 misfits in 2,000 rows",
        }
        here.store.add_schema_version(FLIGHTS, NOON, [retyped])

        assert admin("GET", "/api/v1/collections/flights/schema").json() == {
            "columns": [
                {"path": "carrier", "type": "string", **brought, "filled": None},
                {"path": "legs[].km", "type": "long", **unknown, "filled": None},
            ],
            "rows": None,
            "versions": [
                {
                    "version": 1,
                    "at": NOON_TEXT,
                    "changes": [{**change, "before": None, "why": None}],
                },
                {"version": 2, "at": NOON_TEXT, "changes": [retyped]},
            ],
        }

    def test_the_status_counts_what_waits_and_what_landed(
        self, admin: Caller, here: Platform
    ) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})
        buffer, lake = here.buffer, here.lake
        assert isinstance(buffer, StandInBuffer)
        assert isinstance(lake, StandInLake)
        buffer.held[FLIGHTS] = {0: Extent(5, 120), 1: Extent(10, 30)}
        gap = Gap(LOG_ID, 1, 0, 10)
        lake.views[FLIGHTS] = replace(
            table(FLIGHTS, rows=98, mark=100),
            marks=(Mark(LOG_ID, 0, 100, "f"), Mark(LOG_ID, 1, 10, "")),
            lost=(gap,),
            duplicates=3,
        )
        lake.quarantined[FLIGHTS] = table(FLIGHTS, rows=2)
        lake.closed[FLIGHTS] = 1

        expected = {
            "name": "flights",
            "paused": False,
            "partitions": [
                {"partition": 0, "start": 5, "end": 120, "mark": 100, "waiting": 20, "lost": 0},
                {"partition": 1, "start": 10, "end": 30, "mark": 10, "waiting": 20, "lost": 10},
            ],
            "waiting": 40,
            "rows": 98,
            "duplicates": 3,
            "quarantined": 1,
            "closed": 1,
            "columns": 0,
            "snapshot_id": "6000000000000000001",
            "books": {
                "accepted": 150,
                "parts": {
                    "landed": 95,
                    "duplicates": 3,
                    "quarantined": 1,
                    "closed": 1,
                    "waiting": 40,
                    "expired": 0,
                    "lost": 10,
                    "carried": 0,
                },
                "difference": 0,
                "sentence": "the books add up: 150 accepted, 95 landed + 3 duplicates + "
                "1 quarantined + 1 closed + 40 waiting + 10 lost",
            },
            "stop": None,
            "troubles": [],
            "lake_lag_seconds": 0.0,
            "search_lag_seconds": None,
            "search_waiting": 0,
            "last_event_at": NOON_TEXT,
        }
        assert admin("GET", "/api/v1/collections/flights/status").json() == expected
        whole = admin("GET", "/api/v1/status").json()
        assert whole["collections"] == [expected]
        assert (whole["team"], whole["now"]) == ("main", NOON_TEXT)


class TestTokens:
    def test_a_token_is_shown_once_and_works(self, admin: Caller, app: FastAPI) -> None:
        made = admin(
            "POST",
            "/api/v1/tokens",
            {"name": "ci", "scopes": ["read"], "expires_at": "2025-11-25T17:00:00+01:00"},
        ).json()
        text = made.pop("token")

        listed = admin("GET", "/api/v1/tokens").json()
        assert made in listed
        assert made["hint"] == text[:8]
        assert made["expires_at"] == "2025-11-25T16:00:00.000000Z"
        assert Caller(app, text)("GET", "/api/v1/collections").status_code == 200

    def test_a_revoked_token_works_no_more(self, admin: Caller, app: FastAPI) -> None:
        made = admin("POST", "/api/v1/tokens", {"name": "ci", "scopes": ["read"]}).json()
        revoked = admin("DELETE", f"/api/v1/tokens/{made['id']}")

        assert revoked.json()["revoked_at"] == NOON_TEXT
        assert Caller(app, made["token"])("GET", "/api/v1/collections").status_code == 401

    def test_who_revokes_a_token_learns_which_doors_refuse_it(
        self, admin: Caller, here: Platform
    ) -> None:
        """A token that was stolen is good in a door that did not hear of it."""
        made = admin("POST", "/api/v1/tokens", {"name": "ci", "scopes": ["ingest"]}).json()
        here.cache.read()
        here.cache.seen("asleep:8080")
        revoked = admin("DELETE", f"/api/v1/tokens/{made['id']}").json()

        assert revoked["doors"] == {"asleep:8080": False}
        assert revoked["within_seconds"] == 0.5

    def test_a_token_out_of_date_works_no_more(self, here: Platform, app: FastAPI) -> None:
        late = Caller(app, grant(here.store, "read", expires_at=NOON))
        early = Caller(app, grant(here.store, "read", expires_at=NOON + 1))

        assert late("GET", "/api/v1/collections").status_code == 401
        assert early("GET", "/api/v1/collections").status_code == 200

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            ({"name": "x", "scopes": []}, "scopes"),
            ({"name": "x", "scopes": ["root"]}, "scopes"),
            ({"name": "x", "scopes": ["read"], "collection": "flights"}, "bound"),
            ({"name": "x", "scopes": ["ingest", "read"], "collection": "flights"}, "bound"),
            ({"name": "x", "scopes": ["read"], "expires_at": "2025-11-24T16:00:00Z"}, "passed"),
            ({"name": "x", "scopes": ["read"], "expires_at": "2025-11-25T16:00:00"}, "zone"),
            ({"name": "x", "scopes": ["read"], "expires_at": 1_764_000_000}, "write a time as"),
            ({"name": "x", "scopes": ["read"], "team": "rivals"}, "team: there is no such field"),
        ],
    )
    def test_what_cannot_be_a_token_is_refused(
        self, admin: Caller, body: dict[str, object], why: str
    ) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})
        before = admin("GET", "/api/v1/tokens").json()

        refused = admin("POST", "/api/v1/tokens", body)

        assert refused.status_code == 400
        assert why in refused.json()["detail"]
        assert admin("GET", "/api/v1/tokens").json() == before

    def test_a_token_is_bound_to_a_collection_that_there_is(self, admin: Caller) -> None:
        bound = {"name": "x", "scopes": ["ingest"], "collection": "flights"}

        assert admin("POST", "/api/v1/tokens", bound).status_code == 404
        admin("POST", "/api/v1/collections", {"name": "flights"})
        assert admin("POST", "/api/v1/tokens", bound).json()["collection"] == "flights"


class TestDestinations:
    BODY: ClassVar[dict[str, Any]] = {
        "name": "billing",
        "url": "https://billing.example/events",
        "headers": [["Authorization", "Bearer very-hidden"]],
    }

    def test_a_destination_never_tells_its_credentials_again(self, admin: Caller) -> None:
        made = admin("POST", "/api/v1/destinations", self.BODY)
        shown = admin("GET", "/api/v1/destinations/billing")
        listed = admin("GET", "/api/v1/destinations")

        assert made.status_code == 201
        assert shown.json() == {
            "name": "billing",
            "kind": "http",
            "url": "https://billing.example/events",
            "headers": ["Authorization"],
            "options": {},
            "secret": False,
            "credentials": [],
            "created_at": NOON_TEXT,
            "tried_at": None,
            "tried": None,
            "rate": None,
        }
        assert listed.json() == [shown.json()]
        assert "very-hidden" not in made.text + shown.text + listed.text

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:8000/",
            "http://169.254.169.254/latest",
            "gopher://billing.example/",
            "https://u:p@billing.example/",
            "http://billing.example:22/",
        ],
    )
    def test_an_address_that_replays_may_not_reach_is_refused(
        self, admin: Caller, url: str
    ) -> None:
        refused = admin("POST", "/api/v1/destinations", {**self.BODY, "url": url})

        assert refused.status_code == 400
        assert refused.json()["type"] == "urn:penstock:address-refused"
        assert admin("GET", "/api/v1/destinations").json() == []

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "file://../x", "file://a/b", "file://"])
    def test_a_file_has_a_name_and_no_place(self, admin: Caller, url: str) -> None:
        """Where it is written nobody chooses."""
        refused = admin("POST", "/api/v1/destinations", {"name": "out", "url": url})

        assert refused.status_code == 400
        assert admin("GET", "/api/v1/destinations").json() == []

    def test_a_header_that_frames_the_request_is_refused(self, admin: Caller) -> None:
        """A destination's own Content-Length could smuggle a second request."""
        refused = admin(
            "POST", "/api/v1/destinations", {**self.BODY, "headers": [["Content-Length", "5"]]}
        )

        assert refused.status_code == 400

    @pytest.mark.parametrize(
        ("kind", "url", "shown", "options"),
        [
            ("kafka", "kafka://B.example,c.example:9093/t", "b.example:9092,c.example:9093", {}),
            ("rabbitmq", "amqps://b.example/shop", "b.example:5671/shop", {"exchange": "e"}),
            ("sqs", "sqs://sqs.eu-west-1.amazonaws.com/12/q", "sqs.eu-west-1.amazonaws.com", {}),
            ("sqs", "https://sqs.eu-west-1.amazonaws.com/12/q", "sqs://sqs.eu-west-1", {}),
        ],
    )
    def test_a_bus_is_told_with_its_options_and_never_its_secret(
        self, admin: Caller, kind: str, url: str, shown: str, options: dict[str, str]
    ) -> None:
        body = {"name": "bus", "url": url, "options": options, "secret": "user:very-hidden"}
        made = admin(
            "POST", "/api/v1/destinations", {**body, **({"kind": kind} if "https" in url else {})}
        )
        listed = admin("GET", "/api/v1/destinations")

        assert made.status_code == 201
        assert made.json()["kind"] == kind
        assert shown in made.json()["url"]
        assert made.json()["options"] == options
        assert made.json()["secret"] is True
        assert "very-hidden" not in made.text + listed.text

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ({"url": "kafka://10.0.0.1/t"}, "not public"),
            ({"url": "kafka://b.example,127.0.0.1/t"}, "not public"),
            ({"url": "kafka://b.example:22/t"}, "port 22"),
            ({"url": "kafka://u:p-hidden@b.example/t"}, "user name or password"),
            ({"url": "amqp://u:p-hidden@b.example/t"}, "user name or password"),
            ({"url": "amqp://[::1]/"}, "not public"),
            ({"url": "sqs://169.254.169.254/1/q", "options": {"region": "x"}}, "not public"),
            ({"url": "sqs://queues.example/1/q"}, "region"),
            ({"url": "sqs://sqs.eu-west-1.amazonaws.com/1/q", "secret": None}, "needs a secret"),
            ({"url": "kafka://b.example/a b"}, "kafka://host:port"),
            ({"url": "kafka://b.example/penstock.main.flights"}, "own log"),
            ({"url": "kafka://b.example/t", "options": {"compression": "x"}}, "compression"),
            ({"url": "kafka://b.example/t", "secret": "no-colon-hidden"}, "user:password"),
            ({"url": "kafka://b.example/t", "headers": [["A", "b"]]}, "only HTTP"),
            ({"url": "kafka://b.example/t", "options": {"ca": "/etc/passwd"}}, "PEM"),
            ({"url": "kafka://b.example/t", "kind": "sqs"}, "not of sqs"),
            ({"url": "ftp://b.example/t"}, "begins with none of"),
            ({"url": "https://b.example/t", "secret": "a:hidden"}, "as headers"),
            ({"url": "amqp://b.example/a/b"}, "amqp://host:port/vhost"),
        ],
    )
    def test_a_bus_that_no_replay_could_use_is_refused(
        self, admin: Caller, body: dict[str, Any], says: str
    ) -> None:
        refused = admin("POST", "/api/v1/destinations", {"name": "b", "secret": "u:hidden", **body})

        assert refused.status_code == 400
        assert says in refused.json()["detail"]
        assert "hidden" not in refused.text

    def test_a_destination_has_a_rate_of_its_own(self, admin: Caller) -> None:
        made = admin("POST", "/api/v1/destinations", {**self.BODY, "rate": 2.5})

        assert made.json()["rate"] == 2.5
        assert admin("GET", "/api/v1/destinations").json()[0]["rate"] == 2.5

    @pytest.mark.parametrize("rate", [0, -1, 1e7, "fast"])
    def test_a_rate_that_is_none_is_refused(self, admin: Caller, rate: object) -> None:
        refused = admin("POST", "/api/v1/destinations", {**self.BODY, "rate": rate})

        assert refused.status_code == 400
        assert "rate" in refused.json()["detail"]

    def test_a_destination_is_changed_and_keeps_what_was_not_said(
        self, admin: Caller, here: Platform
    ) -> None:
        """A signing secret is renewed without knowing any other credential."""
        secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
        admin(
            "POST",
            "/api/v1/destinations",
            {**self.BODY, "options": {"signing": "standard", "method": "PUT"}, "secret": secret},
        )
        here.store.note_trial("main", "billing", {}, NOON)
        newer = "whsec_" + base64.b64encode(b"n" * 32).decode()
        change = {
            "secret": f"{newer}\n{secret}",
            "options": {"method": "PATCH"},
            "headers": [["X-Team", "hidden-too"]],
            "rate": 5,
        }

        told = admin("PATCH", "/api/v1/destinations/billing", change)

        assert told.status_code == 200
        assert told.json() == admin("GET", "/api/v1/destinations/billing").json()
        assert told.json()["options"] == {"signing": "standard", "method": "PATCH"}
        assert (told.json()["headers"], told.json()["rate"]) == (["Authorization", "X-Team"], 5)
        assert told.json()["tried_at"] is None, "how it answered before says nothing of it now"
        assert "hidden" not in told.text
        assert "whsec" not in told.text
        kept = here.store.destination("main", "billing")
        assert kept.secret == change["secret"]
        assert kept.headers == (("Authorization", "Bearer very-hidden"), ("X-Team", "hidden-too"))

    def test_a_change_takes_away_what_it_names_and_the_rate_where_it_says_null(
        self, admin: Caller, here: Platform
    ) -> None:
        admin(
            "POST", "/api/v1/destinations", {**self.BODY, "rate": 5, "options": {"method": "PUT"}}
        )

        change = {"without": ["authorization", "method"], "headers": [["A", "b"]]}
        told = admin("PATCH", "/api/v1/destinations/billing", change).json()
        assert (told["headers"], told["options"], told["rate"]) == (["A"], {}, 5)
        told = admin("PATCH", "/api/v1/destinations/billing", {"rate": None}).json()

        assert told["rate"] is None
        assert here.store.destination("main", "billing").headers == (("A", "b"),)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"without": ["signing"]}, "has no signing"),
            ({"options": {"exchange": "hidden"}}, "exchange"),
            ({"headers": [["Content-Length", "5"]]}, "Content-Length"),
            ({"options": {"signing": "standard"}}, "secret"),
            ({"url": "https://other.example/"}, "url"),
            ({"kind": "kafka"}, "kind"),
            ({"rate": -1}, "rate"),
        ],
    )
    def test_a_change_that_no_replay_could_use_changes_nothing(
        self, admin: Caller, change: dict[str, Any], says: str
    ) -> None:
        admin("POST", "/api/v1/destinations", self.BODY)
        before = admin("GET", "/api/v1/destinations/billing").json()

        refused = admin("PATCH", "/api/v1/destinations/billing", {"rate": 7, **change})

        assert refused.status_code == 400
        assert says.lower() in refused.json()["detail"].lower()
        assert admin("GET", "/api/v1/destinations/billing").json() == before

    def test_a_collection_is_a_destination_of_its_own_team_only(
        self, admin: Caller, here: Platform
    ) -> None:
        """Else a replay would be the way to write into other people's collections."""
        here.store.create_collection(collection(CollectionId("other", "theirs")))
        admin("POST", "/api/v1/collections", {"name": "archive"})
        asked = {"name": "copy", "url": "collection://archive"}

        made = admin("POST", "/api/v1/destinations", asked)
        assert (made.status_code, made.json()["kind"]) == (201, "collection")
        for url, status in (
            ("collection://theirs", 404),
            ("collection://other.theirs", 400),
            ("collection://gone", 404),
        ):
            refused = admin("POST", "/api/v1/destinations", {"name": "x", "url": url})
            assert refused.status_code == status

    def test_a_replay_into_its_own_collection_is_refused_when_it_is_asked_for(
        self, admin: Caller
    ) -> None:
        admin("POST", "/api/v1/collections", {"name": "flights"})
        admin("POST", "/api/v1/destinations", {"name": "same", "url": "collection://flights"})
        asked = {"collection": "flights", "destination": "same"}

        for path in ("/api/v1/replays/plan", "/api/v1/replays/preview", "/api/v1/replays"):
            refused = admin("POST", path, asked)
            assert refused.status_code == 400
            assert "itself" in refused.json()["detail"]
        assert admin("GET", "/api/v1/replays").json() == []

    def test_a_file_has_a_name_and_no_path(self, admin: Caller) -> None:
        made = admin(
            "POST",
            "/api/v1/destinations",
            {"name": "out", "url": "file://orders.2026", "options": {"format": "parquet"}},
        )
        assert (made.status_code, made.json()["kind"]) == (201, "file")
        for url in ("../x", "/etc/passwd", "a/b", "", ".ssh", "a%2fb", "a\\b", "x" * 101):
            asked = {"name": "x", "url": f"file://{url}"}
            refused = admin("POST", "/api/v1/destinations", asked)
            assert refused.json()["type"] == "urn:penstock:address-refused"
        for more in ({"options": {"format": "csv"}}, {"secret": "s"}):
            asked = {"name": "x", "url": "file://x", **more}
            assert admin("POST", "/api/v1/destinations", asked).status_code == 400

    def test_a_destination_is_deleted(self, admin: Caller) -> None:
        admin("POST", "/api/v1/destinations", self.BODY)

        assert admin("DELETE", "/api/v1/destinations/billing").status_code == 204
        assert admin("GET", "/api/v1/destinations/billing").status_code == 404
        assert admin("DELETE", "/api/v1/destinations/billing").status_code == 404
