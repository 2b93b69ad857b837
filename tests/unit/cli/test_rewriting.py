"""`penstock collection retype` and `rebuild` on a home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from metadata_builders import collection
from typer.testing import CliRunner

from assets.stores import opened
from penstock.buffer import open_appender
from penstock.cli.main import app
from penstock.metadata.records import SchemaVersion
from penstock.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Answer a home whose collection has a column of longs and a fraction beside it."""
    appender = open_appender(load_settings(tmp_path, {}).log)
    with opened(load_settings(tmp_path, {})) as stores:
        stores.store.create_collection(collection())
        work = stores.landing()
        for number, payload in enumerate(['{"n": 5, "s": 1}', '{"n": 5.99, "s": "x"}']):
            one = event(payload, id=f"e{number}", received_at=NOON)
            appender.append(FLIGHTS, [one]).result(10)
            assert work.land_once(FLIGHTS)
    appender.close()
    return tmp_path


def said(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def versions(home: Path) -> list[SchemaVersion]:
    with opened(load_settings(home, {})) as stores:
        return stores.store.schema_versions(FLIGHTS)


def test_retype_shows_what_is_due_does_it_and_enters_it_in_the_history(home: Path) -> None:
    """First look, then act; and the history says what it was, and why."""
    dry = said("collection", "retype", "flights", "--home", home, "--dry-run")
    known = len(versions(home))
    done = json.loads(said("collection", "retype", "flights", "--home", home, "--json"))
    again = said("collection", "retype", "flights", "--home", home)

    assert "n       retyped  long    double" in dry
    assert "2 rows in 2 files would be written anew" in dry
    assert known == 1
    assert done["changes"] == [
        {"path": "n", "what": "retyped", "before": "long", "after": "double"}
    ]
    assert done["chosen"] == ["n"]
    assert (done["misfits_before"], done["misfits_after"]) == (2, 1)
    assert done["misfits"] == [
        {"path": "s", "before": 1, "after": 1},
        {"path": "n", "before": 1, "after": 0},
    ] or done["misfits"] == [
        {"path": "n", "before": 1, "after": 0},
        {"path": "s", "before": 1, "after": 1},
    ]
    assert int(done["snapshot"]) > 0
    assert "no column is to be retyped" in again
    assert [dict(change) for change in versions(home)[-1].changes] == [
        {
            "path": "n",
            "what": "retyped",
            "type": "double",
            "before": "long",
            "why": "1 misfits in 2 rows",
            "event_id": None,
        }
    ]


def test_retype_of_a_column_that_cannot_be_is_wrong_use(home: Path) -> None:
    """A typing error must not look like a column that is fine."""
    words = ["collection", "retype", "flights", "--home", str(home), "--column", "nn"]

    result = CliRunner().invoke(app, words)

    assert result.exit_code != 0
    assert "there is no column nn" in str(result.exception)


def test_rebuild_shows_the_difference_and_enters_it_in_the_history(home: Path) -> None:
    """Columns, types and misfits before and after."""
    dry = json.loads(
        said("collection", "rebuild", "flights", "--home", home, "--dry-run", "--json")
    )
    done = said("collection", "rebuild", "flights", "--home", home)

    assert dry["snapshot"] is None
    assert dry["columns_before"] == [{"path": "n", "type": "long"}, {"path": "s", "type": "long"}]
    assert dry["columns_after"] == [{"path": "n", "type": "double"}, {"path": "s", "type": "long"}]
    assert (dry["rows"], dry["files"], dry["refused"]) == (2, 2, 0)
    assert "2 rows in 2 files were written anew" in done
    assert "2 misfits before, 1 after" in done
    assert [change["why"] for change in versions(home)[-1].changes] == ["rebuilt from the payloads"]
    assert len(versions(home)) == 2
