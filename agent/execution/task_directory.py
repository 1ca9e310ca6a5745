"""The inputs of a task's command: the task's directory and the environment.

The command inherits the runner's environment without credentials of the relay and its servers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.execution.placeholders import NAMES

PREFIX = "SESSION_RELAY_"
WITHHELD = frozenset(
    {
        *("API_KEY", "RELAY_URL", "WEBHOOK_SECRETS", "GITHUB_WEBHOOK_SECRET"),
        *("DATABASE_URL", "REDIS_URL", "DASHBOARD_PASSWORD"),
    }
)
"""Variables withheld from commands. Any variable that contains the key is withheld as well."""
LONGEST_VALUE = 100_000
"""Maximum bytes of a variable, since Linux allows 128 KiB. The task's JSON has all values in full."""


class TaskDirectory(NamedTuple):
    """The temporary directory of one task."""

    folder: Path

    @property
    def task(self) -> Path:
        """The task as JSON: the standard input of the command."""
        return self.folder / "task.json"

    @property
    def artifacts(self) -> Path:
        """The directory for files that become artifacts."""
        return self.folder / "artifacts"

    @property
    def result(self) -> Path:
        """The file whose content replaces standard output as the task's output."""
        return self.folder / "result"

    @property
    def question(self) -> Path:
        """The file for a question; the task continues once it is answered."""
        return self.folder / "question"

    def prepare(self, task: Mapping[str, Any]) -> None:
        """Create the files that the command expects."""
        self.artifacts.mkdir()
        self.task.write_bytes(msgspec.json.encode(task))


def describe(task: Mapping[str, Any], task_directory: TaskDirectory) -> dict[str, str]:
    """Return the value of each placeholder."""
    paths = {
        "artifact_dir": task_directory.artifacts,
        "result_file": task_directory.result,
        "question_file": task_directory.question,
    }
    given = {**task, **{name: str(path) for name, path in paths.items()}}
    values = {name: given.get(name, "") for name in NAMES}
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in values.items()
    }


def environment_for(
    values: Mapping[str, str], own: Mapping[str, str], *, key: str, passed: Collection[str]
) -> dict[str, str]:
    """Build a command's environment: the runner's own without secrets, except those `passed` by name, and the task."""
    kept = {
        name: value
        for name, value in own.items()
        if name in passed or not (name in WITHHELD or name.startswith(PREFIX) or (key and key in value))
    }
    of_task = {f"{PREFIX}{name.upper()}": value for name, value in values.items()}
    return kept | {
        name: value for name, value in of_task.items() if len(value.encode()) <= LONGEST_VALUE and "\0" not in value
    }
