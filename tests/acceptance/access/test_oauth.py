"""Signing in with OAuth: the official client from a 401 to a token, and attempts to gain access without permission."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.support.clients.keys import new_key
from tests.support.clients.oauth import CALLBACK, App, Person, query_of
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.project import API_KEY


def status_with(stack: Stack, token: str, path: str = "/v1/sessions") -> int:
    return httpx.get(f"{stack.url}{path}", headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.fixture(scope="module")
def stack(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The worker's servers with an app behind a proxy, so that each test has a client address of its own."""
    own = Stack(
        database_url=stack.environment["DATABASE_URL"],
        redis_url=stack.environment["REDIS_URL"],
        folder=tmp_path_factory.mktemp("oauth"),
        TRUSTED_PROXY_HEADER="X-Real-IP",
    )
    own.start("api")
    yield own
    own.close()


@pytest.fixture
def app(stack: Stack) -> App:
    return App(stack)


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """A read-only key for some sessions."""
    return reader_key(stack)


def reader_key(stack: Stack) -> str:
    made = new_key(stack, scopes=["read"], sessions="chat-*")
    wait_for(lambda: status_with(stack, made) == 200, seconds=5)
    return made


class Storage(TokenStorage):
    """Stores the tokens and registration of the official client."""

    tokens: OAuthToken | None = None
    client_info: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client_info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client_info = client_info


def test_the_official_client_signs_in_and_gets_the_rights_of_the_key(stack: Stack, key: str) -> None:
    own, storage = new_id("chat"), Storage()
    stack.send("create_session", own, title="Ours")
    asked: list[str] = []

    async def open_browser(url: str) -> None:
        asked.append(url)

    async def wait_for_answer() -> AuthorizationCodeResult:
        sent = await asyncio.to_thread(Person(stack).sign_in, asked[0], key)
        told = query_of(sent)
        return AuthorizationCodeResult(code=told["code"], state=told["state"], iss=told["iss"])

    async def main() -> None:
        metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(CALLBACK)], client_name="Official client")
        auth = OAuthClientProvider(
            f"{stack.url}/mcp",
            metadata,
            storage,
            redirect_handler=open_browser,
            callback_handler=wait_for_answer,
        )
        async with (
            httpx2.AsyncClient(auth=auth, timeout=60) as http,
            Client(streamable_http_client(f"{stack.url}/mcp", http_client=http)) as client,
        ):
            names = [resource.name for resource in (await client.list_resources()).resources]
            assert own in names
            assert all(name.startswith("chat-") for name in names)
            result = await client.call_tool("store_memory", {"session_id": own, "content": "x"})
            assert "scope 'write'" in result.content[0].text  # type: ignore[union-attr]

    asyncio.run(main())
    assert storage.tokens is not None
    assert storage.tokens.access_token.startswith("sro_")
    assert storage.tokens.scope == "read"


def test_a_token_is_revoked_with_its_key_and_can_be_revoked_alone(stack: Stack, app: App) -> None:
    key = reader_key(stack)
    first, second = app.get_token(key), app.get_token(key)
    listed = stack.client.get("/v1/keys").json()["items"]
    apps = [item for item in listed if item["created_by"] == "app:Test app"]
    assert len(apps) >= 2
    assert "sro_" not in json.dumps(listed)
    assert {tuple(item["scopes"]) for item in apps[-2:]} == {("read",)}
    assert app.client.post("/oauth/revoke", data={"token": first}).status_code == 200
    wait_for(lambda: status_with(stack, first) == 401, seconds=5)
    assert status_with(stack, second) == 200
    assert app.client.post("/oauth/revoke", data={"token": first}).status_code == 200
    [made] = [item for item in listed if item["key_id"] == key_id_of(key)]
    assert stack.client.delete(f"/v1/keys/{made['key_id']}").status_code == 200
    wait_for(lambda: status_with(stack, second) == 401, seconds=5)
    assert "Invalid API key" in Person(stack).sign_in(app.url(), key).text


def key_id_of(key: str) -> str:
    return "key_" + hashlib.sha256(key.encode()).hexdigest()[:12]


def test_the_first_key_can_sign_in(stack: Stack, app: App) -> None:
    assert status_with(stack, app.get_token(API_KEY), "/v1/keys") == 200


def test_a_code_can_be_used_once_and_a_second_use_revokes_the_token(stack: Stack, app: App, key: str) -> None:
    code = app.get_code(key)
    token = app.exchange(code).json()["access_token"]
    assert status_with(stack, token) == 200
    again = app.exchange(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    wait_for(lambda: status_with(stack, token) == 401, seconds=5)
    assert app.exchange("made-up").json()["error"] == "invalid_grant"


def test_a_code_is_bound_to_its_app_address_and_verifier(stack: Stack, app: App, key: str) -> None:
    code = app.get_code(key)
    other = App(stack, client_name="Other")
    wrong: list[tuple[App, Payload, str]] = [
        (other, {}, "invalid_grant"),
        (app, {"code_verifier": "x" * 64}, "invalid_grant"),
        (app, {"code_verifier": None}, "invalid_request"),
        (app, {"redirect_uri": "http://127.0.0.1:1/other"}, "invalid_request"),
        (app, {"redirect_uri": None}, "invalid_request"),
        (app, {"grant_type": "refresh_token", "refresh_token": "x"}, "unsupported_grant_type"),
    ]
    for who, changed, error in wrong:
        answer = who.exchange(code, **changed)
        assert (answer.status_code, answer.json()["error"]) == (400, error), changed
    assert app.exchange(code, client_id="app_x").status_code == 401
    assert app.exchange(code).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:7999/callback/"},
        {"client_id": "app_x"},
        {"client_id": None},
    ],
)
def test_a_request_of_an_unverified_app_is_not_sent_back(
    stack: Stack, app: App, changed: dict[str, str | None]
) -> None:
    answer = app.client.get(app.url(**changed))
    assert answer.status_code == 400
    assert "location" not in answer.headers
    asked = {"client_id": app.id, "redirect_uri": CALLBACK, "code_challenge": app.challenge, **changed}
    form = {name: value for name, value in asked.items() if value is not None}
    page = app.client.get("/oauth/sign-in", params=form)
    assert (page.status_code, "<form" in page.text) == (400, False)
    posted = app.client.post("/oauth/sign-in", data={**form, "key": API_KEY, "answer": "allow"})
    assert (posted.status_code, "location" in posted.headers) == (400, False)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"state": "x" * 3_000}, "invalid_request"),
    ],
)
def test_an_invalid_request_shows_a_page_with_a_link_back_to_the_app(
    stack: Stack, app: App, changed: dict[str, str | None], error: str
) -> None:
    answer = app.client.get(app.url(**changed))
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert f"({error})" in answer.text
    [back] = re.findall(r'<a href="([^"]+)"', answer.text)
    told = parse_qs(urlsplit(unescape(back)).query)
    assert (unescape(back).startswith(f"{CALLBACK}?"), told["error"]) == (True, [error])


@pytest.mark.parametrize(
    "changed",
    [
        {"response_type": "token"},
        {"response_type": None},
        {"code_challenge": None},
        {"state": "x" * 3_000},
        {"resource": "https://other.example/mcp"},
        {"redirect_uri": None, "response_type": "x"},
    ],
)
def test_no_link_to_the_relay_redirects_elsewhere_without_consent(stack: Stack, changed: dict[str, str | None]) -> None:
    """Anybody can register an app with an address of their choice."""
    evil = "https://evil.example/phish"
    app = App(stack, redirect_uris=[evil])
    answer = app.client.get(app.url(**{"redirect_uri": evil, **changed}))
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert "<h1>Sign-in failed</h1>" in answer.text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in answer.text
    assert "script" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("resource", "is_own"),
    [
        ("{url}/mcp", True),
        ("{url}/mcp/", True),
        ("{url}", True),
        ("{url}/", True),
        ("{other}/mcp", False),
        ("https://evil.example/mcp", False),
        ("{url}/v1", False),
        ("{url}/mcp?x=1", False),
        ("{url}/mcp#x", False),
        ("http://127.0.0.1@evil.example/mcp", False),
        ("mcp", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_a_token_is_issued_for_this_relay_only(stack: Stack, app: App, key: str, resource: str, is_own: bool) -> None:
    named = resource.format(url=stack.url, other=stack.url.rpartition(":")[0])
    asked = app.client.get(app.url(resource=named))
    form = {"client_id": app.id, "redirect_uri": CALLBACK, "code_challenge": app.challenge, "resource": named}
    posted = app.client.post("/oauth/sign-in", data={**form, "key": key, "answer": "allow"})
    exchanged = app.exchange(app.get_code(key), resource=named)
    if is_own:
        assert (asked.status_code, posted.status_code, exchanged.status_code) == (302, 303, 200)
        return
    for page in (asked, posted):
        assert (page.status_code, "(invalid_target)" in page.text) == (400, True), page.text
    assert (exchanged.status_code, exchanged.json()["error"]) == (400, "invalid_target")


def test_the_page_names_the_relay_then_the_app_and_the_rights_it_gets(stack: Stack, app: App) -> None:
    page = app.client.get(app.client.get(app.url()).headers["location"]).text
    relay = stack.url.partition("://")[2]
    assert page.index(f"<h1>Sign in to {relay}</h1>") < page.index("Test app")
    assert page.count("Test app") == 1
    for scope in ("read", "write", "delegate", "agent", "admin"):
        assert f"<b>{scope}</b>" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


def test_an_app_that_was_denied_signs_in_later_on_another_port(stack: Stack, app: App, key: str) -> None:
    person = Person(stack)
    other = CALLBACK.replace("7999", "53211")
    refused = person.client.get(app.url(redirect_uri=f"{other}/elsewhere"))
    assert "location" not in refused.headers
    assert query_of(person.sign_in(app.url(), key, answer="no"))["error"] == "access_denied"
    sent = person.sign_in(app.url(redirect_uri=other), key)
    assert sent.headers["location"].startswith(f"{other}?code=")
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    assert app.exchange(code).json()["error"] == "invalid_request"
    sent = person.sign_in(app.url(redirect_uri=other), key)
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    answer = app.exchange(code, redirect_uri=other)
    assert answer.status_code == 200, answer.text
    assert status_with(stack, answer.json()["access_token"]) == 200


def test_an_app_that_was_denied_may_ask_again(stack: Stack, app: App, key: str) -> None:
    assert Person(stack).client.get(app.url(redirect_uri="https://elsewhere.example.com/")).status_code == 400
    code = app.get_code(key)
    assert app.exchange(code, code_verifier="x" * 43).status_code == 400
    token = app.exchange(code).json()["access_token"]
    assert app.client.post("/oauth/revoke", data={"token": token}).status_code == 200
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    wait_for(lambda: httpx.post(f"{stack.url}/mcp", headers=headers, json={}).status_code == 401)
    refused = httpx.post(f"{stack.url}/mcp", headers=headers, json={})
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert "resource_metadata=" in refused.headers["www-authenticate"]
    assert 'error="' not in httpx.post(f"{stack.url}/mcp", json={}).headers["www-authenticate"]
    assert status_with(stack, app.get_token(key)) == 200


def test_a_person_can_decline_and_is_asked_again_after_a_wrong_key(stack: Stack, app: App, key: str) -> None:
    told = query_of(Person(stack).sign_in(app.url(), "", answer="deny"))
    assert (told["error"], told["state"], told["iss"]) == ("access_denied", "a state/&=?", stack.url)
    hook = new_key(stack, scopes=["hook"], sessions=new_session(stack))
    token = app.get_token(key)
    for wrong in ("", "srk_" + "x" * 40, hook, token, "schlüssel", "\x00"):
        page = Person(stack).sign_in(app.url(), wrong)
        assert (page.status_code, "<form" in page.text) == (401, True), wrong
        assert not wrong or wrong not in page.text


def new_session(stack: Stack) -> str:
    session_id = new_id("hooked")
    stack.send("create_session", session_id, title="Hooked")
    return session_id


@pytest.mark.parametrize(
    "redirect",
    [
        "http://evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://user@evil.example/",
        "https://evil.example/#x",
        "https://evil.example;script-src/",
        "https://evil.example:99999/",
        "file:///etc/passwd",
        "/relative",
        "",
    ],
)
def test_apps_with_dangerous_callback_addresses_are_refused(stack: Stack, app: App, redirect: str) -> None:
    answer = app.register(redirect_uris=[redirect])
    assert (answer.status_code, "client_id" in answer.json()) == (400, False)
    made_up = json.dumps(["Test app", [redirect]]).encode()
    forged = "app_" + base64.urlsafe_b64encode(made_up).decode().rstrip("=")
    assert app.client.get(app.url(client_id=forged, redirect_uri=redirect)).status_code == 400


def test_the_page_escapes_text_from_apps(stack: Stack) -> None:
    name = '<script>alert(1)</script>"\u202e\x07 & Co'
    app = App(stack, client_name=name)
    sent = app.client.get(app.url(state='"><img src=x>'))
    page = app.client.get(sent.headers["location"])
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "&lt;script&gt;" in page.text
    assert not {"\u202e", "\x07"} & set(page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:7999;" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert re.findall(r'(?:src|href)="(?!/static/)', page.text) == []


def test_a_custom_scheme_adds_only_itself_to_the_content_security_policy(stack: Stack) -> None:
    redirect = "notebook.app://callback;script-src/"
    app = App(stack, redirect_uris=[redirect])
    page = app.client.get(app.client.get(app.url(redirect_uri=redirect)).headers["location"])
    assert page.headers["content-security-policy"].count("script-src") == 0
    assert "form-action 'self' notebook.app:;" in page.headers["content-security-policy"]
    assert "the app that opens notebook.app: links" in page.text


def test_discovery_metadata_points_to_this_relay(stack: Stack) -> None:
    refused = httpx.post(f"{stack.url}/mcp", json={}, headers={"Accept": "application/json"})
    [metadata] = re.findall(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
    resource = httpx.get(metadata).json()
    assert (resource["resource"], resource["authorization_servers"]) == (f"{stack.url}/mcp", [stack.url])
    server = httpx.get(f"{stack.url}/.well-known/oauth-authorization-server").json()
    assert server["issuer"] == stack.url
    for name in ("authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"):
        assert httpx.options(server[name]).status_code in (204, 405)


def test_anonymous_requests_are_rate_limited(stack: Stack, app: App) -> None:
    def register_until_refused() -> Iterator[int]:
        for _ in range(200):
            answer = app.register()
            yield answer.status_code
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                return

    answers = list(register_until_refused())
    assert (answers[0], answers[-1]) == (201, 429)
    assert 20 <= answers.count(201) <= 80


def test_a_large_body_is_refused(stack: Stack, app: App) -> None:
    for path in ("/oauth/register", "/oauth/token", "/oauth/revoke", "/oauth/sign-in"):
        answer = app.client.post(path, content=b"a=" + b"x" * 20_000)
        assert answer.status_code == 413, path
