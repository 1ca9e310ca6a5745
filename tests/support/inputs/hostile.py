"""Input of any size that is slow to process, and a check that its processing time is linear."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

GROWTH = 8
"""The factor between two input sizes: a linear time grows by it, a quadratic one by its square."""
MOST_GROWTH = 24
LEAST_SECONDS = 0.001
"""The shortest time that is measured reliably."""

Make = Callable[[int], bytes]


def _repeated(before: bytes, part: bytes, after: bytes = b"") -> Make:
    return lambda size: before + part * max((size - len(before) - len(after)) // len(part), 1) + after


def _fields(size: int) -> bytes:
    return b"{" + b",".join(b'"f%d":0' % number for number in range(size // 12)) + b"}"


BODIES: dict[str, Make] = {
    "strings that are begun": _repeated(b"1" * 101, rb"\""),
    "strings that are begun, in an object": _repeated(b'{"content":' + b"1" * 101, rb"\"", b"}"),
    "numbers that are nearly too long": _repeated(b"[", b"1" * 100 + b",", b"1]"),
    "a ruler in a text": _repeated(b'{"content":"', b"-", b'"}'),
    "an unknown name like a place": _repeated(b'{"q` - at `$', b"[", b'":1}'),
    "an unknown name of places": _repeated(b'{"q', b" - at `$.", b'":1}'),
    "an unknown name of names": _repeated(b'{"', b"unknown field `", b'":1}'),
    "a path into a value that is not an object": _repeated(
        b'{"command":"list_sessions","data":{"q` - at `$', b"[", b'":1}}'
    ),
    "an unknown choice": _repeated(b'{"command":"list_sessions","feedback_mode":"', b"str matching regex '", b'"}'),
    "an unknown command": _repeated(b'{"command":"', b"store_", b'"}'),
    "many fields": _fields,
    "many fields in an object": lambda size: b'{"command":"list_sessions","data":' + _fields(size) + b"}",
    "many of one name": _repeated(b"{", b'"content":1,', b'"content":1}'),
    "brackets in a text": _repeated(b'{"content":"', b"[{", b'"}'),
    "brackets that are opened": _repeated(b'{"content":', b"["),
    "braces that are opened": _repeated(b"", b'{"content":'),
    "brackets that are closed": _repeated(b'{"content":[', b"[" * 90 + b"]" * 90 + b",", b"0]}"),
    "numbers beside a long one": _repeated(b'{"content":[12345678901234567.5', b",1e1", b"]}"),
    "escapes": _repeated(b'{"content":"', rb"\u00e9", rb'\u0000"}'),
    "many items": _repeated(b'{"commands":[', b"0,", b"0]}"),
    "many items in a batch": _repeated(b'{"command":"batch","session_id":"s","data":{"commands":[', b"{},", b"{}]}}"),
    "accents out of order": _repeated(b'{"name":"a', b"\xcc\x81\xcc\xa3", b'","client_name":"a"}'),
    "accents in a name": _repeated(
        b'{"client_name":"a', b"\xcc\x81\xcc\xa3", b'","redirect_uris":["https://x.example"]}'
    ),
}
"""Bodies of about the requested size."""


def require_linear(work: Callable[[int], object], size: int) -> None:
    """Fail if GROWTH times the work takes much more than GROWTH times the CPU time. Repeats a measurement against
    single disturbances, and excludes garbage collection, which also goes through the tests' own objects."""
    gc.disable()
    try:
        _require_linear(work, size)
    finally:
        gc.enable()


def _require_linear(work: Callable[[int], object], size: int) -> None:
    small = max(min(_seconds(work, size) for _ in range(3)), LEAST_SECONDS)
    large = [_seconds(work, size * GROWTH)]
    while len(large) < 3 and min(large) > MOST_GROWTH * small:
        large.append(_seconds(work, size * GROWTH))
    assert min(large) <= MOST_GROWTH * small, f"{small:.4f} s, and {min(large):.4f} s for {GROWTH} times as much"


def _seconds(work: Callable[[int], object], size: int) -> float:
    started_at = time.thread_time()
    work(size)
    return time.thread_time() - started_at
