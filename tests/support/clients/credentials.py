"""Authenticating without servers: signatures and API_KEY alone, with a keyring that was never filled."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from starlette.datastructures import Headers

from models.settings import Settings
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.authentication import Authenticator, Caller


def make_authenticator(settings: Settings) -> Authenticator:
    """One that knows what the settings hold."""
    return Authenticator(settings, ApiKeyCache(Redis(), other_names=(), first_key=settings.api_key))


def authenticate(authenticator: Authenticator, headers: Any, body: bytes) -> Caller:
    """The caller of a POST, by its signature or its key."""
    signature = authenticator.signature_of(Headers(headers))
    if signature is None:
        return authenticator.find_key(Headers(headers))
    return authenticator.find_signer(signature, body)
