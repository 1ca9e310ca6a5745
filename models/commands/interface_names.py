"""Translates command names in hints to the client's interface: MCP tools, HTTP routes or session-cli commands.

Hints are written with the command names that webhooks and GPT Actions use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from models.commands.definitions import COMMANDS

CLI_COMMANDS = {
    "create_session": "create",
    "list_sessions": "list",
    "get_session_summary": "show",
    "resume_bundle": "summary",
    "pause_session": "pause",
    "resume_session": "resume",
    "complete_session": "complete",
    "delete_session": "delete",
    "read_conversation": "transcript",
    "recent_activity": "activity",
    "list_memories": "memories",
    "query_memories": "memories",
    "retrieve_memory": "memories",
    "store_memory": "remember",
    "conversation_chunk": "say",
    "search": "search",
    "delegate_task": "delegate",
    "get_task": "task show",
    "answer_task": "task answer",
    "cancel_task": "task cancel",
    "list_tasks": "list-tasks",
    "list_artifacts": "list-artifacts",
    "get_artifact": "artifact",
}
"""Commands that have their own session-cli command; the others go through `send`."""
CLI_ROUTES = {
    "GET /v1/deliveries/": "session-cli deliveries ",
    "GET /v1/deliveries": "session-cli deliveries",
    "GET /v1/dead-letters": "session-cli dead-letters list",
    "GET /v1/keys": "session-cli keys list",
}
CLI_PHRASES = {
    'send open_tasks: "cancel"': "give --cancel-tasks",
    "Send it in the header X-API-Key, or as Authorization: Bearer KEY.": "Run session-cli login, or set API_KEY.",
    "Wait for the time in Retry-After.": "Wait a little.",
    "Send this read again in a few seconds, or read with GET.": "Run it again in a few seconds.",
    "or ask for less with max_characters": "or ask for less with --limit",
    "a smaller max_characters, or fewer items at once": "a smaller --limit",
    "use rotate for": "pass --rotate for",
    "Omit rotate to": "Omit --rotate to",
    "Set source if": "Pass --source if",
}
"""What only senders of webhooks can do, and what users of session-cli do instead."""
ROUTES = {
    "list_sessions": "GET /v1/sessions",
    "list_memories": "GET /v1/sessions/{session_id}/memories",
    "list_tasks": "GET /v1/sessions/{session_id}/tasks",
    "list_artifacts": "GET /v1/sessions/{session_id}/artifacts",
    "get_session_summary": "GET /v1/sessions/{session_id}",
    "read_conversation": "GET /v1/sessions/{session_id}/transcript",
    "resume_bundle": "GET /v1/sessions/{session_id}/summary",
    "search": "GET /v1/search",
    "recent_activity": "GET /v1/activity",
}
"""Commands with their own route for reading; the others are at /v1/commands."""

# Names in quotation marks are user text. `search` and `batch` are also English words.
_COMMANDS = "|".join(COMMANDS.keys() - {"search", "batch"})
_ROUTES = {re.compile(rf"{re.escape(route)}(?![/\w])"): name for name, route in ROUTES.items()}
_NAME = re.compile(rf"(?P<verb>[Ss]end )?(?<!['\"/\w])(?<!send_command )(?P<name>{_COMMANDS})(?!['\"\w])")


def to_tools(hint: str, tools: Mapping[str, object]) -> str:
    """Translate a hint for an MCP client; `tools` are the commands that are tools of their own."""
    hint = hint.replace("POST /v1/tasks/claim", "claim_task")
    return _translate(hint, verb="Call ", name_of=lambda name: name if name in tools else f"send_command {name}")


def to_routes(hint: str) -> str:
    """Translate a hint for an HTTP client."""
    return _translate(hint, verb="Send ", name_of=lambda name: ROUTES.get(name, f"POST /v1/commands/{name}"))


def to_cli(hint: str) -> str:
    """Translate a hint, which may be written for HTTP, for the command line."""
    for phrase, ours in CLI_PHRASES.items():
        hint = hint.replace(phrase, ours)
    # The id goes into the webhook itself.
    hint = re.sub(r"Retry it with the header Idempotency-Key: (\S+)", r'Send it again with "id": "\1".', hint)
    hint = hint.replace("POST /v1/commands/", "")
    for route, name in _ROUTES.items():
        hint = route.sub(name, hint)
    for address, command in CLI_ROUTES.items():
        hint = hint.replace(address, command)
    return _translate(hint, verb="Run ", name_of=_cli_command)


def _cli_command(name: str) -> str:
    return f"session-cli {CLI_COMMANDS[name]}" if name in CLI_COMMANDS else f"session-cli send ({name})"


def _translate(hint: str, *, verb: str, name_of: Callable[[str], str]) -> str:
    def translated(found: re.Match[str]) -> str:
        said = found["verb"] or ""
        spoken = verb if said[:1].isupper() else verb.lower()
        return (spoken if said else "") + name_of(found["name"])

    return _NAME.sub(translated, hint)
