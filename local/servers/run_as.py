"""Chooses the account of Postgres when root starts the stack, since Postgres refuses to run as root.

Folders are never opened up for the account: files that it cannot access are put into STATE_FOLDER.
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
"""The machine's Postgres account, else one without files of its own. initdb requires a named account."""


@dataclass(frozen=True)
class Account:
    """An unprivileged user and its primary group."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        """The user id and group id."""
        return self.uid, self.gid


def unprivileged_account(data: Path) -> Account | None:
    """Choose the account: None for an ordinary user; for root, the owner of existing data, else a candidate."""
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
        f"Postgres cannot run as root, and the user {' or '.join(CANDIDATES)} does not exist.",
        hint="Start the stack as an ordinary user, or set DATABASE_URL.",
    )


def make_state_folder(name: str = "") -> Path:
    """Create the system folder for files that an account cannot access elsewhere, or a subfolder of it. All users may
    traverse it."""
    folder = STATE_FOLDER / name
    for path in (STATE_FOLDER, folder):
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
    return folder


def can_enter(account: Account, folder: Path) -> bool:
    """True if the account can enter the folder and all its parents."""
    return can_run(account, "/bin/sh", "-c", 'test -x "$0"', str(folder))


def can_run(account: Account, *command: str) -> bool:
    """Run a command as the account. Returns True if it succeeds. File modes alone would not cover ACLs and mounts."""
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
