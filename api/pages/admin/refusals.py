"""Requests that were refused: counts by cause, and the latest ones."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.pages.rendering import more_url, render
from api.pages.visitors import Visitor
from relay.auth.authentication import require_all_sessions, require_scope
from relay.http.query_parameters import decode_parameters
from relay.rejections import Rejection, RejectionLog, RejectionParameters, page_of

CAUSES = {
    "address": "address not allowed",
    "bad_signature": "wrong signature",
    "clock_skew": "wrong clock",
    "conflict": "id used for other content",
    "media_type": "unknown format",
    "missing_scope": "not permitted",
    "no_key": "no key",
    "not_json": "not JSON",
    "rate": "too many requests",
    "schema": "invalid content",
    "too_large": "too large",
    "too_slow": "too slow",
    "unknown_key": "unknown key",
}
"""The causes in words."""


class RefusalPage:
    """The page."""

    def __init__(self, rejections: RejectionLog) -> None:
        self._rejections = rejections

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """List the latest refused requests, of one cause or of all. Raises Forbidden like the API."""
        require_scope(visitor.caller, "admin")
        require_all_sessions(visitor.caller)
        chosen = decode_parameters(request.query_params, RejectionParameters)
        items, counts = await self._rejections.read()
        page = page_of(items, chosen)
        found: list[Rejection] = page["items"]
        by_number = sorted(counts.items(), key=lambda item: -item[1])
        more = more_url(request, page["next_cursor"], "cursor") if page["next_cursor"] else None
        context: dict[str, Any] = {
            "chosen": chosen,
            "counts": by_number,
            "refusals": found,
            "causes": CAUSES,
            "more": more,
        }
        return render("admin/refusals.html", visitor=visitor, **context)
