"""The pages for operators: deliveries, dead letters and keys, for those whose keys permit it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, insert, select

from models.queue.inbox import shard_of
from models.tables import DELIVERIES
from sessions.postgres.commands.locks import SHARD_LOCK
from tests.support.clients.agents import Agent
from tests.support.clients.dead_letters import dead_letters_in, remove_cause, send_poison, status_of
from tests.support.clients.keys import new_key
from tests.support.clients.visitors import Visitor, fields_of, text_of
from tests.support.processes.browser import Browser
from tests.support.processes.stack import Stack, new_id, new_word, wait_for
from tests.support.project import API_KEY


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    """A person with all permissions."""
    return Visitor(stack)


def post(visitor: Visitor, page: str, action: str, **fields: str) -> httpx.Response:
    """Send a form of a page."""
    hidden = fields_of(visitor.get(page), action)
    assert hidden, f"{page} has no form for {action}"
    return visitor.client.post(action, data={**hidden, **fields}, headers={"Origin": visitor.url})


def works(stack: Stack, key: str) -> bool:
    """Return whether the relay accepts a key."""
    return stack.client.get("/v1/sessions", headers={"X-API-Key": key}).status_code == 200


def test_deliveries_are_listed_by_status(stack: Stack, visitor: Visitor, session_id: str) -> None:
    word = new_word("rejected")
    assert stack.try_send("answer_task", session_id, task_id=word, answer="x").status_code == 404
    page = text_of(visitor.get(f"/deliveries?session_id={session_id}"))
    assert re.search(r"rejected answer_task default .* applied create_session default", page)
    assert "create_session" not in text_of(visitor.get(f"/deliveries?session_id={session_id}&status=rejected"))
    assert visitor.client.get("/deliveries?status=asleep").status_code == 422


def test_deliveries_are_filtered_by_session_sender_and_time(stack: Stack, visitor: Visitor, session_id: str) -> None:
    name = new_id("sender")
    key = new_key(stack, name=name, scopes=["write"])
    wait_for(lambda: works(stack, key))
    memory = {"session_id": session_id, "content": "x"}
    stack.client.post("/v1/commands/store_memory", json=memory, headers={"X-API-Key": key})
    shown = text_of(visitor.get(f"/deliveries?session_id={session_id}&source={name}&status=&since=1h&until="))
    assert ("store_memory" in shown, "create_session" in shown) == (True, False)

    def found(parameters: str) -> list[dict[str, Any]]:
        answer = stack.client.get(f"/v1/deliveries?session_id={session_id}&{parameters}").json()
        items: list[dict[str, Any]] = answer["items"]
        return items

    assert len(found("since=1h")) == len(found("until=2999-01-01")) == 2
    assert found("until=1h") == found("since=2999-01-01") == found("status=accepted&since=2999-01-01") == []
    [first] = found("limit=1")
    assert [item["delivery_id"] for item in found(f"since={first['decided_at']}")] == [first["delivery_id"]]
    for period in ("since=1h", "until=2999-01-01", "since=1h&until=2999-01-01"):
        answer = stack.client.get(f"/v1/deliveries?session_id={session_id}&{period}&limit=1").json()
        [second] = found(f"{period}&limit=1&cursor={answer['next_cursor']}")
        assert [item["delivery_id"] for item in (*answer["items"], second)] == [
            item["delivery_id"] for item in found(period)
        ]
        assert stack.client.get(f"/v1/deliveries?cursor={answer['next_cursor']}").json()["error"]["field"] == "cursor"
    assert stack.client.get("/v1/deliveries?since=someday").json()["error"]["field"] == "since"
    page = visitor.get(f"/deliveries?session_id={session_id}&since=1h")
    assert f'href="/deliveries?session_id={session_id}&amp;since=1h&amp;status=rejected"' in page


def test_a_delivery_tells_its_story(stack: Stack, visitor: Visitor, session_id: str) -> None:
    own = stack.send("store_memory", session_id, key="k", content="<b>secret</b> content")["delivery_id"]
    page = text_of(visitor.get(f"/deliveries/{own}"))
    order = ["store_memory applied", "Accepted", "from default", session_id, "later", "In the journal", "Answered"]
    assert sorted(order, key=page.index) == order
    assert stack.journal(session_id)[-1]["message"] in page
    rejected = stack.try_send("answer_task", session_id, task_id="none", answer="x").json()["delivery_id"]
    page = text_of(visitor.get(f"/deliveries/{rejected}?source=default"))
    assert re.search("answer_task rejected .* Rejected .*only the sender can send it again.*task_not_found", page)
    assert visitor.client.get(f"/deliveries/{new_id('none')}").status_code == 404
    other = new_key(stack, scopes=["admin"], sessions="other-*")
    wait_for(lambda: works(stack, other))
    assert Visitor(stack, other).client.get(f"/deliveries/{own}?source=default").status_code == 404


def test_a_failed_delivery_without_a_session_is_shown_to_its_limited_key(stack: Stack, engine: Engine) -> None:
    name = new_id("limited")
    key = new_key(stack, name=name, scopes=["admin"], sessions=f"{name}-*")
    wait_for(lambda: works(stack, key))
    now = datetime.now(UTC)
    fields = {"source": name, "delivery_id": "failed-1", "hash": "0", "status": "failed", "command": "search"}
    times = {"accepted_at": now, "decided_at": now, "http_status": 500}
    with engine.begin() as connection:
        connection.execute(insert(DELIVERIES).values(**fields, **times))
    visitor = Visitor(stack, key)
    assert "failed-1" in visitor.get("/deliveries")
    page = text_of(visitor.get("/deliveries/failed-1"))
    assert re.search(f"search failed .* Accepted .* from {name}.* Failed", page)
    assert "Replay" not in page


def test_what_waits_is_shown_with_its_shard_and_since_when(
    stack: Stack, visitor: Visitor, session_id: str, engine: Engine
) -> None:
    shard = shard_of(session_id)
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(SHARD_LOCK, shard)))
        own = stack.post("store_memory", session_id, content="x")["delivery_id"]
        assert f"Waits In shard {shard:02d}" in text_of(visitor.get(f"/deliveries/{own}"))
        page = text_of(visitor.get("/status"))
        assert re.search(rf"command waits .* {shard:02d} 1 \d+ \w+ \d{{4}}, \d\d:\d\d UTC , [\d.e-]+ s ", page)
        page = text_of(visitor.get("/deliveries?status=accepted"))
        assert (own in page, "More wait" in page) == (True, False)
        stack.post("store_memory", session_id, content="y")
        assert "More wait than are shown here." in text_of(visitor.get("/deliveries?status=accepted&limit=1"))
    wait_for(lambda: "In the journal" in visitor.get(f"/deliveries/{own}"), what="applied")


def test_the_status_shows_the_throughput_of_the_last_hour(stack: Stack, visitor: Visitor, session_id: str) -> None:
    def figures() -> list[int]:
        page = text_of(visitor.get("/status"))
        found = re.search(r"accepted ([\d,]+) applied ([\d,]+) rejected ([\d,]+) failed", page)
        return [int(number.replace(",", "")) for number in found.groups()] if found else []

    wait_for(figures, what="a second sample")
    before = figures()
    for number in range(5):
        stack.send("store_memory", session_id, key=f"k{number}", content="x")
    stack.try_send("answer_task", session_id, task_id="none", answer="x")
    # What came before may be counted late.
    wait_for(lambda: all(a >= b + n for a, b, n in zip(figures(), before, (6, 5, 1), strict=True)), what="counted")
    page = visitor.get("/status")
    assert '<rect class="applied"' in page
    assert "Nothing: all that was accepted has been decided." in page


def test_refusals_are_listed_by_cause(stack: Stack, visitor: Visitor) -> None:
    pattern = r"400 not JSON .* POST /v1/webhook by default from 127\.\S+ not_json 1 bytes"

    def is_listed() -> bool:
        """Send another one each time: of many refused requests in a second, not all are recorded."""
        stack.client.post("/v1/webhook", content=b"{", headers={"Content-Type": "application/json"})
        return bool(re.search(pattern, text_of(visitor.get("/refusals?cause=not_json"))))

    wait_for(is_listed, what="recorded")
    assert re.search(r"all .* not JSON [1-9]", text_of(visitor.get("/refusals")))
    assert "not_json" not in text_of(visitor.get("/refusals?cause=rate"))
    assert visitor.client.get("/refusals?cause=nothing").status_code == 422


def test_agents_are_listed_with_the_tasks_they_hold(stack: Stack, visitor: Visitor, session_id: str) -> None:
    agent = Agent(stack)
    agent.register(max_concurrent=3)
    stack.send("delegate_task", session_id, task_id="held", description="Walk", agent_name=agent.name)
    agent.claim()
    page = text_of(visitor.get("/agents?limit=500"))
    assert re.search(rf"{agent.name} online .* holds 1 of 3 tasks .* held in {session_id}, since", page)
    limited = new_key(stack, scopes=["read"], sessions="other-*")
    wait_for(lambda: works(stack, limited))
    assert session_id not in Visitor(stack, limited).get("/agents?limit=500")


def test_a_hook_is_created_shown_once_and_revoked(stack: Stack, visitor: Visitor, session_id: str) -> None:
    name = new_id("railway")
    made = post(visitor, "/hooks", "/hooks", name=name, sessions=session_id)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    found = re.search(rf"{stack.url}(/v1/hooks/srh_\w{{40}})", made.text)
    assert found
    wait_for(lambda: httpx.post(found[0], json={"text": "deployed"}).status_code == 202, what="usable")
    wait_for(lambda: "deployed" in visitor.get(f"/sessions/{session_id}/memories"), what="remembered")
    page = visitor.get("/hooks")
    assert found[1] not in page
    assert re.search(rf"{name} into {session_id} ", text_of(page))
    assert name not in visitor.get("/keys")
    key_id = next(entry["key_id"] for entry in stack.client.get("/v1/keys").json()["items"] if entry["name"] == name)
    assert post(visitor, "/hooks", f"/keys/{key_id}/revoke").headers["location"] == "/hooks"
    wait_for(lambda: httpx.post(found[0], json={}).status_code == 404, what="revoked")
    assert f"{name} revoked" in text_of(visitor.get("/hooks"))
    assert post(visitor, "/hooks", "/hooks", name=new_id("any"), sessions="*").status_code == 422


def test_a_dead_letter_is_shown_replayed_or_discarded(
    stack: Stack, visitor: Visitor, engine: Engine, poisoned: str
) -> None:
    first, second = send_poison(stack, poisoned, 2)
    page = text_of(visitor.get(f"/dead-letters?session_id={poisoned}"))
    reason = " ".join(dead_letters_in(stack, poisoned)[0]["reason"].split())
    assert (first in page, second in page, page.count(reason)) == (True, True, 2)
    own = f"/dead-letters/{first}"
    shown = text_of(visitor.get(f"{own}?source=default"))
    assert "Traceback" in shown
    assert '{ "secret" : 0 }' in shown
    assert post(visitor, f"/dead-letters/{second}", f"/dead-letters/{second}/discard").status_code == 303
    wait_for(lambda: status_of(stack, second) == "rejected", what="discarded")
    remove_cause(engine)
    story = f"/deliveries/{first}?source=default"
    assert re.search(
        "Accepted .* Failed .* Replay Discard .*Its content, and the traceback", text_of(visitor.get(story))
    )
    assert post(visitor, story, f"{own}/replay").headers["location"] == story
    wait_for(lambda: status_of(stack, first) == "applied", what="replayed")
    assert dead_letters_in(stack, poisoned) == []


def test_a_key_is_created_shown_once_and_revoked(stack: Stack, visitor: Visitor) -> None:
    name = new_id("phone")
    fields = {"name": name, "scope_read": "1", "scope_write": "1", "sessions": "chat-*"}
    made = post(visitor, "/keys", "/keys", **fields)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    found = re.search(r"srk_\w{40}", made.text)
    assert found
    key = found[0]
    wait_for(lambda: works(stack, key), what="usable")
    page = visitor.get("/keys")
    assert key not in page
    assert f"{name} read, write in chat-*" in text_of(page)
    key_id = next(entry["key_id"] for entry in stack.client.get("/v1/keys").json()["items"] if entry["name"] == name)
    assert post(visitor, "/keys", f"/keys/{key_id}/revoke").headers["location"] == "/keys"
    wait_for(lambda: not works(stack, key), what="revoked")
    assert f"{name} revoked" in text_of(visitor.get("/keys"))


@pytest.mark.parametrize("fields", [{"name": "a b"}, {"name": ""}, {}, {"sessions": "a b"}], ids=str)
def test_an_invalid_key_is_refused(visitor: Visitor, fields: dict[str, str]) -> None:
    answer = post(visitor, "/keys", "/keys", **{"name": new_id("new"), **fields})
    assert answer.status_code == 422
    assert "srk_" not in answer.text


def test_operating_needs_the_scope_and_all_sessions(stack: Stack) -> None:
    prefix = new_id("own")
    reader = new_key(stack, scopes=["write", "delegate"])
    limited = new_key(stack, scopes=["admin"], sessions=f"{prefix}-*")
    wait_for(lambda: works(stack, reader) and works(stack, limited))
    refused = {
        reader: ["/dead-letters", "/dead-letters/x", "/keys", "/hooks", "/refusals"],
        limited: [
            "/keys",
            "/hooks",
            "/refusals",
            "/status",
            "/deliveries?session_id=other",
            "/dead-letters?session_id=other",
        ],
    }
    for key, paths in refused.items():
        visitor = Visitor(stack, key)
        assert 'href="/keys"' not in visitor.get("/")
        token = visitor.form_token()
        for path in paths:
            assert "<h1>Not allowed</h1>" in visitor.get(path, status=403), path
        for path in ("/keys", "/hooks", "/keys/key_0/revoke"):
            answer = visitor.post(path, token=token, name=new_id("new"), scope_read="1")
            assert (answer.status_code, "srk_" in answer.text) == (403, False), path
    visitor = Visitor(stack, reader)
    assert visitor.post("/dead-letters/x/replay").status_code == 403
    assert "API_KEY" not in visitor.get("/deliveries")


def test_an_operator_replays_and_revokes_in_a_browser(
    stack: Stack, browser: Browser, engine: Engine, poisoned: str
) -> None:
    [letter] = send_poison(stack, poisoned, 1)
    name = new_id("tablet")
    key = new_key(stack, name=name, scopes=["read"])
    wait_for(lambda: works(stack, key))
    remove_cause(engine)
    browser.show_as(width=390)
    browser.open(f"{stack.url}/dead-letters?session_id={poisoned}")
    browser.wait_for("document.querySelector('#key')")
    browser.run(f"document.querySelector('#key').value = '{API_KEY}'; document.querySelector('button.main').click()")
    browser.wait_for(
        f"document.querySelector('h1')?.innerText === 'Dead letters' && document.body.innerText.includes('{letter}')"
    )
    browser.run(f"[...document.querySelectorAll('a')].find((link) => link.innerText === '{letter}').click()")
    browser.wait_for("document.querySelector('button.main')?.innerText === 'Replay'")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.run("document.querySelector('button.main').click()")
    wait_for(lambda: status_of(stack, letter) == "applied", what="replayed")
    browser.wait_for("document.querySelector('h1')?.innerText === 'Dead letters'")
    browser.open(f"{stack.url}/keys")
    card = f"[...document.querySelectorAll('li.card')].find((card) => card.querySelector('h2').innerText === '{name}')"
    browser.wait_for(f"document.querySelector('h1')?.innerText === 'Keys' && {card}")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.run(f"{card}.querySelector('summary').click(); {card}.querySelector('.danger button').click()")
    wait_for(lambda: not works(stack, key), what="revoked")
    assert [text for text in browser.complaints if "401" not in text] == []
