"""Identity by content: the canonical form and hash of a payload, and the ids that a sender left out; and new ids."""

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
"""Words of the text that go into an id: enough to recognize it when read aloud."""
SLUG_LENGTH = 48
LOOKED_AT = 10_000
"""Values, of large data without any text."""
FINGERPRINT_LENGTH = 16
"""Hex digits after the slug: 64 bits keep a million different contents of one session apart, also without any slug."""
REPEAT_SECONDS = 600
"""How long the same content from the same source is taken for a repeat where the sender gives no id. Senders that had
no answer try again within seconds and minutes: Slack at once, after one minute and after five, Trello after half a
minute, one and two, and the first three attempts of Standard Webhooks are within five; clients of LLMs wait up to five
minutes for an answer, and then try once more."""

_LONG_NUMBER = re.compile(rb"[0-9.]{17,}")
"""Of more than the 15 digits of which each float has its own."""
_FLOAT_DIGITS = 16
_LEAST_EXACT = 1e-300
"""Nearer to zero floats have fewer digits."""
_WORD = re.compile(r"[a-z0-9]+")


def canonical(value: Any) -> bytes:
    """The JSON text by which two values are the same: keys sorted, no blanks, text in NFC left as it is."""
    return _CANONICAL.encode(value)


def decode_exactly(text: bytes) -> Any:
    """The value of a JSON text, for `canonical`: numbers that a float cannot tell from others are decimals."""
    return _EXACT.decode(text) if _LONG_NUMBER.search(text) else msgspec.json.decode(text)


def _read_number(text: str) -> float | Decimal:
    near = float(text)
    if len(text) < _FLOAT_DIGITS and abs(near) > _LEAST_EXACT:
        return near
    try:
        exact = Decimal(text)
    except InvalidOperation:  # Its exponent has more digits than a decimal takes; so it is as good as zero.
        return near
    return near if Decimal(repr(near)) == exact else exact


_CANONICAL = msgspec.json.Encoder(order="sorted", decimal_format="number")
_EXACT = msgspec.json.Decoder(float_hook=_read_number)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical form, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def same_json(one: bytes, other: bytes) -> bool:
    """Whether two JSON texts mean the same value."""
    return one == other or canonical(decode_exactly(one)) == canonical(decode_exactly(other))


def derive_id(prefix: str, text: str, content: Any) -> str:
    """An id such as `idea-solar-roof-3fa91c04d2e85b67`: readable, and the same whenever the content is the same."""
    return "-".join(part for part in (prefix, make_slug(text), content_hash(content)[:FINGERPRINT_LENGTH]) if part)


def make_slug(text: str) -> str:
    """The first words of a text in small Latin letters and digits, with hyphens; may be empty."""
    plain = unicodedata.normalize("NFKD", text[:500]).encode("ascii", "ignore").decode().lower()
    words: list[str] = _WORD.findall(plain)[:SLUG_WORDS]
    return "-".join(words)[:SLUG_LENGTH].rstrip("-")


def leading_text(value: Any) -> str:
    """The first words of any JSON value, for an id or a title. Only the first LOOKED_AT values in it are looked at."""
    waiting = [value]
    for _ in range(LOOKED_AT):
        if not waiting:
            break
        first = waiting.pop()
        if isinstance(first, str) and first:
            return first
        if isinstance(first, dict):
            waiting.extend(reversed(first.values()))
        elif isinstance(first, list):
            waiting.extend(reversed(first))
    return ""


def make_uuid7() -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits. Later ones sort later."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))
