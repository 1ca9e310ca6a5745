"""Session patterns that limit a key: globs of session ids, with `*` for any text and `?` for one character."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from models.errors import Forbidden


def matches_glob(session_id: str, glob: str | None) -> bool:
    """Return whether the pattern allows the session; None allows all."""
    # Brackets are literal here. Matching takes no longer than a search for each part between stars.
    return glob is None or fnmatchcase(session_id, glob.replace("[", "[[]"))


def require_visible(session_id: str, glob: str | None) -> None:
    """Raise Forbidden with the pattern if it does not allow the session."""
    if not matches_glob(session_id, glob):
        raise Forbidden(
            f'The key is limited to sessions whose id matches "{glob}".',
            field="session_id",
            expected=f"an id that matches {glob}",
            hint="list_sessions shows the sessions that the key may read.",
        )


def like_pattern(glob: str) -> str:
    """Convert the pattern to SQL LIKE, with a backslash as the escape character."""
    escaped = {"%": r"\%", "_": r"\_", "\\": r"\\", "?": "_"}
    return "".join("%" if part[0] == "*" else escaped.get(part, part) for part in re.findall(r"\*+|.", glob, re.DOTALL))
