"""Redacts URL paths for logs and lists by showing only routes: ids may be tokens, or derived from conversations."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "…"
"""Replaces segments that are neither known words nor ids: a client may put an id anywhere by mistake."""

IDS = {
    "artifacts": "{artifact_id}",
    "claims": "{claim_token}",
    "commands": "{command}",
    "dead-letters": "{delivery_id}",
    "deliveries": "{delivery_id}",
    "docs": "{file}",
    "hooks": "{token}",
    "keys": "{name_or_id}",
    "memories": "{key}",
    "sessions": "{session_id}",
    "tasks": "{task_id}",
}
"""Placeholders for the ids that follow these words."""
WORDS = frozenset(
    {
        ".well-known",
        "agents",
        "artifacts",
        "ask",
        "authorize",
        "claim",
        "claims",
        "commands",
        "complete",
        "dead-letters",
        "deliveries",
        "docs",
        "events",
        "export",
        "fail",
        "healthz",
        "heartbeat",
        "hooks",
        "import",
        "keys",
        "llm-instructions",
        "mcp",
        "memories",
        "oauth",
        "oauth-authorization-server",
        "oauth-protected-resource",
        "openapi.json",
        "readyz",
        "refusals",
        "register",
        "release",
        "replay",
        "revoke",
        "search",
        "sessions",
        "sign-in",
        "start",
        "status",
        "summary",
        "tasks",
        "token",
        "transcript",
        "v1",
        "webhook",
    }
)
"""The fixed segments of the relay's routes."""
ACTIONS = {"tasks": "claim", "dead-letters": "replay"}
"""Words that appear in the position of an id."""

_MAX_DECODINGS = 4
"""Percent-decodings of a path; benign clients never encode one that often."""


def mask_path(path: str) -> str:
    """Return the route of a path without its query: known words are kept, all else becomes a placeholder or `…`."""
    decoded = path.partition("?")[0]
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(decoded)
    shown: list[str] = []
    before = ""
    for part in re.split(r"[/\\]", decoded):
        word = part.lower()
        if word and (word not in WORDS or (before in IDS and ACTIONS.get(before) != word)):
            shown.append(IDS.get(before, MASK))
            before = ""
        else:
            shown.append(part)
            before = word or before
    return "/".join(shown)
