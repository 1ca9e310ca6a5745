"""The encoder that the settings ask for."""

from __future__ import annotations

from functools import cache

from models.settings import Settings
from sessions.embeddings.encoder import Encoder
from sessions.embeddings.local_model import LocalModel, is_installed
from sessions.embeddings.vector_cache import VectorCache


def configured_encoder(settings: Settings) -> Encoder | None:
    """Return the encoder of this process, which loads its model when it is first used, or None without embeddings."""
    if settings.embeddings == "off":
        return None
    return _encoder(settings.embeddings_url, settings.embeddings_model, settings.embeddings_key)


def configured_cache(settings: Settings) -> VectorCache | None:
    """Return the vectors in this process' memory, or None without embeddings."""
    encoder = configured_encoder(settings)
    return None if encoder is None else _cache(encoder)


@cache
def _cache(encoder: Encoder) -> VectorCache:
    return VectorCache(encoder)


@cache
def _encoder(url: str, model: str, key: str) -> Encoder | None:
    if url:
        from sessions.embeddings.endpoint import (
            Endpoint,  # Imported here, with its HTTP client, only for those who use it.
        )

        return Encoder(Endpoint(url, model=model, key=key))
    return Encoder(LocalModel()) if is_installed() else None
