"""Exports a whole session as one document: JSON, which can be imported, or Markdown for people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Literal

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.sessions.read_access import authorize_reader, reading
from models import field_types as v
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller
from relay.auth.revocable_responses import RevocableResponse
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route
from sessions.commands.store import too_slow
from sessions.postgres.reads.read_commands import export_markdown, export_session

SPOOL_BYTES = 1_048_576
"""The part of a document held in memory; the rest goes to a temporary file."""
PART_BYTES = 65_536
EXPORT_SECONDS = 15.0
"""Time limit for reading the whole session."""

_MEDIA_TYPES = {"json": "application/json", "markdown": "text/markdown; charset=utf-8"}
_SUFFIXES = {"json": "json", "markdown": "md"}


class ExportParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/sessions/{session_id}/export."""

    session_id: v.Id
    format: Literal["json", "markdown"] = "json"


class Exports:
    """The endpoint."""

    def __init__(self, *, access: AccessControl, database: Database) -> None:
        self._access = access
        self._database = database

    @property
    def routes(self) -> list[Route]:
        """The route for exporting a session."""
        return [route("export_session", self.export)]

    async def export(self, request: Request) -> Response:
        """Spool the document, then send it: a slow client must not hold a transaction open."""
        caller = await authorize_reader(self._access, request)
        return await self.send(request, caller)

    async def send(self, request: Request, caller: Caller) -> Response:
        """Return the document that the request chooses, as a file, to a caller that was found by other means."""
        parameters = decode_parameters(request.query_params, ExportParameters, **request.path_params)
        work = reading(caller, parameters.session_id, partial(_write, parameters=parameters))
        spool = await self._database.read(work, source=caller.source, one_state=True, seconds=EXPORT_SECONDS)
        return RevocableResponse(
            _send(spool),
            access=self._access,
            caller=caller,
            media_type=_MEDIA_TYPES[parameters.format],
            headers={
                "cache-control": "no-store",
                "content-disposition": f'attachment; filename="{parameters.session_id}.{_SUFFIXES[parameters.format]}"',
            },
        )


def _write(connection: Connection, *, parameters: ExportParameters) -> IO[bytes]:
    spool: IO[bytes] = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed after sending
    try:
        if parameters.format == "json":
            parts: Iterable[bytes] = export_session(connection, parameters.session_id)
        else:
            parts = (part.encode() for part in export_markdown(connection, parameters.session_id))
        ends_at = time.monotonic() + EXPORT_SECONDS
        for part in parts:
            spool.write(part)
            if time.monotonic() > ends_at:  # The client has timed out, and others wait for the thread.
                raise too_slow()
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


async def _send(spool: IO[bytes]) -> AsyncIterator[bytes]:
    with spool:
        while part := await asyncio.to_thread(spool.read, PART_BYTES):
            yield part
