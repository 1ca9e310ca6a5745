"""The first page: the list of sessions, and the hits of a search, which lead to their places."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.pages.rendering import render
from api.pages.visitors import Visitor
from api.sessions.reader import Reader
from models import field_types as v
from models.commands.definitions import ListSessions, Search
from models.field_types import MAX_CHARACTERS, SessionStatus
from models.routes import path_to
from relay.http.query_parameters import decode_parameters

PAGE_ITEMS = 30


class ListParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the page. With `q` it shows hits, of one session if `session_id` is given."""

    q: v.Query | None = None
    session_id: v.Id | None = None
    status: SessionStatus | None = None
    cursor: v.Cursor | None = None


class SessionList:
    """The page."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Show the sessions, or the hits of a search."""
        parameters = decode_parameters(request.query_params, ListParameters)
        if parameters.q and parameters.q.strip():
            return await self._search(visitor, parameters, parameters.q.strip())
        command = ListSessions(
            filter=parameters.status or "all",
            cursor=parameters.cursor,
            limit=PAGE_ITEMS,
            max_characters=MAX_CHARACTERS,
        )
        page = await self._reader.page(visitor.caller, None, command)
        more = _with(parameters, page.next_cursor)
        return render("sessions.html", visitor=visitor, sessions=page.items, chosen=parameters.status, more=more)

    async def _search(self, visitor: Visitor, parameters: ListParameters, q: str) -> Response:
        command = Search(q=q, cursor=parameters.cursor, limit=PAGE_ITEMS, max_characters=MAX_CHARACTERS)
        page = await self._reader.page(visitor.caller, parameters.session_id, command)
        hits = [hit | {"url": url_of_hit(hit)} for hit in page.items]
        return render(
            "search.html",
            visitor=visitor,
            q=q,
            session_id=parameters.session_id,
            hits=hits,
            meaning_ready=page.notes.get("meaning_ready", True),
            not_embedded=page.notes.get("not_embedded", 0),
            more=_with(parameters, page.next_cursor),
        )


def url_of_hit(hit: dict[str, Any]) -> str:
    """Return the URL of the place that a hit of the search was found at."""
    session_id = hit["session_id"]
    match hit["area"]:
        case "conversations":
            place = {"chunk_id": hit["chunk_id"], "offset": hit.get("offset", 0)}
            return f"{path_to('page_session', session_id=session_id)}?{urlencode(place)}#found"
        case "memories":
            return path_to("page_memory", session_id=session_id, key=hit["key"])
        case "tasks":
            return path_to("page_task", session_id=session_id, task_id=hit["task_id"])
        case "artifacts":
            url = path_to("page_artifact", session_id=session_id, artifact_id=hit["artifact_id"])
            return f"{url}?offset={offset}" if (offset := hit.get("offset")) else url
        case _:
            return path_to("page_session", session_id=session_id)


def _with(parameters: ListParameters, cursor: str | None) -> str | None:
    """Return the URL of the next page."""
    if cursor is None:
        return None
    fields = msgspec.structs.asdict(parameters) | {"cursor": cursor}
    return f"{path_to('index')}?{urlencode({name: value for name, value in fields.items() if value})}"
