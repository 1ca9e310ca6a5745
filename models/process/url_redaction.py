"""Paths of addresses as logs and lists may show them: as routes. What stands in the place of an id is a token, as good
as a key, or is made from what somebody said."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "…"
"""For whatever is neither a word of ours nor in the place of an id: an id may stand anywhere by mistake."""

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
"""What follows these words."""
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
"""Of which our addresses are made."""
ACTIONS = {"tasks": "claim", "dead-letters": "replay"}
"""Words that stand where there is an id else."""

_MAX_DECODINGS = 4
"""A path may be percent-encoded several times over; nobody who means well does it that often."""


def mask_path(path: str) -> str:
    """The path as a route, without query: words of ours as they are, and placeholders or `…` for all else, however it
    is written."""
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
