"""User stories over HTTP, by a sender that chooses ids, and by one that sends none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for


class Conversation:
    """An LLM in one conversation: it knows only the responses in it."""

    def __init__(self, stack: Stack, *, sends_ids: bool) -> None:
        self._stack = stack
        self._sends_ids = sends_ids
        self.session_id = ""
        self.title = ""

    def start(self, title: str, **data: Any) -> Payload:
        """Start a session with a unique title. From now on this conversation is about it."""
        self.title = f"{title} {new_id('no')}"
        chosen = new_id("story") if self._sends_ids else None
        answer = self._stack.send("create_session", chosen, title=self.title, **data)
        self.session_id = answer["session_id"]
        assert chosen in (None, self.session_id)
        summary: Payload = answer["data"]
        assert (summary["session_id"], summary["title"]) == (self.session_id, self.title)
        assert (summary["status"], summary["created"]) == ("active", True)
        return summary

    def say(self, command: str, *, ids: dict[str, str] | None = None, **data: Any) -> Payload:
        """Send a command. Returns the data of its response. `ids` are sent only by a sender that chooses them."""
        answer = self._stack.send(command, self.session_id, **data, **(ids or {} if self._sends_ids else {}))
        assert 0 < len(answer["message"]) <= 200
        told: Payload = answer["data"]
        return told

    def remember(self, kind: str, content: Any, *, key: str, **data: Any) -> str:
        """Store a memory. Returns its key."""
        stored = self.say("store_memory", ids={"key": key}, type=kind, content=content, **data)
        assert (stored["type"], stored["revision"], stored["created"]) == (kind, 1, True)
        assert stored["key"] == key if self._sends_ids else stored["key"].startswith(f"{kind}-")
        return str(stored["key"])

    def recall(self, **question: Any) -> list[Any]:
        """Return the contents of matching memories, the latest first."""
        found = self.say("query_memories", **question)
        assert found["count"] == len(found["memories"])
        return [memory["content"] for memory in found["memories"]]

    def another(self) -> Conversation:
        """Return another conversation about the same session. A sender without ids has to find it by its title."""
        other = Conversation(self._stack, sends_ids=self._sends_ids)
        other.title, other.session_id = self.title, self.session_id
        if not self._sends_ids:
            sessions = self._stack.send("list_sessions", filter="active", limit=100)["data"]["sessions"]
            [other.session_id] = [session["session_id"] for session in sessions if session["title"] == self.title]
        return other


@pytest.fixture
def stack(any_stack: Stack) -> Stack:
    """The processes, with a pooler in front of Postgres."""
    return any_stack


@pytest.fixture(params=[True, False], ids=["with ids", "without ids"])
def conversation(request: pytest.FixtureRequest, stack: Stack) -> Conversation:
    """A new conversation."""
    return Conversation(stack, sends_ids=request.param)


def test_notes_of_a_walk_can_be_recalled(conversation: Conversation) -> None:
    conversation.start("Garden plan", participants=["Anna", "Claude"], context="By voice, on a walk.")
    idea = {"description": "Collect the rain of the roof.", "benefit": "no tap water for the beds"}
    decision = {"decision": "One barrel of 500 litres.", "rationale": "It fits under the window."}
    action = "Measure the gutter"
    conversation.remember("idea", idea, key="rain", tags=["water"])
    conversation.remember("decision", decision, key="barrel", tags=["water", "barrel"])
    conversation.remember("action_item", action, key="measure")

    later = conversation.another()
    assert later.recall(type="decision") == [decision]
    assert later.recall(type="idea") == [idea]
    assert later.recall(type="action_item", status="open") == [action]
    assert later.recall(tags=["barrel", "unknown"]) == [decision]
    assert later.recall() == [action, decision, idea]
    summary = later.say("get_session_summary")
    assert (summary["title"], summary["participants"]) == (conversation.title, ["Anna", "Claude"])
    assert summary["context"] == "By voice, on a walk."
    assert summary["stats"]["memories"] == 3


def test_code_review_while_commuting(conversation: Conversation) -> None:
    conversation.start("Review of the parser")
    conversation.remember("question", "Why is the cursor not signed?", key="cursor")
    conversation.remember("decision", {"decision": "Keep keyset paging.", "rationale": "Offsets skip."}, key="paging")
    conversation.remember("question", "Who calls skip()?", key="skip")
    assert conversation.recall(type="question") == ["Who calls skip()?", "Why is the cursor not signed?"]
    assert conversation.recall(type="decision") == [{"decision": "Keep keyset paging.", "rationale": "Offsets skip."}]
    conversation.remember("action_item", {"who": "Ben", "what": "Add a test for skip()"}, key="test-skip")
    assert conversation.recall(type="action_item") == [{"who": "Ben", "what": "Add a test for skip()"}]
    assert len(conversation.recall(type="question")) == 2


def test_learning_continues_the_next_day(conversation: Conversation) -> None:
    conversation.start("Learning about bees")
    facts = ["A queen lays up to 2,000 eggs a day.", "Drones have no sting.", "Bees see ultraviolet light."]
    for number, fact in enumerate(facts):
        conversation.remember("fact", fact, key=f"fact-{number}", tags=["bees"])
    conversation.remember("question", "How do they find back to the hive?", key="way-home")
    conversation.remember("note", "The chapter on swarms comes next.", key="next")
    conversation.remember("action_item", "Visit Karl's hives on Saturday", key="visit")

    next_day = conversation.another()
    assert next_day.recall(type="fact") == facts[::-1]
    assert next_day.recall(type="question") == ["How do they find back to the hive?"]
    assert next_day.recall(type="action_item") == ["Visit Karl's hives on Saturday"]
    assert next_day.recall(type="fact", since="1h") == facts[::-1]
    assert next_day.recall(type="fact", until="1h") == []
    assert next_day.recall(type="fact", limit=1) == facts[-1:]


def test_delegated_research_waits_for_its_agent(conversation: Conversation) -> None:
    conversation.start("Prices of competitors")
    research = "Research what competitors charge for repairs of e-bikes."
    delegated = conversation.say(
        "delegate_task",
        ids={"task_id": "prices"},
        agent_name="researcher",
        task_type="research",
        description=research,
        priority=7,
        input_data={"city": "Graz", "at_least": 5},
    )
    assert (delegated["created"], delegated["status"], delegated["agents_online"]) == (True, "pending", 0)
    assert "online" in delegated["warning"]
    assert delegated["ahead_in_queue"] >= 0

    later = conversation.another()
    [waiting] = later.say("list_tasks", status="pending")["tasks"]
    assert waiting["description"] == research
    task = later.say("get_task", task_id=waiting["task_id"])["task"]
    assert (task["task_id"], task["agent_name"], task["task_type"]) == (delegated["task_id"], "researcher", "research")
    assert (task["priority"], task["status"], task["attempt"]) == (7, "pending", 0)
    assert task["input_data"] == {"city": "Graz", "at_least": 5}
    stats = later.say("get_session_summary")["stats"]
    assert (stats["tasks"], stats["active_tasks"]) == (1, 1)


def test_a_conversation_continues_the_work_of_another(conversation: Conversation) -> None:
    conversation.start("Kitchen")
    conversation.say(
        "conversation_chunk", ids={"chunk_id": "first"}, content="Anna: Oak or beech?\nClaude: Oak lasts longer."
    )
    conversation.remember("question", "Who plans the sockets?", key="sockets")
    conversation.remember("decision", "We take oak.", key="wood")
    artifact = conversation.say(
        "add_artifact",
        ids={"artifact_id": "plan"},
        name="Floor plan",
        content="# Kitchen\n\n3 m by 4 m",
        format="markdown",
    )
    bundle = conversation.another().say("resume_bundle")
    assert bundle["session"]["title"] == conversation.title
    assert [chunk["content"] for chunk in bundle["conversation"]] == ["Anna: Oak or beech?\nClaude: Oak lasts longer."]
    assert "Who plans the sockets?" in str(bundle["open_questions"])
    assert "We take oak." in str(bundle["decisions"])
    assert artifact["artifact_id"] in str(bundle["artifacts"])


# Verbatim from the original plan of this product, with content in place of {...}.
FIVE_PAYLOADS = [
    """
{
  "type": "collaborative_session_command",
  "command": "create_session",
  "session_id": "test_001",
  "data": {
    "title": "Test Session",
    "participants": ["claude", "user"]
  }
}""",
    """
{
  "type": "collaborative_session_command",
  "command": "conversation_chunk",
  "session_id": "test_001",
  "data": {
    "chunk_id": "chunk_001",
    "content": "Large conversation transcript...",
    "format": "dialogue"
  }
}""",
    """
{
  "type": "collaborative_session_command",
  "command": "store_memory",
  "session_id": "test_001",
  "data": {
    "type": "idea",
    "key": "carbon_tracking",
    "content": {"description": "Track carbon footprint", "priority": "high"},
    "tags": ["sustainability", "feature"]
  }
}""",
    """
{
  "type": "collaborative_session_command",
  "command": "delegate_task",
  "session_id": "test_001",
  "data": {
    "task_id": "task_001",
    "agent_name": "claude_code",
    "task_type": "code",
    "description": "Implement carbon tracking API",
    "priority": 1
  }
}""",
    """
{
  "type": "collaborative_session_command",
  "command": "batch",
  "session_id": "test_001",
  "data": {
    "commands": [
      {"command": "store_memory", "data": {"type": "decision", "key": "unit", "content": "We count in kilograms."}},
      {"command": "delegate_task", "data": {"description": "Research emission factors", "agent_name": "researcher"}}
    ]
  }
}""",
]


def test_the_five_test_payloads_take_effect_once_on_either_path(stack: Stack) -> None:
    def post(path: str, payload: str) -> Payload:
        answer = stack.client.post(path, content=payload, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 202), answer.text
        body: Payload = answer.json()
        return body

    receipts = [post("/webhook", payload) for payload in FIVE_PAYLOADS]
    assert {receipt["status"] for receipt in receipts} == {"accepted"}
    assert {receipt["session_id"] for receipt in receipts} == {"test_001"}
    for receipt in receipts:
        delivery = decided(stack, receipt)
        assert delivery["status"] == "applied"
        assert delivery["result"]["status"] == "success"

    again = [post("/v1/webhook?wait=30", payload) for payload in FIVE_PAYLOADS]
    assert [answer["status"] for answer in again] == ["success"] * 5
    flat = [answer["data"].get("created") for answer in again[:4]]
    assert flat == [False] * 4
    assert [item["data"]["created"] for item in again[4]["data"]["results"]] == [False, False]

    summary = stack.client.get("/v1/sessions/test_001").json()
    assert (summary["title"], summary["participants"]) == ("Test Session", ["claude", "user"])
    assert summary["stats"] == {"conversation_chunks": 1, "memories": 2, "tasks": 2, "artifacts": 0, "active_tasks": 2}
    [chunk] = stack.client.get("/v1/sessions/test_001/transcript").json()["items"]
    assert (chunk["chunk_id"], chunk["content"]) == ("chunk_001", "Large conversation transcript...")
    [idea] = stack.client.get("/v1/sessions/test_001/memories?type=idea").json()["items"]
    assert idea["content"] == {"description": "Track carbon footprint", "priority": "high"}
    assert (idea["key"], idea["revision"], idea["tags"]) == ("carbon_tracking", 1, ["sustainability", "feature"])
    code, research = stack.client.get("/v1/sessions/test_001/tasks").json()["items"]
    assert (code["task_id"], code["agent_name"], code["priority"]) == ("task_001", "claude_code", 1)
    assert (research["description"], research["priority"]) == ("Research emission factors", 0)


def decided(stack: Stack, receipt: Payload) -> Payload:
    """Wait until a webhook is applied or rejected. Returns its delivery."""

    def look() -> Payload:
        delivery: Payload = stack.client.get(receipt["status_url"]).json()
        return {} if delivery["status"] == "accepted" else delivery

    return wait_for(look, what="applied or rejected")


class TestFormsOfOlderSenders:
    """Payloads in the forms of this system's predecessor."""

    @pytest.fixture
    def session_id(self, stack: Stack) -> str:
        session_id = new_id("older")
        stack.send("create_session", session_id, title="Older senders")
        return session_id

    def test_append_conversation_has_a_nested_chunk(self, stack: Stack, session_id: str) -> None:
        chunk = {
            "chunk_id": "c1",
            "content": "user: let us track carbon\nassistant: good idea",
            "format": "dialogue",
            "start_time": "2025-11-15T10:00:00Z",
            "end_time": "2025-11-15T10:05:00Z",
            "participants": ["user", "assistant"],
            "extracted_items": {
                "ideas": ["track carbon"],
                "decisions": [],
                "questions": ["which unit?"],
                "action_items": [{"what": "ask Ben"}],
            },
            "metadata": {"app": "voice"},
        }
        stored = stack.send("append_conversation", session_id, conversation_chunk=chunk)
        assert stored["command"] == "conversation_chunk"
        assert stored["data"]["content_size"] == len(str(chunk["content"]))
        assert (stored["data"]["chunk_id"], stored["data"]["extracted_items_processed"]) == ("c1", 3)
        [item] = stack.client.get(f"/v1/sessions/{session_id}/transcript").json()["items"]
        assert (item["content"], item["metadata"]) == (chunk["content"], {"app": "voice"})
        assert (item["start_at"], item["end_at"]) == ("2025-11-15T10:00:00Z", "2025-11-15T10:05:00Z")
        memories = stack.client.get(f"/v1/sessions/{session_id}/memories").json()["items"]
        found = {(memory["type"], str(memory["content"]), memory["chunk_id"]) for memory in memories}
        expected = {("idea", "track carbon"), ("question", "which unit?"), ("action_item", "{'what': 'ask Ben'}")}
        assert found == {(*pair, "c1") for pair in expected}

    def test_query_memories_accepts_flat_and_nested_filters(self, stack: Stack, session_id: str) -> None:
        for kind, tag in (("idea", "a"), ("idea", "b"), ("decision", "a"), ("decision", "c")):
            stack.send("store_memory", session_id, type=kind, key=f"{kind}-{tag}", content=f"{kind} {tag}", tags=[tag])
        wanted = {"type": "idea", "tags": ["b", "c"], "limit": 10}
        flat = stack.send("query_memories", session_id, **wanted)["data"]
        nested = stack.send("query_memories", session_id, filter=wanted)["data"]
        assert flat == nested
        assert (flat["count"], [memory["key"] for memory in flat["memories"]]) == (1, ["idea-b"])
        either = stack.send("query_memories", session_id, tags=["b", "c"])["data"]["memories"]
        assert [memory["key"] for memory in either] == ["decision-c", "idea-b"]

    def test_the_session_id_may_be_in_the_data(self, stack: Stack) -> None:
        session_id = new_id("inside")

        def send(command: str, outside: str | None = None, **data: Any) -> Payload:
            body = envelope(command, outside) | {"data": {"session_id": session_id, **data}}
            answer = stack.client.post("/webhook?wait=30", json=body)
            assert answer.status_code == 200, answer.text
            told: Payload = answer.json()
            assert told["session_id"] == session_id
            return told

        assert send("create_session", title="")["data"]["title"] == session_id
        send("store_memory", session_id, key="k", content=1)
        memory = send("retrieve_memory", key="k")["data"]["memory"]
        assert (memory["content"], memory["session_id"]) == (1, session_id)

    def test_a_task_may_call_its_description_task(self, stack: Stack, session_id: str) -> None:
        delegated = stack.send("delegate_task", session_id, task="Compare five bikes", agent_name="researcher")["data"]
        task = stack.send("get_task", session_id, task_id=delegated["task_id"])["data"]["task"]
        assert (task["description"], task["task_type"]) == ("Compare five bikes", "general")

    def test_an_artifact_may_name_its_task_in_its_metadata(self, stack: Stack, session_id: str) -> None:
        stack.send("delegate_task", session_id, task_id="t1", description="Write it")
        metadata = {"relates_to_task": "t1", "lines": 12}
        stack.send(
            "add_artifact", session_id, artifact_id="a1", name="a.py", type="code", content="x", metadata=metadata
        )
        [artifact] = stack.send("list_artifacts", session_id, task_id="t1")["data"]["artifacts"]
        assert (artifact["artifact_id"], artifact["metadata"]) == ("a1", metadata)

    def test_the_conversation_of_a_batch_is_applied_first(self, stack: Stack, session_id: str) -> None:
        chunk = {"content": "user: remember the unit", "format": "dialogue"}
        commands = [
            {"command": "store_memory", "data": {"type": "fact", "key": "unit", "content": "kg"}},
            {"command": "retrieve_memory", "data": {"key": "unit"}},
        ]
        answer = stack.send("batch", session_id, conversation_chunk=chunk, commands=commands)["data"]
        assert (answer["processed"], answer["failed"]) == (3, 0)
        first, second, third = answer["results"]
        assert (first["command"], first["data"]["content_size"]) == ("conversation_chunk", len(chunk["content"]))
        assert (second["command"], second["data"]["key"]) == ("store_memory", "unit")
        assert third["data"]["memory"]["content"] == "kg"
        [item] = stack.client.get(f"/v1/sessions/{session_id}/transcript").json()["items"]
        assert item["content"] == "user: remember the unit"

    @pytest.mark.parametrize("asking", [{"sync": True}, {"feedback_mode": "sync"}])
    def test_a_waiting_sender_gets_the_result_in_the_response(
        self, stack: Stack, session_id: str, asking: Payload
    ) -> None:
        stack.post("store_memory", session_id, key="k", content="we picked Postgres")
        answer = stack.client.post("/webhook", json=envelope("retrieve_memory", session_id, key="k") | asking)
        assert answer.status_code == 200
        body = answer.json()
        assert (body["type"], body["status"]) == ("collaborative_session_response", "success")
        assert body["data"]["memory"]["content"] == "we picked Postgres"

    @pytest.mark.parametrize("asking", [{}, {"feedback_mode": "async"}, {"sync": False}])
    def test_a_sender_that_does_not_wait_gets_a_receipt(self, stack: Stack, session_id: str, asking: Payload) -> None:
        answer = stack.client.post("/webhook", json=envelope("store_memory", session_id, content="later") | asking)
        assert answer.status_code == 202
        receipt = answer.json()
        assert (receipt["status"], receipt["duplicate"]) == ("accepted", False)
        delivery = decided(stack, receipt)
        assert (delivery["status"], delivery["delivery_id"]) == ("applied", receipt["delivery_id"])
        assert delivery["result"]["data"]["type"] == "general"

    def test_the_key_may_be_sent_as_a_bearer_token(self, stack: Stack) -> None:
        headers = {"X-API-Key": "", "Authorization": f"Bearer {stack.api_key}"}
        answer = stack.client.post(
            "/webhook", json=envelope("list_sessions", limit=1) | {"sync": True}, headers=headers
        )
        assert answer.status_code == 200
        assert answer.json()["status"] == "success"


def test_what_is_still_to_be_done_is_found_over_all_sessions(stack: Stack) -> None:
    tag = new_id("todo")
    for name in ("kitchen", "roof"):
        stack.send("create_session", f"{tag}-{name}", title=name)
        todo = {"key": name, "content": f"Paint the {name}", "type": "action_item", "tags": [tag]}
        stack.send("store_memory", f"{tag}-{name}", **todo, due="in 2d" if name == "roof" else "2026-03-14")
    stack.send("store_memory", f"{tag}-roof", key="color", content="Red", type="decision", tags=[tag])

    def asked(**wanted: str) -> list[str]:
        answer = stack.client.get("/v1/memories", params={"tags": tag, **wanted})
        assert answer.status_code == 200, answer.text
        return [item["key"] for item in answer.json()["items"]]

    assert asked(status="open", sort="due") == ["kitchen", "roof"]
    assert asked(due_before="in 7d", due_after="in 1d") == ["roof"]
    stack.send("store_memory", f"{tag}-roof", key="roof", status="done")
    stack.send("complete_session", f"{tag}-kitchen")
    assert asked(status="open") == []
    assert asked(status="open", include_completed="true") == ["kitchen"]
    found = stack.send("query_memories", tags=[tag], due_before="in 7d")["data"]["memories"]
    assert [(item["key"], item["status"], item["session_title"]) for item in found] == [("roof", "done", "roof")]
