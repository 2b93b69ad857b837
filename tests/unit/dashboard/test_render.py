from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import pytest
from builders import NOON
from jinja2 import UndefinedError

from penstock.dashboard import render
from penstock.dashboard.files import FOLDER, read_files
from penstock.dashboard.render import TEMPLATES, environment


def test_numbers_read_as_people_write_them() -> None:
    assert [render.number(v) for v in (0, 1_234_567, 0.25, 123.4, 2.0, 0.01)] == [
        *("0", "1,234,567", "0.2", "123", "2", "< 0.1")
    ]
    assert [render.short(v) for v in (0, 999, 1_000, 12_345, 999_600, 5_000_000)] == [
        *("0", "999", "1.0\u202fk", "12.3\u202fk", "1.0\u202fM", "5.0\u202fM")
    ]
    assert [render.size(v) for v in (0, 999, 1_500, 2_000_000_000)] == [
        *("0\u00a0B", "999\u00a0B", "1.5\u00a0kB", "2.0\u00a0GB")
    ]
    assert [render.seconds(v) for v in (None, 0, 0.0004, 0.85, 12.9, 119, 121, 86_400, 9e5)] == [
        *("\u2013", "0\u00a0s", "1\u00a0ms", "850\u00a0ms", "12\u00a0s", "119\u00a0s"),
        *("2\u00a0min", "24\u00a0h", "10\u00a0d"),
    ]


def test_a_part_never_reads_as_nothing_or_as_all() -> None:
    """One lost event in a million is not 0 %."""
    assert [render.percent(v) for v in (0, 1e-6, 0.025, 0.9999, 1)] == [
        *("0\u00a0%", "< 0.1\u00a0%", "2.5\u00a0%", "> 99.9\u00a0%", "100\u00a0%")
    ]


def test_a_time_is_told_in_utc_and_as_far_off_as_it_is() -> None:
    at = datetime(2025, 11, 24, 16, tzinfo=UTC)

    assert render.moment(NOON) == render.moment(at)
    assert ">2025-11-24 16:00:00<" in render.moment(at)
    assert ">3\u00a0min ago<" in render.ago(NOON, NOON + 185_000_000)
    assert ">in 30\u00a0s<" in render.ago(NOON + 30_000_000, NOON)
    assert ">now<" in render.ago(NOON, NOON + 10)
    assert render.is_past(at, NOON)
    assert not render.is_past(None, NOON)


def test_a_line_of_nothing_is_flat() -> None:
    assert render.points([0, 0]) == "0.0,23.0 100.0,23.0"
    assert render.points([0, 5]) == "0.0,23.0 100.0,1.0"
    assert render.points([]) == ""


def test_an_id_that_would_turn_the_text_around_is_written_out() -> None:
    assert render.short_id("a\u202eb") == "<code>a\\u202eb</code>"
    assert render.short_id("<b>" * 9) == (
        f'<code title="{"&lt;b&gt;" * 9}">&lt;b&gt;&lt;b&gt;&lt;b&gt;&lt;b&gt;…</code>'
    )


def test_what_is_shown_is_escaped_and_what_is_not_there_is_an_error() -> None:
    made = environment(lambda path: path)

    text = made.from_string("{{ ui.badge(x) }}{{ x | short_id }}<a title='{{ x }}'>").render(
        x="<script>'\""
    )
    assert "<script>" not in text
    assert "'\"" not in text
    with pytest.raises(UndefinedError):
        made.from_string("{{ y }}").render(x=1)


def test_templates_hold_nothing_that_the_policy_would_block() -> None:
    """A handler or a style in an attribute does nothing, silently."""
    for file in TEMPLATES.glob("*.html"):
        text = file.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=|hx-on|<style", text), (
            file
        )
        assert not re.search(r"\|\s*safe\b", text), file
        assert "https://" not in text, file
        assert not re.search(r"<form[^>]*method=\"post\"(?!.*?csrf)", text, re.DOTALL) or (
            file.name == "sign_in.html"
        ), file


def test_what_others_wrote_is_as_they_released_it() -> None:
    folder = FOLDER / "vendor"
    told = dict(
        re.findall(
            r"^\| `([^`]+)`.*`([0-9a-f]{64})` \|$",
            *([(folder / "README.md").read_text(), re.MULTILINE]),
        )
    )

    assert told == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.suffix in (".js", ".css")
    }


def test_the_stamp_changes_with_any_file(tmp_path: object) -> None:
    """A browser keeps a file for a year."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "a.js").write_text("1")
    before = read_files(folder)
    (folder / "a.js").write_text("2")

    assert read_files(folder).stamp != before.stamp
    assert before.address("a.js") == f"/static/{before.stamp}/a.js"
