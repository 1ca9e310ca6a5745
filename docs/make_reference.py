"""Generates the reference in docs/LLM_SESSION_API.md: `python -m docs.make_reference` writes all commands of
`models.commands`, and all errors that the source raises, between the marks of the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path
from typing import Any

from api.openapi.document import build_document
from docs.error_codes import Found, codes_of, served_codes, tool_codes
from docs.error_texts import SERVED, TOOLS
from models import field_types as v
from models.commands.definitions import COMMANDS, Command
from models.commands.field_docs import describe_field
from models.commands.payloads import parse_envelope

PAGE = Path(__file__).parent / "LLM_SESSION_API.md"
EXAMPLES = Path(__file__).parent.parent / "examples"
MARKS = "<!-- begin: python -m docs.make_reference: {part} -->\n", "<!-- end: {part} -->\n"

MAIN_EXAMPLES = {
    "store_memory": "store_memory_decision",
    "delegate_task": "delegate_task_research",
    "add_artifact": "add_artifact_document",
    "batch": "conversation_batch",
}
"""The example to show for commands that have several, or whose example has another name."""
ANSWERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "create_session",
            "rename_session",
            "pause_session",
            "resume_session",
            "complete_session",
            "get_session_summary",
        ),
        (
            *("session_id", "title", "participants", "context", "status"),
            *("created", "created_at", "last_activity", "duration_minutes", "stats"),
        ),
    ),
    "delete_session": ("deleted",),
    "list_sessions": ("sessions", "count", "next_cursor"),
    "resume_bundle": (
        *("session", "open_questions", "action_items", "decisions", "tasks", "facts", "ideas", "notes"),
        *("other_memories", "artifacts", "conversation"),
    ),
    "conversation_chunk": ("chunk_id", "content_size", "extracted_items_processed", "memory_keys", "created"),
    "read_conversation": ("chunks", "count", "next_cursor"),
    "store_memory": ("key", "type", "revision", "created"),
    "retrieve_memory": ("memory",),
    "query_memories": ("memories", "count", "next_cursor"),
    "list_memories": ("memories", "count", "next_cursor"),
    "delete_memory": ("key", "deleted"),
    "search": ("hits", "count", "next_cursor", "match", "method"),
    "recent_activity": ("activity", "count", "next_cursor"),
    **dict.fromkeys(
        ("delegate_task", "cancel_task", "answer_task"),
        (
            *("task_id", "title", "agent_name", "task_type", "status", "priority"),
            *("attempt", "max_attempts", "created_at", "updated_at"),
        ),
    ),
    "get_task": ("task",),
    "list_tasks": ("tasks", "count", "next_cursor"),
    "add_artifact": ("artifact_id", "name", "type", "revision", "created"),
    "get_artifact": ("artifact",),
    "list_artifacts": ("artifacts", "count", "next_cursor"),
    "batch": ("results", "processed", "failed"),
}
"""The fields of `data` in each command's response. A test sends the examples and checks them."""
SOMETIMES: dict[str, tuple[str, ...]] = {
    "complete_session": ("cancelled_tasks",),
    "delegate_task": ("created", "agents_online", "ahead_in_queue", "warning", "depends_on", "not_before"),
    "cancel_task": ("depends_on", "not_before"),
    "answer_task": ("depends_on", "not_before"),
    "resume_session": ("waiting_events",),
    "add_artifact": ("outcome",),
    "store_memory": ("due", "outcome", "status"),
    "resume_bundle": ("truncated", "left_out", "read_on"),
    "search": ("meaning_ready", "not_embedded"),
}
"""Fields that only some responses have. Truncated lists also have `truncated`."""
NEVER_AGAIN = {"dead_letter", "internal", "discarded", "rejected"}
"""Errors that the client cannot fix by sending anything."""
FORMS = {v.PATTERNS[v.ID_PATTERN]: "id", v.PATTERNS[v.NAME_PATTERN]: "name", v.PATTERNS[v.LABEL_PATTERN]: "label"}
"""Forms of values that the page explains once, before the commands."""


def make_commands() -> str:
    """Return a section for each command."""
    return "\n".join(line for name, definition in COMMANDS.items() for line in _command(name, definition))


def make_errors() -> str:
    """Return the tables of errors."""
    between = "Only `session-cli`, the agent's runner and the local stack return these, never the relay over HTTP:"
    return "\n".join([*_rows_of_served(), "", between, "", *_rows_of_tools()])


def make_page(text: str) -> str:
    """Return the page with its generated parts replaced."""
    for part, content in (("commands", make_commands()), ("errors", make_errors())):
        begin, end = (mark.format(part=part) for mark in MARKS)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{PAGE.name} lacks the marks of {part}: restore them.")
        text = f"{before}{begin}\n{content}\n\n{end}{after}"
    return text


def example_of(name: str) -> Path:
    """Return the path of the example that the reference shows for a command."""
    return EXAMPLES / f"{MAIN_EXAMPLES.get(name, name)}.json"


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _command(name: str, definition: type[Command]) -> Iterator[str]:
    path = example_of(name)
    if parse_envelope(path.read_bytes()).command.__class__ is not definition:
        raise SystemExit(f"Invalid example: {path.name} holds another command than {name}.")
    schema = _document()["components"]["schemas"][f"{definition.__name__}Request"]
    yield f"#### `{name}`"
    yield ""
    yield (definition.__doc__ or "").strip()
    yield ""
    yield f"Scope: `{definition.scope}`. {_place(definition)}".strip()
    yield ""
    yield "| field | takes | meaning |"
    yield "|---|---|---|"
    for field, described in schema["properties"].items():
        if field != "id":
            takes = _takes(described, needed=field in schema["required"])
            yield f"| `{field}` | {takes} | {describe_field(definition, field)} |"
    yield ""
    yield "```json"
    yield path.read_text(encoding="utf-8").strip()
    yield "```"
    yield ""
    fields = ", ".join(f"`{field}`" for field in ANSWERS[name])
    sometimes = SOMETIMES.get(name)
    yield f"`data` in the response: {fields}" + (f"; also {_listed(sometimes)} if they apply." if sometimes else ".")
    yield ""
    special = codes_of(name)
    if name == "batch":
        yield "Errors specific to this command: those of its commands, with the place in the batch in `field`."
    else:
        errors = f"Errors specific to this command: {_listed(special, link=True)}."
        yield errors if special else "It has no errors specific to this command."
    yield ""


def _place(definition: type[Command]) -> str:
    """Say whether a command only reads, and whether a batch may contain it."""
    notes = ["It changes nothing." if definition.is_read else "", "" if definition.in_batch else "Not in a batch."]
    return " ".join(note for note in notes if note)


def _takes(schema: dict[str, Any], *, needed: bool) -> str:
    options = [option for option in schema.get("anyOf", (schema,)) if option != {"type": "null"}]
    [option] = options
    words = [_kind(option)]
    if "minimum" in option:
        words.append(f"{option['minimum']:,} to {option['maximum']:,}")
    elif "maxLength" in option and _form(option) is None:
        words.append(f"at most {option['maxLength']:,} characters")
    if "maxItems" in option:
        words.append(f"at most {option['maxItems']:,}")
    default = schema.get("default")
    if needed:
        words.append("**needed**")
    elif default not in (None, "", [], {}):
        words.append(f"else {_literal(default)}")
    return ", ".join(words)


def _kind(option: dict[str, Any]) -> str:
    if form := _form(option):
        return f"[{form}](#ids-names-labels-and-times)"
    if "enum" in option:
        *others, last = [_literal(value) for value in option["enum"]]
        return f"{', '.join(others)} or {last}"
    if "$ref" in option:
        inner = _document()["components"]["schemas"][option["$ref"].rpartition("/")[2]]
        return f"object with {_listed(inner['properties'])}"
    if option.get("type") == "array":
        return "list" if "$ref" in option["items"] else f"list of {_kind(option['items'])}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(option.get("type", ""), "JSON object" if option.get("type") == "object" else "any JSON")


def _form(option: dict[str, Any]) -> str | None:
    said = str(option.get("description", ""))
    return next((word for form, word in FORMS.items() if form in said), None)


def _literal(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _listed(names: Any, *, link: bool = False) -> str:
    return ", ".join(f"[`{name}`](#error-{name})" if link else f"`{name}`" for name in names)


def _rows_of_served() -> Iterator[str]:
    _require_same(served_codes().keys(), SERVED.keys())
    yield "| code | status | cause | what to do | retry? |"
    yield "|---|---|---|---|---|"
    for code, text in SERVED.items():
        statuses = " or ".join(str(found.status) for found in served_codes()[code])
        again = " or ".join(dict.fromkeys(_again(found) for found in served_codes()[code]))
        yield f"| {_anchored(code)} | {statuses} | {text.cause} | {text.remedy} | {again} |"


def _again(error: Found) -> str:
    if error.code in NEVER_AGAIN:
        return "no"
    return "yes, unchanged" if error.retryable else "after fixing it"


def _rows_of_tools() -> Iterator[str]:
    _require_same(tool_codes(), TOOLS.keys())
    yield "| code | cause | what to do |"
    yield "|---|---|---|"
    for code, text in TOOLS.items():
        yield f"| {_anchored(code)} | {text.cause} | {text.remedy} |"


def _anchored(code: str) -> str:
    return f'<a id="error-{code}"></a>`{code}`'


def _require_same(in_source: Set[str], written: Set[str]) -> None:
    if differing := in_source ^ written:
        raise SystemExit(f"docs/error_texts.py and the source differ in: {', '.join(sorted(differing))}.")


@cache
def _document() -> dict[str, Any]:
    return build_document()


if __name__ == "__main__":
    sys.exit(main())
