"""The expected response to each example, in the order in which test_all.sh sends them, and the data stored then.

check.py compares the responses with these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ROOF, TRIP, BIKE = "example-solar-roof", "example-weekend-trip", "example-bike-repair"


class Has(NamedTuple):
    """Matches a list that contains these items, in any order."""

    items: tuple[Any, ...]


class Refused(NamedTuple):
    """The error that an example must return."""

    status: int
    code: str
    field: str = ""
    data: Any = None


class Send(NamedTuple):
    """An example that changes something. It is sent twice: the repeat must change nothing, and say so."""

    example: str
    answer: Any
    """The data of the response, or the error."""
    again: Any = None
    """The same for the repeat, if it differs."""


class Ask(NamedTuple):
    """An example that only reads."""

    example: str
    answer: Any


class Get(NamedTuple):
    """A read of the stored data over HTTP."""

    path: str
    answer: Any


def has(*items: Any) -> Has:
    """Match a list that contains these items."""
    return Has(items)


def counts(chunks: int, memories: int, *, tasks: int, active_tasks: int, artifacts: int) -> dict[str, int]:
    """Return the counts of a session."""
    return {
        "conversation_chunks": chunks,
        "memories": memories,
        "tasks": tasks,
        "active_tasks": active_tasks,
        "artifacts": artifacts,
    }


def memory(key: str, kind: str, **more: Any) -> dict[str, Any]:
    """Match a memory that was stored exactly once."""
    return {"key": key, "type": kind, "revision": 1, **more}


def bundle_of_the_roof(data: dict[str, Any]) -> bool:
    """Check that a bundle has what another LLM needs: the title, the open question, the decision and a task."""
    text = str(data)
    wanted = ("Solar roof for the barn", "planning permission", "We take a hybrid inverter.", "battery-prices")
    return all(words in text for words in wanted)


ROOF_COUNTS = counts(4, 10, tasks=2, active_tasks=2, artifacts=2)
ROOF_SUMMARY = {
    "session_id": ROOF,
    "title": "Solar roof for the barn",
    "participants": ["Anna", "Claude"],
    "status": "active",
    "stats": ROOF_COUNTS,
}
PRICES = {
    "task_id": "battery-prices",
    "agent_name": "researcher",
    "task_type": "research",
    "status": "pending",
    "priority": 8,
}
CALCULATOR = {
    "task_id": "yield-calculator",
    "agent_name": "claude_code",
    "task_type": "code",
    "status": "pending",
    "priority": 5,
}
ESTIMATE = {"artifact_id": "yield-estimate", "name": "yield_estimate.py", "type": "code"}
QUESTIONS = {"artifact_id": "questions-for-karl", "name": "Questions for Karl", "type": "document"}
INVERTER = memory(
    "inverter",
    "decision",
    content={
        "decision": "We take a hybrid inverter.",
        "rationale": "The lights must stay on when the grid is down, which a plain inverter cannot do.",
    },
    tags=["solar", "inverter"],
    status="done",
)


def stored(chunk_id: str, items: int) -> dict[str, Any]:
    """Match the response to a chunk, and the memories created from its extracted items."""
    return {
        "chunk_id": chunk_id,
        "content_size": lambda size: size > 100,
        "extracted_items_processed": items,
        "memory_keys": lambda keys: len(set(keys)) == items,
    }


def batch(*results: tuple[str, Any]) -> dict[str, Any]:
    """Match a batch in which every command succeeded."""
    items = [{"command": command, "status": "success", "data": data} for command, data in results]
    return {"results": items, "processed": len(items), "failed": 0}


STEPS: list[Send | Ask | Get] = [
    Send(
        "create_session", {"session_id": ROOF, "title": "Solar roof for the barn", "participants": ["Anna", "Claude"]}
    ),
    Send("conversation_chunk", stored("walk-part-1", 2)),
    Send(
        "conversation_batch",
        batch(
            ("conversation_chunk", stored("walk-part-2", 2)),
            ("conversation_chunk", stored("walk-part-3", 2)),
            ("conversation_chunk", stored("walk-summary", 1)),
        ),
    ),
    Get(
        f"/v1/sessions/{ROOF}/transcript",
        {
            "items": [
                {"chunk_id": "walk-part-1", "format": "dialogue", "start_at": "2026-05-16T07:40:00Z"},
                {"chunk_id": "walk-part-2", "content": lambda text: text.endswith("A battery comes second.")},
                {"chunk_id": "walk-part-3", "participants": ["Anna", "Claude"]},
                {"chunk_id": "walk-summary", "format": "summary", "participants": ["Claude"]},
            ]
        },
    ),
    Send("store_memory_idea", memory("charge-the-car", "idea")),
    Send("store_memory_decision", memory("inverter", "decision")),
    Send("store_memory_question", memory("planning-permission", "question")),
    Ask("retrieve_memory", {"memory": INVERTER}),
    Ask("query_memories", {"memories": [INVERTER], "count": 1}),
    Ask("list_memories", {"memories": has(INVERTER, memory("charge-the-car", "idea")), "count": 10}),
    Get(
        f"/v1/sessions/{ROOF}/memories?type=question",
        {
            "items": has(
                {"key": "planning-permission", "status": "open"},
                {"content": "How much weight can the beams of the barn carry?", "chunk_id": "walk-part-1"},
            )
        },
    ),
    Send("delegate_task_research", PRICES),
    Send("delegate_task_code", CALCULATOR),
    Ask(
        "get_task",
        {"task": {**PRICES, "input_data": {"country": "Germany", "capacity_kwh": [10, 15]}, "max_attempts": 2}},
    ),
    Ask("list_tasks", {"tasks": [PRICES, CALCULATOR], "count": 2}),
    Send(
        "answer_task",
        Refused(409, "task_not_asking", "data.task_id", {"task_id": "battery-prices", "status": "pending"}),
    ),
    Send("add_artifact_code", ESTIMATE),
    Send("add_artifact_document", QUESTIONS),
    Ask(
        "get_artifact",
        {"artifact": {**QUESTIONS, "content": lambda text: text.startswith("# Questions for Karl\n\n1. ")}},
    ),
    Ask("list_artifacts", {"artifacts": [QUESTIONS, {**ESTIMATE, "task_id": "yield-calculator"}], "count": 2}),
    Ask("search", {"hits": has({"key": "inverter", "session_id": ROOF, "session_title": "Solar roof for the barn"})}),
    Ask(
        "read_conversation",
        {
            "chunks": has(
                {
                    "chunk_id": "walk-part-2",
                    "previous_chunk_id": "walk-part-1",
                    "total_characters": lambda size: size > 100,
                }
            )
        },
    ),
    Ask(
        "recent_activity",
        {
            "activity": has(
                {"kind": "memory", "key": "inverter", "session_title": "Solar roof for the barn"},
                {"kind": "task", "task_id": "yield-calculator", "status": "pending"},
                {"kind": "artifact", "artifact_id": "questions-for-karl"},
            )
        },
    ),
    Ask("get_session_summary", ROOF_SUMMARY),
    Ask("resume_bundle", bundle_of_the_roof),
    Send("pause_session", {**ROOF_SUMMARY, "status": "paused"}),
    Send("resume_session", ROOF_SUMMARY),
    Ask("list_sessions", {"sessions": has(ROOF_SUMMARY)}),
    Send(
        "batch_workflow",
        batch(
            ("create_session", {"session_id": TRIP, "title": "Weekend trip", "status": "active"}),
            ("conversation_chunk", {"chunk_id": "on-the-phone", "extracted_items_processed": 0}),
            ("store_memory", memory("travel", "decision")),
            ("store_memory", memory("packing-list", "note")),
            ("delegate_task", {"task_id": "train-times", "status": "pending"}),
            ("delegate_task", {"task_id": "hut-booking", "status": "pending", "depends_on": ["train-times"]}),
            ("get_session_summary", {"stats": counts(1, 2, tasks=2, active_tasks=2, artifacts=0)}),
        ),
    ),
    Send("rename_session", {"session_id": TRIP, "title": "Two days in the mountains"}),
    Send("delete_memory", {"key": "packing-list", "deleted": True}, again=Refused(404, "memory_not_found", "data.key")),
    Send("cancel_task", {"task_id": "hut-booking", "status": "cancelled"}),
    Get(
        f"/v1/sessions/{TRIP}/summary",
        {"title": "Two days in the mountains", "stats": counts(1, 1, tasks=2, active_tasks=1, artifacts=0)},
    ),
    Get(
        f"/v1/sessions/{TRIP}/tasks",
        {
            "items": [
                {"task_id": "train-times"},
                {"task_id": "hut-booking", "cancel_reason": "Ben's sister has a cabin."},
            ]
        },
    ),
    Send("complete_session", {"session_id": TRIP, "status": "completed"}),
    Get(
        f"/v1/sessions/{TRIP}",
        {"status": "completed", "stats": counts(1, 1, tasks=2, active_tasks=0, artifacts=0)},
    ),
    Send("delete_session", {"deleted": True}, again=Refused(404, "session_not_found", "session_id")),
    Get(f"/v1/sessions/{TRIP}/memories", Refused(404, "session_not_found", "session_id")),
    Send(
        "complete_workflow",
        batch(
            ("create_session", {"session_id": BIKE, "title": "Bike repair"}),
            ("resume_session", {"status": "active"}),
            ("conversation_chunk", {"chunk_id": "in-the-yard", "extracted_items_processed": 1}),
            ("store_memory", memory("spoke-wrench", "question")),
            ("store_memory", memory("repair-it-here", "decision")),
            ("delegate_task", {"task_id": "wrench-size"}),
            ("add_artifact", {"artifact_id": "how-to-true-a-wheel"}),
            ("cancel_task", {"task_id": "wrench-size", "status": "cancelled"}),
            ("pause_session", {"status": "paused"}),
            ("resume_session", {"status": "active"}),
            ("get_session_summary", {"status": "active", "stats": counts(1, 3, tasks=1, active_tasks=0, artifacts=1)}),
            ("complete_session", {"status": "completed"}),
        ),
    ),
    Get(f"/v1/sessions/{BIKE}", {"status": "completed", "stats": counts(1, 3, tasks=1, active_tasks=0, artifacts=1)}),
]

AFTERWARDS: list[Send | Ask | Get] = [
    Get(f"/v1/sessions/{ROOF}/summary", ROOF_SUMMARY),
    Get(f"/v1/sessions/{ROOF}/tasks", {"items": [PRICES, CALCULATOR]}),
    Get(f"/v1/sessions/{ROOF}/artifacts", {"items": [QUESTIONS, ESTIMATE]}),
    Get(f"/v1/search?q=hybrid+inverter&session_id={ROOF}", {"items": has({"key": "inverter", "match": "all"})}),
    Get(
        "/v1/sessions/example-paused", {"status": "paused", "stats": counts(0, 0, tasks=0, active_tasks=0, artifacts=0)}
    ),
    Get(
        "/v1/sessions/example-completed",
        {"status": "completed", "stats": counts(0, 0, tasks=0, active_tasks=0, artifacts=0)},
    ),
    Get("/v1/sessions/example-nowhere", Refused(404, "session_not_found", "session_id")),
]
"""Reads after the error examples: nothing that was rejected is stored."""
