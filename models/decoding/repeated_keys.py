"""Rejects JSON objects with repeated keys, since parsers differ in which value they use."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from models.errors import Invalid

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def require_unique_keys(body: bytes, value: Any) -> None:
    """Raise Invalid with the key if an object in the body has a key twice; `value` is the decoded body.

    Takes linear time. For most bodies, comparing the number of colons is enough: each dropped key had one.
    """
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
                f"The key {key[:64]!r} appears twice in one object.",
                code="repeated_key",
                field=key[:64],
                expected="each key once",
            )
        seen.add(key)
