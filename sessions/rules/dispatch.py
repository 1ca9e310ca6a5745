"""Dispatches each changing command to its rule, and collects the records that the rules need. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from models.commands import agent_commands as a
from models.commands import definitions as c
from models.commands.payloads import decode_command
from sessions.rules.artifacts import add_artifact
from sessions.rules.claims import ask_task, complete_task, fail_task
from sessions.rules.conversations import append_chunk, chunk_keys
from sessions.rules.decision import Context, Decision
from sessions.rules.lifecycle import (
    complete_session,
    create_session,
    delete_session,
    pause_session,
    rename_session,
    resume_session,
)
from sessions.rules.memories import delete_memory, store_memory
from sessions.rules.records import Key, artifact_key, memory_key, session_key, task_key
from sessions.rules.state import State
from sessions.rules.tasks import answer_task, cancel_task, delegate_task, description_hash


class Recipient(NamedTuple):
    """The recipient of a task: a named agent, or any agent that takes its type."""

    agent_name: str | None
    task_type: str


class ReadSet(msgspec.Struct, kw_only=True):
    """The records and counts to load before commands can be decided."""

    keys: set[Key] = msgspec.field(default_factory=set)
    held: set[Key] = msgspec.field(default_factory=set)
    """Keys of tasks that agents may change concurrently; a store with agents locks them."""
    stats: set[str] = msgspec.field(default_factory=set)
    """Sessions whose counts are shown."""
    descriptions: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """Sessions and description hashes whose tasks are counted."""
    conversations: set[str] = msgspec.field(default_factory=set)
    """Sessions whose last chunk's id is needed."""

    open_tasks: set[str] = msgspec.field(default_factory=set)
    """Sessions whose open tasks are listed in part."""
    recipients: dict[str | None, set[Recipient]] = msgspec.field(default_factory=dict)
    """Recipients of delegated tasks, by the pattern of sessions that the sender may see."""

    def add(self, command: c.Command, session_id: str | None, session_glob: str | None = None) -> None:
        """Add the records that a command touches; `session_glob` is the pattern of sessions that its sender may see."""
        if session_id is None or command.is_read:
            return
        self.keys.add(session_key(session_id))
        match command:
            case c.Batch():
                for item in command.commands:
                    self.add(decode_command(item.command, item.data), session_id, session_glob)
            case c.StoreMemory() | c.DeleteMemory():
                self.keys.add(memory_key(session_id, command.key or ""))
            case c.ConversationChunk():
                self.keys.update(chunk_keys(command, session_id))
                self.conversations.add(session_id)
            case c.AddArtifact():
                self.keys.add(artifact_key(session_id, command.artifact_id or ""))
                if command.task_id:
                    self.keys.add(task_key(session_id, command.task_id))
            case c.DelegateTask():
                self.keys.update(task_key(session_id, task_id) for task_id in command.depends_on)
                self.descriptions.add((session_id, description_hash(command.agent_name, command.description)))
                recipient = Recipient(command.agent_name, command.task_type)
                self.recipients.setdefault(session_glob, set()).add(recipient)
                if command.task_id:
                    self.keys.add(task_key(session_id, command.task_id))
            case c.CancelTask() | c.AnswerTask() | a.ClaimCommand():
                key = task_key(session_id, command.task_id)
                self.keys.add(key)
                self.held.add(key)
                for artifact in command.artifacts if isinstance(command, a.CompleteTask) else ():
                    self.add(artifact, session_id)
            case c.CompleteSession():
                self.stats.add(session_id)
                self.open_tasks.add(session_id)
            case _:
                self.stats.add(session_id)


def decide(state: State, command: c.Command, context: Context) -> Decision:
    """Decide one changing command other than a batch. Raises Rejected if it cannot be applied."""
    match command:
        case c.CreateSession():
            return create_session(state, command, context)
        case c.RenameSession():
            return rename_session(state, command, context)
        case c.PauseSession():
            return pause_session(state, context)
        case c.ResumeSession():
            return resume_session(state, context)
        case c.CompleteSession():
            return complete_session(state, command, context)
        case c.DeleteSession():
            return delete_session(state, command, context)
        case c.ConversationChunk():
            return append_chunk(state, command, context)
        case c.StoreMemory():
            return store_memory(state, command, context)
        case c.DeleteMemory():
            return delete_memory(state, command, context)
        case c.DelegateTask():
            return delegate_task(state, command, context)
        case c.CancelTask():
            return cancel_task(state, command, context)
        case c.AnswerTask():
            return answer_task(state, command, context)
        case c.AddArtifact():
            return add_artifact(state, command, context)
        case a.CompleteTask():
            return complete_task(state, command, context)
        case a.FailTask():
            return fail_task(state, command, context)
        case a.AskTask():
            return ask_task(state, command, context)
    raise TypeError(f"No rule for {type(command).__name__}.")
