"""The pages for operators: deliveries, dead letters and keys, for those whose keys permit it."""

from __future__ import annotations

import re

import httpx
import pytest
from sqlalchemy import Engine

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
    assert '"secret": 0' in shown
    assert post(visitor, f"/dead-letters/{second}", f"/dead-letters/{second}/discard").status_code == 303
    wait_for(lambda: status_of(stack, second) == "rejected", what="discarded")
    remove_cause(engine)
    assert post(visitor, own, f"{own}/replay").headers["location"] == "/dead-letters"
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
        reader: ["/dead-letters", "/dead-letters/x", "/keys"],
        limited: ["/keys", "/deliveries?session_id=other", "/dead-letters?session_id=other"],
    }
    for key, paths in refused.items():
        visitor = Visitor(stack, key)
        assert 'href="/keys"' not in visitor.get("/")
        token = visitor.form_token()
        for path in paths:
            assert "<h1>Not allowed</h1>" in visitor.get(path, status=403), path
        for path in ("/keys", "/keys/key_0/revoke"):
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
