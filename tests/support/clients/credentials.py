"""Authentication without servers: by signatures and API_KEY only, with an empty key cache."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from starlette.datastructures import Headers

from models.settings import Settings
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.authentication import Authenticator, Caller


def make_authenticator(settings: Settings) -> Authenticator:
    """Return an authenticator for the settings."""
    return Authenticator(settings, ApiKeyCache(Redis(), other_names=(), first_key=settings.api_key))


def authenticate(authenticator: Authenticator, headers: Any, body: bytes) -> Caller:
    """Return the caller of a POST, by its signature or its key."""
    signature = authenticator.signature_of(Headers(headers))
    if signature is None:
        return authenticator.find_key(Headers(headers))
    return authenticator.find_signer(signature, body)
