"""Renders a session's summary, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from cli.output.rich_output import paragraph, prose, sheet
from cli.output.table_columns import SESSION_IN_FULL

_SECTIONS = (
    ("open_questions", "Open questions"),
    ("action_items", "Action items"),
    ("decisions", "Decisions"),
    ("tasks", "Tasks"),
    ("facts", "Facts"),
    ("ideas", "Ideas"),
    ("notes", "Notes"),
    ("other_memories", "Other memories"),
    ("artifacts", "Artifacts"),
    ("conversation", "Latest conversation"),
)


def draw_bundle(bundle: dict[str, Any]) -> Iterator[RenderableType]:
    """Render the sections, skipping empty ones."""
    yield sheet(bundle["session"], SESSION_IN_FULL)
    left_out = bundle.get("left_out", {})
    for name, title in _SECTIONS:
        if not bundle.get(name) and not left_out.get(name):
            continue
        yield Text(f"\n{title}", style="bold")
        for item in bundle[name]:
            yield Padding(_entry(item), (0, 0, 0, 2))
        if more := left_out.get(name):
            yield Text(f"  … and {more:,} more", style="dim")


def _entry(item: dict[str, Any]) -> RenderableType:
    name = next((item[field] for field in ("key", "name", "task_id", "chunk_id") if item.get(field)), "")
    details = [item[field] for field in ("type", "status", "agent_name") if item.get(field)]
    details += [f"due {item['due']}"] if item.get("due") else []
    # A style of the first part would be that of all appended to it.
    entry = Text(overflow="fold").append_text(paragraph(str(name), style="cyan"))
    entry.append_text(paragraph(f"  {' · '.join(map(str, details))}\n" if details else "\n", style="dim"))
    text = item.get("question") or item.get("title") or item.get("description") or item.get("content") or ""
    return entry.append_text(prose(text))
