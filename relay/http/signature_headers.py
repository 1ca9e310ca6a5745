"""The headers that carry a webhook's signature. `relay.auth.signatures` verifies them."""

from __future__ import annotations

from starlette.datastructures import Headers

STANDARD_PREFIXES = ("svix-", "webhook-")
"""In the order of preference, as in Svix' library."""
STANDARD_PARTS = ("id", "timestamp", "signature")
GITHUB_SIGNATURE = "x-hub-signature-256"
GITHUB_EVENT = "x-github-event"
GITHUB_HEADERS = (GITHUB_SIGNATURE, GITHUB_EVENT, "x-github-delivery", "x-hub-signature")
"""A request with any of these claims to be from GitHub, which signs if it has a secret."""


def is_signed(headers: Headers) -> bool:
    """Whether a request has any header of a signature."""
    return standard_prefix(headers) is not None or is_from_github(headers)


def standard_prefix(headers: Headers) -> str | None:
    """Returns the prefix of the Standard Webhooks headers that a request has, or None."""
    return next((p for p in STANDARD_PREFIXES if any(p + part in headers for part in STANDARD_PARTS)), None)


def is_from_github(headers: Headers) -> bool:
    """Whether a request has any of GitHub's headers."""
    return any(name in headers for name in GITHUB_HEADERS)
