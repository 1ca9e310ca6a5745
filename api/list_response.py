"""Builds the response of all list endpoints: a page of items with the cursor of the next page."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from relay.http.responses import JsonResponse
from sessions.reads.results import Page


def list_response(listed: Page) -> Response:
    """Build the response of a page."""
    content: dict[str, Any] = {"items": listed.items, "next_cursor": listed.next_cursor, **listed.notes}
    if listed.truncated:
        content["truncated"] = True
    return JsonResponse(content)
