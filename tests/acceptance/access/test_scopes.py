"""Authorization: each scope against each route and command, and what a key for some sessions sees of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from api.app import create_app
from models.access.scopes import ALL_SCOPES, GRANTS
from models.commands.definitions import COMMANDS
from models.field_types import Scope
from models.settings import Settings
from tests.support.clients.keys import new_key
from tests.support.clients.permissions import COMMAND_NEEDS, WORD, fill, request_as
from tests.support.clients.signing import WEBHOOK_SECRET, send_signed
from tests.support.processes.stack import Stack, envelope, new_id, wait_for

OTHER_SECRET = WEBHOOK_SECRET.replace("MfKQ", "NfKQ")
MAY: dict[str, set[str]] = {
    "read": {"read"},
    "write": {"read", "write"},
    "delegate": {"delegate"},
    "agent": {"agent"},
    "admin": {"read", "write", "delegate", "agent", "admin"},
    "send": {"write", "delegate"},
}
"""The rights of each scope, written independently of the product."""

ROUTE_NEEDS: dict[tuple[str, str], Scope] = {
    ("GET", "/v1/deliveries"): "read",
    ("GET", "/v1/deliveries/{delivery_id}"): "read",
    ("GET", "/v1/dead-letters"): "admin",
    ("POST", "/v1/dead-letters/replay"): "admin",
    ("GET", "/v1/dead-letters/{delivery_id}"): "admin",
    ("DELETE", "/v1/dead-letters/{delivery_id}"): "admin",
    ("POST", "/v1/dead-letters/{delivery_id}/replay"): "admin",
    ("GET", "/v1/keys"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("DELETE", "/v1/keys/{name_or_id}"): "admin",
    ("GET", "/v1/refusals"): "admin",
    ("GET", "/v1/status"): "read",
    ("GET", "/metrics"): "admin",
    ("POST", "/v1/import"): "admin",
    ("GET", "/v1/sessions"): "read",
    ("GET", "/v1/sessions/{session_id}"): "read",
    ("GET", "/v1/sessions/{session_id}/summary"): "read",
    ("GET", "/v1/sessions/{session_id}/transcript"): "read",
    ("GET", "/v1/sessions/{session_id}/memories"): "read",
    ("GET", "/v1/sessions/{session_id}/memories/{key:path}"): "read",
    ("GET", "/v1/sessions/{session_id}/tasks"): "read",
    ("GET", "/v1/sessions/{session_id}/tasks/{task_id}"): "read",
    ("GET", "/v1/sessions/{session_id}/artifacts"): "read",
    ("GET", "/v1/sessions/{session_id}/artifacts/{artifact_id}"): "read",
    ("GET", "/v1/sessions/{session_id}/export"): "read",
    ("GET", "/v1/sessions/{session_id}/events"): "read",
    ("GET", "/v1/search"): "read",
    ("GET", "/v1/activity"): "read",
    ("GET", "/v1/memories"): "read",
    ("GET", "/v1/tasks"): "read",
    ("GET", "/v1/artifacts"): "read",
    ("GET", "/v1/agents"): "read",
    ("POST", "/v1/agents"): "admin",
    ("POST", "/v1/tasks/claim"): "agent",
    **{
        ("POST", f"/v1/claims/{{claim_token}}/{action}"): "agent"
        for action in ("heartbeat", "start", "release", "complete", "fail", "ask")
    },
}
OPEN = {
    ("GET", path)
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/llm-instructions", "/docs", "/docs/{file}")
}
BY_COMMAND = {("POST", path) for path in ("/v1/webhook", "/webhook", "/v1/commands/{command}", "/v1/hooks/{token}")}
FOR_ANY_KEY = {("GET", "/v1/whoami")}
BY_TOOL = {("POST", "/mcp")}
"""Routes whose permissions are tested elsewhere, by tool."""
OF_OAUTH = ("/oauth/", "/.well-known/")
"""Routes for clients that have no key yet."""
OF_PAGES = (
    "/sessions",
    "/deliveries",
    "/dead-letters",
    "/keys",
    "/hooks",
    "/agents",
    "/refusals",
    "/status",
    "/static/",
    "/sign-",
)
"""Routes for browsers, which are tested elsewhere."""


@pytest.fixture(scope="module")
def stack(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The worker's servers with an app that also has signing secrets, for all sessions and for some."""
    own = Stack(
        database_url=stack.environment["DATABASE_URL"],
        redis_url=stack.environment["REDIS_URL"],
        folder=tmp_path_factory.mktemp("scopes"),
        WEBHOOK_SECRETS=f"signer={WEBHOOK_SECRET},narrow:chat-*={OTHER_SECRET}",
    )
    own.start("api")
    yield own
    own.close()


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    """A key for each scope."""
    made: dict[str, str] = {scope: new_key(stack, scopes=[scope]) for scope in ALL_SCOPES}
    wait_for(
        lambda: all(request_as(stack, key, "GET", "/v1/keys").status_code not in (401, 503) for key in made.values())
    )
    return made


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    """The session that the commands refer to."""
    session_id = new_id("scopes")
    stack.send("create_session", session_id, title="Scopes")
    return session_id


def judge(answer: httpx.Response, *, scope: str, needs: Scope) -> None:
    """Check that a request is let through, or refused with the name of the missing scope."""
    if needs in MAY[scope]:
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert answer.status_code == 403, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["expected"]) == ("forbidden", f"a key with the scope {needs}")


def test_every_route_and_command_is_in_the_tables() -> None:
    app = create_app(Settings(api_key="k", database_url="postgresql:///x", redis_url="redis://x"))
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and not route.path.startswith(OF_OAUTH + OF_PAGES)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == set(ROUTE_NEEDS) | OPEN | FOR_ANY_KEY | BY_COMMAND | BY_TOOL
    assert set(COMMAND_NEEDS) == set(COMMANDS)
    assert {scope: set(granted) for scope, granted in GRANTS.items() if scope != "hook"} == MAY


def test_any_key_may_ask_who_it_is_and_nobody_else(stack: Stack, keys: dict[str, str]) -> None:
    for scope, key in keys.items():
        answer = request_as(stack, key, "GET", "/v1/whoami")
        assert (scope, answer.status_code) == (scope, 200), answer.text
        assert key not in answer.text
    assert request_as(stack, "wrong", "GET", "/v1/whoami").status_code == 401
    assert httpx.get(f"{stack.url}/v1/whoami").status_code == 401


@pytest.mark.parametrize("scope", ALL_SCOPES)
@pytest.mark.parametrize("command", COMMAND_NEEDS)
def test_each_scope_allows_its_commands(
    stack: Stack, keys: dict[str, str], session_id: str, command: str, scope: str
) -> None:
    needs, data = COMMAND_NEEDS[command]
    key = keys[scope]
    if scope == "agent" and needs in ("read", "write") and COMMANDS[command].session != "none":
        # Only applying the command shows whether the agent holds a task there.
        answer = request_as(stack, key, "POST", "/v1/webhook?wait=20", json=envelope(command, session_id, **data))
        judge(answer, scope=scope, needs=needs)
        return
    judge(
        request_as(stack, key, "POST", "/v1/webhook", json=envelope(command, session_id, **data)),
        scope=scope,
        needs=needs,
    )
    flat = {"session_id": session_id, **data}
    judge(request_as(stack, key, "POST", f"/v1/commands/{command}?wait=0", json=flat), scope=scope, needs=needs)
    if COMMANDS[command].in_batch:
        batch = envelope("batch", session_id, commands=[{"command": command, "data": data}])
        judge(request_as(stack, key, "POST", "/webhook", json=batch), scope=scope, needs=needs)


@pytest.mark.parametrize("command", COMMAND_NEEDS)
def test_a_signing_secret_allows_changes_but_no_deletes(stack: Stack, session_id: str, command: str) -> None:
    needs, data = COMMAND_NEEDS[command]
    judge(send_signed(stack, envelope(command, session_id, **data)), scope="send", needs=needs)
    outside = send_signed(stack, envelope(command, session_id, **data), secret=OTHER_SECRET)
    assert outside.status_code == 403
    assert "chat-*" in outside.text


@pytest.mark.parametrize("scope", ALL_SCOPES)
@pytest.mark.parametrize(("method", "path"), ROUTE_NEEDS)
def test_each_scope_allows_its_routes(
    stack: Stack, keys: dict[str, str], session_id: str, method: str, path: str, scope: str
) -> None:
    answer = request_as(stack, keys[scope], method, fill(path, session_id))
    judge(answer, scope=scope, needs=ROUTE_NEEDS[method, path])


@pytest.mark.parametrize(("method", "path"), ROUTE_NEEDS)
def test_no_route_accepts_an_unknown_key_or_a_signature(
    stack: Stack, keys: dict[str, str], session_id: str, method: str, path: str
) -> None:
    url = fill(path, session_id)
    assert stack.client.request(method, url, headers={"X-API-Key": "srk_" + "x" * 40}).status_code == 401
    signed = {"X-API-Key": keys["admin"], "X-Hub-Signature-256": "sha256=" + "0" * 64}
    assert stack.client.request(method, url, headers=signed).status_code == 403


# A key for some sessions


@pytest.fixture(scope="module")
def hidden(stack: Stack) -> str:
    """A session that the limited keys must not see, full of one word, with a similar id."""
    session_id = new_id("xchat")
    stack.send("create_session", session_id, title=f"{WORD} session")
    stack.send("conversation_chunk", session_id, chunk_id="c", content=f"Ana: {WORD} it is.")
    stack.send("store_memory", session_id, key=f"{WORD}-key", content=f"{WORD} content", tags=[WORD])
    stack.send("store_memory", session_id, key="k", content=WORD)
    stack.send("delegate_task", session_id, task_id="t", description=f"{WORD} task", agent_name="claude_code")
    stack.send("add_artifact", session_id, artifact_id="a", name=f"{WORD} name", content=f"{WORD} text")
    return session_id


@pytest.fixture(scope="module")
def own_session(stack: Stack) -> str:
    """A session that the limited keys may see."""
    session_id = new_id("chat")
    stack.send("create_session", session_id, title="Ours")
    return session_id


@pytest.fixture(scope="module", params=["admin", "several"])
def limited(stack: Stack, request: pytest.FixtureRequest) -> str:
    """A key for chat-* only, with every scope that a key can have."""
    scopes = ["admin"] if request.param == "admin" else ["read", "write", "delegate", "agent"]
    key = new_key(stack, scopes=scopes, sessions="chat-*")
    wait_for(lambda: request_as(stack, key, "GET", "/v1/sessions").status_code == 200, seconds=5)
    return key


def without_ids(answer: httpx.Response, session_id: str) -> tuple[int, str]:
    """Return a response's status and text without the session's id, its own id, and times."""
    text = answer.text.replace(session_id, "SESSION")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "DELIVERY", text)
    return answer.status_code, re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


@pytest.mark.parametrize(("method", "path"), ROUTE_NEEDS)
def test_a_limited_key_sees_nothing_of_other_sessions_by_any_route(
    stack: Stack, limited: str, hidden: str, own_session: str, method: str, path: str
) -> None:
    answer = request_as(stack, limited, method, fill(path, hidden))
    assert WORD not in answer.text.replace(f"?q={WORD}", "")
    if "{session_id}" in path:
        nowhere = new_id("xchat")
        assert without_ids(answer, hidden) == without_ids(
            request_as(stack, limited, method, fill(path, nowhere)), nowhere
        )
        assert answer.status_code == 403
        own = request_as(stack, limited, method, fill(path, own_session))
        assert own.status_code in (200, 404)
        assert hidden not in own.text
        missing = request_as(stack, limited, method, fill(path, hidden.removeprefix("x")))
        assert missing.status_code == 404
        assert hidden not in missing.text.replace(hidden.removeprefix("x"), "")
    else:
        assert hidden not in answer.text
        chosen = request_as(stack, limited, method, fill(path, hidden), params={"session_id": hidden, "q": WORD})
        assert WORD not in chosen.text
        assert chosen.status_code in (401, 403, 404, 422)


@pytest.mark.parametrize("command", COMMAND_NEEDS)
def test_a_limited_key_sees_and_changes_nothing_of_other_sessions_by_any_command(
    stack: Stack, limited: str, hidden: str, own_session: str, command: str
) -> None:
    _, data = COMMAND_NEEDS[command]
    before = stack.client.get(f"/v1/sessions/{hidden}/events", params={"limit": 500}).json()["items"]

    def send(session_id: str | None, **more: Any) -> httpx.Response:
        return request_as(
            stack, limited, "POST", "/v1/webhook?wait=20", json=envelope(command, session_id, **data, **more)
        )

    answer, nowhere = send(hidden), new_id("xchat")
    assert answer.status_code == 403, answer.text
    assert without_ids(answer, hidden) == without_ids(send(nowhere), nowhere)
    inside = request_as(stack, limited, "POST", f"/v1/commands/{command}", json={"session_id": hidden, **data})
    assert inside.status_code == 403
    if COMMANDS[command].in_batch:
        item = {"command": command, "data": {**data, "session_id": hidden}}
        assert (
            request_as(stack, limited, "POST", "/v1/webhook", json=envelope("batch", None, commands=[item])).status_code
            == 403
        )
        both = request_as(stack, limited, "POST", "/v1/webhook", json=envelope("batch", own_session, commands=[item]))
        assert both.status_code == 422
    if COMMANDS[command].session == "optional":
        everywhere = send(None)
        assert everywhere.status_code in (200, 404), everywhere.text
        assert hidden not in everywhere.text
        assert WORD not in everywhere.text
    own = send(own_session)
    assert own.status_code != 401
    assert hidden not in own.text
    assert stack.client.get(f"/v1/sessions/{hidden}/events", params={"limit": 500}).json()["items"] == before


def test_a_limited_key_cannot_operate_the_relay(stack: Stack, limited: str) -> None:
    for method, path in (
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("DELETE", "/v1/keys/x"),
        ("GET", "/v1/refusals"),
        ("GET", "/v1/status"),
    ):
        answer = request_as(
            stack, limited, method, path, **({"json": {"name": "n", "scopes": ["admin"]}} if "POST" in method else {})
        )
        assert answer.status_code == 403, answer.text


def test_deliveries_of_other_keys_look_like_missing_ones(stack: Stack, keys: dict[str, str], hidden: str) -> None:
    receipt = stack.post("store_memory", hidden, key="k2", content=WORD, delivery_id=new_id("delivery"))
    stack.wait_until_drained()
    for wanted in (receipt["delivery_id"], "nothing"):
        answer = request_as(stack, keys["write"], "GET", f"/v1/deliveries/{wanted}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "delivery_not_found")
        other = request_as(stack, keys["write"], "GET", f"/v1/deliveries/{wanted}?source=default")
        assert other.status_code == 403
    listed = request_as(stack, keys["write"], "GET", "/v1/deliveries").json()["items"]
    assert "default" not in {item["source"] for item in listed}


def test_an_admin_of_some_sessions_sees_only_its_own_deliveries_without_a_session(stack: Stack, hidden: str) -> None:
    key = new_key(stack, scopes=["admin"], sessions="chat-*")
    wait_for(lambda: request_as(stack, key, "GET", "/v1/sessions").status_code == 200, seconds=5)
    answer = stack.client.post("/v1/commands/search", json={"q": WORD})
    assert WORD in answer.text
    theirs = answer.json()["delivery_id"]
    own = request_as(stack, key, "POST", "/v1/commands/list_sessions", json={}).json()["delivery_id"]
    assert request_as(stack, key, "GET", f"/v1/deliveries/{own}").status_code == 200
    for wanted in (theirs, "nothing"):
        told = request_as(stack, key, "GET", f"/v1/deliveries/{wanted}?source=default")
        assert (told.status_code, told.json()["error"]["code"]) == (404, "delivery_not_found"), told.text
    for status in ("", "applied", "rejected", "ignored", "accepted"):
        listed = request_as(stack, key, "GET", f"/v1/deliveries?limit=500&status={status}").json()["items"]
        assert own in [item["delivery_id"] for item in listed] or status not in ("", "applied")
        of_none = {item["source"] for item in listed if item["session_id"] is None}
        assert "default" not in of_none


def test_a_limited_key_counts_only_the_tasks_of_its_sessions(stack: Stack, limited: str) -> None:
    elsewhere, agent, kind = new_id("xchat"), new_id("agent"), new_id("kind")
    own_session = new_id("chat")
    stack.send("create_session", own_session, title="Ours")
    stack.send("create_session", elsewhere, title="Elsewhere")
    for number in range(3):
        for whom in ({"agent_name": agent}, {"task_type": kind}):
            stack.send("delegate_task", elsewhere, description=f"Task {number}", **whom)
    claimed = stack.client.post("/v1/tasks/claim", json={"agent_name": agent, "task_types": [new_id("none")]})
    assert claimed.status_code == 200
    for whom in ({"agent_name": agent}, {"task_type": kind}):
        for ahead in (0, 1):
            sent = envelope("delegate_task", own_session, description=f"Ours {new_id()}", **whom)
            answer = request_as(stack, limited, "POST", "/v1/webhook?wait=20", json=sent)
            assert answer.json()["data"]["ahead_in_queue"] == ahead, answer.text
            everywhere = stack.send("delegate_task", own_session, description=f"All {new_id()}", priority=-1, **whom)
            stack.send("cancel_task", own_session, task_id=everywhere["data"]["task_id"])
            assert everywhere["data"]["ahead_in_queue"] == ahead + (3 if "task_type" in whom else 2) + 1
    page = {"limit": "1", "cursor": agent[:-1]}
    [seen] = request_as(stack, limited, "GET", "/v1/agents", params=page).json()["items"]
    assert (seen["name"], seen["holding"], seen["holds"]) == (agent, 0, [])
    [seen] = stack.client.get("/v1/agents", params=page).json()["items"]
    assert (seen["holding"], len(seen["holds"])) == (1, 1)


@pytest.mark.parametrize("sender", ["secret", "delegate"])
def test_a_sender_without_read_access_learns_nothing_about_stored_data(
    stack: Stack, keys: dict[str, str], hidden: str, sender: str
) -> None:
    def send(command: str, session_id: str, **data: Any) -> httpx.Response:
        body = envelope(command, session_id, **data)
        if sender == "secret":
            return send_signed(stack, body, wait=20)
        return request_as(stack, keys["delegate"], "POST", "/v1/webhook?wait=20", json=body)

    answers = {
        "exists": send("delegate_task", hidden, task_id="t", description="Something else"),
        "missing": send("cancel_task", hidden, task_id="tt"),
        "similar": send("delegate_task", hidden[:-1], description="Anything"),
        "not asking": send("answer_task", hidden, task_id="t", answer="Yes"),
        "done": send("delegate_task", hidden, task_id=new_id("t"), description="Another one"),
        "batch": send(
            "batch",
            hidden,
            mode="partial",
            commands=[{"command": "cancel_task", "data": {"task_id": task_id}} for task_id in ("t9", "t")],
        ),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "exists": 409,
        "missing": 404,
        "similar": 404,
        "not asking": 409,
        "done": 200,
        "batch": 200,
    }
    for name, answer in answers.items():
        assert WORD not in answer.text, name
        assert hidden not in answer.text.replace(f'"session_id":"{hidden}"', ""), name
    assert answers["exists"].json()["error"]["code"] == "task_exists"
    assert answers["exists"].json()["data"] == {}
    assert answers["done"].json()["data"]["created"] is True
    told = [item["status"] for item in answers["batch"].json()["data"]["results"]]
    assert told == ["error", "success"]
    # The operator sees everything.
    delivery = answers["exists"].json()["delivery_id"]
    source = "signer" if sender == "secret" else None
    full = stack.client.get(f"/v1/deliveries/{delivery}", params={"source": source} if source else {})
    if source:
        assert WORD in full.text
    # Restore a task that the next sender can cancel.
    stack.send("delegate_task", hidden, task_id=new_id("t"), description=f"{WORD} once more", allow_duplicate=True)
