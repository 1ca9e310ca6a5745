"""What processes tell each other of tasks: the form of claim tokens, and the news that wake those who wait."""

from __future__ import annotations

import re

import msgspec

from models.access.api_keys import SECRET_LENGTH, hash_key, make_secret
from models.errors import NotFound

TOKEN_PREFIX = "srt_"  # noqa: S105 - no secret, but what one begins with
TASKS_CHANNEL = "sr:tasks"
"""Where TaskNotification are published."""
_TOKEN = re.compile(
    rf"({TOKEN_PREFIX}[A-Za-z0-9]{{{SECRET_LENGTH}}})"
    r"~([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})~([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})"
)


class ClaimToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim token says: the task, and the hash by which its holder is recognized."""

    session_id: str
    task_id: str
    hash: str


class Claimable(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A task that could be claimed at the moment of the news."""

    session_id: str
    agent_name: str | None
    task_type: str
    created_by: str


class TaskNotification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has changed, for those who wait. Hints only: who is woken looks for itself."""

    claimable: list[Claimable] = []
    freed: list[str] = []
    """Agents that hold a task less."""
    settled: list[tuple[str, str]] = []
    """Sessions and ids of tasks that finished or ask."""

    def __bool__(self) -> bool:
        return bool(self.claimable or self.freed or self.settled)


def make_claim_secret() -> str:
    """The part of a token that is secret; of it only the hash is stored."""
    return make_secret(TOKEN_PREFIX)


def claim_token(secret: str, *, session_id: str, task_id: str) -> str:
    """The token as the agent gets it. It names its task, so that what the agent sends finds its way into the session's
    inbox while Postgres is away."""
    return f"{secret}~{session_id}~{task_id}"


def read_claim_token(token: str) -> ClaimToken:
    """What a token says; whether it is still good shows only at the task. Raises NotFound for what is none."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise NotFound(
            "There is no claim at this address.",
            code="unknown_claim",
            field="claim_token",
            hint="Use the claim_token that POST /v1/tasks/claim gave, as it is.",
        )
    return ClaimToken(session_id=found[2], task_id=found[3], hash=hash_key(found[1]))
