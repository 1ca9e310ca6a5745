"""OAuth clients: an app that can send invalid requests, and its user at a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx

from tests.support.processes.stack import Stack

CALLBACK = "http://127.0.0.1:7999/callback"
HIDDEN = re.compile(r'type="hidden" name="([^"]*)" value="([^"]*)"')


class Stranger:
    """A client without a key, with an address of its own, that follows no redirects and keeps no connections."""

    def __init__(self, stack: Stack) -> None:
        self._url = stack.url
        self._address = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(urljoin(self._url, path), headers={"X-Real-IP": self._address}, timeout=60, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return httpx.post(urljoin(self._url, path), headers={"X-Real-IP": self._address}, timeout=60, **more)


class Person:
    """A person at a browser, who reads pages and submits forms. Follows no redirects automatically."""

    def __init__(self, stack: Stack) -> None:
        self.client = Stranger(stack)

    def sign_in(self, url: str, key: str, *, answer: str = "allow") -> httpx.Response:
        """Open the address to which an app redirects, enter a key on the page, and submit it."""
        sent = self.client.get(url)
        assert sent.status_code == 302, sent.text
        page = self.client.get(sent.headers["location"])
        assert page.status_code == 200, page.text
        fields = {unescape(name): unescape(value) for name, value in HIDDEN.findall(page.text)}
        return self.client.post("/oauth/sign-in", data={**fields, "key": key, "answer": answer})


class App:
    """An app that speaks OAuth by hand, so that it can send invalid requests."""

    def __init__(self, stack: Stack, **metadata: Any) -> None:
        self.stack = stack
        self.client = Stranger(stack)
        answer = self.register(**metadata)
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["client_id"]
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def register(self, **metadata: Any) -> httpx.Response:
        return self.client.post(
            "/oauth/register", json={"client_name": "Test app", "redirect_uris": [CALLBACK], **metadata}
        )

    def url(self, **changed: str | None) -> str:
        """Return the URL to which the app sends its user."""
        asked: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": CALLBACK,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            "state": "a state/&=?",
            **changed,
        }
        return f"/oauth/authorize?{urlencode({n: v for n, v in asked.items() if v is not None})}"

    def get_code(self, key: str) -> str:
        """Return the code that the app gets when its user signs in."""
        return str(query_of(Person(self.stack).sign_in(self.url(), key))["code"])

    def exchange(self, code: str, **changed: str | None) -> httpx.Response:
        """Exchange a code for a token. Returns any response."""
        asked: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "client_id": self.id,
            "code_verifier": self.verifier,
            **changed,
        }
        return self.client.post("/oauth/token", data={n: v for n, v in asked.items() if v is not None})

    def get_token(self, key: str) -> str:
        answer = self.exchange(self.get_code(key))
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return str(answer.json()["access_token"])


def query_of(sent: httpx.Response) -> dict[str, str]:
    """Return the query parameters of the redirect to the app."""
    assert sent.status_code == 303, sent.text
    location = sent.headers["location"]
    assert location.startswith(f"{CALLBACK}?"), location
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
