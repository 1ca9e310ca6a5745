"""The sign-in page in a browser: from the app's address to the app's callback, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.clients.oauth import App
from tests.support.processes.browser import Browser
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import API_KEY

ALLOW = "document.querySelector('button.main').click()"


class Callback(HTTPServer):
    """Receives the redirect as an app on this machine."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/callback"


class _Handler(BaseHTTPRequestHandler):
    server: Callback

    def do_GET(self) -> None:
        self.server.heard.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Thank you.")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def callback() -> Iterator[Callback]:
    server = Callback()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_person_signs_in_and_the_app_gets_a_token(stack: Stack, browser: Browser, callback: Callback) -> None:
    app = App(stack, client_name="A <b>notebook</b>", redirect_uris=[callback.url])
    browser.open(stack.url + app.url(redirect_uri=callback.url))
    browser.wait_for("document.activeElement?.id === 'key'", what="the page, ready to type")
    assert browser.run("document.querySelector('h1').innerText") == f"Sign in to {stack.url.partition('://')[2]}"
    assert "A <b>notebook</b>" in browser.run("document.body.innerText")
    assert "a program on this computer" in browser.run("document.body.innerText")
    assert browser.run("getComputedStyle(document.querySelector('.card')).maxWidth") == "416px"

    browser.run("document.querySelector('#key').value = 'srk_wrong'")
    browser.run(ALLOW)
    browser.wait_for("document.querySelector('p.problem')?.innerText.includes('Invalid API key')", what="refused")
    browser.run(f"document.querySelector('#key').value = '{API_KEY}'")
    browser.run(ALLOW)
    wait_for(lambda: any(path.startswith("/callback") for path in callback.heard), what="callback received")

    [path] = [path for path in callback.heard if path.startswith("/callback")]
    told = parse_qs(urlsplit(path).query)
    answer = app.exchange(told["code"][0], redirect_uri=callback.url)
    assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
    assert all(url.startswith((stack.url, callback.url.removesuffix("/callback"))) for url in browser.requests)
    assert [text for text in browser.complaints if "401" not in text] == []
