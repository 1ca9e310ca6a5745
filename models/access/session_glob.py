"""Which sessions a key may see: a pattern of session ids, with `*` for any text and `?` for any one character."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from models.errors import Forbidden


def matches_glob(session_id: str, glob: str | None) -> bool:
    """Whether the pattern allows this session; no pattern allows all."""
    # A bracket is no special letter here. The time is no more than that of a search for each part between stars.
    return glob is None or fnmatchcase(session_id, glob.replace("[", "[[]"))


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
    return "".join("%" if part[0] == "*" else escaped.get(part, part) for part in re.findall(r"\*+|.", glob, re.DOTALL))
