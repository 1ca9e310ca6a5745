"""Keys and hooks: those in use, new ones, whose secret is shown once, and revoking them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.operations.api_keys import KeyChoice, KeyRequest, Keys
from api.pages.rendering import render
from api.pages.sign_in import redirect
from api.pages.visitors import Form, Visitor, own_path
from api.public_url import public_url_of
from models.commands.lenient_decoding import decode_leniently
from models.routes import path_to

CREATED = 201
SCOPES = ("read", "write", "delegate", "agent", "admin")
REVOKED_SHOWN = 100
"""Of the revoked keys, the latest ones. They are kept for ever, and each app that signs in adds one."""
HOOK = "hook"
"""The scope of tokens in URLs, for senders that can set no header."""


class KeyPages:
    """The pages. Each raises Forbidden without the scope admin for all sessions."""

    def __init__(self, keys: Keys, *, public_url: str) -> None:
        self._keys = keys
        self._public_url = public_url

    async def keys(self, request: Request, visitor: Visitor) -> Response:
        """List the keys: those in use, and the latest revoked ones."""
        return await self._show_keys(visitor)

    async def hooks(self, request: Request, visitor: Visitor) -> Response:
        """List the hooks: those in use, and the latest revoked ones."""
        return await self._show_hooks(visitor)

    async def create_key(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Create a key, and show its secret, this once."""
        scopes = [scope for scope in SCOPES if form.get(f"scope_{scope}")]
        made = await self._make(visitor, form, scopes)
        return await self._show_keys(visitor, made=made, status=CREATED)

    async def create_hook(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Create a hook for one session, and show its URL, this once."""
        made = await self._make(visitor, form, [HOOK])
        url = public_url_of(request, public_url=self._public_url) + made["url"]
        return await self._show_hooks(visitor, made=made | {"url": url}, status=CREATED)

    async def revoke(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Revoke a key or hook by its id."""
        await self._keys.end(visitor.caller, KeyChoice(name_or_id=request.path_params["name_or_id"]))
        return redirect(own_path(form["back"]) if form.get("back") else path_to("page_keys"))

    async def _make(self, visitor: Visitor, form: Form, scopes: list[str]) -> dict[str, Any]:
        wanted: dict[str, Any] = {"name": form.get("name", "").strip(), "scopes": scopes}
        if sessions := form.get("sessions", "").strip():
            wanted["sessions"] = sessions
        return await self._keys.make(visitor.caller, decode_leniently(msgspec.json.encode(wanted), KeyRequest))

    async def _show_keys(self, visitor: Visitor, *, made: dict[str, Any] | None = None, status: int = 200) -> Response:
        keys = await self._entries(visitor, hooks=False)
        context: dict[str, Any] = {"visitor": visitor, "keys": keys, "made": made, "scopes": SCOPES}
        return await asyncio.to_thread(partial(render, "admin/keys.html", status=status, **context))

    async def _show_hooks(self, visitor: Visitor, *, made: dict[str, Any] | None = None, status: int = 200) -> Response:
        hooks = await self._entries(visitor, hooks=True)
        context: dict[str, Any] = {"visitor": visitor, "hooks": hooks, "made": made}
        return await asyncio.to_thread(partial(render, "admin/hooks.html", status=status, **context))

    async def _entries(self, visitor: Visitor, *, hooks: bool) -> list[dict[str, Any]]:
        return choose(
            [entry for entry in await self._keys.entries(visitor.caller) if (HOOK in entry["scopes"]) == hooks]
        )


def choose(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the keys to show: those in use by name, and then the latest revoked ones."""
    used = sorted((entry for entry in entries if not entry["revoked_at"]), key=lambda entry: str(entry["name"]))
    revoked = sorted((entry for entry in entries if entry["revoked_at"]), key=lambda entry: str(entry["revoked_at"]))
    return [*used, *revoked[: -REVOKED_SHOWN - 1 : -1]]
