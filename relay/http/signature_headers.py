"""The headers that carry a webhook's signature. `relay.auth.signatures` verifies them."""

from __future__ import annotations

from starlette.datastructures import Headers

STANDARD_PREFIXES = ("svix-", "webhook-")
"""In the order of preference, as in Svix' library."""
STANDARD_PARTS = ("id", "timestamp", "signature")
GITHUB_SIGNATURE = "x-hub-signature-256"
GITHUB_EVENT = "x-github-event"
GITHUB_HEADERS = frozenset({GITHUB_SIGNATURE, GITHUB_EVENT, "x-github-delivery", "x-hub-signature"})
"""A request with any of these claims to be from GitHub, which signs if it has a secret."""

_STANDARD = {prefix: frozenset(prefix + part for part in STANDARD_PARTS) for prefix in STANDARD_PREFIXES}
_ALL = GITHUB_HEADERS.union(*_STANDARD.values())


def is_signed(headers: Headers) -> bool:
    """Whether a request has any header of a signature."""
    return not _ALL.isdisjoint(headers.keys())


def standard_prefix(headers: Headers) -> str | None:
    """Returns the prefix of the Standard Webhooks headers that a request has, or None."""
    names = headers.keys()
    return next((prefix for prefix, parts in _STANDARD.items() if not parts.isdisjoint(names)), None)


def is_from_github(headers: Headers) -> bool:
    """Whether a request has any of GitHub's headers."""
    return not GITHUB_HEADERS.isdisjoint(headers.keys())
