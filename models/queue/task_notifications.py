"""Claim tokens, and the notifications about tasks that wake waiting clients."""

from __future__ import annotations

import re

import msgspec

from models.access.api_keys import SECRET_LENGTH, hash_key, make_secret
from models.errors import NotFound

TOKEN_PREFIX = "srt_"  # noqa: S105 - the prefix of secrets, not a secret
TASKS_CHANNEL = "sr:tasks"
"""The channel of TaskNotifications."""
_TOKEN = re.compile(
    rf"({TOKEN_PREFIX}[A-Za-z0-9]{{{SECRET_LENGTH}}})"
    r"~([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})~([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})"
)


class ClaimToken(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a claim token: the task, and the hash that identifies the holder."""

    session_id: str
    task_id: str
    hash: str


class Claimable(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A task that was claimable when the notification was sent."""

    session_id: str
    agent_name: str | None
    task_type: str
    created_by: str


class TaskNotification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Changes of tasks, for waiting clients. These are only hints: a woken process checks the tasks itself."""

    claimable: list[Claimable] = []
    freed: list[str] = []
    """Agents that released a task."""
    settled: list[tuple[str, str]] = []
    """Session and task ids of tasks that finished or ask a question."""

    def __bool__(self) -> bool:
        return bool(self.claimable or self.freed or self.settled)


def make_claim_secret() -> str:
    """Create the secret part of a token, of which only the hash is stored."""
    return make_secret(TOKEN_PREFIX)


def claim_token(secret: str, *, session_id: str, task_id: str) -> str:
    """Return the token for the agent.

    It includes the task, so that the relay can route the agent's commands to the session's inbox while Postgres is
    unavailable.
    """
    return f"{secret}~{session_id}~{task_id}"


def read_claim_token(token: str) -> ClaimToken:
    """Parse a token, which may no longer be valid for its task. Raises NotFound for a malformed one."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise NotFound(
            "Invalid claim token.",
            code="unknown_claim",
            field="claim_token",
            hint="Use the claim_token from the response of POST /v1/tasks/claim, unchanged.",
        )
    return ClaimToken(session_id=found[2], task_id=found[3], hash=hash_key(found[1]))
