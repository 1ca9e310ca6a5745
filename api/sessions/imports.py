"""Imports a whole session unchanged from its exported document. For operators with a key for all sessions."""

from __future__ import annotations

import asyncio
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Literal

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from models.errors import TooLarge, UnsupportedMediaType
from relay.auth.access_control import AccessControl
from relay.auth.authentication import require_all_sessions
from relay.http.bodies import media_types_of
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from sessions.backend import Imported
from sessions.documents.import_validation import read_document
from sessions.postgres.documents.imports import import_session

MAX_DOCUMENT_BYTES = 128 * 1_048_576
"""Much larger than MAX_BODY_BYTES, since a session grows by many webhooks. An import holds the document in memory
once."""
DOCUMENT_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/json"})
IMPORT_SECONDS = 300.0
"""Time limit for the largest document. An import that takes longer continues; sending it again returns its result."""
SPOOL_BYTES = 1_048_576
"""The part of an arriving document held in memory; the rest goes to a temporary file, since many may arrive slowly."""


Object = dict[str, Any]


class SessionDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session document, as returned by GET /v1/sessions/{session_id}/export."""

    format: Literal["session-relay/1"]
    session: Object
    chunks: list[Object]
    memories: list[Object]
    tasks: list[Object]
    artifacts: list[Object]
    events: list[Object]
    artifact_revisions: list[Object] = []
    """Missing in documents of older versions."""


class Imports:
    """The endpoint."""

    def __init__(self, *, access: AccessControl, database: Database) -> None:
        self._access = access
        self._database = database
        self._turn = asyncio.Semaphore(1)
        """Allows one document in memory at a time."""

    @property
    def routes(self) -> list[Route]:
        """The route for importing a session."""
        return [route("import_session", self.import_session)]

    async def import_session(self, request: Request) -> Response:
        """Import the session unchanged. Repeatable: `created` is then false."""
        caller = await self._access.authorize(request, "admin")
        require_all_sessions(caller)
        decode_parameters(request.query_params, NoParameters)
        with SpooledTemporaryFile(SPOOL_BYTES) as spool:
            await _receive(request, spool)
            async with self._turn:
                work = partial(_import, document=spool)
                imported = await self._database.write(work, source=caller.source, seconds=IMPORT_SECONDS)
        return JsonResponse({"session_id": imported.session_id, "created": imported.created})


async def _receive(request: Request, spool: IO[bytes]) -> None:
    """Spool the body. Raises TooLarge or UnsupportedMediaType."""
    media_types = media_types_of(request.headers)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if not media_types <= DOCUMENT_TYPES or encoding not in ("identity", ""):
        raise UnsupportedMediaType(
            "Unsupported type or encoding. Send the document exactly as it was exported.",
            field="Content-Encoding" if encoding not in ("identity", "") else "Content-Type",
            expected="application/json, without Content-Encoding",
        )
    size = 0
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_DOCUMENT_BYTES:
        raise _too_large()
    async for part in request.stream():
        size += len(part)
        if size > MAX_DOCUMENT_BYTES:
            raise _too_large()
        if size > SPOOL_BYTES:
            await asyncio.to_thread(spool.write, part)
        else:
            spool.write(part)


def _too_large() -> TooLarge:
    return TooLarge(
        f"The document has more than {MAX_DOCUMENT_BYTES:,} bytes.",
        expected=f"at most {MAX_DOCUMENT_BYTES:,} bytes",
        hint="Import it with session-cli directly into the store: --backend postgres.",
    )


def _import(connection: Connection, *, document: IO[bytes]) -> Imported:
    document.seek(0)
    return import_session(connection, read_document(document))
