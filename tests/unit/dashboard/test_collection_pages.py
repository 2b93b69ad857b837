"""The pages Schema and Settings of a collection, without a browser."""

from __future__ import annotations

import re
from datetime import date

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from forms import Browser, browser
from metadata_builders import collection
from platform_stand_ins import StandInTrials, grant

from penstock.api.platform import Platform
from penstock.contract.collections import DayDue, Keeping
from penstock.contract.rewriting import LongTold, RetypeTold
from penstock.contract.schema import ColumnTold
from penstock.dashboard.collection_settings import format_fields, keep_says
from penstock.dashboard.forms import Form
from penstock.dashboard.schema import retype_command, tree
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.metadata.records import CollectionRecord
from penstock.schema.formats.avro import schemas_of

SETTINGS = "/collections/flights/settings"


def signed_in(app: FastAPI, token: str) -> Browser:
    made = browser(app)
    assert made.sign_in(token).status_code == 303
    return made


@pytest.fixture
def admin(app: FastAPI, here: Platform) -> Browser:
    here.store.create_collection(collection())
    return signed_in(app, grant(here.store, "admin"))


@pytest.fixture
def reader(app: FastAPI, here: Platform, admin: Browser) -> Browser:
    return signed_in(app, grant(here.store, "read"))


def column(path: str, kind: str = "long") -> ColumnTold:
    return ColumnTold(path=path, type=kind, since=None, event_id=None, filled=None)


def test_columns_stand_below_their_objects_wherever_they_came() -> None:
    told = tree([column("a.b"), column("c[]"), column("l[].x[].y%2Ez"), column("a.d", "string")])

    assert [(one.depth, one.name, one.kind, one.query) for one in told] == [
        (0, "a", "object", "a:*"),
        (1, "b", "long", "a.b:*"),
        (1, "d", "string", "a.d:*"),
        (0, "c", "list of longs", "c:*"),
        (0, "l", "list of objects", "l:*"),
        (1, "x", "list of objects", "l.x:*"),
        (2, "y.z", "long", "l.x.y\\.z:*"),
    ]


def test_a_column_that_is_called_like_a_command_is_quoted() -> None:
    """Senders name columns, and the command is copied into a shell."""
    told = RetypeTold(rows=9, columns=[LongTold(path="a'; rm b", gained=1, lost=0, due=False)])

    assert retype_command("c", told) == """penstock collection retype c --column 'a'"'"'; rm b'"""
    assert retype_command("c", None) == ""


def test_a_collection_without_columns_teaches_how_to_get_some(reader: Browser) -> None:
    page = reader.get("/collections/flights/schema")

    assert "No columns yet" in page.text
    assert "| penstock send flights" in page.text
    assert "Try another contract" not in page.text


def test_a_trial_says_what_would_become_of_events(admin: Browser, here: Platform) -> None:
    answer = admin.post("/collections/flights/schema/try", contract="quarantine", sample="1000")

    assert answer.status_code == 200
    assert "tried under <strong>quarantine</strong>" in answer.text
    assert "Switch to quarantine" in answer.text
    assert isinstance(here.trials, StandInTrials)
    assert here.trials.asked[-1][1] == "quarantine"
    assert here.store.collection(FLIGHTS).contract == "evolve"


def test_a_contract_that_there_is_none_of_is_refused_at_its_field(admin: Browser) -> None:
    answer = admin.post("/collections/flights/schema/try", contract="<b>", sample="1000")

    assert answer.status_code == 422
    assert 'id="contract-error"' in answer.text


def test_there_is_nothing_to_rebuild_before_the_first_row(admin: Browser) -> None:
    assert "There are no rows yet" in admin.post("/collections/flights/schema/rebuild").text
    assert "had a fraction" in admin.get("/collections/flights/schema?look=retype").text


@pytest.mark.parametrize(
    ("what", "fields", "says", "then"),
    [
        ("contract", {"contract": "freeze"}, "No new columns", ("contract", "freeze")),
        ("keep", {"days": "90"}, "the next upkeep drops nothing", ("keep_days", 90)),
        ("pause", {}, "Every door refuses its events", ("paused", True)),
        ("loops", {"allow": "yes"}, "goes round for ever", ("allow_loops", True)),
        ("partitions", {"partitions": "4"}, "never have fewer again", ("partitions", 4)),
    ],
)
def test_a_change_says_what_it_does_and_is_made_once_somebody_is_sure(
    admin: Browser,
    here: Platform,
    what: str,
    fields: dict[str, str],
    says: str,
    then: tuple[str, object],
) -> None:
    before = here.store.collection(FLIGHTS)

    asked = admin.post(f"{SETTINGS}/{what}", **fields)
    assert says in asked.text
    assert here.store.collection(FLIGHTS) == before

    done = admin.post(f"{SETTINGS}/{what}", sure="yes", **fields)
    name, value = then
    if what == "partitions":
        # The embedded log has one, and says so.
        assert done.status_code in (200, 422)
        return
    assert done.status_code == 200
    assert getattr(here.store.collection(FLIGHTS), name) == value


@pytest.mark.parametrize(
    ("what", "fields", "said"),
    [
        ("keep", {"days": "soon"}, "Write a number of whole days"),
        ("keep", {"days": "0"}, "greater than or equal to 1"),
        ("partitions", {"partitions": "1"}, "it can only grow"),
        ("partitions", {"partitions": "many"}, "valid integer"),
        ("keep", {"days": "9" * 5_000}, "Write a number of whole days"),
        ("partitions", {"partitions": "9" * 5_000}, "valid integer"),
        ("contract", {"contract": "loose"}, "Input should be"),
    ],
)
def test_what_cannot_be_set_is_said_at_its_field(
    admin: Browser, what: str, fields: dict[str, str], said: str
) -> None:
    answer = admin.post(f"{SETTINGS}/{what}", sure="yes", **fields)

    assert answer.status_code == 422
    assert said in answer.text


def test_a_format_is_set_once_somebody_is_sure(admin: Browser, here: Platform) -> None:
    asked = admin.post(f"{SETTINGS}/format", name="plain")
    assert "Read payloads as plain" in asked.text
    assert "what cannot be goes to quarantine" in asked.text
    assert here.store.collection(FLIGHTS).format.name == "json"
    wrong = admin.post(f"{SETTINGS}/format", name="protobuf", message="a.B")
    assert wrong.status_code == 422, "what cannot be is said before anything is asked"
    assert 'value="a.B"' in wrong.text

    done = admin.post(f"{SETTINGS}/format", name="plain", sure="yes")
    assert "read as plain" in done.text
    assert here.store.collection(FLIGHTS).format.name == "plain"


AVRO = {"name": "avro", "registry": "http://r.example"}


def test_a_secret_that_was_typed_is_neither_shown_nor_lost_by_a_question(
    admin: Browser, here: Platform
) -> None:
    """Asked for again it would be forgotten by some, and in the page it would be in every copy."""
    asked = admin.post(f"{SETTINGS}/format", **AVRO, registry_secret="me:s3cret").text
    assert "with the secret you typed" in asked
    tried = admin.post(f"{SETTINGS}/format/try", **AVRO, registry_secret="me:s3cret").text
    for page in (asked, tried):
        assert "s3cret" not in page

    aside = aside_of(tried)
    asked = admin.post(f"{SETTINGS}/format", **AVRO, registry_secret_aside=aside).text
    done = admin.post(
        f"{SETTINGS}/format", **AVRO, registry_secret_aside=aside_of(asked), sure="yes"
    )
    assert done.status_code == 200
    assert "registry_secret_aside" not in done.text
    kept = here.store.collection(FLIGHTS).format
    secret_id = schemas_of(here.store.format_schema(FLIGHTS, kept.schema or "")).secret_id
    assert here.store.registry_secret(FLIGHTS, secret_id or "") == "me:s3cret"


def test_a_secret_that_was_typed_goes_to_no_other_address(admin: Browser, here: Platform) -> None:
    aside = aside_of(admin.post(f"{SETTINGS}/format", **AVRO, registry_secret="me:s3cret").text)

    elsewhere = {**AVRO, "registry": "http://elsewhere.example"}
    asked = admin.post(f"{SETTINGS}/format", **elsewhere, registry_secret_aside=aside).text
    assert "without a secret" in asked
    admin.post(f"{SETTINGS}/format", **elsewhere, registry_secret_aside=aside, sure="yes")
    assert not here.store.collection(FLIGHTS).format.secret
    plain = admin.post(f"{SETTINGS}/format", name="plain", registry_secret_aside=aside).text
    assert "registry_secret_aside" not in plain


def aside_of(page: str) -> str:
    [*_, found] = re.findall(r'name="registry_secret_aside" value="([^"]+)"', page)
    return str(found)


def test_a_format_can_be_tried_and_nothing_changes(admin: Browser, here: Platform) -> None:
    assert "tried under" in admin.post(f"{SETTINGS}/format/try", name="plain").text
    assert here.store.collection(FLIGHTS).format.name == "json"


def test_a_format_takes_the_fields_of_its_kind_alone() -> None:
    """A form brings those of the others too, empty or left over."""
    form = Form(
        {"name": ["protobuf"], "descriptor": ["aGk\n="], "message": ["a.B"], "framing": ["datum"]}
    )

    assert format_fields(form) == {
        "name": "protobuf",
        "descriptor": "aGk=",
        "message": "a.B",
        "envelope": "",
        "payload_field": "",
        "payload_message": "",
    }


def test_keeping_rows_for_less_says_what_goes() -> None:
    days = [DayDue(day=date(2026, 1, n), rows=n, bytes=1) for n in (3, 1, 2)]
    told = keep_says(Keeping(name="c", keep_days=9, days=days, pinned_by=["replay-1"]))

    assert "drops 6 rows of 3 days, 2026-01-01 to 2026-01-03" in told[1]
    assert "replay-1" in told[2]
    one = keep_says(Keeping(name="c", keep_days=9, days=days[:1], pinned_by=[]))
    assert "drops 3 rows of 2026-01-03." in one[1]


def test_who_only_reads_sees_settings_and_changes_none(
    reader: Browser, admin: Browser, here: Platform
) -> None:
    page = reader.get(SETTINGS)
    assert "one with the scope <code>admin</code> changes them" in page.text
    assert "Pause…" not in page.text

    for what in ("pause", "keep", "format"):
        assert reader.post(f"{SETTINGS}/{what}", sure="yes", name="plain").status_code == 403
    assert here.store.collection(FLIGHTS).paused is False
    assert admin.post(f"{SETTINGS}/nothing").status_code == 404


def test_penstocks_own_collections_are_looked_at_by_their_whole_name(
    app: FastAPI, here: Platform
) -> None:
    """A link without the team leads to a collection of somebody else, or to none."""
    own = CollectionId(SYSTEM_TEAM, "changes")
    here.store.create_collection(CollectionRecord(id=own, created_at=NOON))
    admin = browser(app, grant(here.store, "admin"))
    path = "/collections/penstock_system.changes"

    for page in ("", "/schema", "/settings", "/quarantine"):
        answer = admin.get(path + page)
        assert answer.status_code == 200
        assert "/collections/changes" not in answer.text
    assert "nobody changes its settings" in admin.get(path + "/settings").text
