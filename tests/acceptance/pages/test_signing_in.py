"""Signing in to the pages: with a key, as long as that is valid, and only from the relay's own pages."""

from __future__ import annotations

import httpx
import pytest

from api.pages.browser_sessions import MAX_BROWSERS
from relay.limits.request_rates import ANONYMOUS_LIMIT
from tests.support.clients.keys import make_key, new_key
from tests.support.clients.visitors import HTML, Visitor, text_of
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import API_KEY


def usable_key(stack: Stack, *scopes: str) -> str:
    """Return a new key that the relay knows."""
    key = new_key(stack, scopes=scopes)
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": key}).status_code in (200, 403))
    return key


@pytest.fixture(scope="module", autouse=True)
def _known_keys(stack: Stack) -> None:
    """Wait for a relay that has just started to learn the keys: until then it refuses others than its own with 503."""
    usable_key(stack, "read")


def test_the_first_address_answers_programs_with_json_and_people_with_a_page(stack: Stack) -> None:
    for accept in ("*/*", "application/json", "text/html;q=0.5, application/json", "text/html;q=0", "text/htmlx"):
        answer = httpx.get(stack.url, headers={"Accept": accept})
        assert answer.json()["name"] == "session-relay", accept
        assert answer.headers["vary"] == "Accept"
    page = httpx.get(stack.url, headers={"Accept": HTML})
    assert page.headers["vary"] == "Accept"
    assert "API key" in text_of(page.text)
    assert "default" not in page.text


def test_a_person_signs_in_and_out(stack: Stack) -> None:
    visitor = Visitor(stack, key="")
    answer = visitor.sign_in(API_KEY, next_url="/?status=active")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?status=active")
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "secure" not in cookie
    assert API_KEY.lower() not in cookie
    assert "<h1>Sessions</h1>" in visitor.get("/")
    stolen = dict(visitor.client.cookies)
    assert visitor.post("/sign-out").headers["location"] == "/"
    assert not visitor.client.cookies
    assert "API key" in visitor.get("/")
    visitor.client.cookies.update(stolen)
    assert "API key" in visitor.get("/")


def test_behind_https_the_cookie_is_secure_and_for_this_host_alone(stack: Stack) -> None:
    visitor = Visitor(stack, key="")
    host = stack.url.removeprefix("http://")
    headers = {"Origin": f"https://{host}", "X-Forwarded-Proto": "https"}
    cookie = visitor.sign_in(API_KEY, **headers).headers["set-cookie"]
    assert cookie.startswith("__Host-session-relay=")
    assert "; Secure" in cookie
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize("next_url", ["https://evil.example/", "//evil.example", "/\\evil.example", "/docs", "x", ""])
def test_signing_in_leads_only_to_pages_of_this_relay(stack: Stack, next_url: str) -> None:
    assert Visitor(stack, key="").sign_in(API_KEY, next_url=next_url).headers["location"] == "/"


def test_a_page_that_was_asked_for_comes_after_signing_in(stack: Stack, session_id: str) -> None:
    visitor = Visitor(stack, key="")
    path = f"/sessions/{session_id}/tasks?status=pending"
    assert f'name="next" value="{path}"' in visitor.get(path, status=401)
    assert visitor.sign_in(API_KEY, next_url=path).headers["location"] == path


def test_a_wrong_key_is_refused_and_recorded_as_elsewhere(stack: Stack) -> None:
    before = stack.client.get("/v1/refusals").json()["counts"].get("unknown_key", 0)
    answer = Visitor(stack, key="").sign_in("srk_" + "x" * 40)
    assert answer.status_code == 401
    assert "Invalid API key." in text_of(answer.text)
    assert "set-cookie" not in answer.headers
    wait_for(lambda: stack.client.get("/v1/refusals").json()["counts"].get("unknown_key", 0) > before)


def test_a_key_that_may_not_read_and_a_token_of_an_app_are_refused(stack: Stack) -> None:
    answer = Visitor(stack, key="").sign_in(usable_key(stack, "delegate"))
    assert (answer.status_code, "'read'" in text_of(answer.text)) == (403, True)
    assert Visitor(stack, key="").sign_in("sro_" + "x" * 40).status_code == 401


def test_guessing_keys_is_limited_by_address(stack: Stack) -> None:
    allowed = int(ANONYMOUS_LIMIT.partition("/")[0])
    guesser = Visitor(stack, key="")
    answers = [guesser.sign_in("srk_guess")]
    while answers[-1].status_code == 401 and len(answers) < 3 * allowed:
        answers.append(guesser.sign_in("srk_guess"))
    assert answers[-1].status_code == 429
    assert "retry-after" in answers[-1].headers
    assert "<h1>Too many requests</h1>" in answers[-1].text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
        {"X-Nothing": "x"},
    ],
    ids=str,
)
def test_a_form_from_elsewhere_is_refused(stack: Stack, headers: dict[str, str]) -> None:
    visitor = Visitor(stack)
    answer = visitor.client.post("/sign-out", data={"form_token": visitor.form_token()}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in text_of(answer.text)
    assert "<h1>Sessions</h1>" in visitor.get("/")
    assert Visitor(stack, key="").sign_in(API_KEY, **headers).status_code == 403


def test_a_form_needs_the_token_of_its_browser(stack: Stack) -> None:
    visitor, other = Visitor(stack), Visitor(stack)
    for token in ("", "x", "ü", other.form_token()):
        answer = visitor.post("/sign-out", token=token)
        assert (answer.status_code, "Reload the page" in text_of(answer.text)) == (403, True), token
    assert "<h1>Sessions</h1>" in visitor.get("/")
    assert visitor.post("/sign-out").status_code == 303


def test_a_revoked_key_ends_what_its_visitors_see(stack: Stack, session_id: str) -> None:
    made = make_key(stack, scopes=["read"])
    key = made["key"]
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": key}).status_code == 200)
    visitor = Visitor(stack, key)
    assert "<h1>Sessions</h1>" in visitor.get("/")
    with visitor.client.stream("GET", f"/sessions/{session_id}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        assert stack.client.delete(f"/v1/keys/{made['name']}").status_code == 200
        said = b""
        try:
            for part in events.iter_raw():
                said += part
        except httpx.RemoteProtocolError:
            pass  # It is cut off.
    wait_for(lambda: "API key" in visitor.client.get("/").text, seconds=5)
    assert "API key" in visitor.get(f"/sessions/{session_id}", status=401)
    assert visitor.client.post("/sign-out", headers={"Origin": stack.url}).status_code == 401


def test_wrong_cookies_show_nothing(stack: Stack, session_id: str) -> None:
    for cookie in ("x", "A" * 43, "ü", "A" * 10_000, ""):
        headers = {b"Accept": HTML.encode(), b"Cookie": f"session-relay={cookie}".encode()}
        answer = httpx.get(f"{stack.url}/sessions/{session_id}", headers=headers)
        assert answer.status_code == 401
        assert "Walk" not in answer.text


def test_the_cookie_does_not_open_the_api(stack: Stack) -> None:
    visitor = Visitor(stack)
    for path in ("/v1/sessions", "/v1/keys"):
        assert visitor.client.get(path).json()["error"]["code"] == "key_missing"


def test_a_program_without_cookie_is_told_where_the_api_is(stack: Stack) -> None:
    error = stack.client.get("/sessions/x").json()["error"]
    assert (error["code"], "/v1/sessions" in error["hint"]) == ("unauthorized", True)


def test_only_the_latest_browsers_of_a_key_stay_signed_in(stack: Stack) -> None:
    key = usable_key(stack, "read")
    visitors = [Visitor(stack, key) for _ in range(MAX_BROWSERS)]
    assert "<h1>Sessions</h1>" in visitors[0].get("/")
    last = Visitor(stack, key)
    assert "API key" in visitors[0].get("/")
    assert "<h1>Sessions</h1>" in visitors[1].get("/")
    assert "<h1>Sessions</h1>" in last.get("/")
