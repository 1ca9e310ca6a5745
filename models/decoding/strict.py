"""Decodes untrusted JSON: invalid or unsafe bodies raise errors that say how to fix them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from models.decoding.repeated_keys import require_unique_keys
from models.errors import Invalid, NotJson
from models.field_types import PATTERNS

T = TypeVar("T")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Meaningless in UTF-8, but written by Windows programs."""
MAX_DEPTH = 100
"""Levels of nesting. People and models do not write deeper JSON, and it exhausts the stacks of decoders."""
MAX_DIGITS = 100
"""Digits of a number; parsing longer ones takes quadratic time."""

HOMES = (
    "data",
    "metadata",
    "input_data",
    "content",
    "context",
    "description",
    "answer",
    "output",
    "reason",
    "progress",
)
"""Fields that can hold content without a field of its own, in order of preference."""
STORE_IT = "This command does not store other text. Use store_memory or conversation_chunk to keep it."

MAX_PATH_LENGTH = 500
"""Characters in the path of an error; the paths of our own definitions are far shorter."""
SHOWN_LENGTH = 300
"""Characters quoted from a body."""

_NUMERAL = bytes(ord("9" if chr(code) in "0123456789.eE+-" else " ") for code in range(256))
"""Translates all characters of numbers to nines, and all other bytes to spaces."""
_LONG_NUMBER = b"9" * (MAX_DIGITS + 1)
# Possessive, with an optional closing quote, so that unterminated strings are scanned only once.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# Skips all valid text, possessively, up to the first lone surrogate.
_LONE_SURROGATE = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
    rb"(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_NUL = re.compile(rb"(?:[^\\]++|\\[^u]|\\u(?!0000))*+\\u0000")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Translates brackets to the change in depth, as a signed byte: 1 or -1."""
_UNKNOWN = "Object contains unknown field `"
_MISSING = "Object missing required field `"
_PLACE = re.compile(r"(?:key in )?\$?\.?([A-Za-z0-9_.\[\]]*)`")
_INDEX = re.compile(r"\[[0-9.]*\]")


def decode_json(body: bytes, *, unique_keys: bool = True) -> Any:
    """Decode a body and run the checks that a schema cannot express. Raises NotJson or Invalid."""
    if _has_long_number(body) and _has_long_number(_STRING.sub(b'""', body)):
        raise Invalid(f"A number has more than {MAX_DIGITS} digits.", expected=f"at most {MAX_DIGITS} digits")
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid("A number is out of range.", expected="a number that a 64-bit float can hold") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(body, error) from error
    except RecursionError as error:
        raise _too_deep() from error
    if b"\\u0000" in body and _NUL.match(body):
        raise Invalid("The text contains a NUL character.", expected="text without U+0000")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth_of(body) >= MAX_DEPTH:
        raise _too_deep()
    if unique_keys:
        require_unique_keys(body, value)
    return value


def _not_json(body: bytes, error: Exception) -> NotJson:
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return NotJson("The body is UTF-16.", expected="JSON in UTF-8", hint="Encode the body as UTF-8.")
    if isinstance(error, UnicodeDecodeError):
        return NotJson("The body is not UTF-8.", expected="JSON in UTF-8", hint="Encode the body as UTF-8.")
    if lone := _LONE_SURROGATE.match(body):
        return NotJson(
            f"The text contains {lone[1].decode()}, half of a surrogate pair: half of a character such as an emoji.",
            expected="both halves or neither",
            hint="The sender truncated a text inside a character; truncate it between characters.",
        )
    return NotJson(f"The body is not valid JSON ({error}).", expected="a JSON object")


def decode_as(body: bytes, shape: type[T], *, prefix: str = "", beside: Sequence[str] = ()) -> T:
    """Decode into `shape`. Raises Invalid with the path of the field, after `prefix`, and the closest known name.

    Fields in `beside` also count as known; the caller has already removed them from the body.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise explain(str(error), shape, prefix, body=body, beside=beside) from error
    except Invalid as error:
        error.field = f"{prefix}{error.field}" if error.field else None
        raise


def nearest(word: str, known: list[str]) -> str | None:
    """Return the known word closest to `word`, or None."""
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)


def _has_long_number(body: bytes) -> bool:
    return _LONG_NUMBER in body.translate(_NUMERAL)


def explain(message: str, shape: Any, prefix: str, *, body: bytes, beside: Sequence[str] = ()) -> Invalid:
    """Convert a message of msgspec to an error."""
    text, path = _split(message)
    field = (prefix + path).rstrip(".")
    if text.startswith(_UNKNOWN):
        name = text[len(_UNKNOWN) :].removesuffix("`")
        inner = _struct_at(shape, path)
        known = [] if path else [*beside]
        known += [f.encode_name for f in msgspec.structs.fields(inner)] if inner else []
        missing = [] if path or inner is None else _missing(body, inner)
        return unknown_field(name, known, shape=inner, prefix=f"{field}." if field else "", missing=missing)
    if text.startswith(_MISSING):
        return missing_field(text[len(_MISSING) :].removesuffix("`"), prefix=f"{field}." if field else "")
    expected, _, got = text.removeprefix("Expected ").partition(", got ")
    if "enum value" in text:
        options = [o for hint in _hints_at(shape, path) for o in get_args(hint) if get_origin(hint) is Literal]
        expected, got = f"one of: {', '.join(options)}", text.partition("enum value ")[2]
    expected, got = _readable(expected), _readable(got)
    subject = f"The field {field!r}" if field else "The value"
    return Invalid(
        f"{subject} is not valid: expected {expected}" + (f", got {got}." if got else "."),
        code="invalid_field",
        field=field or None,
        expected=expected,
    )


def missing_field(name: str, *, prefix: str) -> Invalid:
    """Return the error for a missing required field."""
    return Invalid(f"The field {name!r} is missing.", code="missing_field", field=f"{prefix}{name}")


def unknown_field(
    name: str, known: Sequence[str], *, shape: type[msgspec.Struct] | None, prefix: str, missing: Sequence[str]
) -> Invalid:
    """Return the error for an unknown field, with a hint how to fix it."""
    name = name[:64]
    return Invalid(
        f"Unknown field {name!r}.",
        code="unknown_field",
        field=f"{prefix}{name}",
        expected=f"one of: {', '.join(known)}" if known else "no fields",
        hint=_suggestion_for(name, [*known], shape=shape, missing=missing),
    )


def _split(message: str) -> tuple[str, str]:
    """Split a message of msgspec into text and path. An unknown name that ends like a path is harmless."""
    text, mark, place = message.rpartition(" - at `")
    found = _PLACE.fullmatch(place) if mark and len(place) <= MAX_PATH_LENGTH else None
    return (text, found[1]) if found else (message, "")


def _suggestion_for(
    name: str, known: list[str], *, shape: type[msgspec.Struct] | None, missing: Sequence[str]
) -> str | None:
    """Return a hint for an unknown field.

    Its value may be the very content to store, so only reads, which store nothing, suggest omitting it.
    """
    if guess := nearest(name, known):
        return f"Did you mean {guess!r}?"
    if missing:
        return f"Did you mean {missing[0]!r}, which is missing?"
    if getattr(shape, "is_read", False):
        return "Leave it out."
    if home := next((field for field in HOMES if field in known), None):
        return f"Put it into {home!r}."
    return STORE_IT if hasattr(shape, "is_read") else None


def _missing(body: bytes, shape: type[msgspec.Struct]) -> list[str]:
    given = msgspec.json.decode(body)
    return [f.encode_name for f in msgspec.structs.fields(shape) if f.required and f.encode_name not in given]


def _struct_at(shape: Any, path: str) -> type[msgspec.Struct] | None:
    hints = _hints_at(shape, path)
    return next((hint for hint in hints if isinstance(hint, type) and issubclass(hint, msgspec.Struct)), None)


def _hints_at(shape: Any, path: str) -> list[Any]:
    """Return the types that a value at `path` may have, including the members of unions, lists and annotations."""
    hints = _unfold(shape)
    for name in filter(None, _INDEX.sub("", path).split(".")):
        struct = next((h for h in hints if isinstance(h, type) and issubclass(h, msgspec.Struct)), None)
        if struct is None:
            return []
        hints = [h for f in msgspec.structs.fields(struct) if f.encode_name == name for h in _unfold(f.type)]
    return hints


def _unfold(hint: Any) -> list[Any]:
    parts = () if get_origin(hint) is Literal else get_args(hint)
    return [hint, *(inner for part in parts for inner in _unfold(part))]


def _readable(text: str) -> str:
    text = text[: 2 * MAX_PATH_LENGTH].replace("`", "").replace("\\\\", "\\")
    _, is_pattern, pattern = text.partition("str matching regex '")
    if is_pattern:
        pattern = pattern.removesuffix("'")
        return PATTERNS.get(pattern, f"text matching {pattern}")[:SHOWN_LENGTH]
    return re.sub(r"\bstr\b", "text", text)[:SHOWN_LENGTH]


def depth_of(body: bytes) -> int:
    """Return the nesting depth of valid JSON: the number of enclosing brackets."""
    brackets = _STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


def _too_deep() -> Invalid:
    return Invalid(f"The JSON is nested more than {MAX_DEPTH} levels deep.", expected=f"at most {MAX_DEPTH} levels")
