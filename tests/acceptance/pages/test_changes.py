"""What people change with the forms of the pages: each is a command, with its checks, and takes effect once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.pages.commands import SENT
from tests.support.clients.agents import Agent, task_of
from tests.support.clients.keys import new_key
from tests.support.clients.visitors import Visitor, fields_of, text_of
from tests.support.processes.stack import Stack, new_id, wait_for


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    """A person with all permissions."""
    return Visitor(stack)


def fill_in(visitor: Visitor, page: str, session_id: str, command: str, **fields: str) -> httpx.Response:
    """Send the form of a command on a page of the session."""
    action = f"/sessions/{session_id}/commands/{command}"
    hidden = fields_of(visitor.get(page), action)
    assert hidden, f"{page} has no form for {command}"
    return visitor.client.post(action, data={**hidden, **fields}, headers={"Origin": visitor.url})


def done(answer: httpx.Response) -> str:
    """Return where a form leads to that was accepted."""
    assert answer.status_code == 303, (answer.status_code, text_of(answer.text))
    return str(answer.headers["location"])


def memories_of(stack: Stack, session_id: str) -> list[dict[str, Any]]:
    """Return the memories of a session, the latest first."""
    items: list[dict[str, Any]] = stack.client.get(f"/v1/sessions/{session_id}/memories").json()["items"]
    return items


def test_a_person_starts_a_session(visitor: Visitor) -> None:
    hidden = fields_of(visitor.get("/"), "/sessions")
    title = f"Möbel & more {new_id()}"
    form = {**hidden, "title": title, "context": ""}
    place = done(visitor.client.post("/sessions", data=form, headers={"Origin": visitor.url}))
    assert f"<bdi>{title.replace('&', '&amp;')}</bdi>" in visitor.get(place)


def test_a_person_says_something_once(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page, action = f"/sessions/{session_id}", f"/sessions/{session_id}/commands/conversation_chunk"
    form = {**fields_of(visitor.get(page), action), "content": "Ana: one <b>word</b>\r\nand another"}
    for _ in range(2):
        assert done(visitor.client.post(action, data=form, headers={"Origin": visitor.url})) == page
    done(visitor.client.post(action, data={**form, "content": "corrected"}, headers={"Origin": visitor.url}))
    said = [chunk["content"] for chunk in stack.client.get(f"/v1/sessions/{session_id}/transcript").json()["items"]]
    assert said == ["Ana: one <b>word</b>\r\nand another", "corrected"]


def test_a_person_adds_memories_and_marks_them_as_done(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page = f"/sessions/{session_id}/memories"
    fields = {"content": "Call the installer", "type": "action_item", "tags": "roof,  this week ,", "due": "2030-01-31"}
    assert done(fill_in(visitor, page, session_id, "store_memory", **fields)) == page
    [memory] = memories_of(stack, session_id)
    assert (memory["content"], memory["type"], memory["tags"]) == (
        fields["content"],
        "action_item",
        ["roof", "this week"],
    )
    assert (memory["due"], memory["status"]) == ("2030-01-31", "open")
    own = f"/sessions/{session_id}/memories/{memory['key']}"
    done(fill_in(visitor, own, session_id, "store_memory"))
    assert memories_of(stack, session_id)[0]["status"] == "done"
    assert "Open again" in visitor.get(own)
    done(fill_in(visitor, own, session_id, "store_memory"))
    assert memories_of(stack, session_id)[0]["status"] == "open"


def test_a_person_delegates_answers_and_cancels(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page = f"/sessions/{session_id}/tasks"
    agent = Agent(stack)
    agent.register(max_concurrent=2)
    for title in ("Ask me", "Never mind"):
        fields = {"description": "Find it out", "title": title, "agent_name": agent.name}
        assert done(fill_in(visitor, page, session_id, "delegate_task", **fields)) == page
    task = agent.claim()
    agent.perform(task, "ask", question="Which of the two?")
    assert "Which of the two?" in visitor.get(page)
    own = f"{page}/{task['task_id']}"
    assert done(fill_in(visitor, own, session_id, "answer_task", answer="The second")) == own
    again = agent.claim()
    assert (again["task_id"], again["questions"][-1]["answer"]) == (task["task_id"], "The second")
    fill_in(visitor, own, session_id, "cancel_task", reason="Too late")
    assert task_of(stack, session_id, task["task_id"])["cancel_reason"] == "Too late"
    assert "Too late" in visitor.get(own)


def test_a_person_renames_pauses_resumes_and_completes(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page = f"/sessions/{session_id}"

    def state() -> tuple[str, str]:
        session = stack.client.get(f"/v1/sessions/{session_id}").json()
        return session["title"], session["status"]

    fill_in(visitor, page, session_id, "rename_session", title="Evening walk")
    fill_in(visitor, page, session_id, "pause_session")
    assert state() == ("Evening walk", "paused")
    assert "Say something" not in visitor.get(page)
    fill_in(visitor, page, session_id, "resume_session")
    stack.send("delegate_task", session_id, description="Walk", agent_name="nobody-at-all")
    refused = fill_in(visitor, page, session_id, "complete_session")
    assert (refused.status_code, "1 open task" in text_of(refused.text)) == (409, True)
    assert "no-store" in refused.headers["cache-control"]
    done(fill_in(visitor, page, session_id, "complete_session", open_tasks="cancel"))
    assert state() == ("Evening walk", "completed")


def test_what_is_refused_is_shown_again_so_that_it_is_not_lost(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page = f"/sessions/{session_id}/memories"
    answer = fill_in(visitor, page, session_id, "store_memory", content="Long </textarea> thought", due="someday")
    assert answer.status_code == 422
    assert "Long </textarea> thought" in text_of(answer.text)
    assert f'href="{page}"' in answer.text
    assert memories_of(stack, session_id) == []


def test_a_session_is_exported_as_by_the_api(stack: Stack, visitor: Visitor, session_id: str) -> None:
    stack.send("conversation_chunk", session_id, content="Ana: <b>hello</b>")
    page = visitor.get(f"/sessions/{session_id}")
    for form, ending in (("markdown", "md"), ("json", "json")):
        path = f"/sessions/{session_id}/export" + ("" if form == "json" else f"?format={form}")
        assert f'href="{path}" download' in page
        file, expected = (client.get(url) for client, url in ((visitor.client, path), (stack.client, f"/v1{path}")))
        assert (file.status_code, file.content) == (200, expected.content)
        assert file.headers["content-disposition"] == f'attachment; filename="{session_id}.{ending}"'
        assert file.headers["cache-control"] == "no-store"
    other = new_key(stack, scopes=["read"], sessions="other-*")
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": other}).status_code == 200)
    assert Visitor(stack, other).client.get(f"/sessions/{session_id}/export").status_code == 403


def test_a_session_is_deleted_by_typing_its_name(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page, action = f"/sessions/{session_id}", f"/sessions/{session_id}/delete"
    stack.send("rename_session", session_id, title="Mo\u0308bel \u202e & more")
    hidden = fields_of(visitor.get(page), action)

    def delete(visitor: Visitor, name: str) -> httpx.Response:
        return visitor.client.post(action, data={**hidden, "name": name}, headers={"Origin": visitor.url})

    for name in ("", "Walk", "Möbel"):
        refused = delete(visitor, name)
        assert (refused.status_code, "Nothing was deleted" in refused.text) == (409, True), name
    assert visitor.get(page)
    writer = new_key(stack, scopes=["write"])
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": writer}).status_code == 200)
    other = Visitor(stack, writer)
    assert action not in other.get(page)
    assert other.post(action, name=session_id).status_code == 403
    assert visitor.post(action, name=session_id, origin="https://evil.example").status_code == 403
    assert visitor.get(page)
    assert done(delete(visitor, " Möbel  & more ")) == "/"
    assert stack.client.get(f"/v1{page}").status_code == 404
    assert "<h1>Not found</h1>" in visitor.get(page, status=404)


@pytest.mark.parametrize("command", ["delete_session", "delete_memory", "batch", "search", "nothing", "complete_task"])
def test_no_other_command_can_be_sent(visitor: Visitor, session_id: str, command: str) -> None:
    assert command not in SENT
    answer = visitor.post(f"/sessions/{session_id}/commands/{command}", confirm=session_id, key="k", q="x")
    assert answer.status_code == 404
    assert "Walk" in visitor.get(f"/sessions/{session_id}")


@pytest.mark.parametrize("fields", [{"session_id": "other"}, {"id": "stolen"}, {"x": "y"}], ids=str)
def test_a_form_cannot_choose_another_session_or_delivery(
    stack: Stack, visitor: Visitor, session_id: str, fields: dict[str, str]
) -> None:
    other = new_id("other")
    stack.send("create_session", other, title="Other")
    fields = {name: other if value == "other" else value for name, value in fields.items()}
    visitor.post(f"/sessions/{session_id}/commands/store_memory", content="mine", key="k", **fields)
    assert memories_of(stack, other) == []
    assert stack.client.get("/v1/deliveries/stolen").status_code == 404


def test_changes_need_the_scope_and_the_pages_offer_no_others(stack: Stack, session_id: str) -> None:
    stack.send("delegate_task", session_id, task_id="t", description="Walk", agent_name="nobody-at-all")
    stack.send("store_memory", session_id, key="k", type="question", content="Where?")
    commands = {}
    for scope in ("read", "write"):
        key = new_key(stack, scopes=[scope])
        wait_for(lambda key=key: stack.client.get("/v1/sessions", headers={"X-API-Key": key}).status_code == 200)  # type: ignore[misc]
        visitor = Visitor(stack, key)
        pages = "".join(
            visitor.get(f"/sessions/{session_id}{part}") for part in ("", "/memories", "/tasks", "/tasks/t")
        )
        commands[scope] = {name for name in SENT if f"/commands/{name}" in pages}
        for name in SENT - commands[scope] - {"create_session", "resume_session", "add_artifact"}:
            fields = {"content": "x", "title": "x", "description": "x", "task_id": "t", "answer": "x"}
            answer = visitor.post(f"/sessions/{session_id}/commands/{name}", **fields)
            assert answer.status_code in (403, 422), (scope, name)
    assert commands["read"] == set()
    assert commands["write"] == {
        *("rename_session", "pause_session", "complete_session", "conversation_chunk", "store_memory")
    }
    assert task_of(stack, session_id)["status"] == "pending"


def test_a_post_from_another_site_changes_nothing(stack: Stack, visitor: Visitor, session_id: str) -> None:
    page = f"/sessions/{session_id}"
    action = f"{page}/commands/conversation_chunk"
    form = {**fields_of(visitor.get(page), action), "content": "forged"}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Origin": visitor.url}):
        assert visitor.client.post(action, data=form, headers=headers).status_code == 403
    assert visitor.post(action, token="x", content="forged").status_code == 403
    assert stack.client.get(f"/v1/sessions/{session_id}/transcript").json()["items"] == []
