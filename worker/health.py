"""The health of one `python -m worker`: `python -m worker.health` judges the worker of its own machine or container.

The supervisor lists its children in a file in HEALTH_DIR, and each child touches a file of its own there whenever its
servers have answered it. The check reads only these files, so it costs the servers nothing, and other workers cannot
hide the trouble of this one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from models.errors import SettingsError
from models.settings import read_settings

LIST = "worker.json"
"""The pid of each child, or null while it is being restarted. Touched each second by the supervisor."""
TOUCH_SECONDS = 1.0
SUPERVISOR_LIMIT_SECONDS = 10.0
CHILD_LIMIT_SECONDS = 20.0
"""A worker process and the sweeper show signs of life every 5 s, or after the current drain, which takes 5 s."""
EMBEDDER_LIMIT_SECONDS = 120.0
"""The embedder has the lowest priority, and a job of up to 20 s and a batch."""
EMBEDDER = "embedder"


class Heartbeat:
    """The signs of life of this process. Create it in the process itself. Does nothing without HEALTH_DIR."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder, f"{os.getpid()}.beat") if folder else None

    def beat(self) -> None:
        """Record that this process works, and that its servers have just answered it. Does not raise."""
        if self._file:
            with suppress(OSError):  # Then the check reports this process.
                self._file.touch()


class HealthFolder:
    """HEALTH_DIR, as the supervisor keeps it: the list of its children, and no files of dead ones."""

    def __init__(self, folder: str) -> None:
        """Create the folder, and delete the files of an earlier supervisor. Raises SettingsError."""
        self._folder = Path(folder) if folder else None
        self._listed: Mapping[str, int | None] | None = None
        self._touched_at = 0.0
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / LIST).unlink(missing_ok=True)
            self._forget_all_but(set())
        except OSError as error:
            raise SettingsError(f"HEALTH_DIR {folder} cannot be written: {error.strerror}.") from error

    def update(self, children: Mapping[str, int | None]) -> None:
        """Record the pids of all children, and that the supervisor is alive. Call it several times a second."""
        if self._folder is None:
            return
        with suppress(OSError):  # Then the check reports the supervisor.
            if children != self._listed:
                self._forget_all_but({f"{pid}.beat" for pid in children.values()})
                draft = self._folder / f"{LIST}.new"
                draft.write_text(json.dumps(children))
                draft.replace(self._folder / LIST)
                self._listed = dict(children)
            elif time.monotonic() - self._touched_at >= TOUCH_SECONDS:
                os.utime(self._folder / LIST)
                self._touched_at = time.monotonic()

    def _forget_all_but(self, names: set[str]) -> None:
        """Delete the other files, so that no process looks alive because of one that had its pid before."""
        assert self._folder is not None
        for path in self._folder.glob("*.beat"):
            if path.name not in names:
                path.unlink(missing_ok=True)


def find_troubles(folder: Path) -> list[str]:
    """Return a sentence for each part of the worker that does not work; none if it is healthy."""
    try:
        children = json.loads((folder / LIST).read_text())
    except FileNotFoundError:
        return [f"The worker has not started its processes, or its HEALTH_DIR is not {folder}."]
    found = []
    if (silent := _silent_seconds(folder / LIST)) > SUPERVISOR_LIMIT_SECONDS:
        found.append(f"The supervisor has not acted for {silent:.0f} s.")
    for name, pid in children.items():
        if pid is None:
            found.append(f"{name} has died and is being restarted.")
            continue
        try:
            silent = _silent_seconds(folder / f"{pid}.beat")
        except FileNotFoundError:
            found.append(f"{name} has just started, and its servers have not answered it yet.")
            continue
        if silent > (EMBEDDER_LIMIT_SECONDS if name == EMBEDDER else CHILD_LIMIT_SECONDS):
            found.append(f"{name} is stuck, or its servers have not answered it for {silent:.0f} s.")
    return found


def _silent_seconds(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def main() -> int:
    """Print the troubles of the worker. Returns 0 if it is healthy, 1 if not, 2 for invalid settings."""
    try:
        folder = read_settings().health_dir
        if not folder:
            raise SettingsError("HEALTH_DIR is not set: set the same folder for the worker and for this check.")
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    troubles = find_troubles(Path(folder))
    print("\n".join(troubles) or "The worker is healthy.")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
