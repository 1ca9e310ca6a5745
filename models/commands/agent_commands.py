"""Commands with which an agent completes, fails or asks about a claimed task.

They pass through the session's inbox like all commands, but require a claim token and are not listed in COMMANDS.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from models import field_types as v
from models.commands.definitions import AddArtifact, Command, JsonValue

NOTHING = Raw(b"null")
Artifacts = Annotated[list[AddArtifact], Meta(max_length=100)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]


class ClaimCommand(Command, frozen=True, kw_only=True):
    """A command authorized by a claim instead of a scope: the hash of its token is compared with the task's."""

    scope = "agent"
    in_batch = False
    task_id: v.Id
    claim: str


class CompleteTask(ClaimCommand, frozen=True, kw_only=True):
    """Complete a task with its output and artifacts."""

    output: JsonValue = NOTHING
    artifacts: Artifacts = msgspec.field(default_factory=list)


class FailTask(ClaimCommand, frozen=True, kw_only=True):
    """Report a failed attempt, which may be retryable."""

    error: Text
    retryable: bool = False


class AskTask(ClaimCommand, frozen=True, kw_only=True):
    """Ask a question that the agent needs answered to continue."""

    question: Text


AGENT_COMMANDS: dict[str, type[ClaimCommand]] = {
    "complete_task": CompleteTask,
    "fail_task": FailTask,
    "ask_task": AskTask,
}
