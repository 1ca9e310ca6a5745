"""The scopes of each command with valid data, and requests with a given key."""

from __future__ import annotations

from typing import Any

import httpx

from models.field_types import Scope
from tests.support.processes.stack import Payload, Stack

WORD = "zanzibarite"
"""A word that occurs in everything that the limited key must not see, and nowhere else."""

COMMAND_NEEDS: dict[str, tuple[Scope, Payload]] = {
    "create_session": ("write", {"title": "Scopes"}),
    "rename_session": ("write", {"title": "Scopes"}),
    "pause_session": ("write", {}),
    "resume_session": ("write", {}),
    "complete_session": ("write", {}),
    "delete_session": ("admin", {"confirm": "not-this-one"}),
    "list_sessions": ("read", {}),
    "get_session_summary": ("read", {}),
    "resume_bundle": ("read", {}),
    "conversation_chunk": ("write", {"content": "Ana: hello."}),
    "read_conversation": ("read", {}),
    "store_memory": ("write", {"content": "x", "key": "k"}),
    "retrieve_memory": ("read", {"key": "k"}),
    "query_memories": ("read", {}),
    "list_memories": ("read", {}),
    "delete_memory": ("admin", {"key": "nothing"}),
    "search": ("read", {"q": WORD}),
    "recent_activity": ("read", {}),
    "delegate_task": ("delegate", {"description": "Look it up", "task_id": "t"}),
    "get_task": ("read", {"task_id": "t"}),
    "list_tasks": ("read", {}),
    "cancel_task": ("delegate", {"task_id": "t"}),
    "answer_task": ("delegate", {"task_id": "t", "answer": "Yes"}),
    "add_artifact": ("write", {"name": "Report", "content": "text", "artifact_id": "a"}),
    "get_artifact": ("read", {"artifact_id": "a"}),
    "list_artifacts": ("read", {}),
    "batch": ("write", {"commands": [{"command": "store_memory", "data": {"content": "x", "key": "k"}}]}),
}
"""Each command with the scope that it needs, and valid data."""
EXAMPLES = {
    "delivery_id": "nothing",
    "name_or_id": "nobody",
    "key:path": "k",
    "task_id": "t",
    "artifact_id": "a",
    "claim_token": f"srt_{'x' * 40}~{{session_id}}~t",
}


def request_as(stack: Stack, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    return stack.client.request(method, path, headers={"X-API-Key": key}, **more)


def fill(path: str, session_id: str) -> str:
    """Fill a path of the table with ids."""
    for name, value in {**EXAMPLES, "session_id": session_id}.items():
        value = value.replace("{session_id}", session_id)  # noqa: PLW2901
        path = path.replace(f"{{{name}}}", value)
    return path + ("?q=" + WORD if path == "/v1/search" else "")
