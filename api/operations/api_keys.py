"""Endpoints for creating, listing and revoking API keys. For operators with a key for all sessions."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.access.api_keys import GLOB_PATTERN, NAME_PATTERN
from models.commands.lenient_decoding import decode_leniently
from models.decoding.strict import decode_json
from models.errors import Unavailable
from models.routes import template_of
from models.timestamps import format_utc
from models.version import version
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_all_sessions, require_scope
from relay.http.bodies import read_body
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from sessions.api_keys import KeyRegister, Revoked
from sessions.postgres.operations.api_keys import KeyEntry

T = TypeVar("T")

MAX_REQUEST_BYTES = 16_384
CHANGE_SECONDS = 15.0
"""Time limit for Redis and Postgres together; each has a shorter limit of its own."""


KeyScope = Literal["read", "write", "delegate", "agent", "admin", "hook"]
Pattern = Annotated[
    str, Meta(pattern=GLOB_PATTERN, description="A session pattern such as chat-*; default: all sessions")
]


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to create."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN, description="The sender's name, recorded with its deliveries")]
    scopes: Annotated[list[KeyScope], Meta(min_length=1, max_length=8, description="hook alone for a webhook token")]
    sessions: (
        Annotated[
            str, Meta(pattern=GLOB_PATTERN, description="A session pattern such as chat-*; default: all sessions")
        ]
        | None
    ) = None
    rotate: Annotated[bool, Meta(description="Add a key to a sender that already has one")] = False


class KeyChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects one key by id, or all keys of a name."""

    name_or_id: Annotated[str, Meta(min_length=1, max_length=128)]


class Keys:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, register: KeyRegister) -> None:
        self._access = access
        self._register = register

    @property
    def routes(self) -> list[Route]:
        """The routes for keys."""
        return [
            route("whoami", self.describe_own),
            route("read_keys", self.list),
            route("create_key", self.create),
            route("revoke_key", self.revoke),
        ]

    async def describe_own(self, request: Request) -> Response:
        """Describe the key of the request, whatever its scopes."""
        caller = await self._access.authenticate(request)
        decode_parameters(request.query_params, NoParameters)
        own = {"name": caller.source, "scopes": caller.scopes, "sessions": caller.session_glob}
        return JsonResponse({**own, "version": version()})

    async def list(self, request: Request) -> Response:
        """List all keys, including revoked ones, without their secrets, oldest first."""
        caller = await self._access.authorize(request, "admin")
        decode_parameters(request.query_params, NoParameters)
        return JsonResponse({"items": await self.entries(caller), "next_cursor": None})

    async def entries(self, caller: Caller) -> builtins.list[dict[str, Any]]:
        """Return all keys for a caller that manages them."""
        _require_operator(caller)
        return [describe_key(entry) for entry in await _in_thread(self._register.entries)]

    async def create(self, request: Request) -> Response:
        """Create a key. Only this response contains its secret."""
        caller = await self._access.authorize(request, "admin")
        require_all_sessions(caller)
        decode_parameters(request.query_params, NoParameters)
        body = await read_body(request.headers, request.receive, limit=MAX_REQUEST_BYTES)
        decode_json(body)
        return JsonResponse(await self.make(caller, decode_leniently(body, KeyRequest)), 201)

    async def make(self, caller: Caller, requested: KeyRequest) -> dict[str, Any]:
        """Create a key for a caller that manages keys; returns it with its secret."""
        _require_operator(caller)
        new = await _in_thread(
            lambda: self._register.create(
                name=requested.name,
                scopes=requested.scopes,
                session_glob=requested.sessions,
                created_by=caller.source,
                rotate=requested.rotate,
            )
        )
        content = {"key": new.secret, **describe_key(new.entry)}
        if "hook" in new.entry.scopes:
            content["url"] = template_of("hook").format(token=new.secret)
        return content

    async def revoke(self, request: Request) -> Response:
        """Revoke a key, or all keys of a name."""
        caller = await self._access.authorize(request, "admin")
        choice = decode_parameters(request.query_params, KeyChoice, **request.path_params)
        return JsonResponse(await self.end(caller, choice))

    async def end(self, caller: Caller, choice: KeyChoice) -> dict[str, Any]:
        """Revoke keys for a caller that manages keys; returns which."""
        _require_operator(caller)
        return describe_revocation(await _in_thread(lambda: self._register.revoke(choice.name_or_id, by=caller.source)))


def _require_operator(caller: Caller) -> None:
    require_scope(caller, "admin")
    require_all_sessions(caller)


def describe_key(entry: KeyEntry) -> dict[str, Any]:
    """Describe a key without its secret."""
    return {
        "key_id": entry.key_id,
        "name": entry.name,
        "scopes": list(entry.scopes),
        "sessions": entry.session_glob,
        "created_at": format_utc(entry.created_at),
        "created_by": entry.created_by,
        "revoked_at": entry.revoked_at and format_utc(entry.revoked_at),
        "revoked_by": entry.revoked_by,
    }


def describe_revocation(revoked: Revoked) -> dict[str, Any]:
    """Describe a revocation. `recorded` is true once it is stored in Postgres."""
    items = [
        {"key_id": old.key_id, "name": old.name, "revoked_at": format_utc(old.revoked_at)}
        for old in revoked.revocations
    ]
    return {"revoked": items, "recorded": revoked.recorded}


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(CHANGE_SECONDS):
            return await asyncio.to_thread(work)
    except TimeoutError as error:
        raise Unavailable("The change timed out and may have taken effect. Check with GET /v1/keys.") from error
