"""Follows a session's journal by long-polling or as a stream of server-sent events.

Waiting clients hold neither a thread nor a database connection. They read again when notified that the journal has
grown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import RELAY, Database
from api.list_response import list_response
from api.sessions.read_access import authorize_reader, reading
from models import field_types as v
from models.errors import RelayError
from models.field_types import MAX_WAIT_SECONDS
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller
from relay.auth.revocable_responses import RevocableResponse
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route
from relay.http.waiting import wait_any
from relay.notifications.journal import JournalNotifier
from sessions.postgres.reads.read_commands import last_positions, read_events
from sessions.reads.results import Page

PAGE_EVENTS = 500
"""The maximum page of a stream. `limit` does not apply, since a stream is endless."""
READ_EVERY_SECONDS = 0.25
"""The minimum interval between two reads of a stream. Events in between arrive together."""
CATCH_UP_EVERY_SECONDS = 0.1
"""The interval while a stream has unread events."""
KEEP_ALIVE_SECONDS = 15.0
"""Proxies close connections that are idle for a minute, some after 30 s."""


class EventParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/sessions/{session_id}/events."""

    session_id: v.Id
    after: v.Cursor | None = None
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] = 0.0
    limit: v.Limit = 100
    max_characters: v.MaxCharacters = v.MAX_CHARACTERS


async def find_positions(database: Database, session_ids: Collection[str]) -> Mapping[str, int]:
    """Return the last positions of these sessions' journals. Raises Unavailable."""
    return await database.read(partial(last_positions, session_ids=session_ids), source=RELAY)


class Events:
    """The endpoint."""

    def __init__(
        self, *, access: AccessControl, database: Database, journal: JournalNotifier, stopping: asyncio.Event
    ) -> None:
        self._access = access
        self._database = database
        self._journal = journal
        self._stopping = stopping

    @property
    def routes(self) -> list[Route]:
        """The route for following a journal."""
        return [route("read_events", self.events)]

    async def events(self, request: Request) -> Response:
        """Return the events after a cursor; with `wait`, once there is one or the time is over."""
        caller = await authorize_reader(self._access, request)
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self.stream(request, caller)
        parameters = decode_parameters(request.query_params, EventParameters, **request.path_params)
        return list_response(
            await (self._wait(request, caller, parameters) if parameters.wait else self._read(caller, parameters))
        )

    async def stream(self, request: Request, caller: Caller, *, named: bool = True) -> Response:
        """Stream the events after a cursor to a caller that may read something. With `named`, each message has the
        event's name; a browser passes messages without names to one listener."""
        parameters = decode_parameters(request.query_params, EventParameters, **request.path_params)
        if last_id := request.headers.get("last-event-id"):
            parameters = msgspec.structs.replace(parameters, after=last_id)
        self._journal.require_place(caller.source)
        parameters = msgspec.structs.replace(parameters, limit=PAGE_EVENTS, max_characters=v.MAX_CHARACTERS)
        first = await self._read(caller, parameters)  # Reports errors with a status before the stream begins.
        return RevocableResponse(
            self._stream(caller, parameters, first, named=named),
            access=self._access,
            caller=caller,
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _read(self, caller: Caller, parameters: EventParameters) -> Page:
        work = partial(
            read_events,
            session_id=parameters.session_id,
            after=parameters.after,
            limit=parameters.limit,
            max_characters=parameters.max_characters,
        )
        return await self._database.read(reading(caller, parameters.session_id, work), source=caller.source)

    async def _wait(self, request: Request, caller: Caller, parameters: EventParameters) -> Page:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + parameters.wait
        listening = self._journal.listen(parameters.session_id, source=caller.source)
        with self._access.watch_caller(request.receive, caller) as gone, listening as grown:
            while True:
                grown.clear()
                read_at = clock()
                found = await self._read(caller, parameters)
                left = ends_at - clock()
                if found.items or left <= 0 or gone.done() or self._stopping.is_set():
                    return found
                await wait_any(grown, gone, self._stopping, seconds=left)
                await wait_any(gone, self._stopping, seconds=read_at + READ_EVERY_SECONDS - clock())
                self._access.require_valid(caller)  # The key may have been revoked meanwhile.

    async def _stream(
        self, caller: Caller, parameters: EventParameters, first: Page, *, named: bool
    ) -> AsyncIterator[bytes]:
        """Stream events until the client disconnects, its key is revoked, or the process stops. Errors end the stream;
        clients reconnect."""
        clock = asyncio.get_running_loop().time
        found = first
        read_at = quiet_since = clock()
        try:
            with (
                self._journal.listen(parameters.session_id, source=caller.source) as grown,
                self._access.watch_revocation(caller, grown.set),
            ):
                yield b"retry: 2000\n\n"
                grown.set()  # The journal may have grown since the first read.
                while True:
                    for item in found.items:
                        # A slow client may have held up the previous event for any time.
                        self._access.require_valid(caller)
                        yield _as_message(item, named=named)
                    quiet_since = clock() if found.items else quiet_since
                    has_more = found.truncated or len(found.items) == PAGE_EVENTS
                    while not (grown.is_set() or has_more):
                        await wait_any(grown, self._stopping, seconds=quiet_since + KEEP_ALIVE_SECONDS - clock())
                        self._access.require_valid(caller)
                        if self._stopping.is_set():
                            return
                        if clock() - quiet_since >= KEEP_ALIVE_SECONDS:
                            yield b": still here\n\n"
                            quiet_since = clock()
                    every_seconds = CATCH_UP_EVERY_SECONDS if has_more else READ_EVERY_SECONDS
                    await wait_any(self._stopping, seconds=read_at + every_seconds - clock())
                    if self._stopping.is_set():
                        return
                    grown.clear()
                    read_at = clock()
                    parameters = msgspec.structs.replace(parameters, after=found.next_cursor)
                    found = await self._read(caller, parameters)
        except RelayError as error:
            yield b"event: error\ndata: " + msgspec.json.encode({"error": error.body()}) + b"\n\n"


def _as_message(item: dict[str, Any], *, named: bool) -> bytes:
    name = b"event: %b\n" % item["event"].encode() if named else b""
    return b"id: %b\n%bdata: %b\n\n" % (item["cursor"].encode(), name, msgspec.json.encode(item))
