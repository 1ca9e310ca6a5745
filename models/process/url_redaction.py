"""Redacts URL paths for logs and lists by showing only routes: ids may be tokens, or derived from conversations."""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import unquote

from models.routes import ADDRESSES

MASK = "…"
"""Replaces segments that are neither known words nor ids: a client may put an id anywhere by mistake."""

_PAIRS = [pair for address in ADDRESSES.values() for pair in pairwise(address.template.split("/"))]
IDS = {word: part for word, part in _PAIRS if part.startswith("{")}
"""Placeholders for the ids that follow these words."""
WORDS = frozenset(part for _, part in _PAIRS if part and part not in IDS.values())
"""The fixed segments of the relay's routes."""
ACTIONS = frozenset((word, part) for word, part in _PAIRS if word in IDS and part in WORDS)
"""Words that appear in the position of an id, each with the word before it."""

_MAX_DECODINGS = 4
"""Percent-decodings of a path; benign clients never encode one that often."""


def mask_path(path: str) -> str:
    """Return the route of a path without its query: known words are kept, all else becomes a placeholder or `…`."""
    decoded = path.partition("?")[0]
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(decoded)
    shown: list[str] = []
    before = ""
    for part in re.split(r"[/\\]", decoded):
        word = part.lower()
        if word and (word not in WORDS or (before in IDS and (before, word) not in ACTIONS)):
            shown.append(IDS.get(before, MASK))
            before = ""
        else:
            shown.append(part)
            before = word or before
    return "/".join(shown)
