"""The page at /docs in a browser: it shows all operations, sends trial requests, and loads nothing from other hosts."""

from __future__ import annotations

import json
from typing import get_args

import httpx
import pytest

from api.openapi.docs_page import File
from api.openapi.document import build_document
from api.static_files import url_of
from tests.support.processes.browser import Browser
from tests.support.processes.stack import Stack, new_id
from tests.support.project import API_KEY

OPERATIONS = sum(len(operations) for operations in build_document()["paths"].values())


def test_the_page_shows_all_operations_and_a_reader_can_try_one(stack: Stack, browser: Browser) -> None:
    session_id = new_id("page")
    stack.send("create_session", session_id, title="Shown on the page")
    browser.show_as(width=1280, dark=True)
    browser.open(f"{stack.url}/docs")
    browser.wait_for(f"document.querySelectorAll('.opblock').length === {OPERATIONS}", what="all operations")
    require_only_own_requests(stack, browser)
    try_out(browser, session_id)
    require_own_style(stack, browser)
    assert browser.complaints == []
    assert all(url.startswith((stack.url, "data:", "blob:")) for url in browser.requests)


def require_only_own_requests(stack: Stack, browser: Browser) -> None:
    """Fail unless the page consists of this relay's files alone."""
    assert browser.run("document.querySelector('.title').innerText").startswith("session-relay")
    assert "Instructions for LLMs" in browser.run("document.querySelector('header').innerText")
    asked = {url for url in browser.requests if not url.startswith("data:")}
    files = {f"{stack.url}/docs/{name}" for name in get_args(File)}
    files |= {stack.url + url_of(name) for name in ("icon.svg", "theme.css")}
    assert asked == {f"{stack.url}/docs", f"{stack.url}/openapi.json"} | files


def require_own_style(stack: Stack, browser: Browser) -> None:
    """Fail unless the page has the colours of the other pages, follows the scheme, and leads back to them."""
    assert browser.run("document.querySelector('header a').href") == f"{stack.url}/"
    assert browser.run("getComputedStyle(document.querySelector('.swagger-ui')).backgroundColor") == "rgb(20, 22, 26)"
    browser.run("document.querySelector('#api').replaceChildren()")  # The rest is Swagger UI's, and so large.
    for width, dark in ((390, True), (1280, False)):
        browser.show_as(width=width, dark=dark)
        browser.wait_for(f"document.documentElement.classList.contains('dark-mode') === {str(dark).lower()}")
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 22, 26)" if dark else "rgb(245, 246, 248)")
        assert browser.find_barriers() == []


def try_out(browser: Browser, session_id: str) -> None:
    """Send a command from the page with a key, like a reader."""
    block = "document.querySelector('#operations-commands-get_session_summary')"
    browser.run(f"{block}.querySelector('.opblock-summary-control').click()")
    browser.wait_for(f"{block}?.classList.contains('is-open')", what="operation open")
    browser.run("document.querySelector('.btn.authorize').click()")
    browser.wait_for("document.querySelector('.auth-container input')")
    type_into(browser, "document.querySelector('.auth-container input')", API_KEY)
    browser.run("document.querySelector('.auth-container .authorize.button, .auth-container .btn.authorize').click()")
    browser.wait_for("document.querySelector('.auth-container').innerText.includes('Authorized')")
    browser.run("document.querySelector('.btn-done').click()")
    browser.run(f"{block}.querySelector('.try-out__btn').click()")
    browser.wait_for(f"{block}.querySelector('textarea')")
    type_into(browser, f"{block}.querySelector('textarea')", json.dumps({"session_id": session_id}))
    browser.run(f"{block}.querySelector('.execute').click()")
    answered = f"{block}.querySelector('.live-responses-table .response')"
    browser.wait_for(answered, what="response received")
    shown = browser.run(f"{answered}.innerText")
    assert "200" in shown
    assert "Shown on the page" in shown


def type_into(browser: Browser, element: str, text: str) -> None:
    """Type like a reader, with the events that React needs."""
    kind = f"{element}.tagName === 'TEXTAREA' ? HTMLTextAreaElement.prototype : HTMLInputElement.prototype"
    browser.run(
        f"Object.getOwnPropertyDescriptor({kind}, 'value').set.call({element}, {json.dumps(text)});"
        f"{element}.dispatchEvent(new Event('input', {{bubbles: true}}));"
        f"{element}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )


@pytest.mark.parametrize("path", ["/docs", *(f"/docs/{name}" for name in get_args(File))])
def test_the_content_security_policy_allows_nothing_from_other_hosts(stack: Stack, path: str) -> None:
    answer = httpx.get(stack.url + path)
    assert (answer.status_code, len(answer.content) > 100) == (200, True)
    rules = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "swagger-ui-bundle.js.map", "%2e%2e", "start.js%00", "%2fetc%2fpasswd"])
def test_no_other_file_is_served(stack: Stack, name: str) -> None:
    answer = httpx.get(f"{stack.url}/docs/{name}")
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]["code"] in ("not_found", "invalid_field", "invalid")
