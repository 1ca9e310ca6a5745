"""The endpoint of every peer: `python -m bench.speed.peers.endpoint MODULE PORT`. Answers once the job is enqueued."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.speed.bare_app import ready, serve
from bench.speed.webhook import SOURCE_PATH

peer = importlib.import_module(f"bench.speed.peers.{sys.argv[1]}")


async def receive(request: Request) -> Response:
    """Enqueue the job of a webhook."""
    await peer.enqueue((await request.body()).decode())
    return JSONResponse({"status": "accepted", "duplicate": False}, status_code=202)


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Open the connections of procrastinate, the only peer that is asynchronous."""
    async with peer.app.open_async() if sys.argv[1] == "procrastinate_tasks" else contextlib.nullcontext():
        yield


if __name__ == "__main__":
    routes = [Route(SOURCE_PATH, receive, methods=["POST"]), Route("/readyz", ready)]
    serve(Starlette(routes=routes, lifespan=lifespan), int(sys.argv[2]))
