"""Counts decodings and encodings of JSON, by caller."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

KINDS = {"decode": "decode", "json_decode": "decode", "loads": "decode"}
KINDS |= {"encode": "encode", "json_encode": "encode", "dumps": "encode"}


@contextmanager
def json_calls() -> Iterator[list[str]]:
    """Collect the calls of a decoder or encoder in this thread within the block, each as `decode in
    module.function`."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in KINDS:
            return
        owner = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
        if str(owner).partition(".")[0] in ("msgspec", "json"):
            calls.append(f"{KINDS[called.__name__]} in {frame.f_globals['__name__']}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
