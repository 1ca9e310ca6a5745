"""Escapes control and bidirectional characters in untrusted text, which would act on a terminal or disguise text."""

from __future__ import annotations

import re

_HOSTILE = (
    r"\x00-\x1f\x7f-\x9f"
    # Bidirectional marks, embeddings, overrides, isolates. Right-to-left text is readable without them.
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # Line and paragraph separators, the byte order mark, interlinear annotations, surrogates.
    r"\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_ANY = re.compile(f"[{_HOSTILE}]")
_IN_FIELD = re.compile(rf"[{_HOSTILE}\\]")
_IN_JSON = re.compile(f"[{_HOSTILE}]".replace(r"\x00-\x1f", ""))
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}
TAB_WIDTH = 4


def visible(text: str) -> str:
    """Make text safe on one line: line breaks and tabs become spaces, other hostile characters escapes."""
    return _ANY.sub(_escape, re.sub(r"[\t\n\r]+", " ", text))


def visible_lines(text: str) -> list[str]:
    """Make multi-line text safe."""
    return [_ANY.sub(_escape, line.expandtabs(TAB_WIDTH)) for line in re.split(r"\r\n|\n|\r", text)]


def field(text: str) -> str:
    r"""Encode a TSV field losslessly: tab, line break and backslash become `\t`, `\n`, `\r`, `\\`, others `\u....`."""
    return _IN_FIELD.sub(_escape, text)


def json_text(text: str) -> str:
    """Make JSON safe without changing its meaning: such characters occur only within strings."""
    return _IN_JSON.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT.get(character) or rf"\u{ord(character):04x}"
