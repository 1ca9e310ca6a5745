"""Deliveries: the list, the story of one from its acceptance to its effect, and dead letters with replay."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from api.operations.dead_letters import DeadLetters, ManyDeadLetters, OneDeadLetter
from api.operations.deliveries import Deliveries, ManyDeliveries, OneDelivery
from api.pages.rendering import more_url, render
from api.pages.sign_in import redirect
from api.pages.visitors import Form, Visitor, own_path
from models.errors import NotFound
from models.queue.inbox import shard_of
from models.routes import path_to
from relay.http.query_parameters import decode_parameters

FILTERS = ("status", "session_id", "source", "since", "until")
UNDECIDED = ("failed", "parked")
"""Statuses of deliveries that can be replayed, since their content is kept."""


class DeliveryPages:
    """The pages."""

    def __init__(self, *, deliveries: Deliveries, dead_letters: DeadLetters) -> None:
        self._deliveries = deliveries
        self._dead_letters = dead_letters

    async def deliveries(self, request: Request, visitor: Visitor) -> Response:
        """List deliveries by status, session, source and time, the latest first."""
        chosen = decode_parameters(request.query_params, ManyDeliveries)
        found = await self._deliveries.page(visitor.caller, chosen)
        more = more_url(request, found.next_cursor, "cursor") if found.next_cursor else None
        kept = {name: value for name in FILTERS if (value := request.query_params.get(name))}
        context: dict[str, Any] = {"chosen": chosen, "kept": kept, "deliveries": found.items, "more": more}
        return render("admin/deliveries.html", visitor=visitor, is_cut=found.truncated, **context)

    async def delivery(self, request: Request, visitor: Visitor) -> Response:
        """Show one delivery's story: when it was accepted and decided, why, and with which effect."""
        chosen = decode_parameters(request.query_params, OneDelivery, **request.path_params)
        delivery = await self._deliveries.find(visitor.caller, chosen)
        letter = None
        if delivery["status"] in UNDECIDED and visitor.caller.has("admin"):
            wanted = OneDeadLetter(delivery_id=delivery["delivery_id"], source=delivery["source"])
            with suppress(NotFound):  # Replayed meanwhile, or of no session, and the key is limited to some.
                letter = await self._dead_letters.find(visitor.caller, wanted)
        return render(
            "admin/delivery.html",
            visitor=visitor,
            delivery=delivery,
            letter=letter,
            shard=shard_of(delivery["session_id"]),
            seconds=_seconds_between(delivery),
            answer=delivery.get("result") or delivery.get("error"),
            events=await self._deliveries.effects(visitor.caller, delivery),
        )

    async def dead_letters(self, request: Request, visitor: Visitor) -> Response:
        """List dead letters, or parked events, the oldest first."""
        chosen = decode_parameters(request.query_params, ManyDeadLetters)
        found = await self._dead_letters.page(visitor.caller, chosen)
        more = more_url(request, found.next_cursor, "cursor") if found.next_cursor else None
        return render("admin/dead_letters.html", visitor=visitor, chosen=chosen, letters=found.items, more=more)

    async def dead_letter(self, request: Request, visitor: Visitor) -> Response:
        """Show a dead letter with its payload and traceback."""
        chosen = decode_parameters(request.query_params, OneDeadLetter, **request.path_params)
        letter = await self._dead_letters.find(visitor.caller, chosen)
        return render("admin/dead_letter.html", visitor=visitor, letter=letter)

    async def replay(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Send a dead letter again."""
        await self._dead_letters.resolve(visitor.caller, _chosen(request, form))
        return _lead_back(form)

    async def discard(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Discard a dead letter."""
        await self._dead_letters.resolve(visitor.caller, _chosen(request, form), discards=True)
        return _lead_back(form)


def _seconds_between(delivery: Any) -> float | None:
    """Return the time from acceptance to decision."""
    times = [datetime.fromisoformat(delivery[name]) for name in ("accepted_at", "decided_at") if delivery.get(name)]
    return max((times[1] - times[0]).total_seconds(), 0.0) if len(times) > 1 else None


def _chosen(request: Request, form: Form) -> OneDeadLetter:
    source = {"source": form["source"]} if form.get("source") else {}
    return decode_parameters(QueryParams(), OneDeadLetter, **request.path_params, **source)


def _lead_back(form: Form) -> Response:
    return redirect(own_path(form["back"]) if form.get("back") else path_to("page_dead_letters"))
