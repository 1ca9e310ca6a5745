"""Paths of addresses as logs and lists may show them: some carry a token, which is as good as a key."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

MASK = "…"

_MAX_DECODINGS = 4
"""A path may be percent-encoded several times over; nobody who means well does it that often."""
_SECRET = re.compile(
    r"(?P<shown>(?:hooks|claims|memories)[/\\]+).+?(?P<action>/(?:heartbeat|start|complete|fail|release|ask)/*)?\Z"
    r"|(?P<prefix>srk_|srh_|srt_|sro_|whsec_).*",
    re.IGNORECASE | re.DOTALL,
)


def mask_path(path: str) -> str:
    """The path in the form of a URL, without query, and with `…` for what may be a secret: whatever follows `hooks/`
    or `claims/` (but for what is done with a claim) or begins like a key, however it is written; and for the key of a
    memory, which is made of its content."""
    decoded = path.partition("?")[0]
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(decoded)
    found = _SECRET.search(decoded)
    if found is None:
        return quote(decoded, errors="replace")
    shown = found["shown"] or found["prefix"]
    return f"{quote(decoded[: found.start()] + shown, errors='replace')}{MASK}{found['action'] or ''}"
