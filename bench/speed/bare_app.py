"""A bare Starlette app on uvicorn, with uvloop and httptools: the most that this machine can accept on one core.

`python -m bench.speed.bare_app PORT`. It reads the body and answers 202 with a receipt as long as the relay's.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.speed.webhook import SOURCE_PATH

DELIVERY_ID = "0123abcd-1234567"


async def receive(request: Request) -> Response:
    """Read the webhook and answer."""
    await request.body()
    receipt = {
        "status": "accepted",
        "delivery_id": DELIVERY_ID,
        "status_url": f"/v1/deliveries/{DELIVERY_ID}",
        "duplicate": False,
    }
    return JSONResponse(receipt, status_code=202)


async def ready(request: Request) -> Response:
    """Answer that the app is ready."""
    return Response()


def serve(app: Starlette, port: int) -> None:
    """Serve an app without access log, as fast as uvicorn can."""
    uvicorn.run(
        app,
        port=port,
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
        ws="none",
        proxy_headers=False,
    )


if __name__ == "__main__":
    routes = [Route(SOURCE_PATH, receive, methods=["POST"]), Route("/readyz", ready)]
    serve(Starlette(routes=routes), int(sys.argv[1]))
