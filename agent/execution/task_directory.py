"""What a command is told of its task, and what it is not told: the folder of a task, and the environment.

The environment of the runner is handed on without what opens the relay or its servers.
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
"""What a command does not need to do its work. A variable of any name that holds the key is withheld as well."""
LONGEST_VALUE = 100_000
"""In bytes: Linux refuses to start what has a variable of more than 128 KiB. All is in the task's JSON, too."""


class TaskDirectory(NamedTuple):
    """The files of one task, in a folder of its own that is removed in the end."""

    folder: Path

    @property
    def task(self) -> Path:
        """The task as JSON: the standard input of the command."""
        return self.folder / "task.json"

    @property
    def artifacts(self) -> Path:
        """Where the command puts files that are to become artifacts."""
        return self.folder / "artifacts"

    @property
    def result(self) -> Path:
        """What is written here is the output, in place of standard output."""
        return self.folder / "result"

    @property
    def question(self) -> Path:
        """What is written here is asked, and the task goes on when there is an answer."""
        return self.folder / "question"

    def prepare(self, task: Mapping[str, Any]) -> None:
        """Make what the command finds there."""
        self.artifacts.mkdir()
        self.task.write_bytes(msgspec.json.encode(task))


def describe(task: Mapping[str, Any], task_directory: TaskDirectory) -> dict[str, str]:
    """What stands for each placeholder."""
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
    """The environment of a command: the runner's own, without secrets but for those `passed` by name, and the task."""
    kept = {
        name: value
        for name, value in own.items()
        if name in passed or not (name in WITHHELD or name.startswith(PREFIX) or (key and key in value))
    }
    told = {f"{PREFIX}{name.upper()}": value for name, value in values.items()}
    return kept | {
        name: value for name, value in told.items() if len(value.encode()) <= LONGEST_VALUE and "\0" not in value
    }
