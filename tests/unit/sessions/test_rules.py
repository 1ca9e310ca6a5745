"""The rules of commands, without any server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from models.commands import definitions as c
from models.commands.content_ids import REPEAT_SECONDS
from models.commands.payloads import parse_envelope, scopes_of
from models.errors import Conflict, Invalid, NotFound
from sessions.rules.dispatch import ReadSet
from sessions.rules.records import Agent, Memory, MemoryRevision, Question, memory_key
from tests.support.stores.world import START, World


@pytest.fixture
def world() -> World:
    world = World()
    world.do("create_session", title="Morning walk")
    return world


def test_a_session_without_a_title_uses_its_id() -> None:
    assert World().do("create_session", title="").data["title"] == "walk"


def test_creating_the_same_session_again_changes_nothing(world: World) -> None:
    again = world.do("create_session", title="Morning walk")
    assert again.data["created"] is False
    assert again.put == []


def test_another_session_under_the_same_id_is_a_conflict_that_shows_the_stored_one(world: World) -> None:
    error = world.refused("create_session", title="Evening walk")
    assert isinstance(error, Conflict)
    assert error.data is not None
    assert error.data["title"] == "Morning walk"


def test_nothing_is_created_implicitly() -> None:
    error = World().refused("store_memory", content="x")
    assert isinstance(error, NotFound)
    assert "create_session" in str(error.hint)


def test_new_content_is_a_new_revision_and_the_old_one_is_kept(world: World) -> None:
    world.do("store_memory", key="db", content="MySQL", type="decision", tags=["tech"])
    decision = world.do("store_memory", key="db", content="Postgres")
    assert decision.data == {
        "key": "db",
        "type": "decision",
        "revision": 2,
        "created": False,
        "outcome": "revised",
    }
    assert bytes(world.memory("db").content) == b'"Postgres"'
    assert world.memory("db").tags == ["tech"]
    old = [record for record in decision.put if isinstance(record, MemoryRevision)]
    assert [(r.revision, bytes(r.content)) for r in old] == [(1, b'"MySQL"')]


def test_reformatted_content_is_no_new_revision(world: World) -> None:
    world.do("store_memory", key="k", content={"a": 1, "b": 2})
    again = world.do("store_memory", key="k", content={"b": 2, "a": 1})
    assert (again.data["revision"], again.data["created"], again.put) == (1, False, [])


def test_another_status_of_a_memory_is_a_revision(world: World) -> None:
    world.do("store_memory", key="todo", type="action_item", content="call the roofer")
    done = world.do("store_memory", key="todo", content="call the roofer", status="done")
    assert (world.memory("todo").status, world.memory("todo").revision) == ("done", 2)
    assert done.message == 'Stored revision 2 of the action item "todo"; it is done.'


def test_empty_tags_clear_and_omitted_tags_are_kept(world: World) -> None:
    world.do("store_memory", key="k", content="x", tags=["a"])
    world.do("store_memory", key="k", content="y")
    assert world.memory("k").tags == ["a"]
    assert world.do("store_memory", key="k", content="y", tags=[]).data["outcome"] == "revised"
    assert world.memory("k").tags == []


def test_a_memory_said_again_later_gets_the_later_time(world: World) -> None:
    first = world.do("store_memory", content="Roses need sun", type="fact")
    key = first.data["key"]
    again = world.do("store_memory", content="Roses need sun", type="fact")
    assert (again.data["created"], again.put) == (False, [])
    world.now += timedelta(seconds=REPEAT_SECONDS)
    later = world.do("store_memory", content="Roses need sun", type="fact")
    assert (later.data["outcome"], later.data["revision"]) == ("restated", 1)
    assert world.memory(key).updated_at == world.now
    world.source = "another"
    assert world.do("store_memory", content="Roses need sun", type="fact").data["outcome"] == "restated"


def test_an_older_mention_does_not_reopen_a_closed_memory(world: World) -> None:
    items = {"action_items": ["Call Ann"]}
    [key] = world.do("conversation_chunk", content="one", extracted_items=items).data["memory_keys"]
    world.do("store_memory", key=key, content="Call Ann", status="done")
    old = world.do("conversation_chunk", content="two", start_time="2026-03-01", extracted_items=items)
    assert (old.data["memory_keys"], world.memory(key).status) == ([key], "done")
    assert world.do("conversation_chunk", content="three", extracted_items=items).data["reopened"] == [key]


def test_earlier_content_said_again_becomes_a_new_revision(world: World) -> None:
    key = world.do("store_memory", content="Use MySQL", type="decision").data["key"]
    world.do("store_memory", key=key, content="Use Postgres", status="superseded")
    items = {"decisions": ["Use MySQL"]}
    assert world.do("conversation_chunk", content="So be it", extracted_items=items).data["reopened"] == [key]
    assert (bytes(world.memory(key).content), world.memory(key).revision) == (b'"Use MySQL"', 3)


def test_ages_in_a_repeated_command_are_relative_to_its_first_delivery(world: World) -> None:
    for command, data in (
        ("conversation_chunk", {"chunk_id": "c", "content": "x", "start_time": "2h", "end_time": "1h"}),
        ("delegate_task", {"task_id": "t", "description": "x", "not_before": "in 2h"}),
    ):
        assert [world.do(command, **data).data["created"] for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("if_revision", "wins"), [(0, False), (1, True), (2, False)])
def test_a_conditional_write_needs_the_right_revision(world: World, if_revision: int, wins: bool) -> None:
    world.do("store_memory", key="k", content="one")
    if wins:
        assert world.do("store_memory", key="k", content="two", if_revision=if_revision).data["revision"] == 2
        repeated = world.do("store_memory", key="k", content="two", if_revision=if_revision)
        assert repeated.put == []
    else:
        error = world.refused("store_memory", key="k", content="two", if_revision=if_revision)
        assert (error.code, error.data) == ("revision_conflict", {"key": "k", "revision": 1})


def test_if_revision_zero_requires_a_new_memory(world: World) -> None:
    assert world.do("store_memory", key="k", content="one", if_revision=0).data["revision"] == 1


def test_a_deleted_memory_starts_again_at_revision_one(world: World) -> None:
    world.do("store_memory", key="k", content="one")
    world.do("store_memory", key="k", content="two")
    world.do("delete_memory", key="k")
    assert world.do("store_memory", key="k", content="three").data["revision"] == 1
    assert world.state.stats("walk").memories == 1


def test_items_extracted_from_a_conversation_become_memories_that_refer_to_it(world: World) -> None:
    items = {"decisions": ["Use Postgres"], "action_items": [{"description": "Call Ann"}], "ideas": ["x", "x"]}
    data = world.do("conversation_chunk", chunk_id="c1", content="We talked", extracted_items=items).data
    assert (data["content_size"], data["extracted_items_processed"]) == (9, 3)
    memories = [world.memory(key) for key in data["memory_keys"]]
    assert sorted((m.type, m.chunk_id) for m in memories) == [("action_item", "c1"), ("decision", "c1"), ("idea", "c1")]
    assert world.do("conversation_chunk", chunk_id="c1", content="We talked", extracted_items=items).put == []


def test_another_chunk_under_the_same_id_is_a_conflict(world: World) -> None:
    world.do("conversation_chunk", chunk_id="c1", content="one")
    assert world.refused("conversation_chunk", chunk_id="c1", content="two").code == "chunk_exists"


def test_a_paused_session_accepts_only_state_changes_and_cancellations(world: World) -> None:
    world.do("delegate_task", task_id="t1", description="x")
    world.do("pause_session")
    assert world.do("pause_session").put == []
    for command, data in (
        ("store_memory", {"content": 1}),
        ("conversation_chunk", {"content": "x"}),
        ("add_artifact", {"name": "x", "content": 1}),
        ("delegate_task", {"description": "y"}),
        ("rename_session", {"title": "y"}),
    ):
        error = world.refused(command, **data)
        assert (error.status, error.code, error.hint) == (409, "session_paused", "Send resume_session first.")
    assert world.do("cancel_task", task_id="t1").data["status"] == "cancelled"
    assert world.do("resume_session").data["status"] == "active"


def test_a_completed_session_accepts_no_changes_until_it_is_resumed(world: World) -> None:
    world.do("delegate_task", task_id="t1", description="x")
    world.do("complete_session", open_tasks="cancel")
    assert world.refused("cancel_task", task_id="t1").code == "session_completed"
    assert world.refused("pause_session").code == "session_completed"
    world.do("resume_session")
    assert world.session().completed_at is None
    assert world.do("store_memory", key="k", content=1).data["created"] is True


def test_counts_are_always_right(world: World) -> None:
    world.do("store_memory", key="k", content=1)
    world.do("store_memory", key="k", content=2)
    world.do("delegate_task", task_id="t1", description="x")
    world.do("cancel_task", task_id="t1")
    world.do("delegate_task", task_id="t2", description="y")
    stats = {"conversation_chunks": 0, "memories": 1, "tasks": 2, "artifacts": 0, "active_tasks": 1}
    assert world.do("pause_session").data["stats"] == stats
    assert world.do("complete_session", open_tasks="cancel").data["stats"] == stats | {"active_tasks": 0}
    assert world.do("resume_session").data["stats"] == stats | {"active_tasks": 0}


def test_completing_a_session_with_open_tasks_is_refused_and_names_them(world: World) -> None:
    for number in range(8):
        world.do("delegate_task", task_id=f"t{number}", description=f"Task {number} {'x' * 300}")
    error = world.refused("complete_session")
    assert (error.status, error.code, error.field) == (409, "open_tasks", "data.open_tasks")
    assert error.data is not None
    data: Any = error.data
    assert (data["count"], len(data["open_tasks"])) == (8, 5)
    assert data["open_tasks"][0]["task_id"] == "t0"
    assert '"Morning walk" has 8 open tasks: "Task 0' in error.message
    assert len(error.message) <= 200
    assert world.session().status == "active"
    world.do("cancel_task", task_id="t0")
    assert world.refused("complete_session").data["count"] == 7  # type: ignore[index]


def test_completing_a_session_cancels_its_open_tasks_if_asked(world: World) -> None:
    world.do("delegate_task", task_id="done", description="x")
    world.state.put(msgspec.structs.replace(world.task("done"), status="completed"))
    world.do("delegate_task", task_id="t1", description="x", allow_duplicate=True)
    world.do("delegate_task", task_id="t2", description="y", depends_on=["t1"])
    decision = world.do("complete_session", open_tasks="cancel")
    assert decision.message == 'Completed "Morning walk" and cancelled 2 open tasks.'
    assert [world.task(name).status for name in ("done", "t1", "t2")] == ["completed", "cancelled", "cancelled"]
    assert world.task("t2").cancel_reason == "The session was completed."
    assert world.do("complete_session").message == '"Morning walk" is already completed.'


def test_dependents_of_a_cancelled_task_fail_with_that_reason(world: World) -> None:
    world.do("delegate_task", task_id="a", description="Bake")
    world.do("delegate_task", task_id="b", description="Slice", depends_on=["a"])
    world.do("delegate_task", task_id="c", description="Eat", depends_on=["b"])
    world.do("delegate_task", task_id="d", description="Sleep")
    world.do("cancel_task", task_id="a")
    assert [world.task(name).status for name in "abcd"] == ["cancelled", "failed", "failed", "pending"]
    assert world.task("b").error == 'It depends on "Bake", which was cancelled.'
    assert world.task("c").error == 'It depends on "Slice", which failed.'
    assert (world.task("c").finished_at, world.task("c").shown_at) == (world.now, None)
    assert world.state.stats("walk").active_tasks == 1


def test_no_task_can_depend_on_a_failed_or_cancelled_one(world: World) -> None:
    world.do("delegate_task", task_id="a", description="Bake")
    world.do("cancel_task", task_id="a")
    error = world.refused("delegate_task", task_id="b", description="Slice", depends_on=["a"])
    assert (error.status, error.code, error.field) == (409, "dependency_failed", "data.depends_on[0]")
    assert "Bake" in error.message


@pytest.mark.parametrize(("open_tasks", "scopes"), [("refuse", ["write"]), ("cancel", ["write", "delegate"])])
def test_cancelling_tasks_by_completing_a_session_needs_both_scopes(open_tasks: str, scopes: list[str]) -> None:
    data = {"open_tasks": open_tasks}
    item = {"command": "complete_session", "data": data}
    for body in (item, {"command": "batch", "data": {"commands": [item]}}):
        command = parse_envelope(msgspec.json.encode({**body, "session_id": "walk"})).command
        assert scopes_of(command) == scopes


def test_deleting_a_session_requires_its_id_as_confirmation(world: World) -> None:
    error = world.refused("delete_session", confirm="other")
    assert isinstance(error, Invalid)
    world.do("store_memory", key="k", content="secret")
    world.do("delete_session", confirm="walk")
    assert world.state.session("walk") is None
    assert world.state.find(memory_key("walk", "k"), Memory) is None
    assert world.do("create_session", title="Anew").data["stats"]["memories"] == 0


def test_the_same_request_from_the_same_source_within_minutes_is_the_same_task(world: World) -> None:
    first = world.do("delegate_task", description="Research prices", agent_name="researcher")
    again = world.do("delegate_task", description="research  prices ", agent_name="researcher")
    assert (again.data["task_id"], again.data["created"]) == (first.data["task_id"], False)
    other = world.do("delegate_task", description="Research prices", agent_name="codex")
    assert other.data["created"] is True
    wanted = world.do("delegate_task", description="Research prices", agent_name="researcher", allow_duplicate=True)
    assert wanted.data["created"] is True
    world.source = "another"
    theirs = world.do("delegate_task", description="Research prices", agent_name="researcher")
    assert theirs.data["created"] is True
    world.now += timedelta(seconds=REPEAT_SECONDS)
    later = world.do("delegate_task", description="Research prices", agent_name="researcher")
    assert later.data["created"] is True
    assert len({d.data["task_id"] for d in (first, other, wanted, theirs, later)}) == 5


def test_the_same_words_later_or_from_another_source_are_stored_again(world: World) -> None:
    def say(text: str) -> Any:
        data = world.do("conversation_chunk", content=text).data
        return data["chunk_id"], data["created"]

    first, _ = say("Yes.")
    assert say("Yes.") == (first, False)
    world.source = "another"
    second, created = say("Yes.")
    assert (created, second != first) == (True, True)
    assert say("Yes.") == (second, False)
    world.now += timedelta(seconds=REPEAT_SECONDS)
    third, created = say("Yes.")
    assert (created, third not in (first, second)) == (True, True)


def test_a_response_names_online_agents_and_the_length_of_the_queue() -> None:
    seen = START + timedelta(minutes=1)
    world = World(agents=[Agent(name="codex", type="code", last_seen_at=seen)])
    world.do("create_session", title="x")
    data = world.do("delegate_task", description="a", agent_name="codex").data
    assert (data["agents_online"], data["ahead_in_queue"], "warning" in data) == (1, 0, False)
    data = world.do("delegate_task", description="b", agent_name="nobody").data
    assert (data["agents_online"], data["ahead_in_queue"], "warning" in data) == (0, 0, True)
    assert world.do("delegate_task", description="c", agent_name="nobody").data["ahead_in_queue"] == 1
    assert world.do("delegate_task", description="d", agent_name="nobody", priority=5).data["ahead_in_queue"] == 0


def test_a_task_cannot_depend_on_an_unknown_one(world: World) -> None:
    error = world.refused("delegate_task", description="x", depends_on=["nope"])
    assert (error.code, error.field) == ("task_not_found", "data.depends_on[0]")


def test_a_cycle_of_dependencies_is_refused_with_its_path(world: World) -> None:
    assert world.refused("delegate_task", task_id="a", description="x", depends_on=["a"]).code == "dependency_cycle"
    world.upcoming = frozenset({"a", "b", "c"})
    world.do("delegate_task", task_id="a", description="x", depends_on=["b"])
    world.do("delegate_task", task_id="b", description="y", depends_on=["c"])
    error = world.refused("delegate_task", task_id="c", description="z", depends_on=["a"])
    assert "c → a → b → c" in error.message


def test_answering_a_question_requeues_the_task(world: World) -> None:
    world.do("delegate_task", task_id="t1", description="x")
    assert world.refused("answer_task", task_id="t1", answer="yes").code == "task_not_asking"
    asking = [Question(question="Which?", asked_at=world.now)]
    task = msgspec.structs.replace(
        world.task("t1"), status="input_required", questions=Raw(msgspec.json.encode(asking))
    )
    world.state.put(task)
    world.do("answer_task", task_id="t1", answer="the red one")
    assert world.task("t1").status == "pending"
    assert msgspec.json.decode(world.task("t1").questions)[0]["answer"] == "the red one"
    assert world.do("answer_task", task_id="t1", answer="the red one").put == []


def test_a_finished_task_cannot_be_cancelled(world: World) -> None:
    world.do("delegate_task", task_id="t1", description="x")
    world.state.put(msgspec.structs.replace(world.task("t1"), status="completed"))
    assert world.refused("cancel_task", task_id="t1").code == "task_finished"


def test_an_artifact_may_belong_to_a_task_of_the_session(world: World) -> None:
    error = world.refused("add_artifact", name="Report", content="x", metadata={"relates_to_task": "t1"})
    assert error.code == "task_not_found"
    world.do("delegate_task", task_id="t1", description="x")
    added = world.do("add_artifact", name="Report", content="x", metadata={"relates_to_task": "t1"})
    assert added.data["created"] is True
    again = world.do("add_artifact", name="Report", content="x", metadata={"relates_to_task": "t1"})
    assert (again.data["created"], again.put) == (False, [])


def test_messages_can_be_read_aloud(world: World) -> None:
    message = world.do("store_memory", key="use_postgres", type="action_item", content=1).message
    assert message == 'Stored the action item "use_postgres".'


def test_every_changing_command_declares_what_it_reads() -> None:
    """A rule sees only loaded rows, so a command whose session is not loaded could never work."""
    for name, definition in c.COMMANDS.items():
        wanted = ReadSet()
        if not definition.is_read and definition is not c.Batch:
            command = msgspec.convert(SAMPLES.get(name, {}), definition)
            wanted.add(command, "walk")
            assert ("sessions", "walk") in wanted.keys, name


SAMPLES: dict[str, dict[str, Any]] = {
    "rename_session": {"title": "x"},
    "delete_session": {"confirm": "walk"},
    "conversation_chunk": {"content": "x", "chunk_id": "c"},
    "store_memory": {"content": Raw(b"1"), "key": "k"},
    "delete_memory": {"key": "k"},
    "delegate_task": {"description": "x"},
    "cancel_task": {"task_id": "t"},
    "answer_task": {"task_id": "t", "answer": "x"},
    "add_artifact": {"name": "x", "content": Raw(b"1"), "artifact_id": "a"},
}
