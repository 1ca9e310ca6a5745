"""Shows the contents of sessions: conversation, memories, tasks and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from cli.backends.pages import Items, listed
from cli.command_declaration import command, id_argument, limit_option, session_argument, session_option
from cli.commands.search import MEMORY_TYPES, split_tags
from cli.completion import complete_agents, complete_artifacts
from cli.context import CliContext
from cli.output.table_columns import (
    ACTIVITY,
    ARTIFACT,
    ARTIFACT_IN_FULL,
    ARTIFACT_REVISION,
    CHUNK,
    MEMORY,
    TASK,
    OutputSchema,
)

TASK_STATES = ("pending", "claimed", "running", "input_required", "completed", "failed", "cancelled")


@command("transcript", CHUNK)
@session_argument()
@click.option("--chunk", "chunk_id", metavar="ID", help="Start with this chunk.")
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Skip the first N characters of that chunk.")
@limit_option(0)
def transcript(tool: CliContext, session_id: str, chunk_id: str | None, offset: int | None, limit: int) -> None:
    """Show a session's conversation."""
    from cli.backends.reassembly import whole_chunks

    found = listed(tool, "read_conversation", {"chunk_id": chunk_id, "offset": offset}, session_id=session_id, limit=0)
    chunks = whole_chunks(found)
    tool.terminal.items(_first(chunks, limit) if limit else chunks, CHUNK, nothing="The conversation is empty.")


@command("activity", ACTIVITY)
@session_option()
@click.option("--since", metavar="TIME", help="Only what happened since a time, a date, or an age such as 7d.")
@click.option("--until", metavar="TIME", help="Only what happened up to this time.")
@limit_option(20)
def activity(tool: CliContext, session_id: str | None, limit: int, **period: str | None) -> None:
    """List recent activity, newest first. Shows sessions created or completed, conversation, memories, tasks and
    artifacts."""
    found = listed(tool, "recent_activity", period, session_id=session_id, limit=limit)
    tool.terminal.items(found, _across(ACTIVITY, session_id), nothing="Nothing happened.")


@command("memories", MEMORY)
@session_argument()
@click.option("--type", "kind", type=click.Choice(MEMORY_TYPES), help="Filter by type.")
@click.option("--tags", metavar="TAGS", help="Filter by tags: any of these, comma-separated.")
@click.option("--status", type=click.Choice(["open", "done", "superseded"]), help="Filter by status.")
@click.option("--due-after", metavar="TIME", help="Filter by what is due from a date or time on.")
@click.option("--due-before", metavar="TIME", help="Filter by what is due: up to a date, before a time, or 'in 7d'.")
@click.option("--sort", type=click.Choice(["updated", "due"]), help="Newest first, or what is due first, first.")
@limit_option()
def memories(
    tool: CliContext, session_id: str, kind: str | None, tags: str | None, status: str | None, limit: int, **due: Any
) -> None:
    """List a session's memories, newest or first due first."""
    from cli.backends.reassembly import whole_memory

    wanted = {"type": kind, "tags": split_tags(tags), "status": status, **due}
    found = listed(tool, "query_memories", wanted, session_id=session_id, limit=limit)
    whole = ([whole_memory(tool.backend, item) for item in page] for page in found)
    tool.terminal.items(whole, MEMORY, nothing="No memories found.")


@command("list-tasks", TASK)
@click.option("--status", type=click.Choice(TASK_STATES), help="Filter by status.")
@click.option("--agent", metavar="NAME", shell_complete=complete_agents, help="Filter by agent.")
@session_option()
@limit_option()
def list_tasks(tool: CliContext, status: str | None, agent: str | None, session_id: str | None, limit: int) -> None:
    """List tasks. Open tasks come first, in queue order, then finished ones, newest first."""
    found = listed(tool, "list_tasks", {"status": status, "agent_name": agent}, session_id=session_id, limit=limit)
    tool.terminal.items(found, _across(TASK, session_id), nothing="No tasks found.")


@command("list-artifacts", ARTIFACT)
@click.option("--type", "kind", metavar="TYPE", help="Filter by type, such as code or document.")
@session_option()
@click.option("--artifact", "artifact_id", metavar="ID", help="List this artifact's revisions; needs --session.")
@limit_option()
def list_artifacts(
    tool: CliContext, kind: str | None, session_id: str | None, artifact_id: str | None, limit: int
) -> None:
    """List artifacts, or the revisions of one, newest first. Use `artifact` to print one."""
    wanted = {"type": kind} | ({} if artifact_id is None else {"artifact_id": artifact_id})
    found = listed(tool, "list_artifacts", wanted, session_id=session_id, limit=limit)
    shape = _across(ARTIFACT, session_id) if artifact_id is None else ARTIFACT_REVISION
    tool.terminal.items(found, shape, nothing="No artifacts found.")


@command("artifact", ARTIFACT_IN_FULL)
@session_argument()
@id_argument("artifact_id", "ARTIFACT_ID", shell_complete=complete_artifacts)
@click.option("--revision", type=click.IntRange(1), metavar="N", help="Print this revision; default: the latest.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE; - for stdout.")
def artifact(tool: CliContext, session_id: str, artifact_id: str, revision: int | None, output: str | None) -> None:
    """Print an artifact, or save it to a file. Structured content is written as JSON."""
    from cli.backends.reassembly import whole_artifact
    from cli.files import save

    found = whole_artifact(tool.backend, session_id, artifact_id, revision=revision)
    if tool.terminal.as_json:
        tool.terminal.item(found, ARTIFACT_IN_FULL)
        return
    content = _content_bytes(found["content"])
    if output and output != "-":
        save(output, [content])
        tool.terminal.done(f"Saved {found['name']!r} to {output}.")
    else:
        tool.terminal.document([content])


def _across(shape: OutputSchema, session_id: str | None) -> OutputSchema:
    """Leave the session out of the table when all items belong to one."""
    if session_id is None:
        return shape
    columns = (column for column in shape.columns if column.path != "session_title")
    hidden = tuple(column._replace(heading="") if column.path == "session_id" else column for column in columns)
    return shape._replace(columns=hidden, least_columns=2)


def _first(found: Iterable[Items], limit: int) -> Iterator[Items]:
    left = limit
    for page in found:
        yield page[:left]
        left -= len(page)
        if left <= 0:
            return


def _content_bytes(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode(errors="surrogatepass")
    import msgspec

    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
