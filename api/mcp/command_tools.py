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
        "Start here when your user continues something: open questions, action items, decisions, tasks, facts, "
        "artifacts and the latest conversation. Without session_id: the session last written to. To find one by its "
        "title: list_sessions.",
    ),
    "list_sessions": (
        "List sessions",
        READ,
        "Find a session by words of its title (q), or list the most recently active first.",
    ),
    "search": (
        "Search",
        READ,
        "Search conversations, memories, artifacts, tasks and sessions by words and meaning. Without session_id: in "
        'all sessions. A hit with match "meaning" is a guess: if none fits, search for key nouns in the language of '
        "the texts, or open the session that fits with resume_bundle.",
    ),
    "read_conversation": (
        "Read a conversation",
        READ,
        "Read a conversation word for word. To read around a hit, send its chunk_id, an offset some hundred "
        "characters before its own, where the match is, and max_characters 2000.",
    ),
    "recent_activity": (
        "See what happened",
        READ,
        'What happened, newest first, in all sessions or one: "last week" is since its Monday until its Sunday '
        "(included). All is in one response, unless it has next_cursor.",
    ),
    "query_memories": (
        "Look up memories",
        READ,
        'Find memories, newest first: "what did we decide?" is type decision, "what is still to be done?" is status '
        "open. Without session_id: in all but completed sessions.",
    ),
    "retrieve_memory": ("Read a memory", READ, "Read one memory, or an earlier revision of it."),
    "list_tasks": ("List tasks", READ, "List tasks by status, open ones first. Without session_id: of all sessions."),
    "get_task": (
        "Get a task",
        READ,
        "Get a task's state, progress, result or question; with wait, responds once the task finishes or asks. Answer "
        "questions with send_command answer_task.",
    ),
    "list_artifacts": (
        "List artifacts",
        READ,
        "List finished documents, code and the like, newest first, without content. With artifact_id: its "
        "revisions; read one with get_artifact.",
    ),
    "get_artifact": (
        "Read an artifact",
        READ,
        "Read an artifact with its content. Default: the newest revision; they count from 1. To change it: "
        "send_command add_artifact with all of the new content, and if_revision, the revision you read.",
    ),
    "create_session": (
        "Start a session",
        WRITE,
        "Start a session for a new topic. Give it a title; remember the session_id from the response.",
    ),
    "store_memory": (
        "Remember something",
        WRITE,
        "Store a decision, idea, question, action_item, fact or the like as soon as it comes up. A change under its "
        "key keeps what you omit: key and status are enough to mark it done.",
    ),
    "delegate_task": (
        "Delegate a task",
        Hints(open_world=True),
        "Delegate work to an agent on a computer, such as researcher, claude_code, codex or gemini_cli. It runs with "
        "that computer's permissions. Put everything it needs into description. The result is stored in the session: "
        "call get_task with wait, or check `updates` in later responses.",
    ),
}
"""Commands that have their own tool: title, annotations, and when to use it. All reads do, except those that others
include; clients need not ask their users before they call them."""
INCLUDED_READS = {"get_session_summary": "list_sessions", "list_memories": "query_memories"}
"""Reads without a tool of their own, and the tool that returns the same."""
