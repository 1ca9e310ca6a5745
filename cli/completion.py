"""Completes ids and names from what the backend holds. Whatever fails, nothing is completed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from cli.context import CliContext

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST = 200
"""The number of items that are looked through."""
_ONE_WORD = re.compile(r"(?!-)[\w@%+=:,./-]+")
"""Values that a shell takes as one word. bash inserts a completion unquoted, and would run what others put into it."""
Found = Iterable[tuple[str, str]]
"""Values, each with a help text."""
Completion = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _completing(find: Callable[[CliContext, str | None], Found]) -> Completion:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        tool = ctx.obj
        if not isinstance(tool, CliContext):
            return []
        tool.is_completing = True
        try:
            # Before an option without its value, click has not assigned the arguments yet.
            session_id = ctx.params.get("session_id") or next(iter(ctx.args), None)
            found = list(find(tool, session_id))
        except Exception:  # A shell shows nothing useful of an error while it completes a word.
            return []
        fitting = ((value, told) for value, told in found if value.startswith(incomplete))
        return [CompletionItem(value, help=told) for value, told in fitting if _ONE_WORD.fullmatch(value)]

    return complete


def _sessions(tool: CliContext, _: str | None) -> Found:
    page = tool.backend.page("list_sessions", {"limit": MOST}, session_id=None)
    return ((item["session_id"], item["title"]) for item in page.items)


def _items(command: str, name: str, told: str) -> Callable[[CliContext, str | None], Found]:
    def find(tool: CliContext, session_id: str | None) -> Found:
        if session_id is None:
            return []
        page = tool.backend.page(command, {"limit": MOST}, session_id=session_id)
        return ((item[name], str(item.get(told) or "")) for item in page.items)

    return find


def _agents(tool: CliContext, _: str | None) -> Found:
    from models.routes import path_to

    if tool.uses_relay:
        items = tool.client.get(path_to("read_agents"), {"limit": MOST})["items"]
        return ((item["name"], "online" if item["online"] else "offline") for item in items)
    page = tool.backend.page("list_tasks", {"limit": MOST}, session_id=None)
    return dict.fromkeys((item["agent_name"], "") for item in page.items if item.get("agent_name"))


def _keys(tool: CliContext, _: str | None) -> Found:
    from models.routes import path_to

    items = tool.client.get(path_to("read_keys"))["items"]
    return dict.fromkeys((item["name"], " ".join(item["scopes"])) for item in items if not item["revoked_at"])


def _profiles(tool: CliContext, _: str | None) -> Found:
    from cli.configuration import stored_profiles

    return ((profile.name, profile.url) for profile in stored_profiles(tool.environment))


def _examples(tool: CliContext, _: str | None) -> Found:
    from cli.configuration import EXAMPLES

    return ((path.stem, "") for path in sorted(EXAMPLES.glob("*.json")) if path.stem != "error_examples")


complete_sessions = _completing(_sessions)
complete_memory_keys = _completing(_items("query_memories", "key", "type"))
complete_tasks = _completing(_items("list_tasks", "task_id", "title"))
complete_artifacts = _completing(_items("list_artifacts", "artifact_id", "name"))
complete_agents = _completing(_agents)
complete_keys = _completing(_keys)
complete_profiles = _completing(_profiles)
complete_examples = _completing(_examples)
