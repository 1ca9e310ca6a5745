"""Sessions and artifacts as resources, and the prompt that picks up a session where another model left it."""

from __future__ import annotations

import re
from typing import Any

import mcp_types as types
import msgspec
from starlette.requests import Request

from api.mcp.results import DATA_NOTICE
from api.mcp.tool_handlers import ToolHandlers
from models import field_types as v
from models.errors import Invalid, NotFound

SESSION_URI = "session-relay://sessions/{session_id}"
ARTIFACT_URI = "session-relay://sessions/{session_id}/artifacts/{artifact_id}"
PROMPT = types.Prompt(
    name="resume_session",
    title="Pick up a session",
    description="Continue a session where anyone left off. Without session_id: the most recently active one.",
    arguments=[
        types.PromptArgument(name="session_id", description="Which session", required=False),
        types.PromptArgument(
            name="max_characters",
            description=f"The maximum length, 200 to {v.MAX_CHARACTERS}, by default {v.DEFAULT_MAX_CHARACTERS}",
            required=False,
        ),
    ],
)
INTRODUCTION = (
    "Continue the session {session_id}. Its decisions and conversation so far are below. Tell me in two or three "
    "sentences where we are and what is still open. Then continue: store decisions with store_memory, and delegate "
    f"tasks with delegate_task.\n\n{DATA_NOTICE}\n\ndata: "
)
_LONGEST_ID = 128
LISTED = 50
LEAST_CHARACTERS = 200
_ID = v.ID_PATTERN.removeprefix("^").removesuffix(r"$(?!\n)")
_URI = re.compile(rf"session-relay://sessions/({_ID})(?:/artifacts/({_ID}))?")

Json = dict[str, Any]


class McpResources:
    """Reads resources by URI. Each read raises a RelayError if it is refused."""

    def __init__(self, calls: ToolHandlers) -> None:
        self._calls = calls

    async def list_sessions(self, request: Request, cursor: str | None) -> types.ListResourcesResult:
        """List the sessions that the caller may see, the most recently active first."""
        data = await self._read(request, "list_sessions", limit=LISTED, cursor=cursor)
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    uri=SESSION_URI.format(session_id=item["session_id"]),
                    name=item["session_id"],
                    title=item["title"],
                    description=f"{item['status']}, last active {item['last_activity']}",
                    mime_type="application/json",
                )
                for item in data["sessions"]
            ],
            next_cursor=data.get("next_cursor"),
        )

    def list_templates(self) -> types.ListResourceTemplatesResult:
        """List the URI templates of sessions and artifacts."""
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    uri_template=SESSION_URI,
                    name="session",
                    title="A session",
                    description="Everything needed to continue it",
                    mime_type="application/json",
                ),
                types.ResourceTemplate(
                    uri_template=ARTIFACT_URI,
                    name="artifact",
                    title="An artifact",
                    description="Its content; list_artifacts returns the ids",
                ),
            ]
        )

    async def read(self, request: Request, uri: str) -> types.ReadResourceResult:
        """Read the session or artifact at a URI."""
        found = _URI.fullmatch(uri)
        if found is None:
            raise NotFound("No resource has this URI.", expected=f"{SESSION_URI} or {ARTIFACT_URI}")
        session_id, artifact_id = found.groups()
        if artifact_id is None:
            text, media_type = _json(await self._bundle(request, session_id)), "application/json"
        else:
            data = await self._read(request, "get_artifact", session_id=session_id, artifact_id=artifact_id)
            text, media_type = _content_of(data["artifact"])
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=media_type, text=text)])

    async def resume(
        self, request: Request, session_id: str | None, max_characters: str | None
    ) -> types.GetPromptResult:
        """Build the prompt with everything needed to continue a session, in at most `max_characters`."""
        room = _size_of(max_characters) - len(INTRODUCTION) - _LONGEST_ID
        bundle = await self._bundle(request, session_id, room=max(room, LEAST_CHARACTERS))
        text = INTRODUCTION.format(session_id=bundle["session"]["session_id"]) + _json(bundle)
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(description=PROMPT.description, messages=[message])

    async def _bundle(self, request: Request, session_id: str | None, *, room: int = v.DEFAULT_MAX_CHARACTERS) -> Json:
        return await self._read(request, "resume_bundle", session_id=session_id, max_characters=room)

    async def _read(self, request: Request, command: str, **fields: str | int | None) -> Json:
        given = {name: value for name, value in fields.items() if value is not None}
        body = msgspec.json.encode({"max_characters": v.MAX_CHARACTERS, **given})
        data: Json = (await self._calls.send(request, command, body)).get("data", {})
        return data


def _size_of(max_characters: str | None) -> int:
    """The size that an argument of the prompt asks for, which MCP sends as text. Raises Invalid."""
    if max_characters is None:
        return v.DEFAULT_MAX_CHARACTERS
    size = int(max_characters) if re.fullmatch("[0-9]{1,9}", max_characters.strip()) else 0
    if not LEAST_CHARACTERS <= size <= v.MAX_CHARACTERS:
        raise Invalid(
            f"Invalid max_characters {max_characters[:64]!r}.",
            field="max_characters",
            expected=f"{LEAST_CHARACTERS} to {v.MAX_CHARACTERS}",
        )
    return size


def _content_of(artifact: Json) -> tuple[str, str]:
    """The content of an artifact as text, and its media type."""
    content = artifact["content"]
    text, media_type = (content, "text/plain") if isinstance(content, str) else (_json(content), "application/json")
    if "next_offset" in artifact:
        place = f"revision {artifact['revision']} and offset {artifact['next_offset']}"
        text += f"\n[Truncated. Call get_artifact with {place} for the rest.]"
        media_type = "text/plain"
    return text, media_type


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
