"""The commands that have their own tool. Tools are few, because each takes up context of every client."""

from __future__ import annotations

from typing import NamedTuple


class Hints(NamedTuple):
    """Tool annotations, by which clients decide whether to ask their users first."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = True
    open_world: bool = False


READ = Hints(read_only=True)
WRITE = Hints()

COMMAND_TOOLS: dict[str, tuple[str, Hints, str]] = {
    "resume_bundle": (
        "Pick up a session",
        READ,
        "Start here when your user continues something: the latest conversation and decisions, open questions, action "
        "items, tasks and artifacts. Without session_id: the most recently active session.",
    ),
    "create_session": (
        "Start a session",
        WRITE,
        "Start a session for a new topic. Give it a title; remember the session_id from the response.",
    ),
    "store_memory": (
        "Remember something",
        WRITE,
        "Store a decision, idea, question, action_item, fact or the like as soon as it comes up. Storing under the "
        "same key adds a revision; old ones are kept.",
    ),
    "query_memories": (
        "Look up memories",
        READ,
        'Find memories by type, tags, status and time, newest first: "what did we decide?" is type decision. Without '
        "session_id: in all sessions.",
    ),
    "search": (
        "Search",
        READ,
        "Full-text search over conversations, memories and artifacts. Without session_id: in all sessions.",
    ),
    "delegate_task": (
        "Delegate a task",
        Hints(open_world=True),
        "Delegate work to an agent on a computer, such as researcher, claude_code, codex or gemini_cli. It runs with "
        "that computer's permissions. Put everything it needs into description. The result is stored in the session: "
        "call get_task with wait, or check `updates` in later responses.",
    ),
    "get_task": (
        "Get a task",
        READ,
        "Get a task's state, progress, result or question; with wait, responds once the task finishes or asks. Answer "
        "questions with send_command answer_task.",
    ),
}
"""Commands that have their own tool: title, annotations, and when to use it."""
