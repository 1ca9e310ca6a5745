"""Scopes and the permissions that they grant."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from models.field_types import Scope

ALL_SCOPES: tuple[Scope, ...] = ("read", "write", "delegate", "agent", "admin")
"""Scopes that a key can have."""
GRANTS: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "delegate": frozenset({"delegate"}),
    "agent": frozenset({"agent"}),
    "admin": frozenset(ALL_SCOPES),
    "send": frozenset({"write", "delegate"}),
    "hook": frozenset({"write"}),
}
"""Permissions granted by each scope. Signing secrets have `send`: commands that change data, but no deletes and no
reads. Hook tokens have `hook` and authorize only posts to their own URL."""


HELD_SCOPES: frozenset[Scope] = frozenset({"read", "write"})
"""Permissions of the scope `agent` in a session while the agent holds one of its tasks."""


def allows(scopes: Iterable[Scope], wanted: Scope) -> bool:
    """Return whether one of the scopes grants `wanted`: admin grants all, and write includes read."""
    return wanted in _granted_by(tuple(scopes))


@lru_cache(1_024)
def _granted_by(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    return frozenset().union(*(GRANTS[scope] for scope in scopes))
