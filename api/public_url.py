"""The URL under which a client reaches this relay, for documents that tell it: PUBLIC_URL, or else what it asked for.

Everything in a request may be made up. What is made up here is shown to the one who did it, in an answer that no cache
keeps; so only its form is checked.
"""

from __future__ import annotations

import re

from starlette.requests import Request

from models.errors import BadRequest

_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def public_url_of(request: Request, *, public_url: str) -> str:
    """Such as `https://relay.example`, without a slash at its end. Raises BadRequest for a Host that is none, if that
    is needed.

    A proxy that ends TLS says so in X-Forwarded-Proto. It can only make the URL one of https: nobody who came over TLS
    is asked to send a key without it.
    """
    if public_url:
        return public_url.rstrip("/")
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadRequest("The header Host is missing or not valid.", field="Host", expected="a name and perhaps a port")
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    scheme = "https" if "https" in (request.scope["scheme"], forwarded) else "http"
    return f"{scheme}://{hosts[0]}"
