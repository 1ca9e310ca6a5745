"""Responses to senders: repeats, conflicts, states, revisions, batches, deletes, and messages."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.support.clients.refusals import refused
from tests.support.processes.stack import Payload, Stack, envelope, new_id, new_word, wait_for


def memories(stack: Stack, session_id: str) -> dict[str, Any]:
    """Return the memories of a session by key."""
    remembered: dict[str, Any] = {}
    query = {"limit": "500"}
    while True:
        page = stack.client.get(f"/v1/sessions/{session_id}/memories", params=query).json()
        remembered |= {item["key"]: item["content"] for item in page["items"]}
        if page["next_cursor"] is None:
            return remembered
        query["cursor"] = page["next_cursor"]


class TestRepeats:
    CREATING = (
        ("conversation_chunk", {"chunk_id": "c", "content": "one", "extracted_items": {"ideas": ["x"]}}),
        ("store_memory", {"key": "k", "type": "idea", "content": {"a": 1, "b": 2}, "tags": ["t"]}),
        ("delegate_task", {"task_id": "t", "description": "do it", "input_data": {"x": 1}}),
        ("add_artifact", {"artifact_id": "a", "name": "n", "content": ["x"], "metadata": {"m": 1}}),
    )

    @pytest.mark.parametrize(("command", "data"), CREATING)
    def test_a_repeated_command_has_no_second_effect(
        self, stack: Stack, session_id: str, command: str, data: Payload
    ) -> None:
        first = stack.send(command, session_id, **data)["data"]
        before = stack.client.get(f"/v1/sessions/{session_id}").json()
        second = stack.send(command, session_id, **data)["data"]
        assert (first.pop("created"), second.pop("created")) == (True, False)
        assert first == second
        assert stack.client.get(f"/v1/sessions/{session_id}").json() == before

    @pytest.mark.parametrize(("command", "data"), CREATING)
    def test_repeats_without_an_id_are_recognized_by_content(
        self, stack: Stack, session_id: str, command: str, data: Payload
    ) -> None:
        content = {
            name: value for name, value in data.items() if name not in ("chunk_id", "key", "task_id", "artifact_id")
        }
        first, second = (stack.send(command, session_id, **content)["data"] for _ in range(2))
        assert (first.pop("created"), second.pop("created")) == (True, False)
        assert first == second

    def test_a_session_created_again_is_the_same_session(self, stack: Stack) -> None:
        title = f"Solar roof {secrets.token_hex(4)}"
        first, second = (stack.send("create_session", title=title, participants=["Anna"]) for _ in range(2))
        assert first["session_id"] == second["session_id"]
        assert first["session_id"].startswith("solar-roof-")
        assert (first["data"]["created"], second["data"]["created"]) == (True, False)
        assert second["data"]["created_at"] == first["data"]["created_at"]

    def test_a_repeated_delivery_gets_the_first_response(self, stack: Stack, session_id: str) -> None:
        body = envelope("store_memory", session_id, key="k", content="once") | {"id": new_id("delivery"), "sync": True}
        first, second = (stack.client.post("/v1/webhook", json=body) for _ in range(2))
        assert first.json() == second.json()
        assert second.json()["data"]["created"] is True
        assert len(stack.journal(session_id)) == 2


class TestConflicts:
    @pytest.mark.parametrize(
        ("command", "id_name", "content", "code"),
        [
            ("conversation_chunk", "chunk_id", {"content": "one"}, "chunk_exists"),
            ("delegate_task", "task_id", {"description": "one"}, "task_exists"),
        ],
    )
    def test_other_content_under_an_id_is_refused_with_the_stored_one(
        self, stack: Stack, session_id: str, command: str, id_name: str, content: Payload, code: str
    ) -> None:
        stack.send(command, session_id, **{id_name: "x"}, **content)
        other = dict.fromkeys(content, "other")
        answer = stack.try_send(command, session_id, **{id_name: "x"}, **other)
        error = refused(answer, 409, code)
        assert error["field"] == f"data.{id_name}"
        assert id_name in error["hint"]
        assert answer.json()["data"][id_name] == "x"
        assert "other" not in str(answer.json()["data"])
        assert stack.send(command, session_id, **{id_name: "x"}, **content)["data"]["created"] is False

    def test_ids_are_unique_within_their_session_only(self, stack: Stack, session_id: str) -> None:
        other = new_id("answers")
        stack.send("create_session", other, title="Another")
        for session, description in ((session_id, "do this"), (other, "do that")):
            stack.send("delegate_task", session, task_id="task_001", description=description)
            stack.send("add_artifact", session, artifact_id="a", name=description, content=description)
        for session, description in ((session_id, "do this"), (other, "do that")):
            task = stack.send("get_task", session, task_id="task_001")["data"]["task"]
            artifact = stack.send("get_artifact", session, artifact_id="a")["data"]["artifact"]
            assert (task["description"], artifact["content"]) == (description, description)

    def test_another_session_under_an_id_is_refused_with_the_stored_one(self, stack: Stack, session_id: str) -> None:
        answer = stack.try_send("create_session", session_id, title="Something else")
        assert refused(answer, 409, "session_exists")["field"] == "session_id"
        assert answer.json()["data"]["title"] == "Walk"
        assert stack.client.get(f"/v1/sessions/{session_id}").json()["title"] == "Walk"

    @pytest.mark.parametrize("wait", ["0", "30"])
    def test_a_delivery_id_with_other_content_is_refused(self, stack: Stack, session_id: str, wait: str) -> None:
        headers = {"Idempotency-Key": new_id("delivery")}
        first = envelope("store_memory", session_id, key="k", content="first")
        other = envelope("store_memory", session_id, key="k", content="other")
        assert stack.client.post(f"/v1/webhook?wait={wait}", json=first, headers=headers).status_code in (200, 202)
        error = refused(
            stack.client.post(f"/v1/webhook?wait={wait}", json=other, headers=headers), 409, "delivery_conflict"
        )
        assert "new id" in error["hint"]
        stack.wait_until_drained()
        assert memories(stack, session_id) == {"k": "first"}


class TestStates:
    CHANGES = (
        ("rename_session", {"title": "New"}),
        ("conversation_chunk", {"content": "late"}),
        ("store_memory", {"content": "late"}),
        ("delete_memory", {"key": "k"}),
        ("delegate_task", {"description": "late"}),
        ("answer_task", {"task_id": "t", "answer": "late"}),
        ("add_artifact", {"name": "late", "content": "late"}),
        ("batch", {"commands": [{"command": "store_memory", "data": {"content": "late"}}]}),
    )

    @pytest.mark.parametrize("state", ["paused", "completed"])
    def test_an_inactive_session_can_be_read_but_not_changed(self, stack: Stack, session_id: str, state: str) -> None:
        stack.send("store_memory", session_id, key="k", content="kept")
        stack.send("delegate_task", session_id, task_id="t", description="do it")
        how = {} if state == "paused" else {"open_tasks": "cancel"}
        ending = stack.send("pause_session" if state == "paused" else "complete_session", session_id, **how)
        assert ending["data"]["status"] == state
        for command, data in self.CHANGES:
            error = refused(stack.try_send(command, session_id, **data), 409, f"session_{state}")
            assert "resume_session" in error["hint"]
        memory = stack.send("retrieve_memory", session_id, key="k")["data"]["memory"]
        assert memory["content"] == "kept"
        summary = stack.send("get_session_summary", session_id)["data"]
        assert (summary["status"], summary["stats"]["memories"], summary["stats"]["tasks"]) == (state, 1, 1)
        assert stack.send("resume_session", session_id)["data"]["status"] == "active"
        assert stack.send("store_memory", session_id, key="k", content="changed")["data"]["revision"] == 2

    def test_a_task_can_be_cancelled_while_paused_and_not_when_completed(self, stack: Stack, session_id: str) -> None:
        for task_id in ("first", "second"):
            stack.send("delegate_task", session_id, task_id=task_id, description=f"do the {task_id}")
        stack.send("pause_session", session_id)
        cancelled = stack.send("cancel_task", session_id, task_id="first", reason="too late")["data"]
        assert cancelled["status"] == "cancelled"
        error = refused(stack.try_send("complete_session", session_id), 409, "open_tasks")
        assert "do the second" in error["message"]
        completed = stack.send("complete_session", session_id, open_tasks="cancel")
        assert completed["data"]["cancelled_tasks"] == 1
        refused(stack.try_send("cancel_task", session_id, task_id="third"), 409, "session_completed")
        refused(stack.try_send("pause_session", session_id), 409, "session_completed")

    @pytest.mark.parametrize("command", ["pause_session", "complete_session", "resume_session"])
    def test_setting_the_same_state_changes_nothing(self, stack: Stack, session_id: str, command: str) -> None:
        first, second = (stack.send(command, session_id)["data"] for _ in range(2))
        assert first == second

    def test_the_list_can_be_filtered_by_state(self, stack: Stack, session_id: str) -> None:
        def listed(state: str) -> bool:
            sessions = stack.send("list_sessions", filter=state, limit=500)["data"]["sessions"]
            assert all(state in ("all", session["status"]) for session in sessions)
            return session_id in [session["session_id"] for session in sessions]

        stack.send("pause_session", session_id)
        assert [listed(state) for state in ("all", "active", "paused", "completed")] == [True, False, True, False]

    def test_an_unknown_session_is_named_and_not_created(self, stack: Stack, session_id: str) -> None:
        misspelt = session_id + "x"
        error = refused(stack.try_send("store_memory", misspelt, content="lost?"), 404, "session_not_found")
        assert error["field"] == "session_id"
        assert repr(session_id) in error["hint"]
        assert "create_session" in error["hint"]
        assert stack.client.get(f"/v1/sessions/{misspelt}").status_code == 404


class TestRevisions:
    def test_new_content_is_a_new_revision_and_old_ones_stay_readable(self, stack: Stack, session_id: str) -> None:
        contents: list[Any] = ["first", {"second": 2}, ["third"]]
        for number, content in enumerate(contents, start=1):
            stored = stack.send("store_memory", session_id, key="k", type="fact", content=content)["data"]
            assert (stored["revision"], stored["created"]) == (number, number == 1)
        for number, content in enumerate(contents, start=1):
            memory = stack.send("retrieve_memory", session_id, key="k", revision=number)["data"]["memory"]
            assert (memory["revision"], memory["content"], memory["type"]) == (number, content, "fact")
        assert stack.send("retrieve_memory", session_id, key="k")["data"]["memory"]["content"] == ["third"]
        error = refused(stack.try_send("retrieve_memory", session_id, key="k", revision=4), 404, "memory_not_found")
        assert "revision 4" in error["message"]
        assert stack.send("get_session_summary", session_id)["data"]["stats"]["memories"] == 1

    def test_omitted_fields_stay_unchanged(self, stack: Stack, session_id: str) -> None:
        stack.send("store_memory", session_id, key="k", type="question", content="why?", tags=["a"])
        stack.send("store_memory", session_id, key="k", content="why not?")
        assert (
            stack.send("store_memory", session_id, key="k", content="why not?", status="done")["data"]["revision"] == 3
        )
        memory = stack.send("retrieve_memory", session_id, key="k")["data"]["memory"]
        assert (memory["type"], memory["tags"], memory["status"]) == ("question", ["a"], "done")
        assert (memory["revision"], memory["content"]) == (3, "why not?")

    def test_if_revision_lets_only_the_first_of_two_writes_through(self, stack: Stack, session_id: str) -> None:
        assert stack.send("store_memory", session_id, key="k", content=0, if_revision=0)["data"]["revision"] == 1
        assert stack.send("store_memory", session_id, key="k", content=1, if_revision=1)["data"]["revision"] == 2
        answer = stack.try_send("store_memory", session_id, key="k", content=2, if_revision=1)
        assert refused(answer, 409, "revision_conflict")["expected"] == "2"
        assert answer.json()["data"] == {"key": "k", "revision": 2}
        repeated = stack.send("store_memory", session_id, key="k", content=1, if_revision=1)["data"]
        assert (repeated["revision"], repeated["created"]) == (2, False)
        assert memories(stack, session_id) == {"k": 1}

    def test_a_deleted_memory_is_gone_with_all_its_revisions(self, stack: Stack, session_id: str) -> None:
        for content in ("one", "two"):
            stack.send("store_memory", session_id, key="k", content=content)
        assert stack.send("delete_memory", session_id, key="k")["data"] == {"key": "k", "deleted": True}
        refused(stack.try_send("retrieve_memory", session_id, key="k"), 404, "memory_not_found")
        refused(stack.try_send("retrieve_memory", session_id, key="k", revision=1), 404, "memory_not_found")
        refused(stack.try_send("delete_memory", session_id, key="k"), 404, "memory_not_found")
        assert stack.send("store_memory", session_id, key="k", content="new")["data"]["revision"] == 1


class TestBatches:
    ITEMS = (
        {"command": "store_memory", "data": {"key": "first", "content": 1}},
        {"command": "retrieve_memory", "data": {"key": "nowhere"}},
        {"command": "store_memory", "data": {"key": "third", "content": 3}},
        {"command": "list_memories", "data": {}},
    )

    def test_an_atomic_batch_is_all_or_nothing_and_names_the_failed_command(
        self, stack: Stack, session_id: str
    ) -> None:
        answer = stack.try_send("batch", session_id, commands=list(self.ITEMS))
        error = refused(answer, 404, "memory_not_found")
        assert error["field"] == "data.commands[1].data.key"
        assert "command 2 (retrieve_memory)" in error["message"]
        data = answer.json()["data"]
        assert (data["processed"], data["failed_item"]) == (0, 1)
        assert (data["item"]["command"], data["item"]["error"]["code"]) == ("retrieve_memory", "memory_not_found")
        assert memories(stack, session_id) == {}

    def test_a_partial_batch_applies_valid_commands_and_reports_each(self, stack: Stack, session_id: str) -> None:
        answer = stack.send("batch", session_id, mode="partial", commands=list(self.ITEMS))
        data = answer["data"]
        assert (data["processed"], data["failed"]) == (3, 1)
        assert answer["message"] == "Executed 3 of 4 commands; 1 rejected."
        first, second, third, fourth = data["results"]
        assert [item["status"] for item in data["results"]] == ["success", "error", "success", "success"]
        assert (first["data"]["key"], third["data"]["key"]) == ("first", "third")
        assert second["error"]["code"] == "memory_not_found"
        assert {memory["key"]: memory["content"] for memory in fourth["data"]["memories"]} == {"first": 1, "third": 3}
        assert memories(stack, session_id) == {"first": 1, "third": 3}

    def test_the_first_command_may_create_the_session(self, stack: Stack) -> None:
        title = f"Begun by a batch {secrets.token_hex(4)}"
        commands = [
            {"command": "create_session", "data": {"title": title}},
            {"command": "store_memory", "data": {"key": "k", "content": "in it"}},
        ]
        answer = stack.send("batch", None, commands=commands)
        assert answer["session_id"].startswith("begun-by-a-batch-")
        assert answer["data"]["results"][0]["data"]["title"] == title
        assert memories(stack, answer["session_id"]) == {"k": "in it"}

    def test_a_refused_batch_creates_no_session(self, stack: Stack) -> None:
        session_id = new_id("answers")
        commands = [
            {"command": "create_session", "data": {"title": "Never"}},
            {"command": "cancel_task", "data": {"task_id": "none"}},
        ]
        refused(stack.try_send("batch", session_id, commands=commands), 404, "task_not_found")
        assert stack.client.get(f"/v1/sessions/{session_id}").status_code == 404

    def test_a_batch_has_at_most_500_commands(self, stack: Stack, session_id: str) -> None:
        items = [{"command": "store_memory", "data": {"key": f"k{n}", "content": n}} for n in range(501)]
        error = refused(stack.try_send("batch", session_id, commands=items), 422, "invalid")
        assert error["field"] == "data.commands"
        data = stack.send("batch", session_id, commands=items[:500])["data"]
        assert (data["processed"], len(data["results"])) == (500, 500)
        assert memories(stack, session_id) == {f"k{n}": n for n in range(500)}


class TestDeletingSessions:
    def test_deleting_requires_the_id_as_confirmation(self, stack: Stack, session_id: str) -> None:
        assert refused(stack.try_send("delete_session", session_id), 422, "missing_field")["field"] == "data.confirm"
        error = refused(stack.try_send("delete_session", session_id, confirm="other"), 422, "not_confirmed")
        assert error["expected"] == session_id
        assert stack.client.get(f"/v1/sessions/{session_id}").json()["title"] == "Walk"

    def test_a_session_recreated_under_an_id_sees_nothing_of_the_old_one(self, stack: Stack, session_id: str) -> None:
        word = new_word("secret")
        stack.send("conversation_chunk", session_id, chunk_id="c", content=word, extracted_items={"ideas": [word]})
        for content in (word, f"{word} again"):
            stored = stack.send("store_memory", session_id, key="k", content=content)
        stack.send("delegate_task", session_id, task_id="t", description=word)
        stack.send("add_artifact", session_id, artifact_id="a", name=word, content=word)
        read = stack.send("retrieve_memory", session_id, key="k")
        assert stack.client.get(f"/v1/search?q={word}&session_id={session_id}").json()["items"]

        assert stack.send("delete_session", session_id, confirm=session_id)["data"] == {"deleted": True}
        refused(stack.try_send("get_session_summary", session_id), 404, "session_not_found")
        for part in ("", "/summary", "/transcript", "/memories", "/tasks", "/artifacts", "/events", "/export"):
            answer = stack.client.get(f"/v1/sessions/{session_id}{part}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")
        assert word not in stack.client.get(f"/v1/search?q={word}").text

        anew = stack.send("create_session", session_id, title="Anew")
        assert anew["data"]["created"] is True
        assert set(anew["data"]["stats"].values()) == {0}
        for part in ("transcript", "memories", "tasks", "artifacts"):
            assert stack.client.get(f"/v1/sessions/{session_id}/{part}").json()["items"] == []
        assert [event["delivery_id"] for event in stack.journal(session_id)] == [anew["delivery_id"]]
        for told in (stored, read):
            delivery = stack.client.get(f"/v1/deliveries/{told['delivery_id']}").json()
            assert (delivery["status"], delivery["session_id"]) == ("applied", session_id)
            assert not delivery.get("result")
        assert stack.send("store_memory", session_id, key="k", content="new")["data"]["revision"] == 1
        refused(stack.try_send("retrieve_memory", session_id, key="k", revision=2), 404, "memory_not_found")

    def test_a_delivery_repeated_after_the_delete_restores_nothing(self, stack: Stack, session_id: str) -> None:
        bodies = [
            envelope("create_session", session_id, title="Walk"),
            envelope("store_memory", session_id, content=1),
        ]
        for body in bodies:
            body["id"] = new_id("delivery")
            assert stack.client.post("/v1/webhook?wait=30", json=body).status_code == 200
        stack.send("delete_session", session_id, confirm=session_id)
        for body in bodies:
            stack.client.post("/v1/webhook?wait=30", json=body)
        refused(stack.try_send("get_session_summary", session_id), 404, "session_not_found")


class TestMessages:
    def test_messages_are_short_and_use_titles(self, stack: Stack) -> None:
        session_id = new_id("id-nobody-says")
        name = "A name that goes on " * 12 + "and on"
        long = "word " * 5_000
        sent: list[tuple[str, Payload]] = [
            ("create_session", {"title": name}),
            ("conversation_chunk", {"chunk_id": "id-c", "content": long}),
            ("store_memory", {"key": name, "content": long}),
            ("delegate_task", {"task_id": "id-t", "description": long, "agent_name": "researcher"}),
            ("add_artifact", {"artifact_id": "id-a", "name": name, "content": long}),
            ("get_task", {"task_id": "id-t"}),
            ("get_artifact", {"artifact_id": "id-a"}),
            ("retrieve_memory", {"key": name}),
            ("query_memories", {}),
            ("list_tasks", {}),
            ("search", {"q": "word"}),
            ("cancel_task", {"task_id": "id-t", "reason": "word " * 300}),
            ("get_session_summary", {}),
            ("resume_bundle", {}),
            ("rename_session", {"title": name[::-1].strip()}),
            ("pause_session", {}),
            ("resume_session", {}),
            ("complete_session", {}),
        ]
        for command, data in sent:
            message = stack.send(command, session_id, **data)["message"]
            assert 0 < len(message) <= 200, (command, message)
            assert not any(known in message for known in ("id-nobody-says", "id-c", "id-t", "id-a")), (command, message)
            assert "\n" not in message
        message = stack.try_send("store_memory", session_id, content="late").json()["message"]
        assert 0 < len(message) <= 200
        assert "id-nobody-says" not in message

    def test_responses_to_writes_do_not_echo_content(self, stack: Stack, session_id: str) -> None:
        word = "unmistakable-content"
        for command, data in (
            ("conversation_chunk", {"chunk_id": "c", "content": f"{word} " * 50, "metadata": {"m": word}}),
            ("store_memory", {"key": "k", "content": {"deep": [word]}, "tags": [word]}),
            ("delegate_task", {"description": "short", "input_data": {"x": word}}),
            ("add_artifact", {"artifact_id": "a", "name": "n", "content": word, "metadata": {"m": word}}),
        ):
            assert word not in str(stack.send(command, session_id, **data))

    def test_a_response_names_its_delivery_and_time(self, stack: Stack, session_id: str) -> None:
        for command, data in (("get_session_summary", {}), ("store_memory", {"key": "k", "content": "c"})):
            answer = stack.send(command, session_id, **data)
            assert answer["type"] == "collaborative_session_response"
            assert (answer["command"], answer["session_id"]) == (command, session_id)
            assert answer["now"].endswith("Z")
            delivery = stack.client.get(f"/v1/deliveries/{answer['delivery_id']}").json()
            assert (delivery["status"], delivery["command"]) == ("applied", command)
        assert delivery["result"]["data"] == answer["data"]

    def test_the_response_to_a_read_is_not_kept_once_its_sender_has_it(self, stack: Stack, session_id: str) -> None:
        answer = stack.send("get_session_summary", session_id)

        def delivery() -> Payload:
            found: Payload = stack.client.get(f"/v1/deliveries/{answer['delivery_id']}").json()
            assert "hint" in found or found["result"]["data"] == answer["data"]  # For a moment.
            return found

        wait_for(lambda: "result" not in delivery(), what="the response deleted")
        assert "Send the read again" in delivery()["hint"]


def test_null_is_valid_content(stack: Stack, session_id: str) -> None:
    for value in (None, 1, None):
        stack.send("store_memory", session_id, key="nothing", content=value)
    memory = stack.send("retrieve_memory", session_id, key="nothing")["data"]["memory"]
    assert (memory["content"], memory["revision"]) == (None, 3)
    first = stack.send("retrieve_memory", session_id, key="nothing", revision=1)["data"]["memory"]
    assert first["content"] is None
    artifact_id = stack.send("add_artifact", session_id, name="nothing", content=None)["data"]["artifact_id"]
    assert stack.send("get_artifact", session_id, artifact_id=artifact_id)["data"]["artifact"]["content"] is None
    assert stack.send("add_artifact", session_id, name="nothing", content=None)["data"]["created"] is False
    exported = stack.client.get(f"/v1/sessions/{session_id}/export").json()
    assert [memory["content"] for memory in exported["memories"]] == [None]
