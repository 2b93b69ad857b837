"""SQL, as somebody at a browser meets it."""

from __future__ import annotations

from browsing import Visitor
from playwright.sync_api import expect

_SLOW = 20_000
"""The first statement starts a process."""


def test_a_statement_is_run_by_keyboard_mended_and_remembered(visitor: Visitor) -> None:
    visitor.sign_in()
    page = visitor.page
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(page.get_by_role("heading", name="SQL", exact=True)).to_be_visible()
    visitor.ready()
    visitor.look("sql")
    statement = page.get_by_label("Statement", exact=True)

    page.keyboard.press("/")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-ran] .plot canvas")).to_be_visible(timeout=_SLOW)
    visitor.look("sql-result")

    statement.fill("SELECT event_id,\n  data.totl\nFROM orders")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result .notice.bad")).to_contain_text("Line 2", timeout=_SLOW)
    expect(page.locator("[data-gutter] .wrong")).to_have_text("2")
    visitor.forgive(422)
    visitor.look("sql-error")

    statement.fill(
        "SELECT source, count(*) AS n, list(event_id ORDER BY event_id) AS ids FROM flights "
        "GROUP BY 1 UNION ALL SELECT 'other', 3, NULL ORDER BY 2 DESC"
    )
    page.keyboard.press("Control+Enter")
    expect(page.locator("#bars")).to_contain_text("351", timeout=_SLOW)
    expect(page.get_by_role("cell", name="351")).to_have_css("text-align", "right")
    visitor.look("sql-folded")

    with page.expect_download() as download:
        page.get_by_role("button", name="Parquet").click()
    assert download.value.path().read_bytes()[:4] == b"PAR1"
    page.reload()
    expect(page.locator("[data-history-list] button")).to_have_count(2)
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("[data-history]")).to_be_hidden()


def test_without_tables_the_page_teaches(newcomer: Visitor) -> None:
    newcomer.sign_in()
    newcomer.open("/sql")
    expect(newcomer.page.get_by_text("No tables yet")).to_be_visible()
    newcomer.look("sql-empty")
