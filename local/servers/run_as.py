"""Whom Postgres runs as when the stack is started by root, which it refuses, and what that account can reach.

Nobody's folder is opened for it: what it cannot reach is put into STATE_FOLDER.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from models.errors import SettingsError

STATE_FOLDER = Path("/var/lib/session-relay")
CANDIDATES = ("postgres", "nobody")
"""The machine's account for exactly this, else the one that owns nothing. initdb needs an account that has a name."""


@dataclass(frozen=True)
class Account:
    """An unprivileged user with its main group."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        """User and group id."""
        return self.uid, self.gid


def unprivileged_account(data: Path) -> Account | None:
    """Whom to run as: None for an ordinary user, who stays itself; for root the owner of the data if there are any."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    for candidate in (owner, *CANDIDATES):
        try:
            entry = pwd.getpwuid(candidate) if isinstance(candidate, int) else pwd.getpwnam(candidate)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise SettingsError(
        f"Postgres does not run as root, and there is no user {' or '.join(CANDIDATES)} to run it as.",
        hint="Start the stack as an ordinary user, or set DATABASE_URL.",
    )


def make_state_folder(name: str = "") -> Path:
    """The system's folder for what an account could not reach elsewhere, or one in it; everybody may pass through."""
    folder = STATE_FOLDER / name
    for path in (STATE_FOLDER, folder):
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
    return folder


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account can pass through all folders on the way, and through this one."""
    return can_run(account, "/bin/sh", "-c", 'test -x "$0"', str(folder))


def can_run(account: Account, *command: str) -> bool:
    """Whether a command succeeds as the account. It is tried: modes alone do not tell about ACLs and mounts."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0
