"""The relay's own URL for documents that contain it: PUBLIC_URL, or else the URL of the request.

A client can forge the headers. The forged URL is shown only to that client, in a response that is not cached; so only
its form is checked.
"""

from __future__ import annotations

import re

from starlette.requests import Request

from models.errors import BadRequest

_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def public_url_of(request: Request, *, public_url: str) -> str:
    """Return the URL, such as `https://relay.example`, without a trailing slash. Raises BadRequest for an invalid Host
    if PUBLIC_URL is not set.

    A proxy that terminates TLS announces it in X-Forwarded-Proto. The header can only upgrade the URL to https, so that
    a client that came over TLS never sends a key without it.
    """
    if public_url:
        return public_url.rstrip("/")
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadRequest(
            "Missing or invalid header Host.", field="Host", expected="a host name, optionally with a port"
        )
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    scheme = "https" if "https" in (request.scope["scheme"], forwarded) else "http"
    return f"{scheme}://{hosts[0]}"
