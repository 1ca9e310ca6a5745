"""Pages for operators: deliveries, dead letters with replay, and keys. They use the endpoints of the API."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.operations.api_keys import KeyChoice, KeyRequest, Keys
from api.operations.dead_letters import DeadLetters, ManyDeadLetters, OneDeadLetter
from api.operations.deliveries import Deliveries, ManyDeliveries
from api.pages.rendering import more_url, render
from api.pages.sign_in import redirect
from api.pages.visitors import Form, Visitor, Visitors
from models.commands.lenient_decoding import decode_leniently
from models.routes import path_to
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route

CREATED = 201
SCOPES = ("read", "write", "delegate", "agent", "admin")


class Operations:
    """The pages. Each raises Forbidden without the scope that the API asks for."""

    def __init__(self, *, visitors: Visitors, deliveries: Deliveries, dead_letters: DeadLetters, keys: Keys) -> None:
        self._visitors = visitors
        self._deliveries = deliveries
        self._dead_letters = dead_letters
        self._keys = keys

    @property
    def routes(self) -> list[Route]:
        """The routes for operators."""
        page, form = self._visitors.page, self._visitors.form
        return [
            route("page_deliveries", page(self.deliveries)),
            route("page_dead_letters", page(self.dead_letters)),
            route("page_dead_letter", page(self.dead_letter)),
            route("page_replay", form(self.replay)),
            route("page_discard", form(self.discard)),
            route("page_keys", page(self.keys)),
            route("page_create_key", form(self.create_key)),
            route("page_revoke_key", form(self.revoke_key)),
        ]

    async def deliveries(self, request: Request, visitor: Visitor) -> Response:
        """List deliveries by status, the latest first."""
        chosen = decode_parameters(request.query_params, ManyDeliveries)
        found = await self._deliveries.page(visitor.caller, chosen)
        more = more_url(request, found.next_cursor, "cursor") if found.next_cursor else None
        return render("deliveries.html", visitor=visitor, chosen=chosen, deliveries=found.items, more=more)

    async def dead_letters(self, request: Request, visitor: Visitor) -> Response:
        """List dead letters, or parked events, the oldest first."""
        chosen = decode_parameters(request.query_params, ManyDeadLetters)
        found = await self._dead_letters.page(visitor.caller, chosen)
        more = more_url(request, found.next_cursor, "cursor") if found.next_cursor else None
        return render("dead_letters.html", visitor=visitor, chosen=chosen, letters=found.items, more=more)

    async def dead_letter(self, request: Request, visitor: Visitor) -> Response:
        """Show a dead letter with its payload and traceback."""
        chosen = decode_parameters(request.query_params, OneDeadLetter, **request.path_params)
        letter = await self._dead_letters.find(visitor.caller, chosen)
        return render("dead_letter.html", visitor=visitor, letter=letter)

    async def replay(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Send a dead letter again."""
        await self._dead_letters.resolve(visitor.caller, _chosen(request, form))
        return redirect(path_to("page_dead_letters"))

    async def discard(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Discard a dead letter."""
        await self._dead_letters.resolve(visitor.caller, _chosen(request, form), discards=True)
        return redirect(path_to("page_dead_letters"))

    async def keys(self, request: Request, visitor: Visitor) -> Response:
        """List the keys, those in use first."""
        return await self._show_keys(visitor)

    async def create_key(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Create a key, and show its secret, this once."""
        wanted: dict[str, Any] = {"name": form.get("name", "").strip(), "scopes": _scopes_of(form)}
        if sessions := form.get("sessions", "").strip():
            wanted["sessions"] = sessions
        made = await self._keys.make(visitor.caller, decode_leniently(msgspec.json.encode(wanted), KeyRequest))
        return await self._show_keys(visitor, made=made, status=CREATED)

    async def revoke_key(self, request: Request, visitor: Visitor, _: Form) -> Response:
        """Revoke a key by its id."""
        await self._keys.end(visitor.caller, KeyChoice(name_or_id=request.path_params["name_or_id"]))
        return redirect(path_to("page_keys"))

    async def _show_keys(self, visitor: Visitor, *, made: dict[str, Any] | None = None, status: int = 200) -> Response:
        entries = await self._keys.entries(visitor.caller)
        entries.sort(key=lambda entry: (entry["revoked_at"] is not None, entry["name"]))
        return render("keys.html", status=status, visitor=visitor, keys=entries, made=made, scopes=SCOPES)


def _chosen(request: Request, form: Form) -> OneDeadLetter:
    source = {"source": form["source"]} if form.get("source") else {}
    return decode_parameters(type(request.query_params)(), OneDeadLetter, **request.path_params, **source)


def _scopes_of(form: Form) -> list[str]:
    """Return the chosen scopes: each has a checkbox of its own, since a form has one value for a name."""
    return [scope for scope in SCOPES if form.get(f"scope_{scope}")]
