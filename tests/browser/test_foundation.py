"""Signing in, the overview, tokens and errors, as somebody at a browser meets them."""

from __future__ import annotations

import pytest
from browsing import Visitor, visiting
from playwright.sync_api import expect


def test_who_spreads_tests_over_workers_knows_which_share_a_browser(
    request: pytest.FixtureRequest,
) -> None:
    """Where pytest and its plugin do not fit together, groups are spread without a word."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("tests are not spread by groups")
    assert request.node.nodeid.endswith("@browser")


def test_the_link_of_up_signs_in_and_leaves_no_token_behind(visitor: Visitor) -> None:
    """A token in the history or in a request line is one that others read."""
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))

    visitor.sign_in()

    assert not any("pst_" in url for url in asked)
    assert "pst_" not in visitor.page.evaluate("() => location.href")
    expect(visitor.page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()
    [cookie] = visitor.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")


def test_a_token_can_be_pasted_without_script_and_leads_back(visitor: Visitor) -> None:
    """A page somebody was sent is worth nothing if signing in forgets it."""
    browser = visitor.page.context.browser
    assert browser is not None
    with visiting(browser, visitor.site, java_script_enabled=False) as plain:
        plain.open("/tokens")
        plain.page.get_by_label("Token", exact=True).fill(plain.site.admin)
        plain.page.get_by_role("button", name="Sign in").click()

        expect(plain.page).to_have_url(f"{plain.site.url}/tokens")
        expect(plain.page.get_by_role("table")).to_be_visible()


def test_a_link_signs_in_also_where_the_page_is_open_already(visitor: Visitor) -> None:
    """Who opens the dashboard before the link is sent to sign in, and then pastes it there."""
    visitor.open("/")
    expect(visitor.page).to_have_url(f"{visitor.site.url}/sign-in")

    visitor.sign_in()

    expect(visitor.page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()


def test_a_wrong_token_is_told_so(visitor: Visitor) -> None:
    visitor.open("/sign-in")
    visitor.look("sign-in")

    visitor.page.get_by_label("Token", exact=True).fill("pst_wrong")
    visitor.page.get_by_role("button", name="Sign in").click()

    expect(visitor.page.get_by_role("alert").last).to_contain_text(
        "unknown, revoked or out of date"
    )
    visitor.forgive(401)


def test_a_link_of_somebody_else_does_not_change_who_is_signed_in(visitor: Visitor) -> None:
    visitor.sign_in(visitor.site.reader)

    visitor.open(f"/sign-in#{visitor.site.admin}")

    expect(visitor.page.get_by_text("You are signed in with the token")).to_be_visible()
    assert "#" not in visitor.page.url
    visitor.page.get_by_role("link", name="Go on").click()
    expect(visitor.page.get_by_role("link", name="Tokens")).to_have_count(0)


def test_signing_out_ends_the_session(visitor: Visitor) -> None:
    visitor.sign_in()
    kept = visitor.page.context.cookies()

    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page).to_have_url(f"{visitor.site.url}/sign-in")
    visitor.page.context.add_cookies(kept)  # type: ignore[arg-type]
    visitor.open("/")

    expect(visitor.page).to_have_url(f"{visitor.site.url}/sign-in")


def test_the_overview_tells_how_everything_is(visitor: Visitor) -> None:
    visitor.sign_in()

    row = visitor.page.get_by_role("row", name="flights")
    expect(row).to_contain_text("360")
    expect(row).to_contain_text("check")
    attention = visitor.page.get_by_role("region", name="Needs attention")
    expect(attention.get_by_role("link", name="9 events could not become rows")).to_be_visible()
    expect(visitor.page.locator(".plot canvas")).to_be_visible()
    visitor.look("overview")


def test_an_empty_installation_teaches_what_to_do(newcomer: Visitor) -> None:
    newcomer.sign_in()

    expect(newcomer.page.get_by_label("Name of the collection")).to_be_visible()
    expect(newcomer.page.get_by_text("penstock collection create orders --token")).to_be_visible()
    newcomer.look("overview-empty")


def test_the_api_is_described_in_one_page(visitor: Visitor) -> None:
    visitor.sign_in()
    visitor.page.keyboard.press("g")
    visitor.page.keyboard.press("a")
    expect(visitor.page.get_by_role("heading", name="API", exact=True)).to_be_visible()

    visitor.page.locator("details#search > summary").click()
    body = visitor.page.get_by_role("region", name="Body of search", exact=True)
    expect(body).to_contain_text("Nothing finds everything.")
    visitor.look("api")


def test_the_overview_renews_itself_under_nobodys_hands(visitor: Visitor) -> None:
    """Focus that jumps, or what was opened that closes, makes a page unusable by keyboard."""
    visitor.sign_in()
    page = visitor.page
    page.locator(".plot summary").click()
    page.locator(".plot summary").focus()
    page.evaluate("() => { document.querySelector('#live h2').textContent = 'old'; }")

    page.evaluate("() => htmx.trigger('#live', 'htmx:abort')")
    page.evaluate("() => htmx.ajax('GET', '/', {source: '#live', target: '#live'})")

    expect(page.locator("#live h2", has_text="old")).to_have_count(0)
    expect(page.locator(".plot details")).to_have_attribute("open", "")
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    expect(page.locator(".plot canvas")).to_be_visible()


def test_the_theme_can_be_chosen_and_is_remembered(visitor: Visitor) -> None:
    visitor.sign_in()
    switch = visitor.page.get_by_role("button", name="Theme")

    switch.click()
    switch.click()
    visitor.page.reload()

    expect(switch).to_contain_text("dark")
    assert visitor.page.evaluate("() => getComputedStyle(document.body).colorScheme") == "dark"


def test_a_token_is_made_shown_once_and_revoked_with_the_keyboard_alone(visitor: Visitor) -> None:
    visitor.sign_in()
    page = visitor.page
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("heading", name="Tokens", exact=True)).to_be_visible()
    visitor.ready()

    page.keyboard.press("/")
    page.keyboard.type("for the shop")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Tick one at least.")).to_be_visible()
    visitor.forgive(422)
    assert page.evaluate("() => document.activeElement.name") == "scopes"
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator(".notice.good")).to_contain_text("for the shop is made")
    secret = page.locator(".notice.good code").text_content() or ""
    assert secret.startswith("pst_")
    visitor.look("tokens")

    revoke = page.get_by_role("row", name="for the shop").get_by_role("button", name="Revoke")
    revoke.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Revoke for the shop?")).to_be_visible()
    visitor.look("tokens-revoke")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Revoke for the shop?")).to_have_count(0)
    visitor.ready()
    revoke.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert", name="Revoke for the shop?")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("row", name="for the shop")).to_contain_text("revoked")
    page.reload()
    expect(page.get_by_role("row", name="for the shop")).to_contain_text("revoked")
    assert secret not in page.content()


def test_a_question_is_asked_and_answered_without_script(visitor: Visitor) -> None:
    browser = visitor.page.context.browser
    assert browser is not None
    with visiting(browser, visitor.site, java_script_enabled=False) as plain:
        page = plain.page
        plain.open("/tokens")
        page.get_by_label("Token", exact=True).fill(plain.site.admin)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Make a token").click()
        page.get_by_label("Name", exact=True).fill("for reading")
        page.get_by_label("read see and search").check()
        page.get_by_role("button", name="Make the token").click()
        page.get_by_role("button", name="Revoke for reading").click()
        expect(page.get_by_role("heading", name="Revoke for reading?")).to_be_visible()
        page.get_by_role("link", name="Leave it as it is").click()
        expect(page.get_by_role("row", name="for reading")).to_contain_text("works")
        page.get_by_role("button", name="Revoke for reading").click()
        page.get_by_role("button", name="Revoke it").click()
        expect(page.get_by_role("row", name="for reading")).to_contain_text("revoked")


def test_why_nothing_was_done_is_told_at_the_top(visitor: Visitor) -> None:
    visitor.sign_in()
    visitor.open("/tokens")
    page = visitor.page
    page.get_by_role("button", name="Revoke").first.click()
    page.evaluate("""() => document.body.setAttribute("hx-headers", '{"X-CSRF-Token": "0"}')""")
    page.get_by_role("button", name="Revoke it").click()

    expect(page.locator("#notices")).to_contain_text("the form is not one of this session")
    visitor.forgive(403)


def test_on_a_phone_it_is_in_sight_where_one_is_and_what_can_be_done(visitor: Visitor) -> None:
    """Neither the row of pages nor a table says that it goes on to the right."""
    visitor.sign_in()
    page = visitor.page
    page.set_viewport_size({"width": 390, "height": 844})
    visitor.open("/tokens")
    visitor.ready()

    for one in (
        page.locator(".bar nav [aria-current]"),
        page.get_by_role("button", name="Revoke").first,
    ):
        box = one.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_keys_are_shown_and_closed(visitor: Visitor) -> None:
    visitor.sign_in()

    visitor.page.keyboard.press("?")
    expect(visitor.page.get_by_role("dialog", name="Keys")).to_be_visible()
    visitor.look("keys")
    visitor.page.keyboard.press("Escape")

    expect(visitor.page.get_by_role("dialog", name="Keys")).to_be_hidden()


@pytest.mark.parametrize(("path", "status", "told"), [("/nowhere", 404, "there is no page")])
def test_an_error_is_a_page_that_says_what_to_do(
    visitor: Visitor, path: str, status: int, told: str
) -> None:
    visitor.sign_in()

    visitor.open(path)

    expect(visitor.page.get_by_role("alert").last).to_contain_text(told)
    visitor.forgive(status)
    visitor.look(f"error-{status}")


def test_what_a_token_may_not_do_is_refused_with_a_way_out(visitor: Visitor) -> None:
    visitor.sign_in(visitor.site.reader)

    visitor.open("/tokens")

    expect(visitor.page.get_by_role("alert").last).to_contain_text("needs a token with the scope")
    visitor.forgive(403)
    visitor.look("error-403")
