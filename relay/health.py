"""Liveness, readiness, and the index of endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.version import DISTRIBUTION, version
from relay.http.content_negotiation import accepts_html
from relay.http.responses import JsonResponse
from relay.http.routing import Handler, route
from relay.ingest.endpoints import Ingest

Information = Callable[[], Awaitable[Mapping[str, str]]]


def health_routes(
    ingest: Ingest, *, links: Mapping[str, str], information: Information | None = None, page: Handler | None = None
) -> list[Route]:
    """Returns the routes `/`, `/healthz` and `/readyz`, which answers 200 while webhooks are accepted. `information`
    adds to its body, and does not change its status. `page` answers `/` for browsers."""

    async def index(request: Request) -> Response:
        if page is not None and accepts_html(request.headers):
            response = await page(request)
        else:
            response = JsonResponse({"name": DISTRIBUTION, "version": version(), "links": links})
        response.headers["vary"] = "Accept"
        return response

    async def healthz(_: Request) -> Response:
        return JsonResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reason = ingest.refusal()
        shown = {
            "webhooks": {"taken": reason is None, "reason": reason},
            "redis": "ok" if ingest.redis_answers() else "unavailable",
            **(await information() if information else {}),
        }
        return JsonResponse(shown, 200 if reason is None else 503)

    return [route("index", index), route("health", healthz), route("readiness", readyz)]
