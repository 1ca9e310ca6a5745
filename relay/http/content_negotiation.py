"""Tells browsers, which show HTML, from programs, which expect JSON, by the Accept header."""

from __future__ import annotations

from starlette.datastructures import Headers

HTML, JSON = "text/html", "application/json"
MAX_LENGTH = 2_000
"""Characters of the header that are looked at. Browsers send some hundred."""


def accepts_html(headers: Headers) -> bool:
    """Whether the client names HTML, and prefers it to JSON. A client that takes anything gets JSON."""
    accepted = headers.get("accept", "")[:MAX_LENGTH]
    if HTML not in accepted:
        return False
    qualities = dict(map(_parse, accepted.split(",")))
    return qualities.get(HTML, 0.0) > 0 and qualities.get(HTML, 0.0) >= qualities.get(JSON, 0.0)


def _parse(part: str) -> tuple[str, float]:
    """Return a media type with its quality, which is 0 if it is invalid."""
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                return name.lower(), min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name.lower(), 0.0
    return name.lower(), 1.0
