"""A model behind an HTTP endpoint such as OpenAI's, Ollama's or TEI's: POST /embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx2
import msgspec

from sessions.embeddings.encoder import ModelFailed, TextRefused

if TYPE_CHECKING:
    from sessions.embeddings.encoder import Vectors

AT_ONCE = 64
"""Texts of a request."""
CONNECT_SECONDS = 2.0
REFUSALS = (400, 413, 422)
"""Status codes that mean that a text is too long, or not understood."""


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]


class Endpoint:
    """Asks the endpoint for vectors. Safe to repeat."""

    def __init__(self, url: str, *, model: str, key: str) -> None:
        self.name = model or "default"
        self._url = url.rstrip("/") + ("" if url.rstrip("/").endswith("/embeddings") else "/embeddings")
        self._body = {"model": model} if model else {}
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            follow_redirects=False,
        )

    def encode(self, texts: Sequence[str], *, seconds: float) -> Vectors:
        """Return a vector for each text. Raises ModelFailed, also if the answer is not one of this kind."""
        import numpy as np

        found: list[list[float]] = []
        for start in range(0, len(texts), AT_ONCE):
            found += self._ask(texts[start : start + AT_ONCE], seconds)
        vectors: Vectors = np.asarray(found, dtype=np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ModelFailed("The embeddings endpoint answered with vectors of different lengths.")
        return vectors

    def _ask(self, texts: Sequence[str], seconds: float) -> list[list[float]]:
        timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            answer = self._client.post(self._url, json={**self._body, "input": list(texts)}, timeout=timeout)
        except httpx2.HTTPError as error:
            raise ModelFailed(f"The embeddings endpoint did not answer ({type(error).__name__}).") from error
        if answer.status_code in REFUSALS:
            raise TextRefused(f"The embeddings endpoint answered with HTTP status {answer.status_code}.")
        if answer.status_code != httpx2.codes.OK:
            raise ModelFailed(f"The embeddings endpoint answered with HTTP status {answer.status_code}.")
        try:
            data = msgspec.json.decode(answer.content, type=_Answer).data
        except msgspec.MsgspecError as error:
            raise ModelFailed("The embeddings endpoint's answer has no `data` with an `embedding` each.") from error
        if sorted(one.index for one in data) != list(range(len(texts))):
            raise ModelFailed(f"The embeddings endpoint answered with {len(data)} vectors for {len(texts)} texts.")
        return [one.embedding for one in sorted(data, key=lambda one: one.index)]
