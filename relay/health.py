"""Whether the process is alive and can take webhooks, and an index of its addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.version import DISTRIBUTION, version
from relay.connections import RedisTrouble
from relay.responses import JsonResponse

CHECK_TIMEOUT_SECONDS = 2.0

Information = Callable[[], Awaitable[Mapping[str, str]]]


def health_routes(redis: Redis, *, links: Mapping[str, str], information: Information | None = None) -> list[Route]:
    """`/`, `/healthz`, `/readyz`. `information` adds to what /readyz shows, and decides nothing."""

    async def index(_: Request) -> Response:
        return JsonResponse({"name": DISTRIBUTION, "version": version(), "links": links})

    async def healthz(_: Request) -> Response:
        return JsonResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        ready = await _answers(redis)
        more = await information() if information else {}
        return JsonResponse({"redis": "ok" if ready else "unavailable", **more}, 200 if ready else 503)

    return [Route("/", index), Route("/healthz", healthz), Route("/readyz", readyz)]


async def _answers(redis: Redis) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await redis.ping()
    except (*RedisTrouble, TimeoutError):
        return False
    return True
