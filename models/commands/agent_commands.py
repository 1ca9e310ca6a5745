"""The commands by which an agent ends its work on a task it has claimed. They go through the session's inbox like all
commands, but can be sent only by way of a claim token, and stand in no list of commands."""

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
    """A command of the one who holds a claim, which stands in for a scope: its hash is compared with the task's."""

    scope = "agent"
    in_batch = False
    task_id: v.Id
    claim: str


class CompleteTask(ClaimCommand, frozen=True, kw_only=True):
    """The task is done: its output, and what was made."""

    output: JsonValue = NOTHING
    artifacts: Artifacts = msgspec.field(default_factory=list)


class FailTask(ClaimCommand, frozen=True, kw_only=True):
    """The task could not be done; another attempt may be worth it."""

    error: Text
    retryable: bool = False


class AskTask(ClaimCommand, frozen=True, kw_only=True):
    """The task cannot go on without an answer."""

    question: Text


AGENT_COMMANDS: dict[str, type[ClaimCommand]] = {
    "complete_task": CompleteTask,
    "fail_task": FailTask,
    "ask_task": AskTask,
}
