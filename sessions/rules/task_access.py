"""What the scope `agent` allows beyond claiming: to read and write in a session while one holds a task of it. Pure; who
holds what, a store knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.access.scopes import allows
from models.commands.agent_commands import AGENT_COMMANDS
from models.commands.definitions import Command
from models.commands.payloads import scopes_of
from models.errors import Forbidden
from models.field_types import Scope
from models.queue.inbox import Entry


def needs_held_task(scopes: Sequence[Scope], command: Command) -> bool:
    """Whether the command may be done only by who holds a task in its session."""
    return any(not allows(scopes, scope) for scope in scopes_of(command)) and allows(scopes, "agent")


def may_read_answer(entry: Entry, command: Command | Exception) -> bool:
    """Whether the sender may read all of the answer: with the scope read, or because of the task that it holds. If it
    holds none, the answer is a refusal that says no more."""
    if allows(entry.scopes, "read") or entry.command in AGENT_COMMANDS:
        return True
    return isinstance(command, Command) and needs_held_task(entry.scopes, command)


def no_task_held(scopes: Iterable[Scope], command: Command) -> Forbidden:
    """The error for who does not."""
    missing = next(scope for scope in scopes_of(command) if not allows(scopes, scope))
    return no_task_of_session(missing)


def no_task_of_session(missing: Scope) -> Forbidden:
    """The error for who holds no task of a session, and lacks this scope."""
    return Forbidden(
        f"The key lacks the scope {missing!r}, and holds no task of this session at the moment.",
        expected=f"a key with the scope {missing}",
        hint="With the scope agent it may read and write here while it holds a task of the session.",
    )
