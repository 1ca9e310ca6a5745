"""JSON objects that have a key twice: readers differ in which of the values they take."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from models.errors import Invalid

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def require_unique_keys(body: bytes, value: Any) -> None:
    """Raise Invalid, naming the key, if an object in the body, whose value this is, has a key twice. Linear, and for
    most bodies without a look at each part: what was dropped had a colon."""
    written = msgspec.json.encode(value)
    if body.count(b":") == written.count(b":") and b"\\u003" not in body:
        return
    if _count_pairs(body) != _count_pairs(written):
        json.loads(body, object_pairs_hook=_refuse_repeated)


def _count_pairs(text: bytes) -> int:
    return _STRING.sub(b"", text).count(b":")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(
                f"The key {key[:64]!r} is there twice in one object.",
                code="repeated_key",
                field=key[:64],
                expected="each key once",
            )
        seen.add(key)
