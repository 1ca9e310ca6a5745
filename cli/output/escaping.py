"""Making text of strangers harmless: what would act on a terminal, or hide what is said, is shown as an escape."""

from __future__ import annotations

import re

_HOSTILE = (
    r"\x00-\x1f\x7f-\x9f"
    # Directions: marks, embeddings, overrides, isolates. Text from right to left needs none of them to be readable.
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # Line and paragraph separators, the invisible letter that begins files, annotations, halves of characters.
    r"\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_ANY = re.compile(f"[{_HOSTILE}]")
_IN_FIELD = re.compile(rf"[{_HOSTILE}\\]")
_IN_JSON = re.compile(f"[{_HOSTILE}]".replace(r"\x00-\x1f", ""))
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}
TAB_WIDTH = 4


def visible(text: str) -> str:
    """On one line: line breaks and tabs are blanks, all else that is hostile is shown as an escape."""
    return _ANY.sub(_escape, re.sub(r"[\t\n\r]+", " ", text))


def visible_lines(text: str) -> list[str]:
    """The same for text of several lines."""
    return [_ANY.sub(_escape, line.expandtabs(TAB_WIDTH)) for line in re.split(r"\r\n|\n|\r", text)]


def field(text: str) -> str:
    r"""As a field of TSV: tab, line break and backslash are `\t`, `\n`, `\r`, `\\`, others `\u....`, so that nothing is
    lost."""
    return _IN_FIELD.sub(_escape, text)


def json_text(text: str) -> str:
    """JSON with the escapes that make it harmless. It means the same: such characters stand only within strings."""
    return _IN_JSON.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT.get(character) or rf"\u{ord(character):04x}"
