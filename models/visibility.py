"""Which sessions a key may see: a pattern of session ids, with `*` for any text and `?` for any one character."""

from __future__ import annotations

import re

from models.errors import Forbidden


def matches_glob(session_id: str, glob: str | None) -> bool:
    """Whether the pattern allows this session; no pattern allows all."""
    if glob is None:
        return True
    pattern = "".join(".*" if part[0] == "*" else "." if part == "?" else re.escape(part) for part in _parts(glob))
    return re.fullmatch(pattern, session_id, re.DOTALL) is not None


def require_visible(session_id: str, glob: str | None) -> None:
    """Raises Forbidden that names the pattern when it does not allow this session."""
    if not matches_glob(session_id, glob):
        raise Forbidden(
            f'The key is limited to sessions whose id matches "{glob}".',
            field="session_id",
            expected=f"an id that matches {glob}",
            hint="list_sessions shows those that it may see.",
        )


def like_pattern(glob: str) -> str:
    """The same pattern for SQL's LIKE, with a backslash as escape character."""
    escaped = {"%": r"\%", "_": r"\_", "\\": r"\\", "?": "_"}
    return "".join("%" if part[0] == "*" else escaped.get(part, part) for part in _parts(glob))


def _parts(glob: str) -> list[str]:
    # A row of stars is one, or matching would take exponential time.
    return re.findall(r"\*+|.", glob, re.DOTALL)
