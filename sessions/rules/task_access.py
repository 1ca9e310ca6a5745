"""The rights of the scope `agent` beyond claiming: reading and writing in a session while holding one of its tasks.
Pure; stores know which tasks are held."""

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
    """Check whether only a holder of a task in its session may send the command."""
    return any(not allows(scopes, scope) for scope in scopes_of(command)) and allows(scopes, "agent")


def may_read_answer(entry: Entry, command: Command | Exception) -> bool:
    """Check whether the sender may read the whole response: with the scope read, or because it holds a task. If it
    holds none, the response is a rejection that reveals nothing more."""
    if allows(entry.scopes, "read") or entry.command in AGENT_COMMANDS:
        return True
    return isinstance(command, Command) and needs_held_task(entry.scopes, command)


def no_task_held(scopes: Iterable[Scope], command: Command) -> Forbidden:
    """The error for a sender that holds no task."""
    missing = next(scope for scope in scopes_of(command) if not allows(scopes, scope))
    return no_task_of_session(missing)


def no_task_of_session(missing: Scope) -> Forbidden:
    """The error for a sender that holds no task of a session and lacks this scope."""
    return Forbidden(
        f"The key lacks the scope {missing!r} and currently holds no task of this session.",
        expected=f"a key with the scope {missing}",
        hint="A key with the scope agent may read and write here while it holds a task of the session.",
    )
