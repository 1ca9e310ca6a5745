"""Vectors of texts in the memory of a process, for a store without a place for them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from sessions.embeddings.encoder import Encoder

if TYPE_CHECKING:
    from sessions.embeddings.encoder import Vectors

MOST = 50_000
"""Vectors that are kept: about 50 MB."""
AT_ONCE = 32


class VectorCache:
    """Keeps the vectors of the texts that were asked for last."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()

    def cosines(self, question: str, texts: Sequence[str], *, seconds: float) -> list[float | None]:
        """Return how near each text is to the question; None for those whose vectors would take longer than this many
        seconds in all. Later texts are embedded first. Raises ModelFailed."""
        asked = self.encoder.question(question)
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        ends_at = time.monotonic() + seconds
        missing = [number for number in reversed(range(len(texts))) if keys[number] not in self._kept]
        while missing and time.monotonic() < ends_at:
            part, missing = missing[:AT_ONCE], missing[AT_ONCE:]
            for number, vector in zip(part, self.encoder.texts([texts[number] for number in part]), strict=True):
                self._kept[keys[number]] = vector.astype("float16")
        found = [self._kept.get(key) for key in keys]
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return [None if vector is None else float(vector.astype("float32") @ asked) for vector in found]
