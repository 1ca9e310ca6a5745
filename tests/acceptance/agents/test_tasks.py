"""Delegated tasks up to the claim, and the updates that senders get. The tests play agents by SQL."""

from __future__ import annotations

from sqlalchemy import Engine, text

from tests.support.clients.refusals import refused
from tests.support.processes.stack import Payload, Stack, new_id, unseen_updates


class TestTasks:
    def test_a_repeated_request_for_an_unfinished_task_returns_the_first(self, stack: Stack, session_id: str) -> None:
        asked = {"description": "Research the  prices", "agent_name": "researcher"}
        first = stack.send("delegate_task", session_id, **asked)["data"]
        again = stack.send("delegate_task", session_id, **asked | {"description": "research THE prices"})["data"]
        assert (again["task_id"], again["created"]) == (first["task_id"], False)
        other = stack.send("delegate_task", session_id, **asked | {"agent_name": "codex"})["data"]
        wanted = stack.send("delegate_task", session_id, **asked, allow_duplicate=True)["data"]
        stack.send("cancel_task", session_id, task_id=first["task_id"])
        stack.send("cancel_task", session_id, task_id=wanted["task_id"])
        anew = stack.send("delegate_task", session_id, **asked)["data"]
        assert [task["created"] for task in (other, wanted, anew)] == [True, True, True]
        assert len({task["task_id"] for task in (first, other, wanted, anew)}) == 4

    def test_tasks_are_listed_in_claim_order(self, stack: Stack, session_id: str) -> None:
        agent = new_id("agent")
        for task_id, priority in (("low", -5), ("high", 9), ("first", 0), ("second", 0)):
            delegated = stack.send(
                "delegate_task", session_id, task_id=task_id, description=task_id, agent_name=agent, priority=priority
            )["data"]
            assert delegated["priority"] == priority
        assert delegated["ahead_in_queue"] == 2
        listed = stack.send("list_tasks", session_id)["data"]["tasks"]
        assert [task["task_id"] for task in listed] == ["high", "first", "second", "low"]
        everywhere = stack.send("list_tasks", None, agent_name=agent)["data"]["tasks"]
        assert [task["session_title"] for task in everywhere] == ["Walk"] * 4

    def test_a_task_waits_for_its_dependencies(self, stack: Stack, session_id: str) -> None:
        stack.send("delegate_task", session_id, task_id="walls", description="Build the walls")
        stack.send("delegate_task", session_id, task_id="roof", description="Build the roof", depends_on=["walls"])
        roof = stack.send("get_task", session_id, task_id="roof")
        assert roof["data"]["task"]["blocked_by"] == [{"task_id": "walls", "status": "pending"}]
        assert roof["message"] == '"Build the roof" is waiting for other tasks.'
        unknown = stack.try_send("delegate_task", session_id, description="Paint it", depends_on=["walls", "door"])
        assert refused(unknown, 404, "task_not_found")["field"] == "data.depends_on[1]"

    def test_dependencies_in_a_batch_may_point_forward_but_not_in_a_cycle(self, stack: Stack, session_id: str) -> None:
        def tasks(**depends_on: list[str]) -> list[Payload]:
            return [
                {
                    "command": "delegate_task",
                    "data": {"task_id": name, "description": f"do {name}", "depends_on": needed},
                }
                for name, needed in depends_on.items()
            ]

        answer = stack.try_send("batch", session_id, commands=tasks(a=["b"], b=["c"], c=["a"]))
        error = refused(answer, 422, "dependency_cycle")
        assert error["field"] == "data.commands[2].data.depends_on"
        for name in ("a", "b", "c"):
            assert name in error["message"].partition("form a cycle: ")[2]
        assert stack.send("list_tasks", session_id)["data"]["tasks"] == []
        stack.send("batch", session_id, commands=tasks(a=["b"], b=["c"], c=[]))
        assert stack.send("get_task", session_id, task_id="a")["data"]["task"]["depends_on"] == ["b"]
        itself = stack.try_send("delegate_task", session_id, task_id="d", description="do d", depends_on=["d"])
        refused(itself, 422, "dependency_cycle")

    def test_the_question_of_an_agent_is_reported_answered_and_kept(
        self, stack: Stack, session_id: str, engine: Engine
    ) -> None:
        stack.send("delegate_task", session_id, task_id="t", description="Book a table")
        error = refused(
            stack.try_send("answer_task", session_id, task_id="t", answer="At eight"), 409, "task_not_asking"
        )
        assert error["hint"]
        asks = '[{"question": "At what time?", "asked_at": "2026-05-16T08:00:00Z"}]'
        change(engine, session_id, "status = 'input_required', questions = :asks, updated_at = now()", asks=asks)

        told = stack.send("store_memory", session_id, content="anything")
        [update] = unseen_updates(told)
        assert (update["task_id"], update["status"], update["question"]) == ("t", "input_required", "At what time?")
        assert stack.send("get_task", session_id, task_id="t")["data"]["task"]["question"] == "At what time?"
        answered = stack.send("answer_task", session_id, task_id="t", answer="At eight")
        assert answered["data"]["status"] == "pending"
        assert stack.send("answer_task", session_id, task_id="t", answer="At eight")["data"]["status"] == "pending"
        [question] = stack.send("get_task", session_id, task_id="t")["data"]["task"]["questions"]
        assert (question["question"], question["answer"]) == ("At what time?", "At eight")

    def test_a_finished_task_cannot_be_cancelled(self, stack: Stack, session_id: str, engine: Engine) -> None:
        stack.send("delegate_task", session_id, task_id="t", description="Book a table")
        change(engine, session_id, "status = 'completed', finished_at = now(), updated_at = now()")
        refused(stack.try_send("cancel_task", session_id, task_id="t"), 409, "task_finished")
        assert stack.send("get_task", session_id, task_id="t")["data"]["task"]["status"] == "completed"


class TestUpdates:
    def test_finished_tasks_are_reported_until_they_were_shown(
        self, stack: Stack, session_id: str, engine: Engine
    ) -> None:
        for number in range(7):
            told = stack.send("delegate_task", session_id, task_id=f"t{number}", description=f"Task {number}")
            assert unseen_updates(told) == []
        change(engine, session_id, "status = 'completed', finished_at = now(), updated_at = now()")

        told = stack.send("store_memory", session_id, key="k", content="anything")
        assert len(unseen_updates(told)) == 5
        assert {update["status"] for update in unseen_updates(told)} == {"completed"}
        assert '"Task 6" is completed.' in [update["message"] for update in unseen_updates(told)]
        assert unseen_updates(stack.send("get_session_summary", session_id)) == unseen_updates(told)
        for number in range(7):
            stack.send("get_task", session_id, task_id=f"t{number}")
        assert unseen_updates(stack.send("get_session_summary", session_id)) == []

    def test_an_unclaimed_task_is_reported_after_ten_minutes(
        self, stack: Stack, session_id: str, engine: Engine
    ) -> None:
        stack.send("delegate_task", session_id, task_id="t", description="Find a baker", agent_name="nobody")
        assert unseen_updates(stack.send("get_session_summary", session_id)) == []
        change(engine, session_id, "updated_at = now() - interval '11 minutes'")
        [update] = unseen_updates(stack.send("get_session_summary", session_id))
        assert (update["task_id"], update["status"]) == ("t", "pending")
        assert update["message"] == '"Find a baker" has not been claimed by nobody yet.'

    def test_other_sessions_get_no_update(self, stack: Stack, session_id: str, engine: Engine) -> None:
        other = new_id("tasks")
        stack.send("create_session", other, title="Another")
        stack.send("delegate_task", session_id, task_id="t", description="Find a baker")
        change(engine, session_id, "status = 'completed', finished_at = now(), updated_at = now()")
        assert unseen_updates(stack.send("get_session_summary", other)) == []
        assert unseen_updates(stack.send("get_session_summary", session_id))


def change(engine: Engine, session_id: str, changes: str, **values: str) -> None:
    """Change the session's tasks as their agents would."""
    with engine.begin() as connection:
        statement = text(f"UPDATE tasks SET {changes} WHERE session_id = :session_id")
        connection.execute(statement, {"session_id": session_id, **values})
