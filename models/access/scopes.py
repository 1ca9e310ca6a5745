"""What each scope allows, and who has it by what."""

from __future__ import annotations

from collections.abc import Iterable

from models.field_types import Scope

ALL_SCOPES: tuple[Scope, ...] = ("read", "write", "delegate", "agent", "admin")
"""Those that a key can be given."""
GRANTS: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "delegate": frozenset({"delegate"}),
    "agent": frozenset({"agent"}),
    "admin": frozenset(ALL_SCOPES),
    "send": frozenset({"write", "delegate"}),
    "hook": frozenset({"write"}),
}
"""What each scope allows. `send` is that of signing secrets: changing commands, no deletes, and no reads. `hook` is
that of a token, which lets in nothing but what is posted to its own address."""


HELD_SCOPES: frozenset[Scope] = frozenset({"read", "write"})
"""What the scope agent allows in a session of which it holds a task at that moment, and nowhere else."""


def allows(scopes: Iterable[Scope], wanted: Scope) -> bool:
    """Whether one of the scopes allows what needs `wanted`: admin is all, and who writes may read."""
    return any(wanted in GRANTS[scope] for scope in scopes)
