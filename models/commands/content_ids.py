"""Content-based identity: the canonical form and hash of JSON values, ids derived from them, and UUIDs."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import unicodedata
import uuid
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

SLUG_WORDS = 5
"""Words of the text in an id: enough to recognize it when read aloud."""
SLUG_LENGTH = 48
MAX_VISITED = 10_000
"""Values to visit in data without any text."""
FINGERPRINT_LENGTH = 16
"""Hex digits after the slug: 64 bits distinguish a million contents in one session, even without a slug."""
REPEAT_SECONDS = 600
"""Time in which the same content from the same source counts as a repeat, if the sender gives no id.

It covers the retries of senders that got no response: Slack retries at once, after one minute and after five; Trello
after 30 s, 1 min and 2 min; Standard Webhooks makes its first three attempts within five minutes; LLM clients wait up
to five minutes for a response, then retry once.
"""

_LONG_NUMBER = re.compile(rb"[0-9.]{17,}")
"""Numbers with more than the 15 digits that every float preserves."""
_FLOAT_DIGITS = 16
_LEAST_EXACT = 1e-300
"""Floats closer to zero have fewer digits."""
_WORD = re.compile(r"[a-z0-9]+")
_FINGERPRINT = re.compile(rf"(?:\A|-)[0-9a-f]{{{FINGERPRINT_LENGTH}}}\Z")


def canonical(value: Any) -> bytes:
    """Encode as canonical JSON: sorted keys, no whitespace, text unchanged. Equal values have equal texts."""
    return _CANONICAL.encode(value)


def decode_exactly(text: bytes) -> Any:
    """Decode JSON for `canonical`: numbers that a float cannot represent exactly become decimals."""
    return _EXACT.decode(text) if _LONG_NUMBER.search(text) else msgspec.json.decode(text)


def _read_number(text: str) -> float | Decimal:
    near = float(text)
    if len(text) < _FLOAT_DIGITS and abs(near) > _LEAST_EXACT:
        return near
    try:
        exact = Decimal(text)
    except InvalidOperation:  # The exponent has too many digits for a decimal, so the value is practically zero.
        return near
    return near if Decimal(repr(near)) == exact else exact


_CANONICAL = msgspec.json.Encoder(order="sorted", decimal_format="number")
_EXACT = msgspec.json.Decoder(float_hook=_read_number)


def content_hash(value: Any) -> str:
    """Return the SHA-256 of the canonical form, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def same_json(one: bytes, other: bytes) -> bool:
    """Return whether two JSON texts have the same value."""
    return one == other or canonical(decode_exactly(one)) == canonical(decode_exactly(other))


def derive_id(prefix: str, text: str, content: Any) -> str:
    """Return a readable id such as `idea-solar-roof-3fa91c04d2e85b67`; the same content has the same id."""
    return "-".join(part for part in (prefix, make_slug(text), content_hash(content)[:FINGERPRINT_LENGTH]) if part)


def may_be_derived(item_id: str) -> bool:
    """Return whether an id has the form of a derived one, which is quickly checked; deriving it again is slow."""
    return _FINGERPRINT.search(item_id) is not None


def make_slug(text: str) -> str:
    """Join the first words of a text, in lowercase ASCII letters and digits, with hyphens; may be empty."""
    plain = unicodedata.normalize("NFKD", text[:500]).encode("ascii", "ignore").decode().lower()
    words: list[str] = _WORD.findall(plain)[:SLUG_WORDS]
    return "-".join(words)[:SLUG_LENGTH].rstrip("-")


def leading_text(value: Any) -> str:
    """Return the first text in a JSON value, for an id or a title. Visits at most MAX_VISITED values."""
    pending = [value]
    for _ in range(MAX_VISITED):
        if not pending:
            break
        first = pending.pop()
        if isinstance(first, str) and first:
            return first
        if isinstance(first, dict):
            pending.extend(reversed(first.values()))
        elif isinstance(first, list):
            pending.extend(reversed(first))
    return ""


def make_uuid7() -> str:
    """Create a version 7 UUID (RFC 9562): 48 bits of milliseconds, then 74 random bits. Later ones sort later."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))
